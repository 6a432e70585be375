//! One checkpoint, and others who write to it: a second operator, a hand, something else of the same
//! name. Nobody's mistake loses a record, and what is not the operator's is left alone.

mod edited;

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use axum::http::StatusCode;
use serde_json::{Value, json};
use stream_notifier_tests::websocket::{Received, WebSocketClient};

use crate::fixture::{Checkpoint, LIMIT, World, is_later};

const NAME: &str = "writers";
const CHECKPOINT: &str = "writers-checkpoint";
const PK: &str = "target_pk#fuga";
const SK: &str = "target_sk#hoge";

async fn ready() -> Result<(World, WebSocketClient)> {
    let world = World::new().await?;
    world.insert(PK, SK, 0).await?;
    let client = world.api.connect("SK=hoge").await?;
    Ok((world, client))
}

/// Changes the item once for each value.
async fn write(world: &World, values: impl IntoIterator<Item = u32>) -> Result<()> {
    for value in values {
        world.update(PK, SK, value).await?;
    }
    Ok(())
}

/// What the client was told, in its order.
fn values(received: &[Received]) -> Vec<u32> {
    let value = |message: &Received| message.json().ok()?["value"].as_str()?.parse().ok();
    received.iter().filter_map(value).collect()
}

/// Waits until the client was told of a value: everything it was told so far.
async fn told(client: &WebSocketClient, value: u32) -> Result<Vec<u32>> {
    let what = format!("the value {value}");
    let received =
        client.wait_until(LIMIT, &what, |received| values(received).contains(&value)).await?;
    Ok(values(&received))
}

#[tokio::test]
async fn of_two_operators_one_stops_and_says_so() -> Result<()> {
    let (world, client) = ready().await?;
    let first = world.operator_named("first")?;
    world.apply(&world.manifest(NAME)).await?;
    write(&world, 1..=20).await?;
    let claimed = world.checkpoint(NAME).await?;
    ensure!(claimed.holder.starts_with("first-"), "{claimed:?}");

    let second = world.operator_named("second")?;
    let says_so = |line: &str| line.contains("another operator holds the checkpoint");
    let (written, said) = tokio::join!(
        async {
            write(&world, 21..=60).await?;
            let taken = |now: &Checkpoint| now.epoch > claimed.epoch;
            let taken = world.checkpointed(NAME, "a second claim", taken).await?;
            ensure!(taken.holder.starts_with("second-"), "{taken:?}");
            // The first learns of it when it has something to store.
            write(&world, 61..=100).await
        },
        first.wait_for_line(LIMIT, "that it lost the checkpoint", says_so),
    );
    written?;
    let said = said?;
    ensure!(said.contains("second-") && said.contains(NAME), "{said}");
    write(&world, 101..=120).await?;
    let all = told(&client, 120).await?;

    // Two at once repeat, but each is in order: a change is told for the first time only after
    // those before it.
    let mut seen = BTreeSet::new();
    let firsts: Vec<u32> = all.into_iter().filter(|value| seen.insert(*value)).collect();
    ensure!(firsts == (1..=120).collect::<Vec<_>>(), "{firsts:?}");

    let ready = first.readyz().await?;
    let line = format!("{}/{NAME}: CheckpointTakenOver", world.namespace.name());
    ensure!(
        ready.status == StatusCode::SERVICE_UNAVAILABLE && ready.text().trim() == line,
        "{}: {}",
        ready.status,
        ready.text()
    );
    ensure!(second.readyz().await?.status == StatusCode::OK);
    ensure!(!second.log().lines().any(says_so), "both have stopped");
    world.ready(NAME).await?;

    second.stop().await?;
    first.stop().await?;
    let stored = world.checkpoint(NAME).await?;
    ensure!(stored.holder.starts_with("second-"), "{stored:?}");
    never_back(&world)?;
    world.passed();
    Ok(())
}

/// A later version of the checkpoint has no smaller epoch, and no earlier position.
fn never_back(world: &World) -> Result<()> {
    let history = world.history(NAME)?;
    for pair in history.windows(2) {
        let back = pair[0].shards.iter().any(|(shard, before)| {
            let now = pair[1].shards.get(shard);
            now.is_none_or(|now| now != before && !is_later(now, before))
        });
        ensure!(pair[1].epoch >= pair[0].epoch && !back, "{pair:?}");
    }
    let last = history.last().context("no checkpoint was seen")?;
    let stream: Vec<String> =
        history.iter().filter_map(|now| now.after().ok().map(str::to_owned)).collect();
    ensure!(history.len() > 2 && last.epoch == 2, "{stream:?}");
    Ok(())
}

