//! Manifests and temporary directories for the tests of this folder.

use serde_json::Value;

use crate::api::{StreamNotifier, StreamNotifierSpec};

/// Returns `examples/target-attribute.yaml`.
pub fn example_manifest() -> StreamNotifier {
    serde_saphyr::from_str(include_str!("../../../../examples/target-attribute.yaml")).unwrap()
}

/// Returns its spec after `change`.
pub fn spec_with(change: impl FnOnce(&mut Value)) -> StreamNotifierSpec {
    let mut spec = serde_json::to_value(example_manifest().spec).unwrap();
    change(&mut spec);
    serde_json::from_value(spec).unwrap()
}

/// Temporary directory, which is deleted on drop.
pub struct Scratch(std::path::PathBuf);

impl Scratch {
    pub fn create() -> Self {
        let name = format!("stream-notifier-{}-{:x}", std::process::id(), fastrand::u64(..));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &std::path::Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
