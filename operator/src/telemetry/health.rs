//! What is wrong with one notifier right now, part by part. A part that is in trouble says why, and
//! clears it when it works again.

use std::collections::BTreeMap;

use tokio::sync::watch;

use crate::record::ShardId;

/// The parts of a notifier that can be in trouble, causes before what they lead to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The worker as a whole.
    Worker,
    /// The checkpoint.
    Checkpoint,
    /// The stream's description.
    Stream,
    /// The connections table.
    Connections,
    /// The WebSocket API.
    Gateway,
    /// Rows that are kept although their connections seem gone.
    Rows,
    /// One shard.
    Shard(ShardId),
}

/// Why a part does not do its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// A constant CamelCase word for the condition.
    pub reason: &'static str,
    /// What is the case and what to do; no counters, times or item values.
    pub message: String,
    /// Whether nothing happens until the resource, or what it names, is changed.
    pub stalled: bool,
}

/// All that is known of a notifier's health.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Picture {
    /// What the worker is at.
    pub phase: Phase,
    /// What is wrong.
    pub troubles: BTreeMap<Part, Trouble>,
}

/// What a worker is at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Not every shard that was open at the start has answered yet.
    #[default]
    Starting,
    /// Every one has.
    Reading,
    /// It has ended, because another holder has the checkpoint.
    ClaimLost,
}

/// Where parts tell their troubles; watchers see each change.
#[derive(Debug)]
pub struct Health(watch::Sender<Picture>);

impl Health {
    /// The health of a notifier that is starting.
    pub fn new() -> (Self, watch::Receiver<Picture>) {
        let (sender, receiver) = watch::channel(Picture::default());
        (Self(sender), receiver)
    }

    /// The worker begins, or begins anew: what was known no longer counts.
    pub fn starting(&self) {
        self.0.send_if_modified(|picture| std::mem::take(picture) != Picture::default());
    }

    /// Every shard has answered.
    pub fn started(&self) {
        self.0.send_if_modified(|picture| {
            let is_news = picture.phase == Phase::Starting;
            if is_news {
                picture.phase = Phase::Reading;
            }
            is_news
        });
    }

    /// The worker has ended, and this is why. What its tasks still say no longer counts.
    pub fn claim_lost(&self, trouble: Trouble) {
        let troubles = BTreeMap::from([(Part::Worker, trouble)]);
        self.0.send_replace(Picture { phase: Phase::ClaimLost, troubles });
    }

    /// A part is in trouble.
    pub fn troubled(&self, part: Part, trouble: Trouble) {
        self.0.send_if_modified(|picture| {
            let is_news =
                picture.phase != Phase::ClaimLost && picture.troubles.get(&part) != Some(&trouble);
            if is_news {
                picture.troubles.insert(part, trouble);
            }
            is_news
        });
    }

    /// A part is well (again).
    pub fn well(&self, part: &Part) {
        self.0.send_if_modified(|picture| {
            picture.phase != Phase::ClaimLost && picture.troubles.remove(part).is_some()
        });
    }
}
