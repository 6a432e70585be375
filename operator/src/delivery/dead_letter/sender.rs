//! Sends the records of lost messages to a dead-letter queue before they are settled. A queue that
//! fails is told, and holds nothing up for ever: after a minute the loss is only counted.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use super::payload::{From, Losses, letter};
use super::queue::{DeadLetterErrorKind, DeadLetterQueue};
use crate::api::Reason;
use crate::delivery::task_group::Tasks;
use crate::model::{Change, ShardId};
use crate::telemetry::{Health, NotifierTelemetry, Part, Trouble};
use crate::timing::{Backoff, Random};

/// What the queue takes at the most, in bytes.
///
/// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/quotas-messages.html>
const LONGEST: usize = 1024 * 1024;

/// How long a letter is tried.
const LONGEST_TRY: Duration = Duration::from_secs(60);

/// Letters under way at once.
const AT_ONCE: usize = 32;

/// Sends letters.
#[derive(Debug)]
pub struct DeadLetters {
    queue: Arc<dyn DeadLetterQueue>,
    from: From,
    tasks: Tasks,
    places: Semaphore,
    /// Whoever has it tries a queue that has failed for long.
    probe: Semaphore,
    /// Since when every try has failed, and when the last one did.
    failing: Mutex<Option<(Instant, Instant)>>,
    health: Arc<Health>,
    telemetry: NotifierTelemetry,
    random: Arc<Random>,
}

/// What is sent if anything of a record is lost.
pub struct Letter {
    /// The record.
    pub change: Change,
    /// The shard it is from.
    pub shard: ShardId,
    /// Who sends it.
    pub by: Arc<DeadLetters>,
}

impl Letter {
    /// Sends it, and calls `settle` once it is sent or given up.
    pub fn send(self, losses: Losses, settle: impl FnOnce() + Send + 'static) {
        let tasks = self.by.tasks.clone();
        tasks.spawn(async move {
            self.by.send(&self.shard, &self.change, &losses).await;
            settle();
        });
    }
}

impl DeadLetters {
    /// Sends to this queue.
    pub fn new(
        queue: Arc<dyn DeadLetterQueue>,
        from: From,
        tasks: Tasks,
        health: Arc<Health>,
        telemetry: NotifierTelemetry,
        random: Arc<Random>,
    ) -> Self {
        let (places, probe) = (Semaphore::new(AT_ONCE), Semaphore::new(1));
        let failing = Mutex::default();
        Self { queue, from, tasks, places, probe, failing, health, telemetry, random }
    }

    async fn send(&self, shard: &ShardId, change: &Change, losses: &Losses) {
        let whole = letter(&self.from, shard, change, losses, true);
        let mut is_whole = whole.len() <= LONGEST;
        let short = || letter(&self.from, shard, change, losses, false);
        let mut text = if is_whole { whole } else { short() };
        let begun = Instant::now();
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        loop {
            // Never closed, so that this cannot fail.
            let place = self.places.acquire().await;
            // One at a time finds out whether it is up again: a try may take long.
            let probe = self.is_down().then(|| self.probe.try_acquire());
            if matches!(probe, Some(Err(_))) {
                return self.telemetry.dead_letter_lost(&change.sequence_number);
            }
            let sent = self.queue.send(&text, &shard.name, &change.event_id).await;
            drop((place, probe));
            match sent {
                Ok(()) => {
                    *self.failing() = None;
                    self.health.well(&Part::DeadLetters);
                    return self.telemetry.dead_letter(is_whole);
                }
                Err(error) if error.kind == DeadLetterErrorKind::TooLarge && is_whole => {
                    (text, is_whole) = (short(), false);
                    continue;
                }
                Err(error) => {
                    let since = self.failed();
                    self.telemetry.retrying(&error);
                    self.tell(error.kind, since);
                    // Behind others that have failed for so long, one try is enough.
                    let is_late = begun.min(since).elapsed() >= LONGEST_TRY;
                    if is_late || fault!(DeadLetterDroppedOnFirstFailure) {
                        return self.telemetry.dead_letter_lost(&change.sequence_number);
                    }
                }
            }
            sleep(backoff.next(&self.random)).await;
        }
    }

    /// Reports a problem of the queue, unless it may still end without help. A warning, because delivery
    /// continues.
    fn tell(&self, kind: DeadLetterErrorKind, since: Instant) {
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
                    Trouble::no_credentials(&format!("sqs:SendMessage on {}", self.queue.arn()));
                return self.health.warned(Part::DeadLetters, problem);
            }
            DeadLetterErrorKind::TooLarge | DeadLetterErrorKind::Unavailable => {
                if since.elapsed() < LONGEST_TRY / 2 {
                    return;
                }
                (
                    Reason::DeadLetterQueueUnavailable,
                    "no usable response; check the queue and the AWS service status",
                )
            }
        };
        let message = format!("dead letters cannot be sent to {}: {cause}", self.queue.arn());
        self.health.warned(Part::DeadLetters, Trouble::new(reason, message));
    }

    /// Notes a failure, and says since when there was nothing else. What was long ago is forgotten.
    fn failed(&self) -> Instant {
        let now = Instant::now();
        let mut failing = self.failing();
        let is_recent = |last: Instant| now.duration_since(last) < LONGEST_TRY;
        let since = failing.filter(|(_, last)| is_recent(*last)).map_or(now, |(since, _)| since);
        *failing = Some((since, now));
        since
    }

    /// Whether it has failed for so long that nobody waits for it.
    fn is_down(&self) -> bool {
        self.failing().is_some_and(|(since, last)| {
            since.elapsed() >= LONGEST_TRY && last.elapsed() < LONGEST_TRY
        })
    }

    fn failing(&self) -> std::sync::MutexGuard<'_, Option<(Instant, Instant)>> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
