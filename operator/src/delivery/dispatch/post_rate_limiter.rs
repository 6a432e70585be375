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

use crate::timing::Turns;

/// How long what was saved up lasts: a burst of a tenth of a second's posts goes out at once.
const SAVED: Duration = Duration::from_millis(100);

/// What was answered within so long says whether the account is throttled.
pub(crate) const WINDOW: Duration = Duration::from_secs(1);

/// The account is throttled if at least so many connections are, and a tenth of the posts. It is not
/// if so many posts are taken, and fewer than a tenth throttled.
const MANY: u32 = 5;

/// It is for so long at least: each window has to fill before it says so again.
const THROTTLED_FOR: Duration = WINDOW.saturating_mul(2);

/// A connection that was throttled is a suspect for so long, if there are not too many.
const SUSPECT_FOR: Duration = Duration::from_secs(60);
const MANY_SUSPECTS: usize = 10_000;

/// One that took a message since is for so long: a slow client takes one now and then, and is
/// throttled again soon.
const PROBATION: Duration = Duration::from_secs(2);

/// The pace is never less than the limit by this.
const SLOWEST: f64 = 1.0 / 64.0;

/// From a standstill the pace is back at the limit after this.
const RECOVERY: Duration = Duration::from_secs(20);

/// So many posts a second, in the order in which they were asked for; fewer while AWS throttles.
#[derive(Debug)]
pub struct PostLimits {
    /// Posts a second at the most.
    most: f64,
    pace: Mutex<Pace>,
    turns: Turns,
}

#[derive(Debug)]
struct Pace {
    /// When it was last halved, and to which share of the most.
    halved: Option<(Instant, f64)>,
    /// When the account was last found throttled, and what became of posts since.
    found: Option<(Instant, Tally)>,
    window: Window,
    /// How many answers came since the window began, whatever they say.
    answers: u32,
    /// What became of posts to connections that were no suspects: what is in their way can only be
    /// the account.
    innocent: Tally,
    suspects: HashMap<String, Suspect>,
}

/// What was answered lately.
#[derive(Debug)]
pub(crate) struct Window {
    began: Instant,
    answers: u32,
    bad: u32,
}

/// What became of posts.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    taken: u64,
    throttled: u64,
}

/// A connection that was throttled lately.
#[derive(Debug)]
struct Suspect {
    throttled_at: Instant,
    /// Whether it took a message since.
    has_taken: bool,
    /// When an answer of it last counted.
    counted_at: Instant,
    /// What had become of innocent posts when it became one.
    then: Tally,
}

impl Window {
    pub(crate) fn new(now: Instant) -> Self {
        Self { began: now, answers: 0, bad: 0 }
    }

    fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.began) >= WINDOW
    }

    /// Notes an answer; `true` if there are now too many bad ones.
    pub(crate) fn note(&mut self, is_bad: bool, now: Instant) -> bool {
        if self.is_over(now) {
            *self = Self::new(now);
        }
        self.answers += 1;
        self.bad += u32::from(is_bad);
        is_bad && self.bad >= MANY && self.bad * 10 >= self.answers
    }
}

impl Tally {
    fn note(&mut self, is_throttled: bool) {
        let count = if is_throttled { &mut self.throttled } else { &mut self.taken };
        *count += 1;
    }

    fn since(self, then: Self) -> Self {
        Self { taken: self.taken - then.taken, throttled: self.throttled - then.throttled }
    }

    /// Whether posts are taken.
    fn is_well(self) -> bool {
        self.taken >= u64::from(MANY) && self.throttled * 10 < self.taken + self.throttled
    }
}

impl Suspect {
    fn is_over(&self, now: Instant) -> bool {
        let lasts = if self.has_taken { PROBATION } else { SUSPECT_FOR };
        now.duration_since(self.throttled_at) >= lasts
    }
}

impl PostLimits {
    /// This many posts a second.
    pub fn new(per_second: u32) -> Self {
        let pace = Pace {
            halved: None,
            found: None,
            window: Window::new(Instant::now()),
            answers: 0,
            innocent: Tally::default(),
            suspects: HashMap::new(),
        };
        let most = f64::from(per_second.max(1));
        Self { most, pace: Mutex::new(pace), turns: Turns::default() }
    }

