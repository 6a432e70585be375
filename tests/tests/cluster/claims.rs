//! Claims of a checkpoint against other writers: a second operator, a user, another object of the same
//! name. No record is lost, and the operator never changes an object that it does not own.

mod edited_checkpoint;

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use axum::http::StatusCode;
use serde_json::{Value, json};
use stream_notifier_tests::websocket::{Received, WebSocketClient};

use crate::fixture::{Checkpoint, TestEnv, WAIT_TIMEOUT, is_later};

const NAME: &str = "claims";
const CHECKPOINT: &str = "claims-checkpoint";
const PK: &str = "target_pk#fuga";
const SK: &str = "target_sk#hoge";

async fn start_env() -> Result<(TestEnv, WebSocketClient)> {
    let env = TestEnv::new().await?;
    env.insert_item(PK, SK, 0).await?;
    let client = env.api.connect("SK=hoge").await?;
    Ok((env, client))
}

/// Updates the item once for each value.
async fn update_items(env: &TestEnv, values: impl IntoIterator<Item = u32>) -> Result<()> {
    for value in values {
        env.update_item(PK, SK, value).await?;
    }
    Ok(())
}

/// The values that the client received, in order.
fn values(received: &[Received]) -> Vec<u32> {
    let value = |message: &Received| message.json().ok()?["value"].as_str()?.parse().ok();
    received.iter().filter_map(value).collect()
}

/// Waits until the client has received a value. Returns all values so far.
async fn wait_value(client: &WebSocketClient, value: u32) -> Result<Vec<u32>> {
    let what = format!("the value {value}");
    let received = client
        .wait_until(WAIT_TIMEOUT, &what, |received| values(received).contains(&value))
        .await?;
    Ok(values(&received))
}

#[tokio::test]
async fn stops_the_operator_that_lost_its_claim() -> Result<()> {
    let (env, client) = start_env().await?;
    let first = env.start_operator_in_pod("first")?;
    env.apply_and_wait_ready(&env.manifest(NAME)).await?;
    update_items(&env, 1..=20).await?;
    let claimed = env.checkpoint(NAME).await?;
    ensure!(claimed.holder.starts_with("first-"), "{claimed:?}");

    let second = env.start_operator_in_pod("second")?;
    let reports_loss = |line: &str| line.contains("checkpoint claimed by another operator");
    let (written, reported) = tokio::join!(
        async {
            update_items(&env, 21..=60).await?;
            let taken = |now: &Checkpoint| now.epoch > claimed.epoch;
            let taken = env.wait_checkpoint(NAME, "a second claim", taken).await?;
            ensure!(taken.holder.starts_with("second-"), "{taken:?}");
            // The first operator notices the takeover when it writes its checkpoint.
            update_items(&env, 61..=100).await
        },
        first.wait_for_line(WAIT_TIMEOUT, "that it lost the checkpoint", reports_loss),
    );
    written?;
    let reported = reported?;
    ensure!(reported.contains("second-") && reported.contains(NAME), "{reported}");
    update_items(&env, 101..=120).await?;
    let all = wait_value(&client, 120).await?;

    // Two operators repeat values, but each delivers in order. A value therefore arrives for the first
    // time only after those before it.
    let mut seen = BTreeSet::new();
    let distinct: Vec<u32> = all.into_iter().filter(|value| seen.insert(*value)).collect();
    ensure!(distinct == (1..=120).collect::<Vec<_>>(), "{distinct:?}");

    let ready = first.readyz().await?;
    let line = format!("{}/{NAME}: CheckpointTakenOver", env.namespace.name());
    ensure!(
        ready.status == StatusCode::SERVICE_UNAVAILABLE && ready.text().trim() == line,
        "{}: {}",
        ready.status,
        ready.text()
    );
    ensure!(second.readyz().await?.status == StatusCode::OK);
    ensure!(!second.log().lines().any(reports_loss), "the second operator must keep its claim");
    env.wait_ready(NAME).await?;

    second.stop().await?;
    first.stop().await?;
    let stored = env.checkpoint(NAME).await?;
    ensure!(stored.holder.starts_with("second-"), "{stored:?}");
    ensure_no_regression(&env)?;
    env.passed();
    Ok(())
}

/// Fails if a later version of the checkpoint has a smaller epoch or an earlier position.
fn ensure_no_regression(env: &TestEnv) -> Result<()> {
    let history = env.checkpoint_history(NAME)?;
    for pair in history.windows(2) {
        let regresses = pair[0].shards.iter().any(|(shard, before)| {
            let now = pair[1].shards.get(shard);
            now.is_none_or(|now| now != before && !is_later(now, before))
        });
        ensure!(pair[1].epoch >= pair[0].epoch && !regresses, "{pair:?}");
    }
    let last = history.last().context("the watch must have a checkpoint")?;
    let positions: Vec<String> =
        history.iter().filter_map(|now| now.position().ok().map(str::to_owned)).collect();
    ensure!(history.len() > 2 && last.epoch == 2, "{positions:?}");
    Ok(())
}

