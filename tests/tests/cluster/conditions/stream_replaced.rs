//! A disabled stream and its successor: with `tableArn` no record is lost, with `streamArn` the condition
//! names the new stream.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::access_denied::deny;
use super::{NAME, start_env, update_items, wait_values};
use crate::fixture::{TABLE, TestEnv, WAIT_TIMEOUT};

#[tokio::test]
async fn follows_a_table_to_each_new_stream() -> Result<()> {
    let (env, client, operator) = start_env().await?;
    let first = env.stream.clone();
    env.apply_and_wait_ready(&env.table_manifest(NAME)).await?;
    update_items(&env, 1..=3).await?;
    wait_values(&client, &[1, 2, 3]).await?;
    wait_status_stream(&env, &first).await?;

    // While no operator runs, one stream ends and the next begins.
    operator.stop().await?;
    update_items(&env, 4..=6).await?;
    env.ministack.disable_stream(TABLE).await?;
    let second = env.ministack.enable_stream(TABLE).await?;
    update_items(&env, 7..=9).await?;
    let operator = env.start_operator()?;
    wait_values(&client, &values_through(9)).await?;
    wait_status_stream(&env, &second).await?;
    env.wait_ready(NAME).await?;

    // While the operator reads, the stream ends. Its last records are delivered, and a condition reports
    // the end.
    update_items(&env, 10..=12).await?;
    env.ministack.disable_stream(TABLE).await?;
    let message = env.wait_stalled(NAME, "StreamDisabled").await?;
    ensure!(message.contains(env.table_arn()) && message.contains("enable"), "{message}");
    wait_values(&client, &values_through(12)).await?;
    let third = env.ministack.enable_stream(TABLE).await?;
    update_items(&env, 13..=15).await?;
    wait_values(&client, &values_through(15)).await?;
    env.wait_ready(NAME).await?;
    wait_status_stream(&env, &third).await?;

    operator.stop().await?;
    ensure!(status_streams(&env)? == [&*first, &*second, &*third]);
    // The operator never uses LATEST of the service, because it means another time in each request.
    let iterators = env.proxy.requests().into_iter().filter(|it| it.is("GetShardIterator"));
    let kinds = iterators.map(|request| Ok(request.json()?["ShardIteratorType"].take()));
    ensure!(kinds.collect::<Result<Vec<Value>>>()?.iter().all(|kind| *kind != "LATEST"));
    env.passed();
    Ok(())
}

#[tokio::test]
async fn names_the_stream_that_replaced_a_disabled_one() -> Result<()> {
    let (env, client, operator) = start_env().await?;
    env.apply_and_wait_ready(&env.manifest(NAME)).await?;
    update_items(&env, 1..=3).await?;
    wait_values(&client, &[1, 2, 3]).await?;

    // Without the permission to list streams, the condition does not name the new stream.
    let denied = deny(&env, "ListStreams")?;
    update_items(&env, 4..=6).await?;
    env.ministack.disable_stream(TABLE).await?;
    let message = env.wait_stalled(NAME, "StreamDisabled").await?;
    ensure!(message.contains(&env.stream), "{message}");
    wait_values(&client, &values_through(6)).await?;
    let second = env.ministack.enable_stream(TABLE).await?;
    update_items(&env, 7..=9).await?;
    denied.release();
    let message = env.wait_stalled(NAME, "StreamReplaced").await?;
    ensure!(
        [&*env.stream, &*second, "tableArn"].iter().all(|it| message.contains(it)),
        "{message}"
    );
    wait_status_stream(&env, &env.stream).await?;
    wait_values(&client, &values_through(6)).await?;

    // The action of the message loses no record.
    env.patch(NAME, json!({"streamArn": null, "tableArn": env.table_arn()})).await?;
    wait_values(&client, &values_through(9)).await?;
    env.wait_ready(NAME).await?;
    wait_status_stream(&env, &second).await?;
    operator.stop().await?;
    env.passed();
    Ok(())
}

fn values_through(last: u32) -> Vec<u32> {
    (1..=last).collect()
}

/// Waits until the status names this stream.
async fn wait_status_stream(env: &TestEnv, stream: &str) -> Result<()> {
    let what = format!("status.streamArn {stream}");
    let is_named = |notifier: &Value| (notifier["status"]["streamArn"] == stream).then_some(());
    env.notifiers.wait_for(WAIT_TIMEOUT, NAME, &what, is_named).await
}

/// The streams that the status named, in order, without consecutive duplicates.
fn status_streams(env: &TestEnv) -> Result<Vec<String>> {
    let events = env.notifiers.events()?;
    let own = events.iter().filter(|event| event.has_name(NAME));
    let mut streams: Vec<String> =
        own.filter_map(|it| Some(it.object["status"]["streamArn"].as_str()?.into())).collect();
    streams.dedup();
    streams.first().context("the status must name a stream")?;
    Ok(streams)
}

#[tokio::test]
async fn reads_the_rest_of_a_stream_that_was_disabled_while_no_operator_ran() -> Result<()> {
    let (env, client, operator) = start_env().await?;
    env.apply_and_wait_ready(&env.table_manifest(NAME)).await?;
    update_items(&env, 1..=3).await?;
    wait_values(&client, &[1, 2, 3]).await?;
    operator.stop().await?;
    update_items(&env, 4..=6).await?;
    env.ministack.disable_stream(TABLE).await?;
    // The emulator no longer lists the disabled stream.
    let operator = env.start_operator()?;
    wait_values(&client, &values_through(6)).await?;
    let message = env.wait_stalled(NAME, "StreamDisabled").await?;
    ensure!(message.contains(env.table_arn()), "{message}");
    operator.stop().await?;
    env.passed();
    Ok(())
}
