//! Conditions as kstatus defines them: `Ready` always there, `Reconciling` and `Stalled` only while
//! they are true. A condition's time moves only when its status does, so that an unchanged state
//! compares equal and is not written again.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// What a notifier's conditions are made from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// `True`, `False` or `Unknown`.
    pub ready: Ready,
    /// A constant CamelCase word.
    pub reason: &'static str,
    /// What is the case and what to do, without counters or times.
    pub message: String,
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
/// is the same.
pub fn conditions(
    before: &[Condition],
    generation: Option<i64>,
    readiness: &Readiness,
    now: Timestamp,
) -> Vec<Condition> {
    let condition = |type_: &str, status: &str| {
        let since = before
            .iter()
            .find(|known| known.type_ == type_ && known.status == status)
            .map_or(Time(now), |known| known.last_transition_time.clone());
        Condition {
            type_: type_.to_owned(),
            status: status.to_owned(),
            reason: readiness.reason.to_owned(),
            message: readiness.message.clone(),
            observed_generation: generation,
            last_transition_time: since,
        }
    };
    match readiness.ready {
        Ready::Yes => vec![condition("Ready", "True")],
        Ready::Starting => vec![condition("Ready", "Unknown"), condition("Reconciling", "True")],
        Ready::Held => vec![condition("Ready", "False"), condition("Reconciling", "True")],
        Ready::Stalled => vec![condition("Ready", "False"), condition("Stalled", "True")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readiness(ready: Ready, reason: &'static str) -> Readiness {
        Readiness { ready, reason, message: "because".to_owned() }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn types(conditions: &[Condition]) -> Vec<(&str, &str)> {
        conditions.iter().map(|c| (c.type_.as_str(), c.status.as_str())).collect()
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
}
