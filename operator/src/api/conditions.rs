//! Conditions as kstatus defines them: `Ready` is always present, `Reconciling` and `Stalled` only while
//! they are true. A condition's time changes only with its status, because an unchanged status must
//! compare equal and must not be written again.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::reasons::{Reason, Use};

const DATA_GAP: &str = "DataGap";

/// Every type of condition.
pub const CONDITION_TYPES: [&str; 5] = ["Ready", "Reconciling", "Stalled", "Degraded", DATA_GAP];

/// How long `DataGap` stays: as long as a stream keeps records.
const DATA_GAP_TTL: SignedDuration = SignedDuration::from_hours(24);

/// What a notifier's conditions are made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionInput {
    /// State of `Ready`.
    pub ready: ReadyState,
    /// Reason of `Ready`.
    pub reason: Reason,
    /// Message of `Ready`, without counters or times.
    pub message: String,
    /// Reason and message of `Degraded`.
    pub degraded: Option<(Reason, String)>,
}

/// State of `Ready`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadyState {
    /// Every open shard is read, or the notifier is suspended.
    Ready,
    /// The worker is starting.
    Starting,
    /// A problem that may end without a change of the resource.
    Retrying,
    /// Nothing continues until a person changes the resource, or what it names.
    Stalled,
}

impl ReadyState {
    /// Status of `Ready`.
    pub const fn status(self) -> &'static str {
        match self {
            Self::Ready => "True",
            Self::Starting => "Unknown",
            Self::Retrying | Self::Stalled => "False",
        }
    }

    /// Type of the condition that is true beside `Ready`.
    pub const fn companion(self) -> Option<&'static str> {
        match self {
            Self::Ready => None,
            Self::Starting | Self::Retrying => Some("Reconciling"),
            Self::Stalled => Some("Stalled"),
        }
    }
}

/// Conditions of `generation`. Those in `before` with the same status keep their transition time.
/// `new_gap` is the message of a new data gap.
pub fn build_conditions(
    before: &[Condition],
    generation: Option<i64>,
    input: &ConditionInput,
    new_gap: Option<String>,
    now: Timestamp,
) -> Vec<Condition> {
    let condition = |type_: &str, status: &str, reason: Reason, message: &str| {
        let since = before
            .iter()
            .find(|known| known.type_ == type_ && known.status == status)
            .map_or(Time(now), |known| known.last_transition_time.clone());
        Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.as_str().to_owned(),
            message: message.to_owned(),
            observed_generation: generation,
            last_transition_time: since,
        }
    };
    let ConditionInput { ready, reason, message, degraded } = input;
    debug_assert!(reason.uses().contains(&Use::Ready(*ready)), "{reason:?} is not for {ready:?}");
    let mut conditions = vec![condition("Ready", ready.status(), *reason, message)];
    conditions.extend(ready.companion().map(|type_| condition(type_, "True", *reason, message)));
    if let Some((reason, message)) = degraded {
        debug_assert!(reason.uses().contains(&Use::Degraded), "{reason:?} is not for Degraded");
        conditions.push(condition("Degraded", "True", *reason, message));
    }
    let is_stopped = *reason == Reason::DataGap;
    conditions.extend(data_gap(before, generation, new_gap, is_stopped, now));
    conditions
}

/// The condition `DataGap`. Each gap gives it a new time. It stays for a day after the last gap or until
/// the spec changes, also in another process.
fn data_gap(
    before: &[Condition],
    generation: Option<i64>,
    new_gap: Option<String>,
    is_stopped: bool,
    now: Timestamp,
) -> Option<Condition> {
    if let Some(message) = new_gap {
        return Some(Condition {
            type_: DATA_GAP.to_owned(),
            status: "True".to_owned(),
            reason: Reason::RecordsLost.as_str().to_owned(),
            message,
            observed_generation: generation,
            last_transition_time: Time(now),
        });
    }
    let known = before.iter().find(|known| known.type_ == DATA_GAP)?;
    // A gap that stopped reading stays until the spec changes.
    let stays = is_stopped || !remaining(known, now).is_zero();
    (stays && known.observed_generation == generation).then(|| known.clone())
}

/// How long `DataGap` stays among these conditions, if it is present.
pub fn data_gap_remaining(conditions: &[Condition], now: Timestamp) -> Option<Duration> {
    let gap = conditions.iter().find(|condition| condition.type_ == DATA_GAP)?;
    Some(remaining(gap, now))
}

