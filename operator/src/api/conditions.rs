//! Conditions as kstatus defines them: `Ready` always there, `Reconciling` and `Stalled` only while
//! they are true. A condition's time moves only when its status does, so that an unchanged state
//! compares equal and is not written again. `Degraded` is there while something should be mended
//! although every change goes out; `Ready` does not hang on it. `DataGap` is the one that remembers: it
//! stays for a day.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

const DATA_GAP: &str = "DataGap";

/// Every type of condition that there can be.
pub const CONDITION_TYPES: [&str; 5] = ["Ready", "Reconciling", "Stalled", "Degraded", DATA_GAP];

/// How long a gap is told: as long as a stream keeps records, so that whoever looks once a day sees
/// it.
const GAP_TOLD: SignedDuration = SignedDuration::from_hours(24);

/// What a notifier's conditions are made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// `True`, `False` or `Unknown`.
    pub ready: Ready,
    /// A constant CamelCase word.
    pub reason: &'static str,
    /// What is the case and what to do, without counters or times.
    pub message: String,
    /// What should be mended although every change goes out: a reason and a message.
    pub degraded: Option<(&'static str, String)>,
}

/// How a notifier stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ready {
    /// Every open shard is read, or the notifier is suspended.
    Yes,
    /// Not yet known: the notifier was just seen, or its worker is starting.
    Starting,
    /// Something is wrong that may pass by itself, or by a change outside the resource.
    Held,
    /// Nothing happens until a person changes the resource, or what it names.
    Stalled,
}

/// The conditions of `generation`, keeping the transition times of those in `before` whose status
/// is the same. `new_gap` tells of records whose loss was just noticed.
pub fn conditions(
    before: &[Condition],
    generation: Option<i64>,
    readiness: &Readiness,
    new_gap: Option<String>,
    now: Timestamp,
) -> Vec<Condition> {
    let condition_for = |type_: &str, status: &str, reason: &str, message: &str| {
        let since = before
            .iter()
            .find(|known| known.type_ == type_ && known.status == status)
            .map_or(Time(now), |known| known.last_transition_time.clone());
        Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            observed_generation: generation,
            last_transition_time: since,
        }
    };
    let condition = |type_: &str, status: &str| {
        condition_for(type_, status, readiness.reason, &readiness.message)
    };
    let mut conditions = match readiness.ready {
        Ready::Yes => vec![condition("Ready", "True")],
        Ready::Starting => vec![condition("Ready", "Unknown"), condition("Reconciling", "True")],
        Ready::Held => vec![condition("Ready", "False"), condition("Reconciling", "True")],
        Ready::Stalled => vec![condition("Ready", "False"), condition("Stalled", "True")],
    };
    let degraded = readiness.degraded.as_ref();
    conditions.extend(
        degraded.map(|(reason, message)| condition_for("Degraded", "True", reason, message)),
    );
    let is_stopped = readiness.reason == DATA_GAP;
    conditions.extend(data_gap(before, generation, new_gap, is_stopped, now));
    conditions
}

/// The condition `DataGap`. It comes with a gap, each gap giving it a new time, and goes a day after
/// the last one, or when the spec is changed: somebody has looked then. In between it stays whatever
/// else is the case, also when another process tells.
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
            reason: "RecordsLost".to_owned(),
            message,
            observed_generation: generation,
            last_transition_time: Time(now),
        });
    }
    let known = before.iter().find(|known| known.type_ == DATA_GAP)?;
    // One that stopped everything stays until somebody has decided.
    let stays = is_stopped || !told_for(known, now).is_zero();
    (stays && known.observed_generation == generation).then(|| known.clone())
}

/// How long `DataGap` will stay among these conditions, if it is there.
pub fn gap_told_for(conditions: &[Condition], now: Timestamp) -> Option<Duration> {
    let gap = conditions.iter().find(|condition| condition.type_ == DATA_GAP)?;
    Some(told_for(gap, now))
}

