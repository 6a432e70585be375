//! The checkpoint as a ConfigMap that belongs to its notifier: deleting the notifier deletes it, and
//! one that belongs to anything else is never touched. Every write names the version it replaces.

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use json_patch::jsonptr::PointerBuf;
use json_patch::{AddOperation, Patch as JsonPatch, PatchOperation, ReplaceOperation};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt as _};
use serde_json::json;

use super::store::{CheckpointStore, ResourceVersion, StoreError, StoredCheckpoint};
use crate::api::StreamNotifier;

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

    /// Refuses one that is not this notifier's.
    fn check_owner(&self, found: &ConfigMap) -> Result<(), StoreError> {
        let owner = found.owner_references().iter().find(|owner| owner.controller == Some(true));
        if owner.is_some_and(|owner| owner.uid == self.uid) {
            return Ok(());
        }
        let name = format!("ConfigMap {:?}", self.name);
        // Of the same name, and yet another: that one is no more.
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

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
    use kube::Config;

    use super::*;

    fn store(uid: &str) -> ConfigMapStore {
        let notifier = json!({
            "apiVersion": "streamnotifier.dev/v1alpha1",
            "kind": "StreamNotifier",
            "metadata": {"namespace": "dev", "name": "orders", "uid": uid},
            "spec": {
                "tableArn": "arn:aws:dynamodb:eu-west-1:123456789012:table/orders",
                "connections": {"tableName": "connections"},
                "webSocket": {"domain": "ws.example.com"},
            },
        });
        // Nothing listens there.
        let client = Client::try_from(Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
        ConfigMapStore::new(client, &serde_json::from_value(notifier).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn only_its_own_is_used_and_that_of_an_earlier_one_is_waited_for() {
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