    /// Waits for its turn, and returns how long that took.
    pub async fn take(&self) -> Duration {
        let asked = Instant::now();
        let each = |now| Duration::from_secs_f64(1.0 / (self.most * self.lock().share(now)));
        self.turns.take(SAVED, each).await;
        asked.elapsed()
    }

    /// Notes that a connection took a message or was throttled. `true` if that is the account's doing,
    /// as far as can be told; and whatever it is, while many are throttled.
    pub fn answered(&self, connection: &str, is_throttled: bool) -> bool {
        let now = Instant::now();
        let mut pace = self.lock();
        pace.begin_window(now);
        pace.answers += 1;
        if pace.counts(connection, is_throttled, now) {
            pace.note(is_throttled, self.most, now);
        }
        let is_recent = |at: Instant| now.duration_since(at) < THROTTLED_FOR;
        let is_over = |since: &Tally| since.is_well() || fault!(AccountThrottlingEndsEarly);
        pace.found.take_if(|(at, since)| !is_recent(*at) && is_over(since));
        pace.found.is_some_and(|(at, _)| is_throttled || is_recent(at))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pace {
    /// Begins another window if one is over, and forgets suspects if there are too many.
    fn begin_window(&mut self, now: Instant) {
        if !self.window.is_over(now) {
            return;
        }
        (self.window, self.answers) = (Window::new(now), 0);
        if self.suspects.len() >= MANY_SUSPECTS {
            self.suspects.retain(|_, suspect| !suspect.is_over(now));
        }
    }

    /// Whether an answer says anything of the account.
    fn counts(&mut self, connection: &str, is_throttled: bool, now: Instant) -> bool {
        if let Some(suspect) = self.suspects.get_mut(connection) {
            suspect.has_taken |= !is_throttled;
            if !suspect.is_over(now) {
                if is_throttled {
                    (suspect.throttled_at, suspect.has_taken) = (now, false);
                }
                // Good or bad, the first of each window: one that is slow by itself is posted to again
                // and again, and would be taken for many. Once others get theirs it says nothing.
                let is_first = suspect.counted_at < self.window.began;
                if is_first {
                    suspect.counted_at = now;
                }
                return is_first && !self.innocent.since(suspect.then).is_well();
            }
            self.suspects.remove(connection);
        }
        self.innocent.note(is_throttled);
        if is_throttled && self.suspects.len() < MANY_SUSPECTS {
            let suspect = Suspect {
                throttled_at: now,
                has_taken: false,
                counted_at: now,
                then: self.innocent,
            };
            self.suspects.insert(connection.to_owned(), suspect);
        }
        true
    }

    /// Notes an answer that does.
    fn note(&mut self, is_throttled: bool, most: f64, now: Instant) {
        if let Some((_, since)) = &mut self.found {
            since.note(is_throttled);
        }
        if self.window.note(is_throttled, now) {
            self.found = Some((now, Tally::default()));
            self.halve(most, now);
        }
    }

    /// Halves the pace, unless posts stay far below it: it changes nothing for them then, and would
    /// slow down whoever comes next.
    fn halve(&mut self, most: f64, now: Instant) {
        // Those that were under way together are throttled together: that is one sign, not many.
        let is_new = self.halved.is_none_or(|(at, _)| now.duration_since(at) >= WINDOW);
        let share = self.share(now);
        // As a burst begins, what was saved up leaves at once.
        let time = now.duration_since(self.window.began).max(SAVED);
        let is_near = f64::from(self.answers) * 4.0 >= most * share * time.as_secs_f64();
        if is_new && is_near {
            self.halved = Some((now, (share / 2.0).max(SLOWEST)));
        }
    }

    /// The pace, as a share of the most.
    fn share(&self, now: Instant) -> f64 {
        let recovered = |(at, share): (Instant, f64)| {
            share + now.duration_since(at).as_secs_f64() / RECOVERY.as_secs_f64()
        };
        self.halved.map_or(1.0, recovered).min(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn time_of(limits: &PostLimits, posts: u32) -> f64 {
        let begun = Instant::now();
        for _ in 0..posts {
            limits.take().await;
        }
        begun.elapsed().as_secs_f64()
    }

    async fn after(seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    /// What each of so many connections is told whose post is throttled.
    fn throttled(limits: &PostLimits, connections: u32) -> Vec<bool> {
        (0..connections).map(|n| limits.answered(&n.to_string(), true)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_leave_a_second_and_a_tenth_of_it_at_once() {
        let limits = PostLimits::new(1000);
        assert_eq!(time_of(&limits, 101).await, 0.0);
        let time = time_of(&limits, 2000).await;
        assert!((1.99..2.02).contains(&time), "{time}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_slow_client_slows_nobody() {
        let limits = PostLimits::new(1000);
        for _ in 0..100 {
            assert!(!limits.answered("slow", true));
            assert!(!limits.answered("quick", false));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_throttled_account_slows_everyone_and_recovers() {
        let limits = PostLimits::new(1000);
        // So many that they come near the pace.
        let told = throttled(&limits, 25);
        assert_eq!(told.iter().position(|is_account| *is_account), Some(4), "with the fifth");
        assert!(told[4..].iter().all(|is_account| *is_account));
        assert!(limits.answered("quick", false), "and it stays so for a while");
        time_of(&limits, 101).await;
        let time = time_of(&limits, 500).await;
        assert!((0.9..1.1).contains(&time), "{time}");
        tokio::time::sleep(RECOVERY).await;
        assert!(!limits.answered("quick", false));
        assert_eq!(limits.lock().share(Instant::now()), 1.0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_among_many_are_slow_clients() {
        let limits = PostLimits::new(1000);
        let slowed =
            (0..1000_u32).filter(|n| limits.answered(&n.to_string(), n % 11 == 10)).count();
        assert_eq!(slowed, 0);
    }

    /// A few connections that are tried ever more rarely, for an hour.
    #[tokio::test(start_paused = true)]
    async fn it_is_the_account_until_others_get_theirs() {
        let limits = PostLimits::new(1000);
        throttled(&limits, 20);
        for _ in 0..360 {
            after(10).await;
            for n in 0..20 {
                tokio::time::sleep(Duration::from_millis(300)).await;
                assert!(limits.answered(&n.to_string(), true));
            }
        }
        assert!(limits.answered("new", true), "nor is it one's own that was not there before");
        after(10).await;
        let well = |n: u32| limits.answered(&n.to_string(), false);
        (0..4).for_each(|n| assert!(!well(n)));
        assert!(limits.answered("19", true), "too few to tell");
        (4..19).for_each(|n| assert!(!well(n)));
        assert!(!limits.answered("19", true));
    }

    /// Each minute a burst that is throttled, and in between others are not.
    #[tokio::test(start_paused = true)]
    async fn who_was_throttled_with_the_account_is_innocent_the_next_time() {
        let limits = PostLimits::new(1000);
        for _ in 0..10 {
            let told = throttled(&limits, 20);
            assert!(told[4..].iter().all(|is_account| *is_account), "{told:?}");
            after(1).await;
            (0..20).for_each(|n| assert!(limits.answered(&n.to_string(), false)));
            after(2).await;
            assert!(!limits.answered("deaf", true), "the others got theirs");
            for _ in 0..20 {
                after(1).await;
                limits.answered("other", false);
            }
        }
    }

    /// Some have full buffers all the time, and take a message now and then, as others go on.
    #[tokio::test(start_paused = true)]
    async fn who_is_throttled_alone_is_slow() {
        let limits = PostLimits::new(1000);
        let mut told = vec![];
        for round in 0..100 {
            for n in 0..20 {
                limits.answered(&format!("quick{n}"), false);
            }
            for n in 0..10 {
                told.push(limits.answered(&format!("slow{n}"), round % 2 == 0));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        // Until those are known that all were throttled at once.
        let last = told.iter().rposition(|is_account| *is_account).unwrap();
        assert!(last / 10 * 200 <= 2_000, "{last}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_posted_rarely_is_not_slowed() {
        let limits = PostLimits::new(1000);
        for _ in 0..100 {
            throttled(&limits, 20);
            after(1).await;
        }
        assert_eq!(limits.lock().share(Instant::now()), 1.0);
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_never_too_many_suspects() {
        let limits = PostLimits::new(1000);
        for minute in 0..3 {
            for n in 0..2 * MANY_SUSPECTS {
                limits.answered(&format!("{minute}-{n}"), true);
            }
            assert_eq!(limits.lock().suspects.len(), MANY_SUSPECTS);
            after(60).await;
            limits.answered("quick", false);
            assert_eq!(limits.lock().suspects.len(), 0);
        }
    }
}
