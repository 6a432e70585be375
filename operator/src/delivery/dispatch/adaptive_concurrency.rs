//! How many posts are under way at once: more while that is of use, fewer while many fail. Pure.

use std::time::Duration;

use tokio::time::Instant;

use super::post_rate_limiter::{WINDOW, Window};

const FIRST: usize = 256;
const LEAST: usize = 16;

/// An answer that takes longer than the fastest by this factor says that more would only wait.
const SLOWER: u32 = 2;

/// The fastest answer of so long counts.
const FASTEST_OF: Duration = Duration::from_secs(30);

/// How many posts may be under way.
#[derive(Debug)]
pub struct Flight {
    limit: usize,
    most: usize,
    /// Answers that came while all places were taken, since the limit grew last.
    full: usize,
    fastest: Duration,
    fastest_at: Instant,
    window: Window,
    shrunk_at: Option<Instant>,
}

impl Flight {
    /// Never more than this many.
    pub fn new(most: usize, now: Instant) -> Self {
        let limit = FIRST.min(most);
        let window = Window::new(now);
        let (fastest, fastest_at) = (Duration::MAX, now);
        Self { limit, most, full: 0, fastest, fastest_at, window, shrunk_at: None }
    }

    /// How many may be under way now.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// An answer took so long, while all places were taken or not.
    pub fn answered(&mut self, took: Duration, is_full: bool, now: Instant) {
        self.window.note(false, now);
        if took <= self.fastest || now.duration_since(self.fastest_at) >= FASTEST_OF {
            (self.fastest, self.fastest_at) = (took, now);
        }
        if !is_full || took > self.fastest * SLOWER {
            return;
        }
        self.full += 1;
        // A quarter more each time that all of them have come back.
        if self.full >= self.limit {
            self.limit = (self.limit + self.limit / 4).min(self.most);
            self.full = 0;
        }
    }

    /// No usable answer came: none in time, or one that the service failed at.
    pub fn failed(&mut self, now: Instant) {
        // Those that were under way together fail together: that is one sign, not many.
        let is_new = self.shrunk_at.is_none_or(|at| now.duration_since(at) >= WINDOW);
        if self.window.note(true, now) && is_new {
            self.shrunk_at = Some(now);
            self.limit = (self.limit / 2).max(LEAST.min(self.most));
            self.window = Window::new(now);
            self.full = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Duration = Duration::from_millis(10);

    #[tokio::test(start_paused = true)]
    async fn it_grows_only_while_more_are_wanted_and_of_use() {
        let now = Instant::now();
        let mut flight = Flight::new(1024, now);
        for _ in 0..10_000 {
            flight.answered(FAST, false, now);
        }
        assert_eq!(flight.limit(), FIRST, "nobody waits");
        for _ in 0..10_000 {
            flight.answered(FAST * 3, true, now);
        }
        assert_eq!(flight.limit(), FIRST, "more would only wait");
        for _ in 0..10_000 {
            flight.answered(FAST, true, now);
        }
        assert_eq!(flight.limit(), 1024);
    }

    #[tokio::test(start_paused = true)]
    async fn it_shrinks_while_many_fail_and_not_for_one() {
        let now = Instant::now();
        let mut flight = Flight::new(1024, now);
        for _ in 0..4 {
            flight.failed(now);
        }
        assert_eq!(flight.limit(), FIRST);
        for _ in 0..1000 {
            flight.failed(now);
        }
        assert_eq!(flight.limit(), FIRST / 2, "together they are one sign");
        for second in 1..10 {
            (0..10).for_each(|_| flight.failed(now + WINDOW * second));
        }
        assert_eq!(flight.limit(), LEAST);
    }
}
