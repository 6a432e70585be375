//! Watches the notifiers of several namespaces as one stream.
//!
//! The operator needs permissions only in these namespaces. A namespace whose watch fails does not delay
//! the others.

use std::collections::HashSet;
use std::sync::Arc;

use futures::stream::{self, BoxStream, Stream, StreamExt as _, select_all};
use kube::{Api, ResourceExt as _};
use kube_runtime::WatchStreamExt as _;
use kube_runtime::reflector::{self, ObjectRef, Store};
use kube_runtime::watcher::{self, Event, watcher};

use super::context::{Context, Guarded, Scope};
use crate::telemetry::watch_failed;

/// Watches the notifiers of these scopes. Returns their store, and a stream of every notifier that was
/// created, changed or deleted.
pub fn watch_notifiers(
    context: &Arc<Context>,
    scopes: Vec<Scope>,
) -> (Store<Guarded>, impl Stream<Item = watcher::Result<Guarded>> + use<>) {
    let (store, mut writer) = reflector::store();
    // The store is ready at once, because a list replaces the whole content of a store.
    writer.apply_watcher_event(&Event::Init);
    writer.apply_watcher_event(&Event::InitDone);
    let watches = scopes.into_iter().map(|scope| watch_scope(context.clone(), scope, &store));
    let changes = select_all(watches.collect::<Vec<_>>());
    // No filter by generation, which would hide deletions. A reconcile that changes nothing writes
    // nothing.
    let touched = changes.map(Ok).reflect(writer).touched_objects();
    (store, touched)
}

/// The changes in one scope.
fn watch_scope(
    context: Arc<Context>,
    scope: Scope,
    store: &Store<Guarded>,
) -> BoxStream<'static, Event<Guarded>> {
    let client = context.client.clone();
    let api = match &scope {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    let mut lists = Lists { scope: scope.clone(), store: store.clone(), listed: HashSet::new() };
    watcher(api, watcher::Config::default())
        .default_backoff()
        .flat_map(move |event| {
            let changes = match event {
                Ok(event) => {
                    if matches!(event, Event::InitDone) {
                        context.mark_listed(&scope);
                    }
                    lists.changes(event)
                }
                Err(error) => {
                    watch_failed(scope.as_deref(), &error);
                    vec![]
                }
            };
            stream::iter(changes)
        })
        .boxed()
}

/// Turns the lists of one watch into changes, because a store can hold the list of one watch only.
struct Lists {
    scope: Scope,
    store: Store<Guarded>,
    /// What the current list has so far.
    listed: HashSet<ObjectRef<Guarded>>,
}

impl Lists {
    /// The changes that an event stands for.
    fn changes(&mut self, event: Event<Guarded>) -> Vec<Event<Guarded>> {
        match event {
            Event::Init => {
                self.listed.clear();
                vec![]
            }
            Event::InitApply(object) => {
                self.listed.insert(ObjectRef::from_obj(&object));
                vec![Event::Apply(object)]
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                let is_deleted = |object: &Guarded| {
                    let is_in_scope = self.scope.is_none() || object.namespace() == self.scope;
                    is_in_scope && !listed.contains(&ObjectRef::from_obj(object))
                };
                let deleted = self.store.state_filter(is_deleted).into_iter();
                deleted.map(|object| Event::Delete((*object).clone())).collect()
            }
            change @ (Event::Apply(_) | Event::Delete(_)) => vec![change],
        }
    }
}

#[cfg(test)]
mod tests {
    use kube_runtime::reflector::store::Writer;
    use serde_json::json;

    use super::*;

    fn object(namespace: &str, name: &str) -> Guarded {
        let metadata = json!({"namespace": namespace, "name": name, "uid": name});
        let (version, kind) = ("streamnotifier.dev/v1alpha1", "StreamNotifier");
        let object = json!({"apiVersion": version, "kind": kind, "metadata": metadata});
        serde_json::from_value(object).unwrap()
    }

    /// Passes events of a watch to the store, and returns the changes as text.
    fn pass(
        lists: &mut Lists,
        writer: &mut Writer<Guarded>,
        events: Vec<Event<Guarded>>,
    ) -> Vec<String> {
        let mut texts = Vec::new();
        for change in events.into_iter().flat_map(|event| lists.changes(event)) {
            writer.apply_watcher_event(&change);
            texts.push(match change {
                Event::Apply(object) => format!("apply {}", object.name_any()),
                Event::Delete(object) => format!("delete {}", object.name_any()),
                other => format!("{other:?}"),
            });
        }
        texts
    }

    #[test]
    fn deletes_what_a_later_list_of_the_namespace_lacks() {
        let (store, mut writer) = reflector::store();
        let lists = |namespace: &str| Lists {
            scope: Some(namespace.to_owned()),
            store: store.clone(),
            listed: HashSet::new(),
        };
        let (mut first, mut second) = (lists("a"), lists("b"));
        let list = |namespace: &str, names: &[&str]| {
            let objects = names.iter().map(|name| Event::InitApply(object(namespace, name)));
            [Event::Init].into_iter().chain(objects).chain([Event::InitDone]).collect()
        };
        let changes = pass(&mut first, &mut writer, list("a", &["x", "y"]));
        assert_eq!(changes, ["apply x", "apply y"]);
        let changes = pass(&mut second, &mut writer, list("b", &["z"]));
        assert_eq!(changes, ["apply z"]);
        let changes = pass(&mut first, &mut writer, list("a", &["y"]));
        assert_eq!(changes, ["apply y", "delete x"]);
        let deleted = vec![Event::Delete(object("b", "z"))];
        assert_eq!(pass(&mut second, &mut writer, deleted), ["delete z"]);
        let names: Vec<String> = store.state().iter().map(|object| object.name_any()).collect();
        assert_eq!(names, ["y"]);
    }
}
