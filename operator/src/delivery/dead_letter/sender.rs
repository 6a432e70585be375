//! Sends records with dropped messages to a dead-letter queue before they settle.
//!
//! A failing queue never blocks a record indefinitely. After 60 s the dead letter is only counted.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use super::payload::{DeadLetterSource, DropCounts, build_payload};
use super::queue::{DeadLetterError, DeadLetterErrorKind, DeadLetterQueue};
use crate::delivery::task_group::TaskGroup;
use crate::model::{Record, ShardId};
use crate::telemetry::{Component, Health, NotifierTelemetry, Problem, Reason};
use crate::timing::{Backoff, JitterRng};

/// Maximum size of a dead letter, in bytes. SQS rejects longer ones.
///
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html>
const MAX_DEAD_LETTER_BYTES: usize = 1024 * 1024;

/// How long a failed dead letter is retried. The queue counts as down after the same time.
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);

/// Maximum number of dead letters in flight.
const MAX_IN_FLIGHT: usize = 32;

/// Sends the dead letters of one notifier.
#[derive(Debug)]
pub struct DeadLetterSender {
    queue: Arc<dyn DeadLetterQueue>,
    source: DeadLetterSource,
    tasks: TaskGroup,
    permits: Semaphore,
    /// Permit for the only dead letter in flight while the queue is down.
    probe: Semaphore,
    /// Times of the first and the last failure since the last success.
    failures: Mutex<Option<(Instant, Instant)>>,
    health: Arc<Health>,
    telemetry: NotifierTelemetry,
    rng: Arc<JitterRng>,
}

/// A dead letter to send if any message of its record is dropped.
pub struct PendingDeadLetter {
    pub record: Record,
    pub shard: ShardId,
    pub sender: Arc<DeadLetterSender>,
}

impl PendingDeadLetter {
    /// Sends the dead letter in a task, then calls `settle`, whether or not the send succeeded.
    pub fn send(self, drops: DropCounts, settle: impl FnOnce() + Send + 'static) {
        let tasks = self.sender.tasks.clone();
        tasks.spawn(async move {
            self.sender.send(&self.shard, &self.record, &drops).await;
            settle();
        });
    }
}

impl DeadLetterSender {
    pub fn new(
        queue: Arc<dyn DeadLetterQueue>,
        source: DeadLetterSource,
        tasks: TaskGroup,
        health: Arc<Health>,
        telemetry: NotifierTelemetry,
        rng: Arc<JitterRng>,
    ) -> Self {
        let (permits, probe) = (Semaphore::new(MAX_IN_FLIGHT), Semaphore::new(1));
        let failures = Mutex::default();
        Self { queue, source, tasks, permits, probe, failures, health, telemetry, rng }
    }

    async fn send(&self, shard: &ShardId, record: &Record, drops: &DropCounts) {
        let payload_of =
            |is_truncated| build_payload(&self.source, shard, record, drops, is_truncated);
        let mut payload = payload_of(false);
        let mut is_truncated = payload.len() > MAX_DEAD_LETTER_BYTES;
        if is_truncated {
            payload = payload_of(true);
        }
        let start = Instant::now();
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        loop {
            // The semaphore is never closed, so this cannot fail.
            let permit = self.permits.acquire().await;
            // While the queue is down, one dead letter probes it, because a request may take long.
            // All others are lost at once.
            let probe = self.is_down().then(|| self.probe.try_acquire());
            if matches!(probe, Some(Err(_))) {
                return self.telemetry.dead_letter_lost(&record.sequence_number);
            }
            let result = self.queue.send(&payload, &shard.name, &record.event_id).await;
            drop((permit, probe));
            match result {
                Ok(()) => {
                    *self.failures() = None;
                    self.health.clear(&Component::DeadLetters);
                    return self.telemetry.dead_letter(is_truncated);
                }
                Err(error) if error.kind == DeadLetterErrorKind::TooLarge && !is_truncated => {
                    (payload, is_truncated) = (payload_of(true), true);
                    continue;
                }
                Err(error) => {
                    let failing_since = self.record_failure();
                    self.telemetry.request_failed(&error);
                    self.report_problem(&error, failing_since);
                    // If the queue has failed for that long, one attempt is enough.
                    let is_late = start.min(failing_since).elapsed() >= RETRY_TIMEOUT;
                    if is_late || fault!(DeadLetterDroppedOnFirstFailure) {
                        return self.telemetry.dead_letter_lost(&record.sequence_number);
                    }
                }
            }
            sleep(backoff.next_wait(&self.rng)).await;
        }
    }

    /// Reports a problem of the queue, unless it may still pass by itself. It is only a warning,
    /// because delivery continues.
    fn report_problem(&self, error: &DeadLetterError, failing_since: Instant) {
        let (reason, cause) = match error.kind {
            DeadLetterErrorKind::NotFound => (
                Reason::DeadLetterQueueNotFound,
                "queue not found; create it, or correct delivery.deadLetterQueueArn",
            ),
            DeadLetterErrorKind::AccessDenied => (
                Reason::DeadLetterQueueAccessDenied,
                "access denied; grant sqs:SendMessage, and for an encrypted queue kms:GenerateDataKey and kms:Decrypt on its KMS key",
            ),
            DeadLetterErrorKind::NoCredentials => {
                let request = format!("sqs:SendMessage on {}", self.queue.arn());
                let problem = Problem::no_credentials(&request, error.source.as_ref());
                return self.health.set_warning(Component::DeadLetters, problem);
            }
            DeadLetterErrorKind::UntrustedCertificate => {
                let request = format!("sqs:SendMessage on {}", self.queue.arn());
                let problem = Problem::untrusted_certificate(&request);
                return self.health.set_warning(Component::DeadLetters, problem);
            }
            DeadLetterErrorKind::TooLarge | DeadLetterErrorKind::Unavailable => {
                if failing_since.elapsed() < RETRY_TIMEOUT / 2 {
                    return;
                }
                (
                    Reason::DeadLetterQueueUnavailable,
                    "no usable response; check the queue and the AWS service status",
                )
            }
        };
        let message = format!("dead letters cannot be sent to {}: {cause}", self.queue.arn());
        self.health.set_warning(Component::DeadLetters, Problem::new(reason, message));
    }

    /// Records a failure, and returns the time of the first one since the last success. A failure
    /// 60 s after the previous one starts again.
    fn record_failure(&self) -> Instant {
        let now = Instant::now();
        let mut failures = self.failures();
        let is_recent = |last: Instant| now.duration_since(last) < RETRY_TIMEOUT;
        let first = failures.filter(|(_, last)| is_recent(*last)).map_or(now, |(first, _)| first);
        *failures = Some((first, now));
        first
    }

    /// Whether the queue has failed for 60 s, and did so within the last 60 s.
    fn is_down(&self) -> bool {
        self.failures().is_some_and(|(first, last)| {
            first.elapsed() >= RETRY_TIMEOUT && last.elapsed() < RETRY_TIMEOUT
        })
    }

    fn failures(&self) -> std::sync::MutexGuard<'_, Option<(Instant, Instant)>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
