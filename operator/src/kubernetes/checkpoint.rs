//! The checkpoint as a ConfigMap that belongs to its notifier: deleting the notifier deletes it, and
//! one that belongs to anything else is never touched. Every write names the version it replaces.

use std::collections::BTreeMap;

use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch as JsonPatch, PatchOperation, ReplaceOperation};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde_json::json;

use crate::api::StreamNotifier;
use crate::checkpoint::{CheckpointStore, StoreError, Stored, Version};

/// The checkpoint of one notifier.
#[derive(Clone, Debug)]
pub struct ConfigMapStore {
    api: Api<ConfigMap>,
    name: String,
    /// What a new one is made with: its owner.
    owned: ObjectMeta,
    uid: String,
}

impl ConfigMapStore {
    /// The checkpoint of this notifier; `None` if the notifier has no name, namespace or uid, which
    /// an object that came from a server always has.
    pub fn new(client: Client, notifier: &StreamNotifier) -> Option<Self> {
        let name = format!("{}-checkpoint", notifier.metadata.name.as_deref()?);
        let uid = notifier.metadata.uid.clone()?;
        let owned = ObjectMeta {
            name: Some(name.clone()),
            owner_references: Some(vec![notifier.controller_owner_ref(&())?]),
            ..ObjectMeta::default()
        };
        let api = Api::namespaced(client, notifier.metadata.namespace.as_deref()?);
        Some(Self { api, name, owned, uid })
    }

    fn is_owned(&self, found: &ConfigMap) -> bool {
        let owners = found.owner_references();
        owners.iter().any(|owner| owner.controller == Some(true) && owner.uid == self.uid)
    }
}

impl CheckpointStore for ConfigMapStore {
    async fn load(&self) -> Result<Option<Stored>, StoreError> {
        let Some(found) = self.api.get_opt(&self.name).await.map_err(failed)? else {
            return Ok(None);
        };
        if !self.is_owned(&found) {
            return Err(StoreError::NotOwned(format!("the ConfigMap {:?}", self.name)));
        }
        let version = Version(found.resource_version().unwrap_or_default());
        Ok(Some(Stored { data: found.data.unwrap_or_default(), version }))
    }

    async fn save(
        &self,
        data: &BTreeMap<String, String>,
        expected: Option<&Version>,
    ) -> Result<Version, StoreError> {
        let written = match expected {
            None => {
                let made = ConfigMap {
                    metadata: self.owned.clone(),
                    data: Some(data.clone()),
                    ..ConfigMap::default()
                };
                self.api.create(&PostParams::default(), &made).await
            }
            Some(Version(version)) => {
                let patch = Patch::<()>::Json(replacement(data, version));
                self.api.patch(&self.name, &PatchParams::default(), &patch).await
            }
        };
        Ok(Version(written.map_err(failed)?.resource_version().unwrap_or_default()))
    }
}

/// Replaces the data as a whole and leaves labels and annotations alone. Naming the version makes
/// the server answer 409 if the object has changed since.
fn replacement(data: &BTreeMap<String, String>, version: &str) -> JsonPatch {
    JsonPatch(vec![
        PatchOperation::Replace(ReplaceOperation {
            path: PointerBuf::from_tokens(["metadata", "resourceVersion"]),
            value: json!(version),
        }),
        PatchOperation::Add(AddOperation {
            path: PointerBuf::from_tokens(["data"]),
            value: json!(data),
        }),
    ])
}

fn failed(error: kube::Error) -> StoreError {
    match &error {
        kube::Error::Api(status) => match status.code {
            // Created, changed or deleted meanwhile.
            404 | 409 => StoreError::Conflict,
            401 | 403 => StoreError::AccessDenied(error.into()),
            _ if is_too_large(status.code, &status.message) => StoreError::TooLarge(error.into()),
            _ => StoreError::Unknown(error.into()),
        },
        _ => StoreError::Unknown(error.into()),
    }
}

/// A ConfigMap's values may have a MiB, and all of it a MiB and a half; etcd, which judges the
/// latter, says so in words only.
fn is_too_large(code: u16, message: &str) -> bool {
    match code {
        413 => true,
        422 => message.contains("Too long"),
        500 => message.contains("request is too large"),
        _ => false,
    }
}
