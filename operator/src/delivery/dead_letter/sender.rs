//! Sends the records of lost messages to a dead-letter queue before they are settled. A queue that
//! fails is told, and holds nothing up for ever: after a minute the loss is only counted.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use super::payload::{DeadLetterSource, DropCounts, build_payload};
use super::queue::{DeadLetterErrorKind, DeadLetterQueue};
use crate::api::Reason;
use crate::delivery::task_group::TaskGroup;
use crate::model::{Record, ShardId};
use crate::telemetry::{Component, Health, NotifierTelemetry, Problem};
use crate::timing::{Backoff, JitterRng};

/// What the queue takes at the most, in bytes.
///
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html>
const MAX_DEAD_LETTER_BYTES: usize = 1024 * 1024;

/// How long a letter is tried.
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);

/// Letters under way at once.
const MAX_IN_FLIGHT: usize = 32;

/// Sends letters.
#[derive(Debug)]
pub struct DeadLetterSender {
    queue: Arc<dyn DeadLetterQueue>,
    source: DeadLetterSource,
    tasks: TaskGroup,
    permits: Semaphore,
    /// Whoever has it tries a queue that has failed for long.
    probe: Semaphore,
    /// Since when every try has failed, and when the last one did.
    failing: Mutex<Option<(Instant, Instant)>>,
    health: Arc<Health>,
    telemetry: NotifierTelemetry,
    rng: Arc<JitterRng>,
}

/// What is sent if anything of a record is lost.
pub struct PendingDeadLetter {
    /// The record.
    pub record: Record,
    /// The shard it is from.
    pub shard: ShardId,
    /// Who sends it.
    pub sender: Arc<DeadLetterSender>,
}

impl PendingDeadLetter {
    /// Sends it, and calls `settle` once it is sent or given up.
    pub fn send(self, losses: DropCounts, settle: impl FnOnce() + Send + 'static) {
        let tasks = self.sender.tasks.clone();
        tasks.spawn(async move {
            self.sender.send(&self.shard, &self.record, &losses).await;
            settle();
        });
    }
}

impl DeadLetterSender {
    /// Sends to this queue.
    pub fn new(
        queue: Arc<dyn DeadLetterQueue>,
        source: DeadLetterSource,
        tasks: TaskGroup,
        health: Arc<Health>,
        telemetry: NotifierTelemetry,
        rng: Arc<JitterRng>,
    ) -> Self {
        let (permits, probe) = (Semaphore::new(MAX_IN_FLIGHT), Semaphore::new(1));
        let failing = Mutex::default();
        Self { queue, source, tasks, permits, probe, failing, health, telemetry, rng }
    }

    async fn send(&self, shard: &ShardId, change: &Record, losses: &DropCounts) {
        let whole = build_payload(&self.source, shard, change, losses, true);
        let mut is_whole = whole.len() <= MAX_DEAD_LETTER_BYTES;
        let short = || build_payload(&self.source, shard, change, losses, false);
        let mut text = if is_whole { whole } else { short() };
        let begun = Instant::now();
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        loop {
            // Never closed, so that this cannot fail.
            let place = self.permits.acquire().await;
            // One at a time finds out whether it is up again: a try may take long.
            let probe = self.is_down().then(|| self.probe.try_acquire());
            if matches!(probe, Some(Err(_))) {
                return self.telemetry.dead_letter_lost(&change.sequence_number);
            }
            let sent = self.queue.send(&text, &shard.name, &change.event_id).await;
            drop((place, probe));
            match sent {
                Ok(()) => {
                    *self.failing_since() = None;
                    self.health.clear(&Component::DeadLetters);
                    return self.telemetry.dead_letter(is_whole);
                }
                Err(error) if error.kind == DeadLetterErrorKind::TooLarge && is_whole => {
                    (text, is_whole) = (short(), false);
                    continue;
                }
                Err(error) => {
                    let since = self.record_failure();
                    self.telemetry.retry(&error);
                    self.report_problem(error.kind, since);
                    // Behind others that have failed for so long, one try is enough.
                    let is_late = begun.min(since).elapsed() >= RETRY_TIMEOUT;
                    if is_late || fault!(DeadLetterDroppedOnFirstFailure) {
                        return self.telemetry.dead_letter_lost(&change.sequence_number);
                    }
                }
            }
            sleep(backoff.next_wait(&self.rng)).await;
        }
    }

    /// Reports a problem of the queue, unless it may still end without help. A warning, because delivery
    /// continues.
    fn report_problem(&self, kind: DeadLetterErrorKind, since: Instant) {
        let (reason, cause) = match kind {
            DeadLetterErrorKind::NotFound => (
                Reason::DeadLetterQueueNotFound,
                "queue not found; create it, or correct delivery.deadLetterQueueArn",
            ),
            DeadLetterErrorKind::AccessDenied => (
                Reason::DeadLetterQueueAccessDenied,
                "access denied; grant sqs:SendMessage, and kms:GenerateDataKey and kms:Decrypt on the key of an encrypted queue",
            ),
            DeadLetterErrorKind::NoCredentials => {
                let problem =
                    Problem::no_credentials(&format!("sqs:SendMessage on {}", self.queue.arn()));
                return self.health.set_warning(Component::DeadLetters, problem);
            }
            DeadLetterErrorKind::TooLarge | DeadLetterErrorKind::Unavailable => {
                if since.elapsed() < RETRY_TIMEOUT / 2 {
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

    /// Notes a failure, and says since when there was nothing else. What was long ago is forgotten.
    fn record_failure(&self) -> Instant {
        let now = Instant::now();
        let mut failing = self.failing_since();
        let is_recent = |last: Instant| now.duration_since(last) < RETRY_TIMEOUT;
        let since = failing.filter(|(_, last)| is_recent(*last)).map_or(now, |(since, _)| since);
        *failing = Some((since, now));
        since
    }

    /// Whether it has failed for so long that nobody waits for it.
    fn is_down(&self) -> bool {
        self.failing_since().is_some_and(|(since, last)| {
            since.elapsed() >= RETRY_TIMEOUT && last.elapsed() < RETRY_TIMEOUT
        })
    }

    fn failing_since(&self) -> std::sync::MutexGuard<'_, Option<(Instant, Instant)>> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
