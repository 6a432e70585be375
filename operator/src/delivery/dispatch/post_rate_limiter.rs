//! How fast WebSocket APIs are posted to: by all notifiers of the process together where they share
//! an account and a region, since it is those that AWS limits, and its REST APIs share the limit.
//!
//! A 429 says that the account posts too fast, or that one client does not read; the answer is the
//! same. It is the account's if many connections are throttled at once, and stays so until others are
//! seen to get theirs: however long it lasts, it is nobody's own trouble. A connection that is
//! throttled while others are not is slow by itself, and says nothing of the account.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::timing::FifoRateLimiter;

/// How long what was saved up lasts: a burst of a tenth of a second's posts goes out at once.
const BURST: Duration = Duration::from_millis(100);

/// What was answered within so long says whether the account is throttled.
pub(crate) const WINDOW: Duration = Duration::from_secs(1);

/// The account is throttled if at least so many connections are, and a tenth of the posts. It is not
/// if so many posts are taken, and fewer than a tenth throttled.
const MIN_THROTTLED: u32 = 5;

/// It is for so long at least: each window has to fill before it says so again.
const ACCOUNT_THROTTLED_TTL: Duration = WINDOW.saturating_mul(2);

/// A connection that was throttled is a suspect for so long, if there are not too many.
const THROTTLED_TTL: Duration = Duration::from_secs(60);
const MAX_THROTTLED_CONNECTIONS: usize = 10_000;

/// One that took a message since is for so long: a slow client takes one now and then, and is
/// throttled again soon.
const RECOVERY_WINDOW: Duration = Duration::from_secs(2);

/// The pace is never less than the limit by this.
const MIN_RATE_FRACTION: f64 = 1.0 / 64.0;

/// From a standstill the pace is back at the limit after this.
const RAMP_UP: Duration = Duration::from_secs(20);

/// So many posts a second, in the order in which they were asked for; fewer while AWS throttles.
#[derive(Debug)]
pub struct PostRateLimiter {
    /// Posts a second at the most.
    max_rate: f64,
    state: Mutex<RateState>,
    limiter: FifoRateLimiter,
}

#[derive(Debug)]
struct RateState {
    /// When it was last halved, and to which share of the most.
    reduced: Option<(Instant, f64)>,
    /// When the account was last found throttled, and what became of posts since.
    account_throttled: Option<(Instant, OutcomeCounts)>,
    window: ThrottleWindow,
    /// How many answers came since the window began, whatever they say.
    responses: u32,
    /// What became of posts to connections that were no suspects: what is in their way can only be
    /// the account.
    unaffected: OutcomeCounts,
    throttled: HashMap<String, ThrottledConnection>,
}

/// What was answered lately.
#[derive(Debug)]
pub(crate) struct ThrottleWindow {
    began: Instant,
    responses: u32,
    failures: u32,
}

/// What became of posts.
#[derive(Clone, Copy, Debug, Default)]
struct OutcomeCounts {
    accepted: u64,
    throttled: u64,
}

/// A connection that was throttled lately.
#[derive(Debug)]
struct ThrottledConnection {
    throttled_at: Instant,
    /// Whether it took a message since.
    has_delivered: bool,
    /// When an answer of it last counted.
    counted_at: Instant,
    /// What had become of innocent posts when it became one.
    then: OutcomeCounts,
}

impl ThrottleWindow {
    pub(crate) fn new(now: Instant) -> Self {
        Self { began: now, responses: 0, failures: 0 }
    }

    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.began) >= WINDOW
    }

    /// Notes an answer; `true` if there are now too many bad ones.
    pub(crate) fn record(&mut self, is_bad: bool, now: Instant) -> bool {
        if self.is_over(now) {
            *self = Self::new(now);
        }
        self.responses += 1;
        self.failures += u32::from(is_bad);
        is_bad && self.failures >= MIN_THROTTLED && self.failures * 10 >= self.responses
    }
}

impl OutcomeCounts {
    fn record(&mut self, is_throttled: bool) {
        let count = if is_throttled { &mut self.throttled } else { &mut self.accepted };
        *count += 1;
    }

    fn since(self, then: Self) -> Self {
        Self { accepted: self.accepted - then.accepted, throttled: self.throttled - then.throttled }
    }

    /// Whether posts are taken.
    fn is_healthy(self) -> bool {
        self.accepted >= u64::from(MIN_THROTTLED)
            && self.throttled * 10 < self.accepted + self.throttled
    }
}

impl ThrottledConnection {
    fn is_expired(&self, now: Instant) -> bool {
        let lasts = if self.has_delivered { RECOVERY_WINDOW } else { THROTTLED_TTL };
        now.duration_since(self.throttled_at) >= lasts
    }
}

