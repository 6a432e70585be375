//! What follows from each try of a message: it is over, or it is tried again after a while. Pure:
//! what is known of the time and of others comes in as [`Known`].

use std::time::Duration;

use super::outcome::Outcome;
use crate::delivery::config::{Policy, SlowClient};
use crate::telemetry::Dropped;
use crate::timing::{Backoff, Random};

/// When a connection that seems gone is asked again: its row may have been written inside
/// `$connect`, just before it is established.
const GONE_AGAIN_AFTER: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

/// A client is disconnected once so many posts in a row found its buffer full; one that was refused
/// for the account's sake can only be the first of them.
const TOO_SLOW: u32 = 3;

/// What was tried of the messages of one connection so far.
#[derive(Clone, Debug)]
pub struct Tries {
    attempts: u32,
    gone: usize,
    is_short: bool,
    backoff: Backoff,
    /// How often in a row the connection was throttled, over all its messages; once, where the last
    /// time was the account's doing.
    throttled: u32,
    /// How many messages others had got when that began.
    delivered: u64,
}

/// What is known beside the outcome of a try.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    /// For how long the message has been tried.
    pub age: Duration,
    /// Whether it can be made shorter.
    pub can_shorten: bool,
    /// Whether the account is throttled: many connections are at once.
    pub is_account_throttled: bool,
    /// How many messages all connections have got.
    pub delivered: u64,
}

/// What follows from a try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It is over.
    Over(End),
    /// It is tried again after this.
    Again(Duration),
    /// The same, and nothing is wrong with its connection.
    Held(Duration),
}

/// How a message ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The connection has it.
    Delivered,
    /// The connection is gone.
    Gone,
    /// It is given up.
    Dropped(Dropped),
    /// The client does not read, and is disconnected.
    Disconnect,
}

impl Tries {
    /// Nothing was tried.
    pub const fn new() -> Self {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        Self { attempts: 0, gone: 0, is_short: false, backoff, throttled: 0, delivered: 0 }
    }

    /// Whether the shorter message is the one to send.
    pub fn is_short(&self) -> bool {
        self.is_short
    }

    /// Whether the connection's last post found its buffer full.
    pub fn is_throttled(&self) -> bool {
        self.throttled > 0
    }

    /// Whether the connection is gone if it answers so once more.
    pub fn is_nearly_gone(&self) -> bool {
        self.gone == GONE_AGAIN_AFTER.len()
    }

    /// Whether a message of this age need not be tried any more, since its connection's last try was
    /// in vain: else one that hangs would have each of its messages tried once, however old.
    pub fn is_over(&self, age: Duration, policy: &Policy) -> bool {
        let is_new = self.gone > 0 || self.is_short && self.attempts == 0;
        !is_new && age >= policy.longest_try
    }

    /// The wait before another try.
    pub fn wait(&mut self, random: &Random) -> Duration {
        self.backoff.next(random)
    }

    /// Begins the connection's next message.
    pub fn begin_next(&mut self) {
        let Self { throttled, delivered, .. } = *self;
        *self = Self { throttled, delivered, ..Self::new() };
    }

