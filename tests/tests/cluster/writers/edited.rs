//! A checkpoint edited by hand while its notifier is suspended is where reading goes on; what does
//! not parse is named, and read again once it is mended.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{CHECKPOINT, NAME, last_number, ready, told, write};
use crate::fixture::{Checkpoint, LIMIT, World, condition};

#[tokio::test]
async fn an_edit_while_suspended_is_where_reading_goes_on() -> Result<()> {
    let (world, client) = ready().await?;
    let operator = world.operator()?;
    world.apply(&world.manifest(NAME)).await?;
    write(&world, 1..=5).await?;
    ensure!(told(&client, 5).await? == [1, 2, 3, 4, 5]);

    // Back: what comes after is told again.
    suspend(&world).await?;
    ensure!(world.checkpoint(NAME).await?.after()? == last_number(&world).await?);
    edit(&world, &world.number_of(3).await?).await?;
    resume(&world).await?;
    world.ready(NAME).await?;
    write(&world, [6]).await?;
    ensure!(told(&client, 6).await? == [1, 2, 3, 4, 5, 4, 5, 6]);

    // Forward: what comes before is not.
    suspend(&world).await?;
    write(&world, 7..=9).await?;
    edit(&world, &world.number_of(8).await?).await?;
    resume(&world).await?;
    ensure!(told(&client, 9).await?.ends_with(&[5, 6, 9]));

    // Words are words, and no other.
    suspend(&world).await?;
    let shard = edit(&world, "LATEST").await?;
    resume(&world).await?;
    let said = world.stalled(NAME, "CheckpointInvalid").await?;
    ensure!(said.contains(&format!("key {shard:?}")) && said.contains("latest"), "{said}");
    let stored = world.namespace.get(&["configmap", CHECKPOINT]).await?;
    ensure!(stored["data"][&shard].as_str().is_some_and(|it| it.contains("LATEST")), "{stored:#}");
    write(&world, [10]).await?;
    edit(&world, "start").await?;
    world.ready(NAME).await?;
    let all = told(&client, 10).await?;
    ensure!(all.ends_with(&[9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]), "{all:?}");

    // Of a whole checkpoint too, as somebody may keep one.
    suspend(&world).await?;
    let kept = world.namespace.run(&["get", "configmap", CHECKPOINT, "-o", "json"]).await?;
    let last = last_number(&world).await?;
    resume(&world).await?;
    world.ready(NAME).await?;
    write(&world, [11]).await?;
    told(&client, 11).await?;
    suspend(&world).await?;
    let mut kept: Value = serde_json::from_str(&kept)?;
    kept["metadata"].as_object_mut().map(|metadata| metadata.remove("resourceVersion"));
    world.namespace.run_with(&["replace", "-f", "-"], &kept.to_string()).await?;
    resume(&world).await?;
    let again = |now: &Checkpoint| now.after().is_ok_and(|now| now != last);
    world.checkpointed(NAME, "a later position", again).await?;
    let all = told(&client, 11).await?;
    ensure!(all.ends_with(&[10, 11, 11]), "{all:?}");

    // A number that the stream does not have any more is a gap, and not a fault.
    suspend(&world).await?;
    edit(&world, "1").await?;
    resume(&world).await?;
    let is_told = |notifier: &Value| condition(notifier, "DataGap").map(drop);
    world.notifiers.wait_for(LIMIT, NAME, "DataGap", is_told).await?;
    world.ready(NAME).await?;
    write(&world, [12]).await?;
    let all = told(&client, 12).await?;
    ensure!(all.ends_with(&[11, 11, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]), "{all:?}");
    operator.stop().await?;
    world.passed();
    Ok(())
}

async fn suspend(world: &World) -> Result<()> {
    world.patch(NAME, json!({"suspend": true})).await?;
    world.reason(NAME, "Suspended").await.map(drop)
}

async fn resume(world: &World) -> Result<()> {
    world.patch(NAME, json!({"suspend": false})).await
}

/// Gives the one shard of the checkpoint another position, as the README says: the shard's key.
async fn edit(world: &World, after: &str) -> Result<String> {
    let stored = world.namespace.get(&["configmap", CHECKPOINT]).await?;
    let data = stored["data"].as_object().context("no data")?;
    let shard = data.keys().find(|key| key.starts_with("shardId-")).context("no shard")?;
    let mut entry: Value = serde_json::from_str(data[shard].as_str().context("no entry")?)?;
    entry["after"] = json!(after);
    let patch = json!({"data": {shard: entry.to_string()}}).to_string();
    let patch = ["patch", "configmap", CHECKPOINT, "--type=merge", "--patch", &patch];
    world.namespace.run(&patch).await?;
    Ok(shard.clone())
}