impl PostRateLimiter {
    /// This many posts a second.
    pub fn new(per_second: u32) -> Self {
        let pace = RateState {
            reduced: None,
            account_throttled: None,
            window: ThrottleWindow::new(Instant::now()),
            responses: 0,
            unaffected: OutcomeCounts::default(),
            throttled: HashMap::new(),
        };
        let max_rate = f64::from(per_second.max(1));
        Self { max_rate, state: Mutex::new(pace), limiter: FifoRateLimiter::default() }
    }

    /// Waits for its turn, and returns how long that took.
    pub async fn acquire(&self) -> Duration {
        let asked = Instant::now();
        let each =
            |now| Duration::from_secs_f64(1.0 / (self.max_rate * self.lock().rate_fraction(now)));
        self.limiter.acquire(BURST, each).await;
        asked.elapsed()
    }

    /// Notes that a connection took a message or was throttled. `true` if that is the account's doing,
    /// as far as can be told; and whatever it is, while many are throttled.
    pub fn record_response(&self, connection: &str, is_throttled: bool) -> bool {
        let now = Instant::now();
        let mut pace = self.lock();
        pace.begin_window(now);
        pace.responses += 1;
        if pace.track_connection(connection, is_throttled, now) {
            pace.record(is_throttled, self.max_rate, now);
        }
        let is_recent = |at: Instant| now.duration_since(at) < ACCOUNT_THROTTLED_TTL;
        let is_over =
            |since: &OutcomeCounts| since.is_healthy() || fault!(AccountThrottlingEndsEarly);
        pace.account_throttled.take_if(|(at, since)| !is_recent(*at) && is_over(since));
        pace.account_throttled.is_some_and(|(at, _)| is_throttled || is_recent(at))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, RateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RateState {
    /// Begins another window if one is over, and forgets suspects if there are too many.
    fn begin_window(&mut self, now: Instant) {
        if !self.window.is_over(now) {
            return;
        }
        (self.window, self.responses) = (ThrottleWindow::new(now), 0);
        if self.throttled.len() >= MAX_THROTTLED_CONNECTIONS {
            self.throttled.retain(|_, suspect| !suspect.is_expired(now));
        }
    }

    /// Whether an answer says anything of the account.
    fn track_connection(&mut self, connection: &str, is_throttled: bool, now: Instant) -> bool {
        if let Some(suspect) = self.throttled.get_mut(connection) {
            suspect.has_delivered |= !is_throttled;
            if !suspect.is_expired(now) {
                if is_throttled {
                    (suspect.throttled_at, suspect.has_delivered) = (now, false);
                }
                // Good or bad, the first of each window: one that is slow by itself is posted to again
                // and again, and would be taken for many. Once others get theirs it says nothing.
                let is_first = suspect.counted_at < self.window.began;
                if is_first {
                    suspect.counted_at = now;
                }
                return is_first && !self.unaffected.since(suspect.then).is_healthy();
            }
            self.throttled.remove(connection);
        }
        self.unaffected.record(is_throttled);
        if is_throttled && self.throttled.len() < MAX_THROTTLED_CONNECTIONS {
            let suspect = ThrottledConnection {
                throttled_at: now,
                has_delivered: false,
                counted_at: now,
                then: self.unaffected,
            };
            self.throttled.insert(connection.to_owned(), suspect);
        }
        true
    }

    /// Notes an answer that does.
    fn record(&mut self, is_throttled: bool, most: f64, now: Instant) {
        if let Some((_, since)) = &mut self.account_throttled {
            since.record(is_throttled);
        }
        if self.window.record(is_throttled, now) {
            self.account_throttled = Some((now, OutcomeCounts::default()));
            self.reduce_rate(most, now);
        }
    }

    /// Halves the pace, unless posts stay far below it: it changes nothing for them then, and would
    /// slow down whoever comes next.
    fn reduce_rate(&mut self, most: f64, now: Instant) {
        // Those that were under way together are throttled together: that is one sign, not many.
        let is_new = self.reduced.is_none_or(|(at, _)| now.duration_since(at) >= WINDOW);
        let share = self.rate_fraction(now);
        // As a burst begins, what was saved up leaves at once.
        let time = now.duration_since(self.window.began).max(BURST);
        let is_near = f64::from(self.responses) * 4.0 >= most * share * time.as_secs_f64();
        if is_new && is_near {
            self.reduced = Some((now, (share / 2.0).max(MIN_RATE_FRACTION)));
        }
    }

    /// The pace, as a share of the most.
    fn rate_fraction(&self, now: Instant) -> f64 {
        let recovered = |(at, share): (Instant, f64)| {
            share + now.duration_since(at).as_secs_f64() / RAMP_UP.as_secs_f64()
        };
        self.reduced.map_or(1.0, recovered).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn time_of(limits: &PostRateLimiter, posts: u32) -> f64 {
        let begun = Instant::now();
        for _ in 0..posts {
            limits.acquire().await;
        }
        begun.elapsed().as_secs_f64()
    }

    async fn after(seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    /// What each of so many connections is told whose post is throttled.
    fn throttled(limits: &PostRateLimiter, connections: u32) -> Vec<bool> {
        (0..connections).map(|n| limits.record_response(&n.to_string(), true)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_leave_a_second_and_a_tenth_of_it_at_once() {
        let limits = PostRateLimiter::new(1000);
        assert_eq!(time_of(&limits, 101).await, 0.0);
        let time = time_of(&limits, 2000).await;
        assert!((1.99..2.02).contains(&time), "{time}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_slow_client_slows_nobody() {
        let limits = PostRateLimiter::new(1000);
        for _ in 0..100 {
            assert!(!limits.record_response("slow", true));
            assert!(!limits.record_response("quick", false));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_throttled_account_slows_everyone_and_recovers() {
        let limits = PostRateLimiter::new(1000);
        // So many that they come near the pace.
        let told = throttled(&limits, 25);
        assert_eq!(told.iter().position(|is_account| *is_account), Some(4), "with the fifth");
        assert!(told[4..].iter().all(|is_account| *is_account));
        assert!(limits.record_response("quick", false), "and it stays so for a while");
        time_of(&limits, 101).await;
        let time = time_of(&limits, 500).await;
        assert!((0.9..1.1).contains(&time), "{time}");
        tokio::time::sleep(RAMP_UP).await;
        assert!(!limits.record_response("quick", false));
        assert_eq!(limits.lock().rate_fraction(Instant::now()), 1.0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_among_many_are_slow_clients() {
        let limits = PostRateLimiter::new(1000);
        let slowed =
            (0..1000_u32).filter(|n| limits.record_response(&n.to_string(), n % 11 == 10)).count();
        assert_eq!(slowed, 0);
    }

    /// A few connections that are tried ever more rarely, for an hour.
    #[tokio::test(start_paused = true)]
    async fn it_is_the_account_until_others_get_theirs() {
        let limits = PostRateLimiter::new(1000);
        throttled(&limits, 20);
        for _ in 0..360 {
            after(10).await;
            for n in 0..20 {
                tokio::time::sleep(Duration::from_millis(300)).await;
                assert!(limits.record_response(&n.to_string(), true));
            }
        }
        assert!(
            limits.record_response("new", true),
            "nor is it one's own that was not there before"
        );
        after(10).await;
        let well = |n: u32| limits.record_response(&n.to_string(), false);
        (0..4).for_each(|n| assert!(!well(n)));
        assert!(limits.record_response("19", true), "too few to tell");
        (4..19).for_each(|n| assert!(!well(n)));
        assert!(!limits.record_response("19", true));
    }

    /// Each minute a burst that is throttled, and in between others are not.
    #[tokio::test(start_paused = true)]
    async fn who_was_throttled_with_the_account_is_innocent_the_next_time() {
        let limits = PostRateLimiter::new(1000);
        for _ in 0..10 {
            let told = throttled(&limits, 20);
            assert!(told[4..].iter().all(|is_account| *is_account), "{told:?}");
            after(1).await;
            (0..20).for_each(|n| assert!(limits.record_response(&n.to_string(), false)));
            after(2).await;
            assert!(!limits.record_response("deaf", true), "the others got theirs");
            for _ in 0..20 {
                after(1).await;
                limits.record_response("other", false);
            }
        }
    }

    /// Some have full buffers all the time, and take a message now and then, as others go on.
    #[tokio::test(start_paused = true)]
    async fn who_is_throttled_alone_is_slow() {
        let limits = PostRateLimiter::new(1000);
        let mut told = vec![];
        for round in 0..100 {
            for n in 0..20 {
                limits.record_response(&format!("quick{n}"), false);
            }
            for n in 0..10 {
                told.push(limits.record_response(&format!("slow{n}"), round % 2 == 0));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        // Until those are known that all were throttled at once.
        let last = told.iter().rposition(|is_account| *is_account).unwrap();
        assert!(last / 10 * 200 <= 2_000, "{last}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_posted_rarely_is_not_slowed() {
        let limits = PostRateLimiter::new(1000);
        for _ in 0..100 {
            throttled(&limits, 20);
            after(1).await;
        }
        assert_eq!(limits.lock().rate_fraction(Instant::now()), 1.0);
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_never_too_many_suspects() {
        let limits = PostRateLimiter::new(1000);
        for minute in 0..3 {
            for n in 0..2 * MAX_THROTTLED_CONNECTIONS {
                limits.record_response(&format!("{minute}-{n}"), true);
            }
            assert_eq!(limits.lock().throttled.len(), MAX_THROTTLED_CONNECTIONS);
            after(60).await;
            limits.record_response("quick", false);
            assert_eq!(limits.lock().throttled.len(), 0);
        }
    }
}
