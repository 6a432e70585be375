//! What follows from each try of a message: it is over, or it is tried again after a while. Pure:
//! what is known of the time and of others comes in as [`Known`].

use std::time::Duration;

use super::outcome::PostOutcome;
use crate::delivery::config::{DeliveryPolicy, SlowClientAction};
use crate::telemetry::DropReason;
use crate::timing::{Backoff, JitterRng};

/// When a connection that seems gone is asked again: its row may have been written inside
/// `$connect`, just before it is established.
const GONE_RETRY_DELAYS: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

/// A client is disconnected once so many posts in a row found its buffer full; one that was refused
/// for the account's sake can only be the first of them.
const MAX_CONSECUTIVE_THROTTLES: u32 = 3;

/// What was tried of the messages of one connection so far.
#[derive(Clone, Debug)]
pub struct RetryState {
    attempts: u32,
    gone_responses: usize,
    is_short: bool,
    backoff: Backoff,
    /// How often in a row the connection was throttled, over all its messages; once, where the last
    /// time was the account's doing.
    consecutive_throttles: u32,
    /// How many messages others had got when that began.
    delivered_before: u64,
}

/// What is known beside the outcome of a try.
#[derive(Clone, Copy, Debug)]
pub struct RetryContext {
    /// For how long the message has been tried.
    pub age: Duration,
    /// Whether it can be made shorter.
    pub has_keys_only: bool,
    /// Whether the account is throttled: many connections are at once.
    pub is_account_throttled: bool,
    /// How many messages all connections have got.
    pub delivered_count: u64,
}

/// What follows from a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryDecision {
    /// It is over.
    Finish(MessageOutcome),
    /// It is tried again after this.
    Retry(Duration),
    /// The same, and nothing is wrong with its connection.
    RetryHeld(Duration),
}

/// How a message ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageOutcome {
    /// The connection has it.
    Delivered,
    /// The connection is gone.
    Gone,
    /// It is given up.
    Dropped(DropReason),
    /// The client does not read, and is disconnected.
    Disconnect,
}

impl RetryState {
    /// Nothing was tried.
    pub const fn new() -> Self {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        Self {
            attempts: 0,
            gone_responses: 0,
            is_short: false,
            backoff,
            consecutive_throttles: 0,
            delivered_before: 0,
        }
    }

    /// Whether the shorter message is the one to send.
    pub fn uses_keys_only(&self) -> bool {
        self.is_short
    }

    /// Whether the connection's last post found its buffer full.
    pub fn is_throttled(&self) -> bool {
        self.consecutive_throttles > 0
    }

    /// Whether the connection is gone if it answers so once more.
    pub fn is_last_gone_check(&self) -> bool {
        self.gone_responses == GONE_RETRY_DELAYS.len()
    }

    /// Whether a message of this age need not be tried any more, since its connection's last try was
    /// in vain: else one that hangs would have each of its messages tried once, however old.
    pub fn is_expired(&self, age: Duration, policy: &DeliveryPolicy) -> bool {
        let is_new = self.gone_responses > 0 || self.is_short && self.attempts == 0;
        !is_new && age >= policy.max_age
    }

    /// The wait before another try.
    pub fn next_wait(&mut self, random: &JitterRng) -> Duration {
        self.backoff.next_wait(random)
    }

    /// Begins the connection's next message.
    pub fn start_next_message(&mut self) {
        let Self { consecutive_throttles: throttled, delivered_before: delivered, .. } = *self;
        *self =
            Self { consecutive_throttles: throttled, delivered_before: delivered, ..Self::new() };
    }