    /// What follows from an outcome.
    pub fn next(
        &mut self,
        outcome: Outcome,
        policy: &Policy,
        known: &Known,
        random: &Random,
    ) -> Next {
        match outcome {
            Outcome::Throttled if self.throttled == 0 => {
                (self.throttled, self.delivered) = (1, known.delivered);
            }
            Outcome::Throttled if known.is_account_throttled => self.throttled = 1,
            Outcome::Throttled => self.throttled = self.throttled.saturating_add(1),
            Outcome::Delivered | Outcome::Gone => self.throttled = 0,
            Outcome::TooLarge | Outcome::Hold(_) | Outcome::Retry => {}
        }
        match outcome {
            Outcome::Delivered => return Next::Over(End::Delivered),
            Outcome::Gone => {
                let wait = GONE_AGAIN_AFTER.get(self.gone);
                let wait = wait.filter(|_| !fault!(RowDeletedOnFirstGone));
                self.gone += 1;
                return wait.map_or(Next::Over(End::Gone), |wait| Next::Again(*wait));
            }
            Outcome::TooLarge if known.can_shorten && !self.is_short => {
                self.is_short = true;
                return Next::Held(Duration::ZERO);
            }
            Outcome::TooLarge => return Next::Over(End::Dropped(Dropped::TooLarge)),
            Outcome::Hold(_) => return Next::Held(self.backoff.next(random)),
            Outcome::Throttled
                if known.is_account_throttled && !fault!(AccountThrottlingCountsAsAttempt) => {}
            Outcome::Throttled | Outcome::Retry => self.attempts += 1,
        }
        let attempts = self.attempts + u32::from(fault!(LastAttemptSkipped));
        // It is the client's own trouble if others get their messages meanwhile.
        let is_slow = outcome == Outcome::Throttled
            && self.throttled >= TOO_SLOW
            && known.delivered > self.delivered;
        let disconnects = policy.slow_client == SlowClient::Disconnect;
        if is_slow && (disconnects || fault!(SlowClientAlwaysDisconnected)) {
            Next::Over(End::Disconnect)
        } else if known.age >= policy.longest_try
            || outcome == Outcome::Retry && fault!(MessageDroppedOnFirstFailure)
        {
            Next::Over(End::Dropped(Dropped::Expired))
        } else if policy.most_attempts.is_some_and(|most| attempts >= most) {
            Next::Over(End::Dropped(Dropped::Attempts))
        } else {
            Next::Again(self.backoff.next(random))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::delivery::dispatch::outcome::Hold;

    const WAIT: Policy = Policy {
        longest_try: Duration::from_secs(300),
        most_attempts: None,
        slow_client: SlowClient::Wait,
    };

    fn known(age: u64) -> Known {
        let age = Duration::from_secs(age);
        Known { age, can_shorten: false, is_account_throttled: false, delivered: 0 }
    }

    fn next(tries: &mut Tries, outcome: Outcome, policy: &Policy, known: &Known) -> Next {
        tries.next(outcome, policy, known, &Random::seeded(1))
    }

    #[test]
    fn a_connection_is_gone_with_its_fourth_answer() {
        let mut tries = Tries::new();
        for wait in GONE_AGAIN_AFTER {
            assert!(!tries.is_nearly_gone());
            assert_eq!(next(&mut tries, Outcome::Gone, &WAIT, &known(0)), Next::Again(wait));
        }
        assert!(tries.is_nearly_gone());
        assert_eq!(next(&mut tries, Outcome::Gone, &WAIT, &known(0)), Next::Over(End::Gone));
    }

    #[test]
    fn what_is_too_large_is_shortened_once_if_it_can_be() {
        let mut tries = Tries::new();
        let known = Known { can_shorten: true, ..known(0) };
        let shorter = next(&mut tries, Outcome::TooLarge, &WAIT, &known);
        assert_eq!(shorter, Next::Held(Duration::ZERO));
        let still = next(&mut tries, Outcome::TooLarge, &WAIT, &known);
        assert_eq!(still, Next::Over(End::Dropped(Dropped::TooLarge)));
    }

    #[test]
    fn it_is_given_up_by_age() {
        for outcome in [Outcome::Retry, Outcome::Throttled] {
            let at = |age| next(&mut Tries::new(), outcome, &WAIT, &known(age));
            assert!(matches!(at(299), Next::Again(_)));
            assert_eq!(at(300), Next::Over(End::Dropped(Dropped::Expired)));
        }
    }

    #[test]
    fn it_is_given_up_by_attempts_of_its_own() {
        let thrice = Policy { most_attempts: Some(3), ..WAIT };
        let mut tries = Tries::new();
        let throttled = Known { is_account_throttled: true, ..known(0) };
        for _ in 0..9 {
            let held = Outcome::Hold(Hold::Forbidden);
            assert!(matches!(next(&mut tries, held, &thrice, &known(999_999)), Next::Held(_)));
            let of_all = next(&mut tries, Outcome::Throttled, &thrice, &throttled);
            assert!(matches!(of_all, Next::Again(_)));
        }
        for outcome in [Outcome::Retry, Outcome::Throttled] {
            assert!(matches!(next(&mut tries, outcome, &thrice, &known(0)), Next::Again(_)));
        }
        let last = next(&mut tries, Outcome::Retry, &thrice, &known(0));
        assert_eq!(last, Next::Over(End::Dropped(Dropped::Attempts)));
    }

    #[test]
    fn a_client_is_disconnected_only_for_its_own_trouble() {
        let disconnect = Policy { slow_client: SlowClient::Disconnect, ..WAIT };
        let others = |n| Known { delivered: n, ..known(0) };
        let account = |n| Known { is_account_throttled: true, ..others(n) };
        for (what, expected) in [
            ([others(0), others(0), others(1)], true),
            ([others(5), others(5), others(5)], false),
            ([others(0), others(1), account(2)], false),
            ([account(0), account(1), others(2)], false),
            ([account(0), others(1), others(2)], true),
        ] {
            let mut tries = Tries::new();
            let mut last = None;
            for known in &what {
                // Also over several messages.
                tries.begin_next();
                last = Some(next(&mut tries, Outcome::Throttled, &disconnect, known));
            }
            assert_eq!(last == Some(Next::Over(End::Disconnect)), expected, "{what:?}");
        }
    }
}
