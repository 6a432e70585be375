//! Conditions: each problem around the operator is reported by name, loses no record, and clears without a
//! restart.

mod access_denied;
mod credentials;
mod data_gap;
mod dead_letters;
mod lifecycle;
mod not_found;
mod stream_replaced;

use anyhow::{Result, ensure};
use stream_notifier_tests::websocket::{Received, WebSocketClient};

use crate::fixture::{RunningOperator, TestEnv, WAIT_TIMEOUT};

const NAME: &str = "conditions";
const PK: &str = "target_pk#fuga";
const SK: &str = "target_sk#hoge";

/// An environment with an item, a client that watches it, and an operator.
async fn start_env() -> Result<(TestEnv, WebSocketClient, RunningOperator)> {
    let env = TestEnv::new().await?;
    env.insert_item(PK, SK, 0).await?;
    let client = env.api.connect("SK=hoge").await?;
    let operator = env.start_operator()?;
    Ok((env, client, operator))
}

/// Updates the item once for each value.
async fn update_items(env: &TestEnv, values: impl IntoIterator<Item = u32>) -> Result<()> {
    for value in values {
        env.update_item(PK, SK, value).await?;
    }
    Ok(())
}

/// The values that a client received, in order.
fn values(received: &[Received]) -> Vec<u32> {
    let value = |message: &Received| message.json().ok()?["value"].as_str()?.parse().ok();
    received.iter().filter_map(value).collect()
}

/// Waits until the client has received these values, each once and in this order.
async fn wait_values(client: &WebSocketClient, expected: &[u32]) -> Result<()> {
    let what = format!("{expected:?}");
    let received =
        client.wait_until(WAIT_TIMEOUT, &what, |received| received.len() >= expected.len()).await?;
    let values = values(&received);
    ensure!(values == expected, "{values:?} instead of {expected:?}");
    Ok(())
}
