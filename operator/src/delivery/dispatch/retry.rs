//! Decides after each attempt whether a message is complete, or when it is retried.
//!
//! The state machine of a connection is pure. It gets the time and the state of other connections
//! as a [`RetryContext`].

use std::time::Duration;

use super::outcome::PostOutcome;
use crate::delivery::config::{DeliveryPolicy, SlowClientAction};
use crate::telemetry::DropReason;
use crate::timing::{Backoff, JitterRng};

/// Delays of the retries after a 410. A client can store its row within `$connect`, just before its
/// connection is established.
const GONE_RETRY_DELAYS: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

/// Number of consecutive 429 responses after which a client is disconnected. At most the first of
/// them may be due to account throttling.
const MAX_CONSECUTIVE_THROTTLES: u32 = 3;

/// The attempts to deliver messages to one connection.
#[derive(Clone, Debug)]
pub struct RetryState {
    /// Number of failed attempts of the current message.
    attempts: u32,
    /// Number of 410 responses for the current message.
    gone_responses: usize,
    is_keys_only: bool,
    backoff: Backoff,
    /// Number of consecutive 429 responses over all messages of the connection. It is 1 if the last
    /// one was due to account throttling.
    consecutive_throttles: u32,
    /// Number of messages that all connections had received at the first of these responses.
    delivered_before: u64,
}

/// Input to a decision, in addition to the outcome.
#[derive(Clone, Copy, Debug)]
pub struct RetryContext {
    /// Age of the message by the clock of the circuit breaker.
    pub age: Duration,
    /// Whether the message has a shorter form.
    pub has_keys_only: bool,
    pub is_account_throttled: bool,
    /// Number of messages that all connections have received.
    pub delivered_count: u64,
}

/// The next step after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetryDecision {
    /// The message is complete.
    Finish(MessageOutcome),
    /// Retry after this delay.
    Retry(Duration),
    /// Retry after this delay. The attempt does not count as a failure of the connection.
    RetryHeld(Duration),
}

/// The outcome of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageOutcome {
    Delivered,
    /// The connection is closed.
    Gone,
    Dropped(DropReason),
    /// The client does not read, and must be disconnected.
    Disconnect,
}

impl Default for RetryState {
    fn default() -> Self {
        Self {
            attempts: 0,
            gone_responses: 0,
            is_keys_only: false,
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(10)),
            consecutive_throttles: 0,
            delivered_before: 0,
        }
    }
}

impl RetryState {
    /// Whether the next attempt sends the short form of the message.
    pub fn uses_keys_only(&self) -> bool {
        self.is_keys_only
    }

    /// Whether the connection was throttled and has not accepted a message since.
    pub fn is_throttled(&self) -> bool {
        self.consecutive_throttles > 0
    }

    /// Whether the connection counts as closed after one more 410.
    pub fn is_last_gone_check(&self) -> bool {
        self.gone_responses == GONE_RETRY_DELAYS.len()
    }

    /// Whether a message of this age must be dropped without another attempt. Otherwise each queued
    /// message of a connection that hangs would get one attempt, regardless of its age.
    pub fn is_expired(&self, age: Duration, policy: &DeliveryPolicy) -> bool {
        let is_exempt = self.gone_responses > 0 || self.is_keys_only && self.attempts == 0;
        !is_exempt && age >= policy.max_age
    }

    /// Returns the delay before the next attempt, and doubles it.
    pub fn next_wait(&mut self, rng: &JitterRng) -> Duration {
        self.backoff.next_wait(rng)
    }

    /// Resets what belongs to the current message. Throttling belongs to the connection.
    pub fn start_next_message(&mut self) {
        let Self { consecutive_throttles, delivered_before, .. } = *self;
        *self = Self { consecutive_throttles, delivered_before, ..Self::default() };
    }

