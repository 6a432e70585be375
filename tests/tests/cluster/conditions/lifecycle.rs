//! Suspending, editing and deleting a notifier takes effect and loses no record.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use stream_notifier_tests::proxy::ProxiedRequest;
use stream_notifier_tests::wait::eventually;
use stream_notifier_tests::websocket::{Received, WebSocketClient};

use super::{NAME, PK, SK, start_env, wait_values};
use crate::fixture::{TestEnv, WAIT_TIMEOUT};

/// Applies a second notifier for the same records, with messages of its own.
async fn apply_witness(env: &TestEnv) -> Result<()> {
    let mut manifest = env.manifest("witness");
    manifest["spec"]["message"] = json!({"witnessed": "string(new.TargetAttribute)"});
    env.apply_and_wait_ready(&manifest).await
}

/// Waits until the witness has delivered a value. By then the other notifier would have, too.
async fn wait_witness(client: &WebSocketClient, value: u32) -> Result<()> {
    let message = json!({"witnessed": value.to_string()});
    let has_message = |received: &[Received]| {
        received.iter().any(|received| received.json().is_ok_and(|it| it == message))
    };
    client.wait_until(WAIT_TIMEOUT, "the message of the witness", has_message).await.map(drop)
}

/// The values in the messages of the notifier itself.
fn values(client: &WebSocketClient) -> Vec<Value> {
    let messages = client.messages();
    let messages = messages.iter().filter_map(|message| message.json().ok());
    messages.map(|mut message| message["value"].take()).filter(|value| !value.is_null()).collect()
}

#[tokio::test]
async fn stops_while_suspended_and_continues_at_its_checkpoint() -> Result<()> {
    let (env, client, operator) = start_env().await?;
    env.apply_and_wait_ready(&env.manifest(NAME)).await?;
    env.update_item(PK, SK, 1).await?;
    wait_values(&client, &[1]).await?;

    env.patch(NAME, json!({"suspend": true})).await?;
    let (status, _) = env.wait_ready_reason(NAME, "Suspended").await?;
    ensure!(status == "True", "suspended is Ready={status}");
    let newest = env.notifiers.latest(NAME)?.unwrap_or_default();
    ensure!(newest["status"]["streamArn"].is_null(), "{newest:#}");
    let before = env.checkpoint(NAME).await?;
    let before_requests = env.proxy.requests().len();
    ensure!(operator.readyz().await?.status.is_success());

    // Updates while the notifier does not read. The witness shows that their records exist.
    apply_witness(&env).await?;
    for value in 2..=4 {
        env.update_item(PK, SK, value).await?;
    }
    wait_witness(&client, 4).await?;
    env.namespace.run(&["delete", "streamnotifier", "witness"]).await?;
    ensure!(values(&client) == ["1"], "{:?}", client.texts());
    ensure!(env.checkpoint(NAME).await? == before);
    let requests = &env.proxy.requests()[before_requests..];
    let is_own = |request: &&ProxiedRequest| {
        let number = request.json().map(|mut body| body["SequenceNumber"].take());
        request.is("GetShardIterator") && number.is_ok_and(|number| !number.is_null())
    };
    ensure!(requests.iter().filter(is_own).count() == 0, "a suspended notifier must not read");

    let before_requests = env.proxy.requests().len();
    env.patch(NAME, json!({"suspend": false})).await?;
    env.wait_ready_reason(NAME, "Reading").await?;
    client
        .wait_until(WAIT_TIMEOUT, "the value 4", |received| {
            received.iter().any(|it| it.json().is_ok_and(|it| it["value"] == "4"))
        })
        .await?;
    ensure!(values(&client) == ["1", "2", "3", "4"], "{:?}", client.texts());
    let request = env
        .proxy
        .wait_until(WAIT_TIMEOUT, "GetShardIterator", |all| {
            all[before_requests..].iter().any(|it| is_own(&it))
        })
        .await?;
    let request = request[before_requests..].iter().find(is_own).map(|request| request.json());
    let request = request.transpose()?.unwrap_or_default();
    ensure!(request["SequenceNumber"] == before.position()?, "{request} instead of {before:?}");
    operator.stop().await?;
    env.passed();
    Ok(())
}

