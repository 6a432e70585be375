//! Watches objects with kubectl and records every version, also those that polls would miss.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Deserializer, Value};

use crate::kubectl::Kubectl;
use crate::process::{Process, Spec};
use crate::scratch::Scratch;
use crate::wait::eventually;

/// An event of a watch.
#[derive(Clone, Debug)]
pub struct Event {
    /// `ADDED`, `MODIFIED` or `DELETED`.
    pub kind: String,
    pub object: Value,
}

impl Event {
    pub fn has_name(&self, name: &str) -> bool {
        self.object["metadata"]["name"] == name
    }
}

pub struct Watch {
    resource: String,
    process: Process,
    _scratch: Scratch,
}

impl Watch {
    /// Watches the objects of a resource, such as `configmaps`, in the default namespace of
    /// `kubectl`.
    pub fn start(kubectl: &Kubectl, resource: &str) -> Result<Self> {
        let scratch = Scratch::new("watch")?;
        let output = ["--output=json", "--output-watch-events"];
        let command = kubectl.command(&[&["get", resource, "--watch"], &output[..]].concat());
        let text = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
        let variables =
            command.get_envs().filter_map(|(name, value)| Some((text(name), text(value?))));
        let spec = Spec::new(command.get_program(), scratch.path().join("watch.log"))
            .arguments(command.get_args().map(text))
            .environment(variables)
            .quiet();
        Ok(Self {
            resource: resource.into(),
            process: Process::start("kubectl", spec)?,
            _scratch: scratch,
        })
    }

    /// All events so far, in order.
    pub fn events(&self) -> Result<Vec<Event>> {
        let log = self.process.log();
        let mut events = Vec::new();
        for event in Deserializer::from_str(&log).into_iter::<Value>() {
            match event {
                Ok(mut event) => events.push(Event {
                    kind: event["type"].as_str().unwrap_or_default().to_owned(),
                    object: event["object"].take(),
                }),
                // The last event is written while it is read.
                Err(error) if error.is_eof() => break,
                Err(error) => {
                    return Err(error).context(format!(
                        "a watch printed:
                {log}"
                    ));
                }
            }
        }
        Ok(events)
    }

    /// The latest version of an object; `None` if it is deleted.
    pub fn latest(&self, name: &str) -> Result<Option<Value>> {
        let last = self.events()?.into_iter().rfind(|event| event.has_name(name));
        Ok(last.filter(|event| event.kind != "DELETED").map(|event| event.object))
    }

    /// Waits until `find` returns a value for the latest version of an object.
    pub async fn wait_for<T>(
        &self,
        limit: Duration,
        name: &str,
        what: &str,
        find: impl Fn(&Value) -> Option<T>,
    ) -> Result<T> {
        let what = format!("{what} of {}/{name}", self.resource);
        eventually(limit, what, async || {
            self.process.ensure_running()?;
            let object = self.latest(name)?.context("the object does not exist")?;
            find(&object).with_context(|| format!("the object is {object:#}"))
        })
        .await
    }

    /// Waits until an object is deleted.
    pub async fn wait_deleted(&self, limit: Duration, name: &str) -> Result<()> {
        let what = format!("the deletion of {}/{name}", self.resource);
        eventually(limit, what, async || {
            self.process.ensure_running()?;
            let deleted = |event: &Event| event.has_name(name) && event.kind == "DELETED";
            ensure!(
                self.events()?.iter().any(deleted) && self.latest(name)?.is_none(),
                "the object exists"
            );
            Ok(())
        })
        .await
    }
}
