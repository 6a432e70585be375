//! What the readers of all shards of a notifier share, and what each of them has for itself.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::calls::Calls;
use super::evaluator::Turns;
use super::pace::Beat;
use super::progress::Progress;
use super::retention::OnGap;
use super::sweep::{Sweep, Sweeper};
use super::trouble;
use crate::backoff::Random;
use crate::clock::ServiceClock;
use crate::delivery::{Bounds, DeadLetters, Deliverer, Lookup};
use crate::notifier::Notifier;
use crate::record::{KeyNames, SequenceNumber, ShardId, StreamLabel, UnixSeconds};
use crate::stream::{Follow, ShardReader, Streams};
use crate::telemetry::{Health, NotifierTelemetry};

/// What all shards of a notifier share.
#[derive(Debug)]
pub struct Shared<C, G> {
    pub notifier: Arc<Notifier>,
    /// Its turns at evaluating expressions.
    pub turns: Turns,
    pub not_before: Option<UnixSeconds>,
    pub lookup: Arc<Lookup<C>>,
    pub deliverer: Arc<Deliverer<C, G>>,
    pub dead_letters: Option<Arc<DeadLetters>>,
    pub bounds: Bounds,
    pub pages: Semaphore,
    pub memory: Arc<Semaphore>,
    pub poll_interval: Duration,
    pub beat: Beat,
    pub table: String,
    /// What is read, as conditions name it.
    pub stream: String,
    pub follow: Follow,
    pub on_gap: OnGap,
    pub clock: Arc<ServiceClock>,
    pub sweeper: Sweeper,
    pub health: Arc<Health>,
    pub telemetry: NotifierTelemetry,
    pub random: Arc<Random>,
    pub stop: CancellationToken,
    /// Whether it was a gap that stopped everything.
    pub halted: AtomicBool,
}

impl<C, G> Shared<C, G> {
    /// Lists the shards for ever, for all who look at the sweeper.
    pub async fn sweep<S: Streams>(&self, streams: &Calls<S>) -> Infallible {
        let Self { follow, stream, health, telemetry, random, .. } = self;
        self.sweeper.run(Sweep { streams, follow, stream, health, telemetry, random }).await
    }

    /// Tells, now and then, of a record on which an expression failed, and counts each.
    pub fn invalid(&self, number: &SequenceNumber, keys: &KeyNames, field: &str, problem: &str) {
        if self.telemetry.invalid(number, keys, field, problem) {
            self.health.invalid(trouble::invalid(keys, field, problem));
        }
    }

    /// Tells that records of a shard, or of any, were lost before they were read, and for how many
    /// seconds; `true` if reading goes on.
    pub fn gap(
        &self,
        stream: &StreamLabel,
        shard: Option<&ShardId>,
        why: &'static str,
        lost: u64,
    ) -> bool {
        self.telemetry.gap(stream, shard, why, lost);
        self.health.gap(trouble::gap(&stream.arn(&self.table), self.on_gap));
        match self.on_gap {
            OnGap::Continue => true,
            OnGap::Stop => {
                self.halted.store(true, Ordering::Relaxed);
                self.stop.cancel();
                false
            }
        }
    }
}

/// One shard to read.
#[derive(Debug)]
pub struct Task<S> {
    /// Where reading stands.
    pub reader: ShardReader<S>,
    /// The key attributes of its stream's records.
    pub keys: KeyNames,
    /// What is settled.
    pub progress: Arc<Progress>,
}
