//! Builds the conditions of a `StreamNotifier` as kstatus defines them.
//!
//! `Ready` is always present. The other types are present only while they are `True`. A transition time
//! changes only with the condition's status, or for `DataGap` with a new gap. An unchanged status of the
//! resource therefore compares equal, and the operator does not write it again.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::condition_types::{DATA_GAP, DEGRADED, READY, ReadyState};
use super::reasons::{Reason, Use};

/// Time for which `DataGap` remains after the last gap: the retention of a stream.
const DATA_GAP_TTL: SignedDuration = SignedDuration::from_hours(24);

/// Input of [`build_conditions`]: the state of a notifier.
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

/// Builds the conditions of `generation`.
///
/// A condition with the same status in `before` keeps its transition time. `new_gap` is the message of
/// a data gap that is not in `before`.
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
    let mut conditions = vec![condition(READY, ready.status(), *reason, message)];
    conditions.extend(ready.companion().map(|type_| condition(type_, "True", *reason, message)));
    if let Some((reason, message)) = degraded {
        debug_assert!(reason.uses().contains(&Use::Degraded), "{reason:?} is not for Degraded");
        conditions.push(condition(DEGRADED, "True", *reason, message));
    }
    let is_stopped = *reason == Reason::DataGap;
    conditions.extend(data_gap_condition(before, generation, new_gap, is_stopped, now));
    conditions
}

/// Builds the condition `DataGap`.
///
/// Each gap sets a new transition time. The condition stays for [`DATA_GAP_TTL`] after the last gap, or
/// until the spec changes. It also survives a restart of the operator, because `before` comes from the
/// stored status.
fn data_gap_condition(
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

/// Time until `DataGap` leaves these conditions. `None` if it is absent.
pub fn data_gap_remaining(conditions: &[Condition], now: Timestamp) -> Option<Duration> {
    let gap = conditions.iter().find(|condition| condition.type_ == DATA_GAP)?;
    Some(remaining(gap, now))
}

fn remaining(gap: &Condition, now: Timestamp) -> Duration {
    let remaining = DATA_GAP_TTL.saturating_sub(gap.last_transition_time.0.duration_until(now));
    // A negative duration becomes zero.
    remaining.try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::api::condition_types::CONDITION_TYPES;

    fn input(ready: ReadyState, reason: Reason) -> ConditionInput {
        ConditionInput { ready, reason, message: "x on y failed".to_owned(), degraded: None }
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
    fn omits_abnormal_conditions_when_ready() {
        let ready = conditions(&[], Some(1), &reading(), at(1));
        assert_eq!(types(&ready), [("Ready", "True")]);
        let invalid = input(ReadyState::Stalled, Reason::Invalid);
        let stalled = conditions(&ready, Some(2), &invalid, at(2));
        assert_eq!(types(&stalled), [("Ready", "False"), ("Stalled", "True")]);
    }

    #[test]
    fn keeps_the_transition_time_until_the_status_changes() {
        let first = conditions(&[], Some(1), &retrying(), at(1));
        let same = conditions(&first, Some(1), &retrying(), at(2));
        assert_eq!(first, same);
        let not_found = input(ReadyState::Stalled, Reason::StreamNotFound);
        let other_reason = conditions(&same, Some(1), &not_found, at(3));
        assert_eq!(other_reason[0].last_transition_time, Time(at(1)));
        assert_eq!(other_reason[0].reason, "StreamNotFound");
        let ready = conditions(&other_reason, Some(1), &reading(), at(4));
        assert_eq!(ready[0].last_transition_time, Time(at(4)));
    }

    #[test]
    fn reports_degraded_without_changing_ready() {
        let degraded = Some((Reason::StaleRowDeletionDenied, "grant it".to_owned()));
        let with_degraded = ConditionInput { degraded, ..reading() };
        let first = conditions(&[], Some(1), &with_degraded, at(1));
        assert_eq!(types(&first), [("Ready", "True"), ("Degraded", "True")]);
        assert_eq!((&*first[0].reason, &*first[1].reason), ("Reading", "StaleRowDeletionDenied"));
        assert_eq!(conditions(&first, Some(1), &with_degraded, at(2)), first);
        assert_eq!(types(&conditions(&first, Some(1), &reading(), at(3))), [("Ready", "True")]);
    }

    #[test]
    fn uses_each_reason_where_it_is_allowed() {
        let mut seen = BTreeSet::new();
        for reason in Reason::ALL {
            for allowed in reason.uses() {
                let (given, gap) = match *allowed {
                    Use::Ready(ready) => (input(ready, *reason), None),
                    Use::Degraded => {
                        let degraded = Some((*reason, "x on y failed".to_owned()));
                        (ConditionInput { degraded, ..reading() }, None)
                    }
                    Use::DataGap => (reading(), Some("x on y failed".to_owned())),
                    Use::Event => continue,
                };
                let all = super::build_conditions(&[], Some(1), &given, gap, at(1));
                let mut with_reason = all.iter().filter(|c| c.reason == reason.as_str());
                assert!(with_reason.any(|c| c.message == "x on y failed"), "{reason:?}");
                seen.extend(all.into_iter().map(|condition| condition.type_));
            }
        }
        assert_eq!(seen, CONDITION_TYPES.map(str::to_owned).into());
    }

    const DAY: i64 = 24 * 60 * 60;

    #[test]
    fn keeps_a_data_gap_for_24_hours_in_every_ready_state() {
        let gap = with_gap(&[], "lost", at(1));
        assert_eq!(types(&gap), [("Ready", "True"), ("DataGap", "True")]);
        let later = conditions(&gap, Some(1), &retrying(), at(DAY));
        assert_eq!(types(&later)[2], ("DataGap", "True"));
        assert_eq!(later[2], gap[1]);
        assert_eq!(data_gap_remaining(&later, at(DAY)), Some(Duration::from_secs(1)));
        let expired = conditions(&later, Some(1), &reading(), at(DAY + 1));
        assert_eq!(types(&expired), [("Ready", "True")]);
        assert_eq!(data_gap_remaining(&expired, at(DAY + 1)), None);
    }

    #[test]
    fn removes_a_data_gap_when_the_spec_changes() {
        let gap = with_gap(&[], "lost", at(1));
        let edited = conditions(&gap, Some(2), &reading(), at(2));
        assert_eq!(types(&edited), [("Ready", "True")]);
    }

    #[test]
    fn restarts_the_24_hours_with_each_data_gap() {
        let first = with_gap(&[], "lost", at(1));
        let second = with_gap(&first, "lost again", at(DAY));
        assert_eq!(second[1].last_transition_time, Time(at(DAY)));
        assert_eq!(second[1].message, "lost again");
        let next_day = conditions(&second, Some(1), &reading(), at(DAY + 1));
        assert_eq!(next_day, second);
    }
}
