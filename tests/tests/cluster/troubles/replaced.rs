//! A stream that is disabled, and another one in its place: of a table nothing is lost over it, a
//! stream is read to its end and says what has become of it.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::denied::deny;
use super::{NAME, begin, told, write};
use crate::fixture::{LIMIT, TABLE, World};

#[tokio::test]
async fn a_table_is_followed_from_stream_to_stream() -> Result<()> {
    let (world, client, operator) = begin().await?;
    let first = world.stream.clone();
    world.apply(&world.manifest_of_table(NAME)).await?;
    write(&world, 1..=3).await?;
    told(&client, &[1, 2, 3]).await?;
    reads(&world, &first).await?;

    // While nobody reads: the rest of one stream, and the beginning of the next.
    operator.stop().await?;
    write(&world, 4..=6).await?;
    world.ministack.disable_stream(TABLE).await?;
    let second = world.ministack.enable_stream(TABLE).await?;
    write(&world, 7..=9).await?;
    let operator = world.operator()?;
    told(&client, &all(9)).await?;
    reads(&world, &second).await?;
    world.ready(NAME).await?;

    // While it is read: what comes before the end is told, and the end is said.
    write(&world, 10..=12).await?;
    world.ministack.disable_stream(TABLE).await?;
    let said = world.stalled(NAME, "StreamDisabled").await?;
    ensure!(said.contains(world.table()) && said.contains("enable"), "{said}");
    told(&client, &all(12)).await?;
    let third = world.ministack.enable_stream(TABLE).await?;
    write(&world, 13..=15).await?;
    told(&client, &all(15)).await?;
    world.ready(NAME).await?;
    reads(&world, &third).await?;

    operator.stop().await?;
    ensure!(one_after_the_other(&world)? == [&*first, &*second, &*third]);
    // A LATEST of the service is another moment at each call: what came before it would be lost.
    let begun = world.proxy.requests().into_iter().filter(|it| it.is("GetShardIterator"));
    let kinds = begun.map(|request| Ok(request.json()?["ShardIteratorType"].take()));
    ensure!(kinds.collect::<Result<Vec<Value>>>()?.iter().all(|kind| *kind != "LATEST"));
    world.passed();
    Ok(())
}

#[tokio::test]
async fn a_stream_that_was_replaced_names_the_new_one() -> Result<()> {
    let (world, client, operator) = begin().await?;
    world.apply(&world.manifest(NAME)).await?;
    write(&world, 1..=3).await?;
    told(&client, &[1, 2, 3]).await?;

    // Without the right to list streams nothing fails: the new one is not named, that is all.
    let denied = deny(&world, "ListStreams")?;
    write(&world, 4..=6).await?;
    world.ministack.disable_stream(TABLE).await?;
    let said = world.stalled(NAME, "StreamDisabled").await?;
    ensure!(said.contains(&world.stream), "{said}");
    told(&client, &all(6)).await?;
    let second = world.ministack.enable_stream(TABLE).await?;
    write(&world, 7..=9).await?;
    denied.release();
    let said = world.stalled(NAME, "StreamReplaced").await?;
    ensure!([&*world.stream, &*second, "tableArn"].iter().all(|it| said.contains(it)), "{said}");
    reads(&world, &world.stream).await?;
    told(&client, &all(6)).await?;

    // What the sentence says to do loses nothing.
    world.patch(NAME, json!({"streamArn": null, "tableArn": world.table()})).await?;
    told(&client, &all(9)).await?;
    world.ready(NAME).await?;
    reads(&world, &second).await?;
    operator.stop().await?;
    world.passed();
    Ok(())
}

fn all(last: u32) -> Vec<u32> {
    (1..=last).collect()
}

/// Waits until the status says that this stream is read.
async fn reads(world: &World, stream: &str) -> Result<()> {
    let what = format!("status.streamArn {stream}");
    let is_it = |notifier: &Value| (notifier["status"]["streamArn"] == stream).then_some(());
    world.notifiers.wait_for(LIMIT, NAME, &what, is_it).await
}

/// The streams that the status has named, in its order, each as often as it came anew.
fn one_after_the_other(world: &World) -> Result<Vec<String>> {
    let events = world.notifiers.events()?;
    let of_it = events.iter().filter(|event| event.is_of(NAME));
    let mut streams: Vec<String> =
        of_it.filter_map(|it| Some(it.object["status"]["streamArn"].as_str()?.into())).collect();
    streams.dedup();
    streams.first().context("no stream was named")?;
    Ok(streams)
}

#[tokio::test]
async fn a_stream_that_was_disabled_while_nobody_read_is_read_to_its_end() -> Result<()> {
    let (world, client, operator) = begin().await?;
    world.apply(&world.manifest_of_table(NAME)).await?;
    write(&world, 1..=3).await?;
    told(&client, &[1, 2, 3]).await?;
    operator.stop().await?;
    write(&world, 4..=6).await?;
    world.ministack.disable_stream(TABLE).await?;
    // The emulator does not list it any more, as it may be with others.
    let operator = world.operator()?;
    told(&client, &all(6)).await?;
    let said = world.stalled(NAME, "StreamDisabled").await?;
    ensure!(said.contains(world.table()), "{said}");
    operator.stop().await?;
    world.passed();
    Ok(())
}
