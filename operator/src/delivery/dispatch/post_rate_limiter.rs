//! Rate limiter for posts, shared by all notifiers of the process in an account and region.
//!
//! AWS limits posts per account and region, and counts requests to its REST APIs too.
//!
//! API Gateway returns the same 429 whether the account is throttled or one client does not read.
//! The limiter assumes the account if many connections are throttled at once. It keeps this
//! assumption until other connections receive their messages, because a client must not suffer for
//! the account. A connection that is throttled while others are not is slow, so its responses say
//! nothing about the account.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::response_window::{MIN_FAILURES, ResponseWindow, WINDOW};
use crate::timing::FifoRateLimiter;

/// Maximum burst, as the time in which the limiter saves it up: the posts of 100 ms.
const BURST: Duration = Duration::from_millis(100);

/// Minimum time that the account counts as throttled. Each window must fill before it shows
/// throttling again.
const ACCOUNT_THROTTLED_TTL: Duration = WINDOW.saturating_mul(2);

/// How long a throttled connection is remembered.
const THROTTLED_TTL: Duration = Duration::from_secs(60);
const MAX_THROTTLED_CONNECTIONS: usize = 10_000;

/// How long a throttled connection is remembered after it accepted a message. A slow client accepts
/// some messages, but is soon throttled again.
const RECOVERY_WINDOW: Duration = Duration::from_secs(2);

/// Minimum rate, as a fraction of the maximum.
const MIN_RATE_FRACTION: f64 = 1.0 / 64.0;

/// Time in which the rate would grow from 0 to the maximum.
const RAMP_UP: Duration = Duration::from_secs(20);

/// Rate limiter for posts. It serves requests in order, and slows down while AWS throttles.
#[derive(Debug)]
pub struct PostRateLimiter {
    /// Maximum rate, in posts per second.
    max_rate: f64,
    state: Mutex<RateState>,
    limiter: FifoRateLimiter,
}

#[derive(Debug)]
struct RateState {
    /// When the rate was last reduced, and the fraction of the maximum to which it was reduced.
    reduced: Option<(Instant, f64)>,
    /// When the account was last found throttled, and the outcomes since.
    account_throttled: Option<(Instant, OutcomeCounts)>,
    /// The responses that say something about the account.
    window: ResponseWindow,
    /// Number of all responses in the window.
    responses: u32,
    /// Outcomes of posts to connections that were not throttled before. Only the account can
    /// throttle these.
    unaffected: OutcomeCounts,
    throttled: HashMap<String, ThrottledConnection>,
}

/// Outcomes of posts.
#[derive(Clone, Copy, Debug, Default)]
struct OutcomeCounts {
    accepted: u64,
    throttled: u64,
}

/// A connection that was throttled recently.
#[derive(Debug)]
struct ThrottledConnection {
    throttled_at: Instant,
    /// Whether it accepted a message since.
    has_delivered: bool,
    /// When a response of it last counted for the account.
    counted_at: Instant,
    /// The outcomes of unaffected connections when it was first throttled.
    unaffected_before: OutcomeCounts,
}

impl PostRateLimiter {
    /// Returns a limiter with a maximum rate in posts per second.
    pub fn new(per_second: u32) -> Self {
        let state = RateState {
            reduced: None,
            account_throttled: None,
            window: ResponseWindow::new(Instant::now()),
            responses: 0,
            unaffected: OutcomeCounts::default(),
            throttled: HashMap::new(),
        };
        let max_rate = f64::from(per_second.max(1));
        Self { max_rate, state: Mutex::new(state), limiter: FifoRateLimiter::default() }
    }

    /// Waits until a post may start, and returns the duration of the wait.
    pub async fn acquire(&self) -> Duration {
        let start = Instant::now();
        let cost =
            |now| Duration::from_secs_f64(1.0 / (self.max_rate * self.lock().rate_fraction(now)));
        self.limiter.acquire(BURST, cost).await;
        start.elapsed()
    }