#[tokio::test]
async fn neither_loses_nor_repeats_records_when_the_spec_changes() -> Result<()> {
    let (env, client, operator) = start_env().await?;
    env.apply_and_wait_ready(&env.manifest(NAME)).await?;
    let updates = async {
        for value in 1..=100 {
            env.update_item(PK, SK, value).await?;
        }
        anyhow::Ok(())
    };
    let edits = async {
        for version in 1..=3 {
            let count = client.messages().len();
            let has_more = |received: &[Received]| received.len() > count || received.len() >= 100;
            client.wait_until(WAIT_TIMEOUT, "one more message", has_more).await?;
            let message = json!({"message": {"version": format!("{version}")}});
            env.patch(NAME, message).await?;
            env.wait_ready_reason(NAME, "Reading").await?;
        }
        anyhow::Ok(())
    };
    tokio::try_join!(updates, edits)?;
    env.update_item(PK, SK, 101).await?;
    wait_values(&client, &(1..=101).collect::<Vec<_>>()).await?;
    let versions: Vec<Value> = client
        .messages()
        .iter()
        .map(|it| Ok(it.json()?["version"].take()))
        .collect::<Result<_>>()?;
    ensure!(versions[0].is_null() && versions[100] == 3, "{versions:?}");
    ensure!(env.checkpoint(NAME).await?.epoch == 4, "each version has its own worker");
    operator.stop().await?;
    env.passed();
    Ok(())
}

#[tokio::test]
async fn stops_and_removes_its_checkpoint_after_deletion() -> Result<()> {
    let (env, client, operator) = start_env().await?;
    env.apply_and_wait_ready(&env.manifest(NAME)).await?;
    apply_witness(&env).await?;
    env.update_item(PK, SK, 1).await?;
    wait_witness(&client, 1).await?;
    client.wait_until(WAIT_TIMEOUT, "both messages", |received| received.len() == 2).await?;

    let matched = operator.counter("stream_notifier_records_total", NAME, "matched").await?;
    ensure!(matched == 1, "{matched} records matched");
    env.namespace.run(&["delete", "streamnotifier", NAME]).await?;
    env.checkpoints.wait_deleted(WAIT_TIMEOUT, &format!("{NAME}-checkpoint")).await?;
    // Kubernetes deletes the checkpoint by its owner reference. The operator sees the deletion in its
    // own watch.
    eventually(WAIT_TIMEOUT, "the removal of its metrics", async || {
        let matched = operator.counter("stream_notifier_records_total", NAME, "matched").await?;
        ensure!(matched == 0, "{matched} records matched");
        Ok(())
    })
    .await?;
    for value in 2..=4 {
        env.update_item(PK, SK, value).await?;
    }
    wait_witness(&client, 4).await?;
    ensure!(values(&client) == ["1"], "{:?}", client.texts());
    let matched = operator.counter("stream_notifier_records_total", NAME, "matched").await?;
    ensure!(matched == 0, "the metrics of a deleted notifier must be removed");

    // A new notifier of this name starts from now, without the checkpoint of the old one.
    env.apply_and_wait_ready(&env.manifest(NAME)).await?;
    env.update_item(PK, SK, 5).await?;
    client
        .wait_until(WAIT_TIMEOUT, "the value 5", |received| {
            received.iter().any(|it| it.json().is_ok_and(|it| it["value"] == "5"))
        })
        .await?;
    ensure!(values(&client).first() == Some(&json!("1")), "{:?}", client.texts());
    ensure!(env.checkpoint(NAME).await?.epoch == 1);
    operator.stop().await?;
    env.passed();
    Ok(())
}
