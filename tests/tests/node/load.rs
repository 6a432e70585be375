//! Changes of items at a steady rate, and the messages about them that clients received.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use stream_notifier_tests::websocket::{Received, WebSocketClient};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::aws::Aws;
use crate::release::WAIT_TIMEOUT;

/// The time between two changes: 40 changes a second.
const CHANGE_INTERVAL: Duration = Duration::from_millis(25);

/// A running load.
pub struct Load {
    stop: CancellationToken,
    value: watch::Receiver<usize>,
    changes: JoinHandle<Result<usize>>,
}

impl Load {
    /// Sets the items of these clients to `first` and to the numbers that follow, one item after the
    /// other, until it is stopped.
    pub fn start(aws: Arc<Aws>, clients: usize, first: usize) -> Self {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let (written, value) = watch::channel(first);
        let changes = tokio::spawn(async move {
            let mut ticks = interval(CHANGE_INTERVAL);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut value = first;
            loop {
                ticks.tick().await;
                aws.set(&key(value % clients), value).await?;
                written.send_replace(value);
                if stopped.is_cancelled() {
                    return Ok(value);
                }
                value += 1;
            }
        });
        Self { stop, value, changes }
    }

    /// Waits for this number of further changes.
    pub async fn wait_for_changes(&self, count: usize) -> Result<()> {
        let mut value = self.value.clone();
        let last = *value.borrow() + count;
        value.wait_for(|value| *value >= last).await.context("the load has ended")?;
        Ok(())
    }

    /// Stops the load. Returns the last value.
    pub async fn stop(self) -> Result<usize> {
        self.stop.cancel();
        self.changes.await?
    }
}

/// The key of the item whose changes a client receives.
pub fn key(client: usize) -> String {
    format!("client-{client}")
}

/// What the clients received of a load.
#[derive(Clone, Copy, Debug)]
pub struct Delivery {
    pub longest_silence: Duration,
    pub repeats: usize,
}

/// Waits until every client has received its last value. Fails unless each received all of its values, in
/// order. A value can repeat, and so can earlier ones that the client did not wait for.
pub async fn check_delivery(
    clients: &[WebSocketClient],
    values: RangeInclusive<usize>,
) -> Result<Delivery> {
    let mut arrivals = Vec::new();
    for (index, client) in clients.iter().enumerate() {
        let expected: Vec<usize> =
            values.clone().filter(|value| value % clients.len() == index).collect();
        let received = check_client(client, &expected).await.with_context(|| key(index))?;
        arrivals.extend(received.iter().map(|message| message.at));
    }
    arrivals.sort();
    let silences = arrivals.windows(2).map(|pair| pair[1] - pair[0]);
    Ok(Delivery {
        longest_silence: silences.max().unwrap_or_default(),
        repeats: arrivals.len() - values.count(),
    })
}

async fn check_client(client: &WebSocketClient, expected: &[usize]) -> Result<Vec<Received>> {
    let last = *expected.last().context("the load had no change for this client")?;
    let has_last = |received: &[Received]| {
        received.iter().any(|message| value(message).is_ok_and(|value| value == last))
    };
    let received = client.wait_until(WAIT_TIMEOUT, &format!("value {last}"), has_last).await?;
    let mut remaining = expected.iter().peekable();
    for message in &received {
        let value = value(message)?;
        match remaining.peek() {
            Some(next) if value > **next => bail!("{value} arrived before {next}"),
            Some(next) if value == **next => drop(remaining.next()),
            _ => {}
        }
    }
    ensure!(remaining.peek().is_none(), "values are missing: {:?}", remaining.collect::<Vec<_>>());
    Ok(received)
}

fn value(message: &Received) -> Result<usize> {
    let message = message.json()?;
    message["value"].as_str().context("no value")?.parse().context("not a number")
}
