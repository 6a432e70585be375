//! Events about a notifier, as `kubectl describe` shows them. They say what has happened; what is the
//! case is in the conditions, so that nothing hangs on an Event that could not be stored.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kube::{Client, Resource as _};
use kube_runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::time::timeout;

use crate::api::{Reason, StreamNotifier};

const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Where Events are stored.
pub struct EventRecorder {
    client: Client,
    reporter: Reporter,
    /// The last text, and its recorder: one counts an Event up whatever its text says, so that
    /// another text needs another one.
    last: Mutex<Option<(String, Recorder)>>,
}

/// Why an Event was not stored.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// The API server said no.
    #[error("the API server did not take the Event")]
    Refused(#[source] kube::Error),
    /// It did not answer in time.
    #[error("the API server did not answer in time")]
    Timeout(#[source] tokio::time::error::Elapsed),
}

impl EventRecorder {
    /// Events that this process, `instance`, reports.
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

    /// Warns of what has happened to a notifier.
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
            .map_err(EventError::Refused)
    }
}
