//! Prevents the deletion of rows while every connection seems closed.
//!
//! A wrong API or stage returns 410 for every connection, although the connections are open.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// How long a response counts.
const GUARD_WINDOW: Duration = Duration::from_secs(60);

/// Minimum number of connections with a 410 response, and no delivery, that prevents deletions.
const MIN_GONE_CONNECTIONS: usize = 20;

/// Decides from recent responses whether rows may be deleted.
#[derive(Debug, Default)]
pub struct MassDeletionGuard {
    last_delivery: Option<Instant>,
    /// The last connections with a 410 response, each once, oldest response first.
    gone: VecDeque<(Instant, String)>,
}

impl MassDeletionGuard {
    /// Records a delivered post. It proves that domain and stage are correct.
    pub fn record_delivery(&mut self, now: Instant) {
        self.last_delivery = Some(now);
        self.gone.clear();
    }

    /// Records a 410 response.
    pub fn record_gone(&mut self, connection: &str, now: Instant) {
        self.gone.retain(|(_, id)| id != connection);
        if self.gone.len() == MIN_GONE_CONNECTIONS {
            self.gone.pop_front();
        }
        self.gone.push_back((now, connection.to_owned()));
    }

    /// Whether a row may be deleted now.
    pub fn can_delete(&self, now: Instant) -> bool {
        let is_recent = |at: &Instant| now.duration_since(*at) < GUARD_WINDOW;
        let gone = self.gone.iter().filter(|(at, _)| is_recent(at)).count();
        self.last_delivery.as_ref().is_some_and(is_recent) || gone < MIN_GONE_CONNECTIONS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record_all_gone(guard: &mut MassDeletionGuard, connections: usize, now: Instant) {
        for n in 0..connections {
            guard.record_gone(&format!("connection-{n}"), now);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn prevents_deletion_when_20_connections_are_gone() {
        let (mut guard, now) = (MassDeletionGuard::default(), Instant::now());
        record_all_gone(&mut guard, 19, now);
        assert!(guard.can_delete(now));
        guard.record_gone("connection-3", now);
        assert!(guard.can_delete(now), "counted a connection twice");
        guard.record_gone("one more", now);
        assert!(!guard.can_delete(now));
    }

    #[tokio::test(start_paused = true)]
    async fn allows_deletion_within_a_minute_of_a_delivery() {
        let (mut guard, now) = (MassDeletionGuard::default(), Instant::now());
        record_all_gone(&mut guard, 200, now);
        guard.record_delivery(now);
        record_all_gone(&mut guard, 200, now);
        assert!(guard.can_delete(now));
        let later = now + GUARD_WINDOW;
        record_all_gone(&mut guard, 200, later);
        assert!(!guard.can_delete(later), "the delivery still counts after a minute");
    }

    #[tokio::test(start_paused = true)]
    async fn allows_deletion_a_minute_after_the_last_410() {
        let (mut guard, now) = (MassDeletionGuard::default(), Instant::now());
        record_all_gone(&mut guard, 20, now);
        assert!(!guard.can_delete(now));
        assert!(guard.can_delete(now + GUARD_WINDOW));
    }
}