    /// Decides the next step after an attempt.
    pub fn decide(
        &mut self,
        outcome: PostOutcome,
        policy: &DeliveryPolicy,
        context: &RetryContext,
        rng: &JitterRng,
    ) -> RetryDecision {
        self.track_throttling(outcome, context);
        match outcome {
            PostOutcome::Delivered => RetryDecision::Finish(MessageOutcome::Delivered),
            PostOutcome::Gone => {
                let delay = GONE_RETRY_DELAYS.get(self.gone_responses);
                let delay = delay.filter(|_| !fault!(RowDeletedOnFirstGone));
                self.gone_responses += 1;
                delay.map_or(RetryDecision::Finish(MessageOutcome::Gone), |delay| {
                    RetryDecision::Retry(*delay)
                })
            }
            PostOutcome::TooLarge if context.has_keys_only && !self.is_keys_only => {
                self.is_keys_only = true;
                RetryDecision::RetryHeld(Duration::ZERO)
            }
            PostOutcome::TooLarge => {
                RetryDecision::Finish(MessageOutcome::Dropped(DropReason::TooLarge))
            }
            PostOutcome::Hold(_) => RetryDecision::RetryHeld(self.backoff.next_wait(rng)),
            PostOutcome::Throttled
                if context.is_account_throttled && !fault!(AccountThrottlingCountsAsAttempt) =>
            {
                self.decide_after_failure(outcome, policy, context, rng)
            }
            PostOutcome::Throttled | PostOutcome::Retry => {
                self.attempts += 1;
                self.decide_after_failure(outcome, policy, context, rng)
            }
        }
    }

    fn track_throttling(&mut self, outcome: PostOutcome, context: &RetryContext) {
        match outcome {
            PostOutcome::Throttled if self.consecutive_throttles == 0 => {
                (self.consecutive_throttles, self.delivered_before) = (1, context.delivered_count);
            }
            PostOutcome::Throttled if context.is_account_throttled => {
                self.consecutive_throttles = 1;
            }
            PostOutcome::Throttled => {
                self.consecutive_throttles = self.consecutive_throttles.saturating_add(1);
            }
            PostOutcome::Delivered | PostOutcome::Gone => self.consecutive_throttles = 0,
            PostOutcome::TooLarge | PostOutcome::Hold(_) | PostOutcome::Retry => {}
        }
    }

