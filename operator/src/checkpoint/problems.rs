//! Conditions about the checkpoint.

use super::store::StoreError;
use super::writer::ClaimError;
use crate::telemetry::{Problem, Reason};

/// Problem of a checkpoint that cannot be claimed or stored.
pub fn checkpoint_problem(error: &ClaimError) -> Problem {
    let reason = match error {
        ClaimError::TakenOver { .. } => Reason::CheckpointTakenOver,
        ClaimError::Format(_) => Reason::CheckpointInvalid,
        ClaimError::Store(StoreError::NotOwned(_) | StoreError::NotYetDeleted(_)) => {
            Reason::CheckpointNotOwned
        }
        ClaimError::Store(StoreError::AccessDenied(_)) => Reason::CheckpointAccessDenied,
        ClaimError::Store(StoreError::TooLarge(_)) => Reason::CheckpointTooLarge,
        ClaimError::Store(StoreError::Conflict | StoreError::Unknown(_)) => {
            Reason::CheckpointUnavailable
        }
    };
    let message = match error {
        ClaimError::TakenOver { .. } => error.to_string(),
        ClaimError::Format(why) => format!("{error}: {why}"),
        ClaimError::Store(why) => format!("{error}: {why}"),
    };
    // Kubernetes deletes that ConfigMap soon, so no person needs to act.
    let is_temporary = matches!(error, ClaimError::Store(StoreError::NotYetDeleted(_)));
    Problem { reason, message, stalled: reason.is_stalled() && !is_temporary }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::health::assert_message_form;

    #[test]
    fn names_failure_cause_and_action_in_each_message() {
        let source = || Box::new(std::fmt::Error);
        let config_map = || "ConfigMap \"orders-checkpoint\"".to_owned();
        for error in [
            ClaimError::TakenOver { holder: "pod".to_owned() },
            ClaimError::Store(StoreError::Conflict),
            ClaimError::Store(StoreError::NotOwned(config_map())),
            ClaimError::Store(StoreError::NotYetDeleted(config_map())),
            ClaimError::Store(StoreError::AccessDenied(source())),
            ClaimError::Store(StoreError::TooLarge(source())),
            ClaimError::Store(StoreError::Unknown(source())),
        ] {
            assert_message_form(&checkpoint_problem(&error).message, &[]);
        }
    }
}
