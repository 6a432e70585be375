//! `stream-notifier crd`.

use std::io::Write as _;

use kube::CustomResourceExt as _;

use super::CommandError;
use crate::api::StreamNotifier;

/// Prints the CustomResourceDefinition as YAML.
pub fn print() -> Result<(), CommandError> {
    let yaml = yaml()?;
    std::io::stdout().write_all(yaml.as_bytes())?;
    Ok(())
}

/// The CustomResourceDefinition as YAML, as `crds/streamnotifiers.yaml` has it.
pub fn yaml() -> Result<String, CommandError> {
    Ok(serde_saphyr::to_string(&StreamNotifier::crd())?)
}
