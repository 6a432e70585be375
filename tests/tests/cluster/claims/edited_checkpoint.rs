//! Edits of a checkpoint while its notifier is suspended: reading continues at the edited position. An
//! invalid position is reported until it is fixed.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{CHECKPOINT, NAME, last_number, start_env, update_items, wait_value};
use crate::fixture::{Checkpoint, TestEnv, WAIT_TIMEOUT, condition};

#[tokio::test]
async fn continues_at_the_edited_position() -> Result<()> {
    let (env, client) = start_env().await?;
    let operator = env.start_operator()?;
    env.apply_and_wait_ready(&env.manifest(NAME)).await?;
    update_items(&env, 1..=5).await?;
    ensure!(wait_value(&client, 5).await? == [1, 2, 3, 4, 5]);

    // An earlier position repeats the records after it.
    suspend(&env).await?;
    ensure!(env.checkpoint(NAME).await?.position()? == last_number(&env).await?);
    edit(&env, &env.sequence_number_of(3).await?).await?;
    resume(&env).await?;
    env.wait_ready(NAME).await?;
    update_items(&env, [6]).await?;
    ensure!(wait_value(&client, 6).await? == [1, 2, 3, 4, 5, 4, 5, 6]);

    // A later position skips the records before it.
    suspend(&env).await?;
    update_items(&env, 7..=9).await?;
    edit(&env, &env.sequence_number_of(8).await?).await?;
    resume(&env).await?;
    ensure!(wait_value(&client, 9).await?.ends_with(&[5, 6, 9]));

    // A keyword is case-sensitive.
    suspend(&env).await?;
    let shard = edit(&env, "LATEST").await?;
    resume(&env).await?;
    let message = env.wait_stalled(NAME, "CheckpointInvalid").await?;
    ensure!(message.contains(&format!("key {shard:?}")) && message.contains("latest"), "{message}");
    let stored = env.namespace.get(&["configmap", CHECKPOINT]).await?;
    ensure!(stored["data"][&shard].as_str().is_some_and(|it| it.contains("LATEST")), "{stored:#}");
    update_items(&env, [10]).await?;
    edit(&env, "trimHorizon").await?;
    env.wait_ready(NAME).await?;
    let all = wait_value(&client, 10).await?;
    ensure!(all.ends_with(&[9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]), "{all:?}");

    // A restored backup of the whole checkpoint.
    suspend(&env).await?;
    let backup = env.namespace.run(&["get", "configmap", CHECKPOINT, "-o", "json"]).await?;
    let last = last_number(&env).await?;
    resume(&env).await?;
    env.wait_ready(NAME).await?;
    update_items(&env, [11]).await?;
    wait_value(&client, 11).await?;
    suspend(&env).await?;
    let mut backup: Value = serde_json::from_str(&backup)?;
    backup["metadata"].as_object_mut().map(|metadata| metadata.remove("resourceVersion"));
    env.namespace.run_with(&["replace", "-f", "-"], &backup.to_string()).await?;
    resume(&env).await?;
    let is_later = |now: &Checkpoint| now.position().is_ok_and(|now| now != last);
    env.wait_checkpoint(NAME, "a later position", is_later).await?;
    let all = wait_value(&client, 11).await?;
    ensure!(all.ends_with(&[10, 11, 11]), "{all:?}");

    // A trimmed sequence number is a data gap, not an invalid checkpoint.
    suspend(&env).await?;
    edit(&env, "1").await?;
    resume(&env).await?;
    let has_gap = |notifier: &Value| condition(notifier, "DataGap").map(drop);
    env.notifiers.wait_for(WAIT_TIMEOUT, NAME, "DataGap", has_gap).await?;
    env.wait_ready(NAME).await?;
    update_items(&env, [12]).await?;
    let all = wait_value(&client, 12).await?;
    ensure!(all.ends_with(&[11, 11, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]), "{all:?}");
    operator.stop().await?;
    env.passed();
    Ok(())
}

async fn suspend(env: &TestEnv) -> Result<()> {
    env.patch(NAME, json!({"suspend": true})).await?;
    env.wait_ready_reason(NAME, "Suspended").await.map(drop)
}

async fn resume(env: &TestEnv) -> Result<()> {
    env.patch(NAME, json!({"suspend": false})).await
}

/// Edits the position of the only shard in the checkpoint. Returns the key of the shard.
async fn edit(env: &TestEnv, after: &str) -> Result<String> {
    let stored = env.namespace.get(&["configmap", CHECKPOINT]).await?;
    let data = stored["data"].as_object().context("no data")?;
    let shard = data.keys().find(|key| key.starts_with("shardId-")).context("no shard")?;
    let mut entry: Value = serde_json::from_str(data[shard].as_str().context("no entry")?)?;
    entry["after"] = json!(after);
    let patch = json!({"data": {shard: entry.to_string()}}).to_string();
    let patch = ["patch", "configmap", CHECKPOINT, "--type=merge", "--patch", &patch];
    env.namespace.run(&patch).await?;
    Ok(shard.clone())
}
