//! Stores the checkpoint in a ConfigMap that the notifier owns. Kubernetes deletes it with the notifier. A
//! ConfigMap with another owner is never changed, and every write names the version that it replaces.

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch as JsonPatch, PatchOperation, ReplaceOperation};
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;

use super::store::{CheckpointStore, ResourceVersion, StoreError, StoredCheckpoint};

/// The checkpoint of one notifier.
#[derive(Clone, Debug)]
pub struct ConfigMapStore {
    api: Api<ConfigMap>,
    name: String,
    /// Name and owner of a new ConfigMap.
    owned: ObjectMeta,
    uid: String,
}

impl ConfigMapStore {
    /// The checkpoint of the notifier that `owner` refers to: the ConfigMap `<name>-checkpoint`.
    pub fn new(client: Client, namespace: &str, owner: OwnerReference) -> Self {
        let name = format!("{}-checkpoint", owner.name);
        let uid = owner.uid.clone();
        let owned = ObjectMeta {
            name: Some(name.clone()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        };
        Self { api: Api::namespaced(client, namespace), name, owned, uid }
    }

    /// Rejects a ConfigMap with another owner.
    fn check_owner(&self, found: &ConfigMap) -> Result<(), StoreError> {
        let owner = found.owner_references().iter().find(|owner| owner.controller == Some(true));
        if owner.is_some_and(|owner| owner.uid == self.uid) {
            return Ok(());
        }
        let name = format!("ConfigMap {:?}", self.name);
        // The owner is a deleted notifier of the same name.
        let owned = self.owned.owner_references.iter().flatten().next();
        let is_earlier = owner.zip(owned).is_some_and(|(owner, owned)| {
            (&owner.kind, &owner.name) == (&owned.kind, &owned.name)
                && owner.api_version == owned.api_version
        });
        Err(if is_earlier { StoreError::NotYetDeleted(name) } else { StoreError::NotOwned(name) })
    }
}

impl CheckpointStore for ConfigMapStore {
    fn load(&self) -> BoxFuture<'_, Result<Option<StoredCheckpoint>, StoreError>> {
        Box::pin(async move {
            let Some(found) = self.api.get_opt(&self.name).await.map_err(failed)? else {
                return Ok(None);
            };
            self.check_owner(&found)?;
            let version = ResourceVersion(found.resource_version().unwrap_or_default());
            Ok(Some(StoredCheckpoint { data: found.data.unwrap_or_default(), version }))
        })
    }

    fn save<'a>(
        &'a self,
        data: &'a BTreeMap<String, String>,
        expected: Option<&'a ResourceVersion>,
    ) -> BoxFuture<'a, Result<ResourceVersion, StoreError>> {
        Box::pin(async move {
            let written = match expected {
                None => {
                    let made = ConfigMap {
                        metadata: self.owned.clone(),
                        data: Some(data.clone()),
                        ..ConfigMap::default()
                    };
                    self.api.create(&PostParams::default(), &made).await
                }
                Some(ResourceVersion(version)) => {
                    let patch = Patch::<()>::Json(replacement(data, version));
                    self.api.patch(&self.name, &PatchParams::default(), &patch).await
                }
            };
            Ok(ResourceVersion(written.map_err(failed)?.resource_version().unwrap_or_default()))
        })
    }
}

/// Replaces the whole data, and keeps labels and annotations. The server responds with 409 if the
/// object no longer has this version.
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
            // The ConfigMap was created, changed or deleted since it was loaded.
            404 | 409 => StoreError::Conflict,
            401 | 403 => StoreError::AccessDenied(error.into()),
            _ if is_too_large(status.code, &status.message) => StoreError::TooLarge(error.into()),
            _ => StoreError::Unknown(error.into()),
        },
        _ => StoreError::Unknown(error.into()),
    }
}

/// Whether the ConfigMap is too large: its values can have 1 MiB, and the whole object 1.5 MiB. For the
/// latter, etcd's error has a message but no code.
fn is_too_large(code: u16, message: &str) -> bool {
    match code {
        413 => true,
        422 => message.contains("Too long"),
        500 => message.contains("request is too large"),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use kube::Config;

    use super::*;

    fn store(uid: &str) -> ConfigMapStore {
        let owner = OwnerReference {
            api_version: "streamnotifier.dev/v1alpha1".to_owned(),
            kind: "StreamNotifier".to_owned(),
            name: "orders".to_owned(),
            uid: uid.to_owned(),
            controller: Some(true),
            block_owner_deletion: None,
        };
        // No server listens there.
        let client = Client::try_from(Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
        ConfigMapStore::new(client, "dev", owner)
    }

    #[tokio::test]
    async fn accepts_only_config_maps_of_its_own_owner() {
        let store = store("now");
        let checked = |owner_references| {
            let metadata = ObjectMeta { owner_references, ..store.owned.clone() };
            store.check_owner(&ConfigMap { metadata, ..ConfigMap::default() })
        };
        assert!(checked(store.owned.owner_references.clone()).is_ok());
        let earlier = self::store("before").owned.owner_references;
        assert!(matches!(checked(earlier.clone()), Err(StoreError::NotYetDeleted(_))));
        let other = |change: fn(OwnerReference) -> OwnerReference| {
            earlier.clone().map(|owners| owners.into_iter().map(change).collect())
        };
        for foreign in [
            None,
            other(|owner| OwnerReference { controller: None, ..owner }),
            other(|owner| OwnerReference { name: "devices".to_owned(), ..owner }),
            other(|owner| OwnerReference { kind: "Deployment".to_owned(), ..owner }),
        ] {
            assert!(matches!(checked(foreign), Err(StoreError::NotOwned(_))));
        }
    }
}