    /// What follows from an outcome.
    pub fn decide(
        &mut self,
        outcome: PostOutcome,
        policy: &DeliveryPolicy,
        known: &RetryContext,
        random: &JitterRng,
    ) -> RetryDecision {
        match outcome {
            PostOutcome::Throttled if self.consecutive_throttles == 0 => {
                (self.consecutive_throttles, self.delivered_before) = (1, known.delivered_count);
            }
            PostOutcome::Throttled if known.is_account_throttled => self.consecutive_throttles = 1,
            PostOutcome::Throttled => {
                self.consecutive_throttles = self.consecutive_throttles.saturating_add(1)
            }
            PostOutcome::Delivered | PostOutcome::Gone => self.consecutive_throttles = 0,
            PostOutcome::TooLarge | PostOutcome::Hold(_) | PostOutcome::Retry => {}
        }
        match outcome {
            PostOutcome::Delivered => return RetryDecision::Finish(MessageOutcome::Delivered),
            PostOutcome::Gone => {
                let wait = GONE_RETRY_DELAYS.get(self.gone_responses);
                let wait = wait.filter(|_| !fault!(RowDeletedOnFirstGone));
                self.gone_responses += 1;
                return wait.map_or(RetryDecision::Finish(MessageOutcome::Gone), |wait| {
                    RetryDecision::Retry(*wait)
                });
            }
            PostOutcome::TooLarge if known.has_keys_only && !self.is_short => {
                self.is_short = true;
                return RetryDecision::RetryHeld(Duration::ZERO);
            }
            PostOutcome::TooLarge => {
                return RetryDecision::Finish(MessageOutcome::Dropped(DropReason::TooLarge));
            }
            PostOutcome::Hold(_) => {
                return RetryDecision::RetryHeld(self.backoff.next_wait(random));
            }
            PostOutcome::Throttled
                if known.is_account_throttled && !fault!(AccountThrottlingCountsAsAttempt) => {}
            PostOutcome::Throttled | PostOutcome::Retry => self.attempts += 1,
        }
        let attempts = self.attempts + u32::from(fault!(LastAttemptSkipped));
        // It is the client's own trouble if others get their messages meanwhile.
        let is_slow = outcome == PostOutcome::Throttled
            && self.consecutive_throttles >= MAX_CONSECUTIVE_THROTTLES
            && known.delivered_count > self.delivered_before;
        let disconnects = policy.slow_client == SlowClientAction::Disconnect;
        if is_slow && (disconnects || fault!(SlowClientAlwaysDisconnected)) {
            RetryDecision::Finish(MessageOutcome::Disconnect)
        } else if known.age >= policy.max_age
            || outcome == PostOutcome::Retry && fault!(MessageDroppedOnFirstFailure)
        {
            RetryDecision::Finish(MessageOutcome::Dropped(DropReason::Expired))
        } else if policy.max_attempts.is_some_and(|most| attempts >= most) {
            RetryDecision::Finish(MessageOutcome::Dropped(DropReason::Attempts))
        } else {
            RetryDecision::Retry(self.backoff.next_wait(random))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::dispatch::outcome::EndpointFault;

    const WAIT: DeliveryPolicy = DeliveryPolicy {
        max_age: Duration::from_secs(300),
        max_attempts: None,
        slow_client: SlowClientAction::Wait,
    };

    fn known(age: u64) -> RetryContext {
        let age = Duration::from_secs(age);
        RetryContext { age, has_keys_only: false, is_account_throttled: false, delivered_count: 0 }
    }

    fn next(
        tries: &mut RetryState,
        outcome: PostOutcome,
        policy: &DeliveryPolicy,
        known: &RetryContext,
    ) -> RetryDecision {
        tries.decide(outcome, policy, known, &JitterRng::seeded(1))
    }

    #[test]
    fn a_connection_is_gone_with_its_fourth_answer() {
        let mut tries = RetryState::new();
        for wait in GONE_RETRY_DELAYS {
            assert!(!tries.is_last_gone_check());
            assert_eq!(
                next(&mut tries, PostOutcome::Gone, &WAIT, &known(0)),
                RetryDecision::Retry(wait)
            );
        }
        assert!(tries.is_last_gone_check());
        assert_eq!(
            next(&mut tries, PostOutcome::Gone, &WAIT, &known(0)),
            RetryDecision::Finish(MessageOutcome::Gone)
        );
    }

    #[test]
    fn what_is_too_large_is_shortened_once_if_it_can_be() {
        let mut tries = RetryState::new();
        let known = RetryContext { has_keys_only: true, ..known(0) };
        let shorter = next(&mut tries, PostOutcome::TooLarge, &WAIT, &known);
        assert_eq!(shorter, RetryDecision::RetryHeld(Duration::ZERO));
        let still = next(&mut tries, PostOutcome::TooLarge, &WAIT, &known);
        assert_eq!(still, RetryDecision::Finish(MessageOutcome::Dropped(DropReason::TooLarge)));
    }

    #[test]
    fn it_is_given_up_by_age() {
        for outcome in [PostOutcome::Retry, PostOutcome::Throttled] {
            let at = |age| next(&mut RetryState::new(), outcome, &WAIT, &known(age));
            assert!(matches!(at(299), RetryDecision::Retry(_)));
            assert_eq!(
                at(300),
                RetryDecision::Finish(MessageOutcome::Dropped(DropReason::Expired))
            );
        }
    }

    #[test]
    fn it_is_given_up_by_attempts_of_its_own() {
        let thrice = DeliveryPolicy { max_attempts: Some(3), ..WAIT };
        let mut tries = RetryState::new();
        let throttled = RetryContext { is_account_throttled: true, ..known(0) };
        for _ in 0..9 {
            let held = PostOutcome::Hold(EndpointFault::Forbidden);
            assert!(matches!(
                next(&mut tries, held, &thrice, &known(999_999)),
                RetryDecision::RetryHeld(_)
            ));
            let of_all = next(&mut tries, PostOutcome::Throttled, &thrice, &throttled);
            assert!(matches!(of_all, RetryDecision::Retry(_)));
        }
        for outcome in [PostOutcome::Retry, PostOutcome::Throttled] {
            assert!(matches!(
                next(&mut tries, outcome, &thrice, &known(0)),
                RetryDecision::Retry(_)
            ));
        }
        let last = next(&mut tries, PostOutcome::Retry, &thrice, &known(0));
        assert_eq!(last, RetryDecision::Finish(MessageOutcome::Dropped(DropReason::Attempts)));
    }

    #[test]
    fn a_client_is_disconnected_only_for_its_own_trouble() {
        let disconnect = DeliveryPolicy { slow_client: SlowClientAction::Disconnect, ..WAIT };
        let others = |n| RetryContext { delivered_count: n, ..known(0) };
        let account = |n| RetryContext { is_account_throttled: true, ..others(n) };
        for (what, expected) in [
            ([others(0), others(0), others(1)], true),
            ([others(5), others(5), others(5)], false),
            ([others(0), others(1), account(2)], false),
            ([account(0), account(1), others(2)], false),
            ([account(0), others(1), others(2)], true),
        ] {
            let mut tries = RetryState::new();
            let mut last = None;
            for known in &what {
                // Also over several messages.
                tries.start_next_message();
                last = Some(next(&mut tries, PostOutcome::Throttled, &disconnect, known));
            }
            assert_eq!(
                last == Some(RetryDecision::Finish(MessageOutcome::Disconnect)),
                expected,
                "{what:?}"
            );
        }
    }
}
