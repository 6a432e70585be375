//! Remembers what is settled: never ahead of delivery, written by one holder at a time.

use std::fmt;

use futures::future::BoxFuture;

/// Opaque to all but the store: what a stored checkpoint's next write must name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResourceVersion(pub String);

/// A checkpoint as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCheckpoint {
    /// Its content: key to text, as in the ConfigMap's `data`.
    pub data: std::collections::BTreeMap<String, String>,
    /// What the next write must name.
    pub version: ResourceVersion,
}

/// Where one notifier's checkpoint is kept.
pub trait CheckpointStore: fmt::Debug + Send + Sync + 'static {
    /// What is stored, if anything.
    fn load(&self) -> BoxFuture<'_, Result<Option<StoredCheckpoint>, StoreError>>;

    /// Replaces what is stored if it still has this version; with `None`, creates it if there is
    /// none.
    fn save<'a>(
        &'a self,
        data: &'a std::collections::BTreeMap<String, String>,
        expected: Option<&'a ResourceVersion>,
    ) -> BoxFuture<'a, Result<ResourceVersion, StoreError>>;
}

/// Why a checkpoint was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else wrote, created or deleted it meanwhile.
    #[error(
        "another writer changed it at the same time; no action is needed, the operator retries"
    )]
    Conflict,
    /// It, named here, belongs to something else.
    #[error("{0} is not owned by this notifier; delete it, or rename the notifier")]
    NotOwned(String),
    /// It, named here, is that of an earlier notifier of this name, which is deleted with it.
    #[error(
        "{0} is owned by a deleted notifier of this name; no action is needed, Kubernetes deletes it"
    )]
    NotYetDeleted(String),
    /// The identity lacks the right.
    #[error("access denied; grant get, create and patch on ConfigMaps to the operator")]
    AccessDenied(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It has more than the store holds.
    #[error(
        "too many shards for a ConfigMap; no action is needed, finished shards are removed within 24 hours"
    )]
    TooLarge(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No answer, or none that says whether it was written.
    #[error("no usable response; check the Kubernetes API server")]
    Unknown(#[source] Box<dyn std::error::Error + Send + Sync>),
}
