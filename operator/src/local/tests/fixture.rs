//! Manifests for this folder's tests: the example that users start from, and changes of it.

use serde_json::Value;

use crate::api::{StreamNotifier, StreamNotifierSpec};

/// `examples/target-attribute.yaml`.
pub fn origin() -> StreamNotifier {
    serde_saphyr::from_str(include_str!("../../../../examples/target-attribute.yaml")).unwrap()
}

/// Its spec, changed.
pub fn spec_with(change: impl FnOnce(&mut Value)) -> StreamNotifierSpec {
    let mut spec = serde_json::to_value(origin().spec).unwrap();
    change(&mut spec);
    serde_json::from_value(spec).unwrap()
}

/// A directory that goes with the test.
pub struct Scratch(std::path::PathBuf);

impl Scratch {
    pub fn new() -> Self {
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
