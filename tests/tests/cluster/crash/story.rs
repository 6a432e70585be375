//! Changes with a value of their own each, made to a few items whose watchers are one client, while
//! operators come and go.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use stream_notifier_tests::websocket::WebSocketClient;

use super::walk::{self, Life};
use crate::fixture::{Checkpoint, LIMIT, Running, World};

const NAME: &str = "crash";
const ITEMS: u32 = 10;

pub struct Story {
    pub world: World,
    client: WebSocketClient,
    written: AtomicU32,
    /// The operators that have ended.
    lives: Vec<Life>,
    epoch: u64,
}

impl Story {
    pub async fn begin() -> Result<Self> {
        let world = World::new().await?;
        let client = world.api.connect("SK=hoge").await?;
        let mut manifest = world.manifest(NAME);
        manifest["spec"]["message"]["number"] = json!("sequenceNumber");
        // So that the first record of all matches: while it is held, no position can move.
        manifest["spec"]["events"] = json!(["Insert", "Modify"]);
        world.submit(&manifest).await?;
        Ok(Self { world, client, written: AtomicU32::new(0), lives: Vec::new(), epoch: 0 })
    }

    /// Makes so many changes more.
    pub async fn write(&self, changes: u32) -> Result<()> {
        for _ in 0..changes {
            let change = self.written.fetch_add(1, Ordering::Relaxed) + 1;
            let pk = format!("target_pk#{}", change % ITEMS);
            self.world.update(&pk, "target_sk#hoge", change).await?;
        }
        Ok(())
    }

    /// Starts an operator, and sees that it reads on from where the checkpoint ends.
    pub async fn start(&self) -> Result<Running> {
        let before = self.world.proxy.requests().len();
        let operator = self.world.operator()?;
        let requests = self
            .world
            .proxy
            .wait_until(LIMIT, "GetRecords", |all| {
                all[before..].iter().any(|request| request.is("GetRecords"))
            })
            .await?;
        let mut asked = Vec::new();
        for request in requests[before..].iter().filter(|request| request.is("GetShardIterator")) {
            let mut body = request.json()?;
            asked.push((body["ShardIteratorType"].take(), body["SequenceNumber"].take()));
        }
        let expected = match &*self.left()? {
            // The emulator does not know the first, and is asked for more than is wanted.
            "latest" => {
                vec![(json!("AT_TIMESTAMP"), Value::Null), (json!("TRIM_HORIZON"), Value::Null)]
            }
            number => vec![(json!("AFTER_SEQUENCE_NUMBER"), json!(number))],
        };
        ensure!(asked == expected, "{asked:?} instead of {expected:?}");
        Ok(operator)
    }

    /// Waits until the client has so many messages more than now.
    pub async fn told_more(&self, messages: usize) -> Result<()> {
        let wanted = self.client.messages().len() + messages;
        let what = format!("{messages} messages more");
        let told = self.client.wait_until(LIMIT, &what, |received| received.len() >= wanted);
        told.await.map(drop)
    }

    /// Waits until the client is told of the change that was made last.
    pub async fn told_last(&self) -> Result<()> {
        let last = json!(self.written.load(Ordering::Relaxed).to_string());
        let told = self.client.wait_until(LIMIT, "the last change", |received| {
            let newest = received.last().and_then(|newest| newest.json().ok());
            newest.is_some_and(|newest| newest["value"] == last)
        });
        told.await.map(drop)
    }

    /// The number of the change that the client was told of last.
    pub fn last_number(&self) -> Result<String> {
        let messages = self.client.messages();
        let last = messages.last().context("no message")?.json()?;
        Ok(last["number"].as_str().context("no number")?.to_owned())
    }

    pub async fn checkpointed(
        &self,
        what: &str,
        condition: impl Fn(&Checkpoint) -> bool,
    ) -> Result<Checkpoint> {
        let is_new = |now: &Checkpoint| now.epoch > self.epoch && condition(now);
        self.world.checkpointed(NAME, what, is_new).await
    }

    /// The operator was killed: what it left behind.
    pub async fn ended(&mut self) -> Result<Checkpoint> {
        self.end(true).await
    }

    /// The operator has stopped: what it left behind.
    pub async fn stopped(&mut self) -> Result<Checkpoint> {
        self.end(false).await
    }

    async fn end(&mut self, killed: bool) -> Result<Checkpoint> {
        let checkpoint = self.world.checkpoint(NAME).await?;
        ensure!(checkpoint.epoch > self.epoch, "{checkpoint:?} was not claimed");
        self.epoch = checkpoint.epoch;
        self.lives.push(Life {
            killed,
            left: checkpoint.after()?.to_owned(),
            told: self.client.messages().len(),
        });
        Ok(checkpoint)
    }

    /// The position that the last operator left behind.
    pub fn left(&self) -> Result<String> {
        let last = self.lives.last();
        Ok(last.map_or("latest", |life| &life.left).to_owned())
    }

    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The end of the story: so many changes were made, and the client was told of all of them.
    pub async fn verify(self, changes: usize) -> Result<()> {
        let stream = walk::changes(&self.world).await?;
        ensure!(stream.len() == changes, "{} changes were made", stream.len());
        let received = self.client.messages();
        let messages = received.iter().map(|message| message.json());
        walk::verify(&stream, &self.lives, &messages.collect::<Result<Vec<_>>>()?)?;
        self.world.passed();
        Ok(())
    }
}