#[tokio::test]
async fn a_label_set_by_hand_stays_and_stops_nobody() -> Result<()> {
    let (world, client) = ready().await?;
    let operator = world.operator()?;
    world.apply(&world.manifest(NAME)).await?;
    for value in 1..=3 {
        let owner = format!("owner=team-{value}");
        let label = ["label", "configmap", CHECKPOINT, "--overwrite", &owner];
        world.namespace.run(&label).await?;
        write(&world, [value]).await?;
        ensure!(told(&client, value).await? == (1..=value).collect::<Vec<_>>());
        // Every one of these writes meets a version that it does not know.
        let number = last_number(&world).await?;
        let stored = |now: &Checkpoint| now.after().is_ok_and(|now| now == number);
        world.checkpointed(NAME, "the last number", stored).await?;
    }
    let stored = world.namespace.get(&["configmap", CHECKPOINT]).await?;
    ensure!(stored["metadata"]["labels"]["owner"] == "team-3", "{stored:#}");
    ensure!(world.checkpoint(NAME).await?.epoch == 1, "{stored:#}");
    ensure!(operator.readyz().await?.status == StatusCode::OK);
    operator.stop().await?;
    world.passed();
    Ok(())
}

/// The sequence number of the stream's last record.
async fn last_number(world: &World) -> Result<String> {
    let records = world.ministack.records(&world.stream).await?;
    let last = records.last().context("no record")?;
    let number = last["dynamodb"]["SequenceNumber"].as_str();
    Ok(number.context("no number")?.to_owned())
}

#[tokio::test]
async fn a_checkpoint_deleted_by_hand_loses_nothing() -> Result<()> {
    let (world, client) = ready().await?;
    let operator = world.operator()?;
    world.apply(&world.manifest(NAME)).await?;
    write(&world, 1..=5).await?;
    told(&client, 5).await?;
    let before = world.namespace.get(&["configmap", CHECKPOINT]).await?;
    world.namespace.run(&["delete", "configmap", CHECKPOINT]).await?;
    world.checkpoints.wait_gone(LIMIT, CHECKPOINT).await?;
    write(&world, 6..=10).await?;
    let number = last_number(&world).await?;
    let stored = |now: &Checkpoint| now.after().is_ok_and(|now| now == number);
    world.checkpointed(NAME, "the last number", stored).await?;
    ensure!(told(&client, 10).await? == (1..=10).collect::<Vec<_>>());
    let after = world.namespace.get(&["configmap", CHECKPOINT]).await?;
    let owner = |of: &Value| of["metadata"]["ownerReferences"].clone();
    ensure!(owner(&before) == owner(&after), "{after:#}");
    operator.stop().await?;

    // Deleted while nobody runs, it is the end of what was known: reading begins anew, from now on.
    world.namespace.run(&["delete", "configmap", CHECKPOINT]).await?;
    world.checkpoints.wait_gone(LIMIT, CHECKPOINT).await?;
    let operator = world.operator()?;
    let begun = |now: &Checkpoint| now.after().is_ok_and(|now| now == "latest");
    world.checkpointed(NAME, "a new beginning", begun).await?;
    write(&world, [11]).await?;
    let all = told(&client, 11).await?;
    ensure!(all.ends_with(&[11]), "{all:?}");
    operator.stop().await?;
    world.passed();
    Ok(())
}

#[tokio::test]
async fn a_foreign_config_map_is_left_alone() -> Result<()> {
    let (world, client) = ready().await?;
    let foreign = json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": CHECKPOINT, "labels": {"app": "somebody-else"}},
        "data": {"format": "1", "holder": "nobody", "epoch": "7"},
    });
    world.namespace.apply(&foreign.to_string()).await?;
    let before = world.namespace.run(&["get", "configmap", CHECKPOINT, "-o", "yaml"]).await?;
    let operator = world.operator()?;
    world.submit(&world.manifest(NAME)).await?;
    let said = world.stalled(NAME, "CheckpointNotOwned").await?;
    ensure!(
        said.contains(&format!("ConfigMap {CHECKPOINT:?} is not owned by this notifier")),
        "{said}"
    );

    // A good one beside it is not held up, and by the time it has delivered the other had its chance.
    let mut good = world.manifest("good");
    good["spec"]["message"]["from"] = json!("'good'");
    world.apply(&good).await?;
    write(&world, [1]).await?;
    told(&client, 1).await?;
    let after = world.namespace.run(&["get", "configmap", CHECKPOINT, "-o", "yaml"]).await?;
    ensure!(before == after, "before:\n{before}\nafter:\n{after}");

    world.namespace.run(&["delete", "streamnotifier", "good"]).await?;
    world.namespace.run(&["delete", "configmap", CHECKPOINT]).await?;
    world.ready(NAME).await?;
    write(&world, [2]).await?;
    told(&client, 2).await?;
    let from_it = |received: &[Received]| {
        received
            .iter()
            .filter_map(|message| message.json().ok())
            .any(|message| message == json!({"pk": "fuga", "sk": "hoge", "value": "2"}))
    };
    client.wait_until(LIMIT, "its own message", from_it).await?;
    operator.stop().await?;
    world.passed();
    Ok(())
}
