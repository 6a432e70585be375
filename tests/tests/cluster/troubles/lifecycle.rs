//! Suspended, changed, deleted: what a person does to a notifier takes effect, and loses nothing.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use stream_notifier_tests::proxy::Recorded;
use stream_notifier_tests::wait::eventually;
use stream_notifier_tests::websocket::{Received, WebSocketClient};

use super::{NAME, PK, SK, begin, told};
use crate::fixture::{LIMIT, World};

/// A second notifier of the same changes, which says so in its messages.
async fn witness(world: &World) -> Result<()> {
    let mut manifest = world.manifest("witness");
    manifest["spec"]["message"] = json!({"witnessed": "string(new.TargetAttribute)"});
    world.apply(&manifest).await
}

/// Waits until the witness told of a value: its message comes after everything that could have come.
async fn witnessed(client: &WebSocketClient, value: u32) -> Result<()> {
    let message = json!({"witnessed": value.to_string()});
    let says = |received: &[Received]| {
        received.iter().any(|received| received.json().is_ok_and(|it| it == message))
    };
    client.wait_until(LIMIT, "the witness", says).await.map(drop)
}

/// What was told of the notifier itself.
fn values(client: &WebSocketClient) -> Vec<Value> {
    let messages = client.messages();
    let messages = messages.iter().filter_map(|message| message.json().ok());
    messages.map(|mut message| message["value"].take()).filter(|value| !value.is_null()).collect()
}

#[tokio::test]
async fn suspended_it_stops_and_goes_on_where_it_stood() -> Result<()> {
    let (world, client, operator) = begin().await?;
    world.apply(&world.manifest(NAME)).await?;
    world.update(PK, SK, 1).await?;
    told(&client, &[1]).await?;

    world.patch(NAME, json!({"suspend": true})).await?;
    let (status, _) = world.reason(NAME, "Suspended").await?;
    ensure!(status == "True", "suspended is Ready={status}");
    let newest = world.notifiers.newest(NAME)?.unwrap_or_default();
    ensure!(newest["status"]["streamArn"].is_null(), "{newest:#}");
    let before = world.checkpoint(NAME).await?;
    let quiet = world.proxy.requests().len();
    ensure!(operator.readyz().await?.status.is_success());

    // Changes while nothing is read; another notifier shows that they are there to be read.
    witness(&world).await?;
    for value in 2..=4 {
        world.update(PK, SK, value).await?;
    }
    witnessed(&client, 4).await?;
    world.namespace.run(&["delete", "streamnotifier", "witness"]).await?;
    ensure!(values(&client) == ["1"], "{:?}", client.texts());
    ensure!(world.checkpoint(NAME).await? == before);
    let since = &world.proxy.requests()[quiet..];
    let is_of_it = |request: &&Recorded| {
        let number = request.json().map(|mut body| body["SequenceNumber"].take());
        request.is("GetShardIterator") && number.is_ok_and(|number| !number.is_null())
    };
    ensure!(since.iter().filter(is_of_it).count() == 0, "it is read although suspended");

    let quiet = world.proxy.requests().len();
    world.patch(NAME, json!({"suspend": false})).await?;
    world.reason(NAME, "Reading").await?;
    client
        .wait_until(LIMIT, "the value 4", |received| {
            received.iter().any(|it| it.json().is_ok_and(|it| it["value"] == "4"))
        })
        .await?;
    ensure!(values(&client) == ["1", "2", "3", "4"], "{:?}", client.texts());
    let asked = world
        .proxy
        .wait_until(LIMIT, "GetShardIterator", |all| all[quiet..].iter().any(|it| is_of_it(&it)))
        .await?;
    let asked = asked[quiet..].iter().find(is_of_it).map(|request| request.json());
    let asked = asked.transpose()?.unwrap_or_default();
    ensure!(asked["SequenceNumber"] == before.after()?, "{asked} instead of {before:?}");
    operator.stop().await?;
    world.passed();
    Ok(())
}

#[tokio::test]
async fn a_change_of_the_spec_loses_and_repeats_nothing() -> Result<()> {
    let (world, client, operator) = begin().await?;
    world.apply(&world.manifest(NAME)).await?;
    let changes = async {
        for value in 1..=100 {
            world.update(PK, SK, value).await?;
        }
        anyhow::Ok(())
    };
    let edits = async {
        for version in 1..=3 {
            let so_far = client.messages().len();
            let more = |received: &[Received]| received.len() > so_far || received.len() >= 100;
            client.wait_until(LIMIT, "one message more", more).await?;
            let message = json!({"message": {"version": format!("{version}")}});
            world.patch(NAME, message).await?;
            world.reason(NAME, "Reading").await?;
        }
        anyhow::Ok(())
    };
    tokio::try_join!(changes, edits)?;
    world.update(PK, SK, 101).await?;
    told(&client, &(1..=101).collect::<Vec<_>>()).await?;
    let versions: Vec<Value> = client
        .messages()
        .iter()
        .map(|it| Ok(it.json()?["version"].take()))
        .collect::<Result<_>>()?;
    ensure!(versions[0].is_null() && versions[100] == 3, "{versions:?}");
    ensure!(world.checkpoint(NAME).await?.epoch == 4, "a worker for each version");
    operator.stop().await?;
    world.passed();
    Ok(())
}

#[tokio::test]
async fn deleted_it_is_silent_and_leaves_nothing() -> Result<()> {
    let (world, client, operator) = begin().await?;
    world.apply(&world.manifest(NAME)).await?;
    witness(&world).await?;
    world.update(PK, SK, 1).await?;
    witnessed(&client, 1).await?;
    client.wait_until(LIMIT, "both messages", |received| received.len() == 2).await?;

    let counted = operator.metric("stream_notifier_records_total", NAME, "matched").await?;
    ensure!(counted == 1, "{counted} records matched");
    world.namespace.run(&["delete", "streamnotifier", NAME]).await?;
    world.checkpoints.wait_gone(LIMIT, &format!("{NAME}-checkpoint")).await?;
    // The checkpoint goes by its owner reference; the operator learns of the end for itself.
    eventually(LIMIT, "the end of its metrics", async || {
        let counted = operator.metric("stream_notifier_records_total", NAME, "matched").await?;
        ensure!(counted == 0, "{counted} records matched");
        Ok(())
    })
    .await?;
    for value in 2..=4 {
        world.update(PK, SK, value).await?;
    }
    witnessed(&client, 4).await?;
    ensure!(values(&client) == ["1"], "{:?}", client.texts());
    let counted = operator.metric("stream_notifier_records_total", NAME, "matched").await?;
    ensure!(counted == 0, "the metrics of a notifier that is gone stay");

    // A new one of this name is another: it begins now, and has nothing of the old one.
    world.apply(&world.manifest(NAME)).await?;
    world.update(PK, SK, 5).await?;
    client
        .wait_until(LIMIT, "the value 5", |received| {
            received.iter().any(|it| it.json().is_ok_and(|it| it["value"] == "5"))
        })
        .await?;
    ensure!(values(&client).first() == Some(&json!("1")), "{:?}", client.texts());
    ensure!(world.checkpoint(NAME).await?.epoch == 1);
    operator.stop().await?;
    world.passed();
    Ok(())
}
