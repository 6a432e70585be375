//! Publishes Kubernetes Events about notifiers, as `kubectl describe` shows them. The conditions have
//! the same information, so an Event that cannot be stored is only logged.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kube::{Client, Resource as _};
use kube_runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::time::timeout;

use crate::api::{Reason, StreamNotifier};

const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Publishes Events.
pub struct EventRecorder {
    client: Client,
    reporter: Reporter,
    /// The last note and its recorder. A recorder aggregates Events with different notes, so each
    /// note needs its own.
    last: Mutex<Option<(String, Recorder)>>,
}

/// An Event was not stored.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// The API server rejected it.
    #[error("the API server rejected the Event; check the operator's permissions")]
    Rejected(#[source] kube::Error),
    /// The API server did not respond within 10 s.
    #[error("the API server did not respond within 10 s; check the API server")]
    Timeout(#[source] tokio::time::error::Elapsed),
}

impl EventRecorder {
    /// A recorder whose Events name this process as `instance`.
    pub fn new(client: Client, instance: &str) -> Self {
        let controller = "stream-notifier".to_owned();
        let reporter = Reporter { controller, instance: Some(instance.to_owned()) };
        Self { client, reporter, last: Mutex::default() }
    }

    fn recorder(&self, note: &str) -> Recorder {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &*last {
            Some((before, recorder)) if before == note => recorder.clone(),
            _ => {
                let recorder = Recorder::new(self.client.clone(), self.reporter.clone());
                *last = Some((note.to_owned(), recorder.clone()));
                recorder
            }
        }
    }

    /// Publishes a warning about a notifier.
    pub async fn publish_warning(
        &self,
        notifier: &StreamNotifier,
        reason: Reason,
        note: &str,
    ) -> Result<(), EventError> {
        let event = Event {
            type_: EventType::Warning,
            reason: reason.as_str().to_owned(),
            note: Some(note.to_owned()),
            action: "Read".to_owned(),
            secondary: None,
        };
        let regarding = notifier.object_ref(&());
        let recorder = self.recorder(note);
        let published = recorder.publish(&event, &regarding);
        timeout(WRITE_TIMEOUT, published)
            .await
            .map_err(EventError::Timeout)?
            .map_err(EventError::Rejected)
    }
}
