//! The checkpoint's store, whichever client implements it. A write names the version that it replaces, so
//! two writers cannot overwrite each other.

use std::collections::BTreeMap;
use std::fmt;

use futures::future::BoxFuture;

/// The version of a stored checkpoint, opaque to all code but the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceVersion(pub String);

/// A stored checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCheckpoint {
    /// The `data` of the ConfigMap.
    pub data: BTreeMap<String, String>,
    /// The version that the next write replaces.
    pub version: ResourceVersion,
}

/// The store of one notifier's checkpoint.
pub trait CheckpointStore: fmt::Debug + Send + Sync + 'static {
    /// Loads the checkpoint, if there is one.
    fn load(&self) -> BoxFuture<'_, Result<Option<StoredCheckpoint>, StoreError>>;

    /// Replaces the checkpoint if it still has the expected version, and returns the new version. With
    /// `None`, creates it if there is none.
    fn save<'a>(
        &'a self,
        data: &'a BTreeMap<String, String>,
        expected: Option<&'a ResourceVersion>,
    ) -> BoxFuture<'a, Result<ResourceVersion, StoreError>>;
}

/// The store failed to load or save a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The stored version is not the expected one.
    #[error(
        "another writer changed it at the same time; no action is needed, the operator retries"
    )]
    Conflict,
    /// The named ConfigMap has another owner.
    #[error("{0} is not owned by this notifier; delete it, or rename the notifier")]
    NotOwned(String),
    /// The named ConfigMap belongs to a deleted notifier of the same name. Kubernetes deletes it soon.
    #[error(
        "{0} is owned by a deleted notifier of this name; no action is needed, Kubernetes deletes it"
    )]
    NotYetDeleted(String),
    /// The operator lacks a permission on ConfigMaps.
    #[error("access denied; grant get, create and patch on ConfigMaps to the operator")]
    AccessDenied(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The checkpoint has more shards than the store can hold.
    #[error(
        "too many shards for a ConfigMap; no action is needed, finished shards are removed within 24 hours"
    )]
    TooLarge(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// There was no response, or none that says whether the write succeeded.
    #[error("no usable response; check the Kubernetes API server")]
    Unknown(#[source] Box<dyn std::error::Error + Send + Sync>),
}
