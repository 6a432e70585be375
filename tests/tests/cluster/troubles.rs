//! What goes wrong around the operator is told by name, loses nothing, and ends without a restart.

mod dead_letters;
mod denied;
mod gap;
mod lifecycle;
mod missing;
mod replaced;

use anyhow::{Result, ensure};
use stream_notifier_tests::websocket::{Received, WebSocketClient};

use crate::fixture::{LIMIT, Running, World};

const NAME: &str = "troubled";
const PK: &str = "target_pk#fuga";
const SK: &str = "target_sk#hoge";

/// A world with an item, one who watches it, and an operator.
async fn begin() -> Result<(World, WebSocketClient, Running)> {
    let world = World::new().await?;
    world.insert(PK, SK, 0).await?;
    let client = world.api.connect("SK=hoge").await?;
    let operator = world.operator()?;
    Ok((world, client, operator))
}

/// Changes the item once for each value.
async fn write(world: &World, values: impl IntoIterator<Item = u32>) -> Result<()> {
    for value in values {
        world.update(PK, SK, value).await?;
    }
    Ok(())
}

/// What a client was told, in its order.
fn values(received: &[Received]) -> Vec<u32> {
    let value = |message: &Received| message.json().ok()?["value"].as_str()?.parse().ok();
    received.iter().filter_map(value).collect()
}

/// Waits until the client was told of these values, each once and in this order.
async fn told(client: &WebSocketClient, wanted: &[u32]) -> Result<()> {
    let what = format!("{wanted:?}");
    let received =
        client.wait_until(LIMIT, &what, |received| received.len() >= wanted.len()).await?;
    let values = values(&received);
    ensure!(values == wanted, "{values:?} instead of {wanted:?}");
    Ok(())
}
