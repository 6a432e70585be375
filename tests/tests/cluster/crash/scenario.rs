//! A scenario with one client that watches ten items. Each update has its own value, and operators start
//! and end meanwhile.

use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use stream_notifier_tests::websocket::WebSocketClient;

use super::history::{self, OperatorRun};
use crate::fixture::{Checkpoint, RunningOperator, TestEnv, WAIT_TIMEOUT};

const NAME: &str = "crash";
const ITEMS: u32 = 10;

pub struct Scenario {
    pub env: TestEnv,
    client: WebSocketClient,
    written: AtomicU32,
    /// The operators that ended.
    runs: Vec<OperatorRun>,
    epoch: u64,
}

impl Scenario {
    pub async fn start() -> Result<Self> {
        let env = TestEnv::new().await?;
        let client = env.api.connect("SK=hoge").await?;
        let mut manifest = env.manifest(NAME);
        manifest["spec"]["message"]["number"] = json!("sequenceNumber");
        // The first record must match, so that the position cannot pass it while its post is held.
        manifest["spec"]["events"] = json!(["Insert", "Modify"]);
        env.apply_spec(&manifest).await?;
        Ok(Self { env, client, written: AtomicU32::new(0), runs: Vec::new(), epoch: 0 })
    }

    /// Updates items `updates` times.
    pub async fn update_items(&self, updates: u32) -> Result<()> {
        for _ in 0..updates {
            let value = self.written.fetch_add(1, Ordering::Relaxed) + 1;
            let pk = format!("target_pk#{}", value % ITEMS);
            self.env.update_item(&pk, "target_sk#hoge", value).await?;
        }
        Ok(())
    }

    /// Starts an operator and checks that it continues after the checkpoint.
    pub async fn start_operator(&self) -> Result<RunningOperator> {
        let before = self.env.proxy.requests().len();
        let operator = self.env.start_operator()?;
        let requests = self
            .env
            .proxy
            .wait_until(WAIT_TIMEOUT, "GetRecords", |all| {
                all[before..].iter().any(|request| request.is("GetRecords"))
            })
            .await?;
        let mut iterators = Vec::new();
        for request in requests[before..].iter().filter(|request| request.is("GetShardIterator")) {
            let mut body = request.json()?;
            iterators.push((body["ShardIteratorType"].take(), body["SequenceNumber"].take()));
        }
        let expected = match &*self.stored_position()? {
            // The emulator does not support the first type, so the operator falls back to the second.
            "latest" => {
                vec![(json!("AT_TIMESTAMP"), Value::Null), (json!("TRIM_HORIZON"), Value::Null)]
            }
            number => vec![(json!("AFTER_SEQUENCE_NUMBER"), json!(number))],
        };
        ensure!(iterators == expected, "{iterators:?} instead of {expected:?}");
        Ok(operator)
    }

    /// Waits until the client has received `messages` more messages.
    pub async fn wait_more_messages(&self, messages: usize) -> Result<()> {
        let expected = self.client.messages().len() + messages;
        let what = format!("{messages} messages more");
        let delivered =
            self.client.wait_until(WAIT_TIMEOUT, &what, |received| received.len() >= expected);
        delivered.await.map(drop)
    }

    /// Waits until the client has the message about the last update.
    pub async fn wait_last_message(&self) -> Result<()> {
        let last = json!(self.written.load(Ordering::Relaxed).to_string());
        let delivered = self.client.wait_until(WAIT_TIMEOUT, "the last update", |received| {
            let newest = received.last().and_then(|newest| newest.json().ok());
            newest.is_some_and(|newest| newest["value"] == last)
        });
        delivered.await.map(drop)
    }

    /// The sequence number in the last message of the client.
    pub fn last_delivered(&self) -> Result<String> {
        let messages = self.client.messages();
        let last = messages.last().context("the client has no message")?.json()?;
        Ok(last["number"].as_str().context("no number")?.to_owned())
    }

    pub async fn wait_checkpoint(
        &self,
        what: &str,
        condition: impl Fn(&Checkpoint) -> bool,
    ) -> Result<Checkpoint> {
        let is_new = |now: &Checkpoint| now.epoch > self.epoch && condition(now);
        self.env.wait_checkpoint(NAME, what, is_new).await
    }

    /// Records that the operator was killed. Returns its checkpoint.
    pub async fn record_kill(&mut self) -> Result<Checkpoint> {
        self.record_end(true).await
    }

    /// Records that the operator stopped. Returns its checkpoint.
    pub async fn record_stop(&mut self) -> Result<Checkpoint> {
        self.record_end(false).await
    }

    async fn record_end(&mut self, was_killed: bool) -> Result<Checkpoint> {
        let checkpoint = self.env.checkpoint(NAME).await?;
        ensure!(checkpoint.epoch > self.epoch, "{checkpoint:?} was not claimed");
        self.epoch = checkpoint.epoch;
        self.runs.push(OperatorRun {
            was_killed,
            position: checkpoint.position()?.to_owned(),
            messages: self.client.messages().len(),
        });
        Ok(checkpoint)
    }

    /// The position in the checkpoint of the last operator.
    pub fn stored_position(&self) -> Result<String> {
        let last = self.runs.last();
        Ok(last.map_or("latest", |run| &run.position).to_owned())
    }

    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Checks that the items were updated `updates` times, and that the client received all of it.
    pub async fn verify(self, updates: usize) -> Result<()> {
        let records = history::records(&self.env).await?;
        ensure!(records.len() == updates, "{} updates were made", records.len());
        let received = self.client.messages();
        let messages = received.iter().map(|message| message.json());
        history::verify(&records, &self.runs, &messages.collect::<Result<Vec<_>>>()?)?;
        self.env.passed();
        Ok(())
    }
}