#[tokio::test]
async fn keeps_a_label_that_a_user_set_on_the_checkpoint() -> Result<()> {
    let (env, client) = start_env().await?;
    let operator = env.start_operator()?;
    env.apply_and_wait_ready(&env.manifest(NAME)).await?;
    for value in 1..=3 {
        let owner = format!("owner=team-{value}");
        let label = ["label", "configmap", CHECKPOINT, "--overwrite", &owner];
        env.namespace.run(&label).await?;
        update_items(&env, [value]).await?;
        ensure!(wait_value(&client, value).await? == (1..=value).collect::<Vec<_>>());
        // Each write of the operator meets an unknown resource version.
        let number = last_number(&env).await?;
        let stored = |now: &Checkpoint| now.position().is_ok_and(|now| now == number);
        env.wait_checkpoint(NAME, "the last number", stored).await?;
    }
    let stored = env.namespace.get(&["configmap", CHECKPOINT]).await?;
    ensure!(stored["metadata"]["labels"]["owner"] == "team-3", "{stored:#}");
    ensure!(env.checkpoint(NAME).await?.epoch == 1, "{stored:#}");
    ensure!(operator.readyz().await?.status == StatusCode::OK);
    operator.stop().await?;
    env.passed();
    Ok(())
}

/// The sequence number of the stream's last record.
async fn last_number(env: &TestEnv) -> Result<String> {
    let records = env.ministack.records(&env.stream).await?;
    let last = records.last().context("no record")?;
    let number = last["dynamodb"]["SequenceNumber"].as_str();
    Ok(number.context("no number")?.to_owned())
}

#[tokio::test]
async fn loses_no_record_if_the_checkpoint_is_deleted() -> Result<()> {
    let (env, client) = start_env().await?;
    let operator = env.start_operator()?;
    env.apply_and_wait_ready(&env.manifest(NAME)).await?;
    update_items(&env, 1..=5).await?;
    wait_value(&client, 5).await?;
    let before = env.namespace.get(&["configmap", CHECKPOINT]).await?;
    env.namespace.run(&["delete", "configmap", CHECKPOINT]).await?;
    env.checkpoints.wait_deleted(WAIT_TIMEOUT, CHECKPOINT).await?;
    update_items(&env, 6..=10).await?;
    let number = last_number(&env).await?;
    let stored = |now: &Checkpoint| now.position().is_ok_and(|now| now == number);
    env.wait_checkpoint(NAME, "the last number", stored).await?;
    ensure!(wait_value(&client, 10).await? == (1..=10).collect::<Vec<_>>());
    let after = env.namespace.get(&["configmap", CHECKPOINT]).await?;
    let owner = |of: &Value| of["metadata"]["ownerReferences"].clone();
    ensure!(owner(&before) == owner(&after), "{after:#}");
    operator.stop().await?;

    // If it is deleted while no operator runs, its position is lost and reading starts at the latest
    // record.
    env.namespace.run(&["delete", "configmap", CHECKPOINT]).await?;
    env.checkpoints.wait_deleted(WAIT_TIMEOUT, CHECKPOINT).await?;
    let operator = env.start_operator()?;
    let is_new = |now: &Checkpoint| now.position().is_ok_and(|now| now == "latest");
    env.wait_checkpoint(NAME, "a new checkpoint", is_new).await?;
    update_items(&env, [11]).await?;
    let all = wait_value(&client, 11).await?;
    ensure!(all.ends_with(&[11]), "{all:?}");
    operator.stop().await?;
    env.passed();
    Ok(())
}

#[tokio::test]
async fn never_changes_a_config_map_that_it_does_not_own() -> Result<()> {
    let (env, client) = start_env().await?;
    let foreign = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": CHECKPOINT, "labels": {"app": "other"}},
        "data": {"format": "1", "holder": "none", "epoch": "7"},
    });
    env.namespace.apply(&foreign.to_string()).await?;
    let before = env.namespace.run(&["get", "configmap", CHECKPOINT, "-o", "yaml"]).await?;
    let operator = env.start_operator()?;
    env.apply_spec(&env.manifest(NAME)).await?;
    let message = env.wait_stalled(NAME, "CheckpointNotOwned").await?;
    ensure!(
        message.contains(&format!("ConfigMap {CHECKPOINT:?} is not owned by this notifier")),
        "{message}"
    );

    // Another notifier still delivers. By then the first one had time for a write.
    let mut good = env.manifest("good");
    good["spec"]["message"]["from"] = json!("'good'");
    env.apply_and_wait_ready(&good).await?;
    update_items(&env, [1]).await?;
    wait_value(&client, 1).await?;
    let after = env.namespace.run(&["get", "configmap", CHECKPOINT, "-o", "yaml"]).await?;
    ensure!(before == after, "before:\n{before}\nafter:\n{after}");

    env.namespace.run(&["delete", "streamnotifier", "good"]).await?;
    env.namespace.run(&["delete", "configmap", CHECKPOINT]).await?;
    env.wait_ready(NAME).await?;
    update_items(&env, [2]).await?;
    wait_value(&client, 2).await?;
    let has_own_message = |received: &[Received]| {
        received
            .iter()
            .filter_map(|message| message.json().ok())
            .any(|message| message == json!({"pk": "fuga", "sk": "hoge", "value": "2"}))
    };
    client.wait_until(WAIT_TIMEOUT, "its own message", has_own_message).await?;
    operator.stop().await?;
    env.passed();
    Ok(())
}