    fn decide_after_failure(
        &mut self,
        outcome: PostOutcome,
        policy: &DeliveryPolicy,
        context: &RetryContext,
        rng: &JitterRng,
    ) -> RetryDecision {
        let attempts = self.attempts + u32::from(fault!(LastAttemptSkipped));
        // The client itself is slow only if other connections received messages meanwhile.
        let is_slow_client = outcome == PostOutcome::Throttled
            && self.consecutive_throttles >= MAX_CONSECUTIVE_THROTTLES
            && context.delivered_count > self.delivered_before;
        let can_disconnect = policy.slow_client == SlowClientAction::Disconnect;
        if is_slow_client && (can_disconnect || fault!(SlowClientAlwaysDisconnected)) {
            RetryDecision::Finish(MessageOutcome::Disconnect)
        } else if context.age >= policy.max_age
            || outcome == PostOutcome::Retry && fault!(MessageDroppedOnFirstFailure)
        {
            RetryDecision::Finish(MessageOutcome::Dropped(DropReason::Expired))
        } else if policy.max_attempts.is_some_and(|max| attempts >= max) {
            RetryDecision::Finish(MessageOutcome::Dropped(DropReason::AttemptsExhausted))
        } else {
            RetryDecision::Retry(self.backoff.next_wait(rng))
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

    fn context(age_seconds: u64) -> RetryContext {
        let age = Duration::from_secs(age_seconds);
        RetryContext { age, has_keys_only: false, is_account_throttled: false, delivered_count: 0 }
    }

    fn decide(
        retry: &mut RetryState,
        outcome: PostOutcome,
        policy: &DeliveryPolicy,
        context: &RetryContext,
    ) -> RetryDecision {
        retry.decide(outcome, policy, context, &JitterRng::seeded(1))
    }

    #[test]
    fn treats_a_connection_as_closed_after_four_410_responses() {
        let mut retry = RetryState::default();
        for delay in GONE_RETRY_DELAYS {
            assert!(!retry.is_last_gone_check());
            assert_eq!(
                decide(&mut retry, PostOutcome::Gone, &WAIT, &context(0)),
                RetryDecision::Retry(delay)
            );
        }
        assert!(retry.is_last_gone_check());
        assert_eq!(
            decide(&mut retry, PostOutcome::Gone, &WAIT, &context(0)),
            RetryDecision::Finish(MessageOutcome::Gone)
        );
    }

    #[test]
    fn shortens_a_message_that_is_too_large_once() {
        let mut retry = RetryState::default();
        let context = RetryContext { has_keys_only: true, ..context(0) };
        let first = decide(&mut retry, PostOutcome::TooLarge, &WAIT, &context);
        assert_eq!(first, RetryDecision::RetryHeld(Duration::ZERO));
        let second = decide(&mut retry, PostOutcome::TooLarge, &WAIT, &context);
        assert_eq!(second, RetryDecision::Finish(MessageOutcome::Dropped(DropReason::TooLarge)));
    }

    #[test]
    fn drops_a_message_at_its_maximum_age() {
        for outcome in [PostOutcome::Retry, PostOutcome::Throttled] {
            let decide_at = |age| decide(&mut RetryState::default(), outcome, &WAIT, &context(age));
            assert!(matches!(decide_at(299), RetryDecision::Retry(_)));
            assert_eq!(
                decide_at(300),
                RetryDecision::Finish(MessageOutcome::Dropped(DropReason::Expired))
            );
        }
    }

    #[test]
    fn drops_a_message_after_its_own_failed_attempts() {
        let policy = DeliveryPolicy { max_attempts: Some(3), ..WAIT };
        let mut retry = RetryState::default();
        let account_throttled = RetryContext { is_account_throttled: true, ..context(0) };
        for _ in 0..9 {
            let held = PostOutcome::Hold(EndpointFault::Forbidden);
            assert!(matches!(
                decide(&mut retry, held, &policy, &context(999_999)),
                RetryDecision::RetryHeld(_)
            ));
            let decision = decide(&mut retry, PostOutcome::Throttled, &policy, &account_throttled);
            assert!(matches!(decision, RetryDecision::Retry(_)));
        }
        for outcome in [PostOutcome::Retry, PostOutcome::Throttled] {
            assert!(matches!(
                decide(&mut retry, outcome, &policy, &context(0)),
                RetryDecision::Retry(_)
            ));
        }
        let last = decide(&mut retry, PostOutcome::Retry, &policy, &context(0));
        assert_eq!(
            last,
            RetryDecision::Finish(MessageOutcome::Dropped(DropReason::AttemptsExhausted))
        );
    }

    #[test]
    fn disconnects_a_client_only_if_the_client_itself_is_slow() {
        let policy = DeliveryPolicy { slow_client: SlowClientAction::Disconnect, ..WAIT };
        let client = |delivered_count| RetryContext { delivered_count, ..context(0) };
        let account = |n| RetryContext { is_account_throttled: true, ..client(n) };
        for (contexts, is_disconnected) in [
            ([client(0), client(0), client(1)], true),
            ([client(5), client(5), client(5)], false),
            ([client(0), client(1), account(2)], false),
            ([account(0), account(1), client(2)], false),
            ([account(0), client(1), client(2)], true),
        ] {
            let mut retry = RetryState::default();
            let mut last = None;
            for context in &contexts {
                // Throttling counts over several messages.
                retry.start_next_message();
                last = Some(decide(&mut retry, PostOutcome::Throttled, &policy, context));
            }
            assert_eq!(
                last == Some(RetryDecision::Finish(MessageOutcome::Disconnect)),
                is_disconnected,
                "{contexts:?}"
            );
        }
    }
}
