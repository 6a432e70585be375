//! Keeps rows from being deleted in masses: a valid but wrong API or stage answers 410 for every
//! connection there is.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// How far back answers count.
const GUARD_WINDOW: Duration = Duration::from_secs(60);

/// From this many connections on, all of them gone, none is believed.
const MIN_GONE_CONNECTIONS: usize = 20;

/// What the answers of the last minute say about deleting rows.
#[derive(Debug, Default)]
pub struct MassDeletionGuard {
    last_delivery: Option<Instant>,
    /// The connections that answered 410 last, each once, oldest answer first.
    gone: VecDeque<(Instant, String)>,
}

impl MassDeletionGuard {
    /// A post was delivered: the endpoint is right.
    pub fn record_delivery(&mut self, now: Instant) {
        self.last_delivery = Some(now);
        self.gone.clear();
    }

    /// A connection answered that it is gone.
    pub fn record_gone(&mut self, connection: &str, now: Instant) {
        self.gone.retain(|(_, known)| known != connection);
        if self.gone.len() == MIN_GONE_CONNECTIONS {
            self.gone.pop_front();
        }
        self.gone.push_back((now, connection.to_owned()));
    }

    /// Whether a row may be deleted now.
    pub fn may_delete(&self, now: Instant) -> bool {
        let recent = |at: &Instant| now.duration_since(*at) < GUARD_WINDOW;
        let gone = self.gone.iter().filter(|(at, _)| recent(at)).count();
        self.last_delivery.as_ref().is_some_and(recent) || gone < MIN_GONE_CONNECTIONS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all_gone(guard: &mut MassDeletionGuard, connections: usize, now: Instant) {
        for n in 0..connections {
            guard.record_gone(&format!("connection-{n}"), now);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_few_are_believed_and_many_are_not() {
        let (mut guard, now) = (MassDeletionGuard::default(), Instant::now());
        all_gone(&mut guard, 19, now);
        assert!(guard.may_delete(now));
        guard.record_gone("connection-3", now);
        assert!(guard.may_delete(now), "one that answers again counts once");
        guard.record_gone("one more", now);
        assert!(!guard.may_delete(now));
    }

    #[tokio::test(start_paused = true)]
    async fn one_delivery_within_the_minute_proves_the_endpoint() {
        let (mut guard, now) = (MassDeletionGuard::default(), Instant::now());
        all_gone(&mut guard, 200, now);
        guard.record_delivery(now);
        all_gone(&mut guard, 200, now);
        assert!(guard.may_delete(now));
        let later = now + GUARD_WINDOW;
        all_gone(&mut guard, 200, later);
        assert!(!guard.may_delete(later), "but not for ever");
    }

    #[tokio::test(start_paused = true)]
    async fn a_minute_later_it_is_forgotten() {
        let (mut guard, now) = (MassDeletionGuard::default(), Instant::now());
        all_gone(&mut guard, 20, now);
        assert!(!guard.may_delete(now));
        assert!(guard.may_delete(now + GUARD_WINDOW));
    }
}