    /// Records whether a connection accepted a message or was throttled. Returns `true` if the
    /// account is throttled. For an accepted message, that holds only while the account was
    /// recently found throttled.
    pub fn record_response(&self, connection: &str, is_throttled: bool) -> bool {
        let now = Instant::now();
        let mut state = self.lock();
        state.start_window_if_over(now);
        state.responses += 1;
        if state.track_connection(connection, is_throttled, now) {
            state.record_account_response(is_throttled, self.max_rate, now);
        }
        let is_recent = |at: Instant| now.duration_since(at) < ACCOUNT_THROTTLED_TTL;
        let is_over =
            |since: &OutcomeCounts| since.is_healthy() || fault!(AccountThrottlingEndsEarly);
        state.account_throttled.take_if(|(at, since)| !is_recent(*at) && is_over(since));
        state.account_throttled.is_some_and(|(at, _)| is_throttled || is_recent(at))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, RateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RateState {
    /// Starts the next window if the current one is over. Then forgets expired connections, if
    /// there are too many.
    fn start_window_if_over(&mut self, now: Instant) {
        if !self.window.is_over(now) {
            return;
        }
        (self.window, self.responses) = (ResponseWindow::new(now), 0);
        if self.throttled.len() >= MAX_THROTTLED_CONNECTIONS {
            self.throttled.retain(|_, connection| !connection.is_expired(now));
        }
    }

    /// Records a response of a connection. Returns whether it says something about the account.
    fn track_connection(&mut self, id: &str, is_throttled: bool, now: Instant) -> bool {
        if let Some(connection) = self.throttled.get_mut(id) {
            connection.has_delivered |= !is_throttled;
            if !connection.is_expired(now) {
                if is_throttled {
                    (connection.throttled_at, connection.has_delivered) = (now, false);
                }
                // Only its first response in each window counts. A slow client is posted to often,
                // so it would look like many. It does not count at all once unaffected connections
                // receive their messages.
                let is_first = connection.counted_at < self.window.started_at();
                if is_first {
                    connection.counted_at = now;
                }
                let since = self.unaffected.since(connection.unaffected_before);
                return is_first && !since.is_healthy();
            }
            self.throttled.remove(id);
        }
        self.unaffected.record(is_throttled);
        if is_throttled && self.throttled.len() < MAX_THROTTLED_CONNECTIONS {
            let connection = ThrottledConnection {
                throttled_at: now,
                has_delivered: false,
                counted_at: now,
                unaffected_before: self.unaffected,
            };
            self.throttled.insert(id.to_owned(), connection);
        }
        true
    }

    /// Records a response that says something about the account.
    fn record_account_response(&mut self, is_throttled: bool, max_rate: f64, now: Instant) {
        if let Some((_, since)) = &mut self.account_throttled {
            since.record(is_throttled);
        }
        if self.window.record(is_throttled, now) {
            self.account_throttled = Some((now, OutcomeCounts::default()));
            self.reduce_rate_if_near(max_rate, now);
        }
    }

    /// Halves the rate, unless posts stay far below it. In that case a lower rate would not reduce
    /// throttling, and would delay the next notifier with many messages.
    fn reduce_rate_if_near(&mut self, max_rate: f64, now: Instant) {
        // Posts in flight together are also throttled together, so they reduce the rate only once.
        let is_new = self.reduced.is_none_or(|(at, _)| now.duration_since(at) >= WINDOW);
        let fraction = self.rate_fraction(now);
        // A burst is posted at once, so a shorter time would show too high a rate.
        let elapsed = now.duration_since(self.window.started_at()).max(BURST);
        let is_near =
            f64::from(self.responses) * 4.0 >= max_rate * fraction * elapsed.as_secs_f64();
        if is_new && is_near {
            self.reduced = Some((now, (fraction / 2.0).max(MIN_RATE_FRACTION)));
        }
    }

    /// The current rate, as a fraction of the maximum.
    fn rate_fraction(&self, now: Instant) -> f64 {
        let recovered = |(at, fraction): (Instant, f64)| {
            fraction + now.duration_since(at).as_secs_f64() / RAMP_UP.as_secs_f64()
        };
        self.reduced.map_or(1.0, recovered).min(1.0)
    }
}

impl OutcomeCounts {
    fn record(&mut self, is_throttled: bool) {
        let count = if is_throttled { &mut self.throttled } else { &mut self.accepted };
        *count += 1;
    }

    fn since(self, before: Self) -> Self {
        Self {
            accepted: self.accepted - before.accepted,
            throttled: self.throttled - before.throttled,
        }
    }

    /// Whether connections receive their messages: at least 5, with fewer than a tenth throttled.
    fn is_healthy(self) -> bool {
        self.accepted >= u64::from(MIN_FAILURES)
            && self.throttled * 10 < self.accepted + self.throttled
    }
}

impl ThrottledConnection {
    fn is_expired(&self, now: Instant) -> bool {
        let ttl = if self.has_delivered { RECOVERY_WINDOW } else { THROTTLED_TTL };
        now.duration_since(self.throttled_at) >= ttl
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Time in which the limiter allows this number of posts, in seconds.
    async fn time_of(limiter: &PostRateLimiter, posts: u32) -> f64 {
        let start = Instant::now();
        for _ in 0..posts {
            limiter.acquire().await;
        }
        start.elapsed().as_secs_f64()
    }

    async fn sleep_seconds(seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    /// Throttles one post of each connection, and returns whether the account was throttled.
    fn throttle(limiter: &PostRateLimiter, connections: u32) -> Vec<bool> {
        (0..connections).map(|n| limiter.record_response(&n.to_string(), true)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn allows_the_maximum_rate_and_a_burst() {
        let limiter = PostRateLimiter::new(1000);
        assert_eq!(time_of(&limiter, 101).await, 0.0);
        let time = time_of(&limiter, 2000).await;
        assert!((1.99..2.02).contains(&time), "{time}");
    }

    #[tokio::test(start_paused = true)]
    async fn ignores_a_single_slow_client() {
        let limiter = PostRateLimiter::new(1000);
        for _ in 0..100 {
            assert!(!limiter.record_response("slow", true));
            assert!(!limiter.record_response("fast", false));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn halves_the_rate_of_a_throttled_account_and_restores_it() {
        let limiter = PostRateLimiter::new(1000);
        // 25 posts at once come near the rate.
        let account = throttle(&limiter, 25);
        let first = account.iter().position(|is_throttled| *is_throttled);
        assert_eq!(first, Some(4), "not with the fifth connection");
        assert!(account[4..].iter().all(|is_throttled| *is_throttled));
        assert!(limiter.record_response("fast", false), "throttling ended at once");
        time_of(&limiter, 101).await;
        let time = time_of(&limiter, 500).await;
        assert!((0.9..1.1).contains(&time), "{time}");
        tokio::time::sleep(RAMP_UP).await;
        assert!(!limiter.record_response("fast", false));
        assert_eq!(limiter.lock().rate_fraction(Instant::now()), 1.0);
    }

    #[tokio::test(start_paused = true)]
    async fn treats_less_than_a_tenth_of_throttled_posts_as_slow_clients() {
        let limiter = PostRateLimiter::new(1000);
        let throttled =
            (0..1000_u32).filter(|n| limiter.record_response(&n.to_string(), n % 11 == 10)).count();
        assert_eq!(throttled, 0);
    }

    /// For one hour, 20 throttled connections are posted to less and less often.
    #[tokio::test(start_paused = true)]
    async fn keeps_the_account_throttled_until_others_receive_messages() {
        let limiter = PostRateLimiter::new(1000);
        throttle(&limiter, 20);
        for _ in 0..360 {
            sleep_seconds(10).await;
            for n in 0..20 {
                tokio::time::sleep(Duration::from_millis(300)).await;
                assert!(limiter.record_response(&n.to_string(), true));
            }
        }
        assert!(limiter.record_response("new", true), "a new connection counts as slow");
        sleep_seconds(10).await;
        let accept = |n: u32| limiter.record_response(&n.to_string(), false);
        (0..4).for_each(|n| assert!(!accept(n)));
        assert!(limiter.record_response("19", true), "4 accepted messages ended throttling");
        (4..19).for_each(|n| assert!(!accept(n)));
        assert!(!limiter.record_response("19", true));
    }

    /// Once a minute a burst is throttled. Between the bursts, other connections are not.
    #[tokio::test(start_paused = true)]
    async fn counts_a_connection_as_unaffected_again_after_account_throttling() {
        let limiter = PostRateLimiter::new(1000);
        for _ in 0..10 {
            let account = throttle(&limiter, 20);
            assert!(account[4..].iter().all(|is_throttled| *is_throttled), "{account:?}");
            sleep_seconds(1).await;
            (0..20).for_each(|n| assert!(limiter.record_response(&n.to_string(), false)));
            sleep_seconds(2).await;
            assert!(!limiter.record_response("slow", true), "others received their messages");
            for _ in 0..20 {
                sleep_seconds(1).await;
                limiter.record_response("other", false);
            }
        }
    }

    /// The buffers of 10 clients are full most of the time. Another 20 clients are fast.
    #[tokio::test(start_paused = true)]
    async fn treats_clients_that_are_throttled_alone_as_slow() {
        let limiter = PostRateLimiter::new(1000);
        let mut account = vec![];
        for round in 0..100 {
            for n in 0..20 {
                limiter.record_response(&format!("fast{n}"), false);
            }
            for n in 0..10 {
                account.push(limiter.record_response(&format!("slow{n}"), round % 2 == 0));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        // At first, 10 connections are throttled at once, so the account seems throttled.
        let last = account.iter().rposition(|is_throttled| *is_throttled).unwrap();
        assert!(last / 10 * 200 <= 2_000, "{last}");
    }

    #[tokio::test(start_paused = true)]
    async fn keeps_the_rate_while_posts_stay_far_below_it() {
        let limiter = PostRateLimiter::new(1000);
        for _ in 0..100 {
            throttle(&limiter, 20);
            sleep_seconds(1).await;
        }
        assert_eq!(limiter.lock().rate_fraction(Instant::now()), 1.0);
    }

    #[tokio::test(start_paused = true)]
    async fn bounds_the_throttled_connections() {
        let limiter = PostRateLimiter::new(1000);
        for minute in 0..3 {
            for n in 0..2 * MAX_THROTTLED_CONNECTIONS {
                limiter.record_response(&format!("{minute}-{n}"), true);
            }
            assert_eq!(limiter.lock().throttled.len(), MAX_THROTTLED_CONNECTIONS);
            sleep_seconds(60).await;
            limiter.record_response("fast", false);
            assert_eq!(limiter.lock().throttled.len(), 0);
        }
    }
}