fn told_for(gap: &Condition, now: Timestamp) -> Duration {
    let left = GAP_TOLD.saturating_sub(gap.last_transition_time.0.duration_until(now));
    // Nothing where the time is up.
    left.try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readiness(ready: Ready, reason: &'static str) -> Readiness {
        Readiness { ready, reason, message: "because".to_owned(), degraded: None }
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
        readiness: &Readiness,
        now: Timestamp,
    ) -> Vec<Condition> {
        super::conditions(before, generation, readiness, None, now)
    }

    fn with_gap(before: &[Condition], message: &str, now: Timestamp) -> Vec<Condition> {
        let reading = readiness(Ready::Yes, "Reading");
        super::conditions(before, Some(1), &reading, Some(message.to_owned()), now)
    }

    #[test]
    fn abnormal_conditions_are_absent_when_ready() {
        let ready = conditions(&[], Some(1), &readiness(Ready::Yes, "Reading"), at(1));
        assert_eq!(types(&ready), [("Ready", "True")]);
        let stalled = conditions(&ready, Some(2), &readiness(Ready::Stalled, "Invalid"), at(2));
        assert_eq!(types(&stalled), [("Ready", "False"), ("Stalled", "True")]);
    }

    #[test]
    fn the_transition_time_moves_with_the_status_only() {
        let first = conditions(&[], Some(1), &readiness(Ready::Held, "AccessDenied"), at(1));
        let same = conditions(&first, Some(1), &readiness(Ready::Held, "AccessDenied"), at(2));
        assert_eq!(first, same);
        let other = conditions(&same, Some(1), &readiness(Ready::Held, "StreamNotFound"), at(3));
        assert_eq!(other[0].last_transition_time, Time(at(1)));
        assert_eq!(other[0].reason, "StreamNotFound");
        let ready = conditions(&other, Some(1), &readiness(Ready::Yes, "Reading"), at(4));
        assert_eq!(ready[0].last_transition_time, Time(at(4)));
    }

    #[test]
    fn what_should_be_mended_is_told_beside_ready() {
        let reading = readiness(Ready::Yes, "Reading");
        let degraded = Some(("RowsNotDeletable", "allow it".to_owned()));
        let told = Readiness { degraded, ..reading.clone() };
        let first = conditions(&[], Some(1), &told, at(1));
        assert_eq!(types(&first), [("Ready", "True"), ("Degraded", "True")]);
        assert_eq!((&*first[0].reason, &*first[1].reason), ("Reading", "RowsNotDeletable"));
        assert_eq!(conditions(&first, Some(1), &told, at(2)), first);
        assert_eq!(types(&conditions(&first, Some(1), &reading, at(3))), [("Ready", "True")]);
    }

    #[test]
    fn there_are_no_other_types() {
        let mut seen = std::collections::BTreeSet::new();
        for ready in [Ready::Yes, Ready::Starting, Ready::Held, Ready::Stalled] {
            let degraded = Some(("RowsNotDeletable", "allow it".to_owned()));
            let told = Readiness { degraded, ..readiness(ready, "because") };
            let gap = Some("lost".to_owned());
            let conditions = super::conditions(&[], Some(1), &told, gap, at(1));
            seen.extend(conditions.into_iter().map(|condition| condition.type_));
        }
        assert_eq!(seen, CONDITION_TYPES.map(str::to_owned).into());
    }

    const DAY: i64 = 24 * 60 * 60;

    #[test]
    fn a_gap_stays_for_a_day_whatever_else_is_the_case() {
        let gap = with_gap(&[], "lost", at(1));
        assert_eq!(types(&gap), [("Ready", "True"), ("DataGap", "True")]);
        let held = conditions(&gap, Some(1), &readiness(Ready::Held, "AccessDenied"), at(DAY));
        assert_eq!(types(&held)[2], ("DataGap", "True"));
        assert_eq!(held[2], gap[1], "nothing of it has changed");
        assert_eq!(gap_told_for(&held, at(DAY)), Some(Duration::from_secs(1)));
        let over = conditions(&held, Some(1), &readiness(Ready::Yes, "Reading"), at(DAY + 1));
        assert_eq!(types(&over), [("Ready", "True")]);
        assert_eq!(gap_told_for(&over, at(DAY + 1)), None);
    }

    #[test]
    fn a_new_spec_is_an_answer_to_a_gap() {
        let gap = with_gap(&[], "lost", at(1));
        let edited = conditions(&gap, Some(2), &readiness(Ready::Yes, "Reading"), at(2));
        assert_eq!(types(&edited), [("Ready", "True")]);
    }

    #[test]
    fn each_gap_begins_the_day_anew() {
        let first = with_gap(&[], "lost", at(1));
        let second = with_gap(&first, "lost again", at(DAY));
        assert_eq!(second[1].last_transition_time, Time(at(DAY)));
        assert_eq!(second[1].message, "lost again");
        let next_day = conditions(&second, Some(1), &readiness(Ready::Yes, "Reading"), at(DAY + 1));
        assert_eq!(next_day, second);
    }
}