fn remaining(gap: &Condition, now: Timestamp) -> Duration {
    let left = DATA_GAP_TTL.saturating_sub(gap.last_transition_time.0.duration_until(now));
    // Nothing where the time is up.
    left.try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn input(ready: ReadyState, reason: Reason) -> ConditionInput {
        ConditionInput { ready, reason, message: "because".to_owned(), degraded: None }
    }

    fn reading() -> ConditionInput {
        input(ReadyState::Ready, Reason::Reading)
    }

    fn retrying() -> ConditionInput {
        input(ReadyState::Retrying, Reason::StreamThrottled)
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn types(conditions: &[Condition]) -> Vec<(&str, &str)> {
        conditions.iter().map(|c| (c.type_.as_str(), c.status.as_str())).collect()
    }

    fn conditions(
        before: &[Condition],
        generation: Option<i64>,
        input: &ConditionInput,
        now: Timestamp,
    ) -> Vec<Condition> {
        super::build_conditions(before, generation, input, None, now)
    }

    fn with_gap(before: &[Condition], message: &str, now: Timestamp) -> Vec<Condition> {
        super::build_conditions(before, Some(1), &reading(), Some(message.to_owned()), now)
    }

    #[test]
    fn abnormal_conditions_are_absent_when_ready() {
        let ready = conditions(&[], Some(1), &reading(), at(1));
        assert_eq!(types(&ready), [("Ready", "True")]);
        let invalid = input(ReadyState::Stalled, Reason::Invalid);
        let stalled = conditions(&ready, Some(2), &invalid, at(2));
        assert_eq!(types(&stalled), [("Ready", "False"), ("Stalled", "True")]);
    }

    #[test]
    fn the_transition_time_moves_with_the_status_only() {
        let first = conditions(&[], Some(1), &retrying(), at(1));
        let same = conditions(&first, Some(1), &retrying(), at(2));
        assert_eq!(first, same);
        let not_found = input(ReadyState::Stalled, Reason::StreamNotFound);
        let other = conditions(&same, Some(1), &not_found, at(3));
        assert_eq!(other[0].last_transition_time, Time(at(1)));
        assert_eq!(other[0].reason, "StreamNotFound");
        let ready = conditions(&other, Some(1), &reading(), at(4));
        assert_eq!(ready[0].last_transition_time, Time(at(4)));
    }

    #[test]
    fn degraded_does_not_change_ready() {
        let degraded = Some((Reason::StaleRowDeletionDenied, "grant it".to_owned()));
        let with_degraded = ConditionInput { degraded, ..reading() };
        let first = conditions(&[], Some(1), &with_degraded, at(1));
        assert_eq!(types(&first), [("Ready", "True"), ("Degraded", "True")]);
        assert_eq!((&*first[0].reason, &*first[1].reason), ("Reading", "StaleRowDeletionDenied"));
        assert_eq!(conditions(&first, Some(1), &with_degraded, at(2)), first);
        assert_eq!(types(&conditions(&first, Some(1), &reading(), at(3))), [("Ready", "True")]);
    }

    #[test]
    fn each_reason_appears_in_the_conditions_of_its_uses() {
        let mut seen = BTreeSet::new();
        for reason in Reason::ALL {
            for place in reason.uses() {
                let (given, gap) = match *place {
                    Use::Ready(ready) => (input(ready, *reason), None),
                    Use::Degraded => {
                        let degraded = Some((*reason, "because".to_owned()));
                        (ConditionInput { degraded, ..reading() }, None)
                    }
                    Use::DataGap => (reading(), Some("because".to_owned())),
                    Use::Event => continue,
                };
                let all = super::build_conditions(&[], Some(1), &given, gap, at(1));
                let mut of_it = all.iter().filter(|condition| condition.reason == reason.as_str());
                assert!(of_it.any(|condition| condition.message == "because"), "{reason:?}");
                seen.extend(all.into_iter().map(|condition| condition.type_));
            }
        }
        assert_eq!(seen, CONDITION_TYPES.map(str::to_owned).into());
    }

    const DAY: i64 = 24 * 60 * 60;

    #[test]
    fn a_gap_stays_for_a_day_whatever_ready_is() {
        let gap = with_gap(&[], "lost", at(1));
        assert_eq!(types(&gap), [("Ready", "True"), ("DataGap", "True")]);
        let held = conditions(&gap, Some(1), &retrying(), at(DAY));
        assert_eq!(types(&held)[2], ("DataGap", "True"));
        assert_eq!(held[2], gap[1], "nothing of it has changed");
        assert_eq!(data_gap_remaining(&held, at(DAY)), Some(Duration::from_secs(1)));
        let over = conditions(&held, Some(1), &reading(), at(DAY + 1));
        assert_eq!(types(&over), [("Ready", "True")]);
        assert_eq!(data_gap_remaining(&over, at(DAY + 1)), None);
    }

    #[test]
    fn a_new_spec_removes_a_gap() {
        let gap = with_gap(&[], "lost", at(1));
        let edited = conditions(&gap, Some(2), &reading(), at(2));
        assert_eq!(types(&edited), [("Ready", "True")]);
    }

    #[test]
    fn each_gap_starts_the_day_again() {
        let first = with_gap(&[], "lost", at(1));
        let second = with_gap(&first, "lost again", at(DAY));
        assert_eq!(second[1].last_transition_time, Time(at(DAY)));
        assert_eq!(second[1].message, "lost again");
        let next_day = conditions(&second, Some(1), &reading(), at(DAY + 1));
        assert_eq!(next_day, second);
    }
}
