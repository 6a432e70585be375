//! How fast WebSocket APIs are posted to: by all notifiers of the process together where they share
//! an account and a region, since it is those that AWS limits, and its REST APIs share the limit.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// How long what was saved up lasts: a burst of a tenth of a second's posts goes out at once.
const SAVED: Duration = Duration::from_millis(100);

/// What was answered within so long says whether the account is throttled.
pub(super) const WINDOW: Duration = Duration::from_secs(1);

/// The account is throttled if at least so many connections are, and a tenth of the posts.
const MANY: u32 = 5;

/// A connection that was throttled is known to be slow for so long, if there are not too many.
const SLOW_FOR: Duration = Duration::from_secs(60);
const MANY_SLOW: usize = 10_000;

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
    /// When the next post may leave. Whoever waits for its turn has it, so that one who gives up
    /// leaves nothing behind.
    next: tokio::sync::Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct Pace {
    /// As a share of the most.
    share: f64,
    at: Instant,
    /// When it was last halved.
    slowed_at: Option<Instant>,
    window: Window,
    /// Connections that were throttled, and when last.
    slow: HashMap<String, Instant>,
}

/// What was answered lately.
#[derive(Debug)]
pub(super) struct Window {
    began: Instant,
    answers: u32,
    bad: u32,
}

impl Window {
    pub(super) fn new(now: Instant) -> Self {
        Self { began: now, answers: 0, bad: 0 }
    }

    /// Notes an answer; `true` if there are now too many bad ones.
    pub(super) fn note(&mut self, is_bad: bool, now: Instant) -> bool {
        if now.duration_since(self.began) >= WINDOW {
            *self = Self::new(now);
        }
        self.answers += 1;
        self.bad += u32::from(is_bad);
        is_bad && self.bad >= MANY && self.bad * 10 >= self.answers
    }
}

impl PostLimits {
    /// This many posts a second.
    pub fn new(per_second: u32) -> Self {
        let now = Instant::now();
        let (window, slow) = (Window::new(now), HashMap::new());
        let pace = Pace { share: 1.0, at: now, slowed_at: None, window, slow };
        let (most, next) = (f64::from(per_second.max(1)), tokio::sync::Mutex::default());
        Self { most, pace: Mutex::new(pace), next }
    }

    /// Waits for its turn, and returns how long that took.
    pub async fn take(&self) -> Duration {
        let asked = Instant::now();
        let mut next = self.next.lock().await;
        let now = Instant::now();
        let each = Duration::from_secs_f64(1.0 / (self.most * self.share(now)));
        // Counted from the far end of what may be saved: a post that finds its turn passed uses up
        // what was saved, one that finds it ahead waits.
        let turn = next.unwrap_or(now).max(now);
        let begin = turn.checked_sub(SAVED).unwrap_or(now);
        // A timer takes a millisecond even where there is nothing to wait for.
        if begin > now {
            sleep_until(begin).await;
        }
        *next = Some(turn + each);
        asked.elapsed()
    }

    /// Notes an answer, and the connection that was throttled, if it was. One that reads slowly is now
    /// and then, which says nothing of the account: it counts once. `true` while the account is
    /// throttled.
    pub fn answered(&self, throttled: Option<&str>) -> bool {
        let now = Instant::now();
        let mut pace = self.lock();
        let is_throttled = throttled.is_some_and(|connection| pace.is_news(connection, now));
        let is_slowed = |at: &Instant| now.duration_since(*at) < 2 * WINDOW;
        // Those that were under way together are throttled together: that is one sign, not many.
        let is_new = pace.slowed_at.is_none_or(|at| now.duration_since(at) >= WINDOW);
        if pace.window.note(is_throttled, now) && is_new {
            pace.share = (pace.recovered(now) / 2.0).max(SLOWEST);
            (pace.at, pace.slowed_at, pace.window) = (now, Some(now), Window::new(now));
        }
        pace.slowed_at.as_ref().is_some_and(is_slowed)
    }

    fn share(&self, now: Instant) -> f64 {
        self.lock().recovered(now)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pace {
    /// Whether a connection that is throttled was not known to be slow.
    fn is_news(&mut self, connection: &str, now: Instant) -> bool {
        let is_recent = |at: &Instant| now.duration_since(*at) < SLOW_FOR;
        if self.slow.len() >= MANY_SLOW {
            self.slow.retain(|_, at| is_recent(at));
        }
        if let Some(at) = self.slow.get_mut(connection) {
            return !is_recent(&std::mem::replace(at, now));
        }
        if self.slow.len() < MANY_SLOW {
            self.slow.insert(connection.to_owned(), now);
        }
        true
    }

    fn recovered(&self, now: Instant) -> f64 {
        let since = now.duration_since(self.at).as_secs_f64();
        (self.share + since / RECOVERY.as_secs_f64()).min(1.0)
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
            assert!(!limits.answered(Some("slow")));
            assert!(!limits.answered(None));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_throttled_account_slows_everyone_and_recovers() {
        let limits = PostLimits::new(1000);
        let throttled = (0..MANY).filter(|n| limits.answered(Some(&n.to_string()))).count();
        assert_eq!(throttled, 1, "the last of them says so");
        assert!(limits.answered(None), "and it stays so for a while");
        time_of(&limits, 101).await;
        let time = time_of(&limits, 500).await;
        assert!((0.9..1.1).contains(&time), "{time}");
        tokio::time::sleep(RECOVERY).await;
        assert!(!limits.answered(None));
        assert_eq!(limits.share(Instant::now()), 1.0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_among_many_are_slow_clients() {
        let limits = PostLimits::new(1000);
        let is_slow = |n: &u32| n % 11 == 10;
        let slowed = (0..1000_u32)
            .filter(|n| limits.answered(is_slow(n).then_some(&*n.to_string())))
            .count();
        assert_eq!(slowed, 0);
    }
}
