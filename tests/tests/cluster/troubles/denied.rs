//! Rights that are missing: the condition names the permission, and nothing is lost meanwhile.

use anyhow::{Result, ensure};
use serde_json::Value;
use stream_notifier_tests::proxy::{Recorded, Reply, Rule};

use super::{NAME, PK, SK, begin, told};
use crate::fixture::{CONNECTIONS, INDEX, LIMIT, World, condition};

/// As AWS says it to an identity without the right to an operation.
fn denied() -> Result<Reply> {
    // The words of AWS name the account and the identity: neither belongs into a condition.
    Reply::dynamodb_error(
        "AccessDeniedException",
        "User: arn:aws:iam::1:user/secret is not allowed",
    )
}

/// Denies an operation until the rule is released.
pub fn deny(world: &World, operation: &'static str) -> Result<Rule> {
    Ok(world.proxy.answer(denied()?, move |request| request.is(operation)))
}

/// Waits until a notifier waits for a person who grants a right.
async fn asks_for(world: &World, reason: &str, permission: &str, on: &[&str]) -> Result<()> {
    let what = format!("{reason} that asks for {permission}");
    let said = world
        .notifiers
        .wait_for(LIMIT, NAME, &what, |notifier| {
            let stalled = condition(notifier, "Stalled")?;
            let message = stalled["message"].as_str()?;
            (stalled["reason"] == reason && message.contains(permission))
                .then(|| message.to_owned())
        })
        .await?;
    ensure!(on.iter().all(|name| said.contains(name)), "{said} does not name {on:?}");
    ensure!(!said.contains("secret"), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_missing_right_is_named_and_its_grant_is_enough() -> Result<()> {
    let (world, client, operator) = begin().await?;
    let deny = |operation: &'static str| deny(&world, operation);

    let describe_stream = deny("DescribeStream")?;
    let describe_table = deny("DescribeTable")?;
    world.submit(&world.manifest(NAME)).await?;
    let stream = [&*world.stream];
    asks_for(&world, "StreamAccessDenied", "dynamodb:DescribeStream", &stream).await?;
    describe_stream.release();
    asks_for(&world, "ConnectionsAccessDenied", "dynamodb:DescribeTable", &[CONNECTIONS]).await?;
    describe_table.release();
    world.ready(NAME).await?;

    let get_records = deny("GetRecords")?;
    asks_for(&world, "StreamAccessDenied", "dynamodb:GetRecords", &stream).await?;
    let ready = operator.readyz().await?;
    ensure!(
        !ready.status.is_success() && ready.text().contains("StreamAccessDenied"),
        "{}",
        ready.text()
    );
    world.update(PK, SK, 1).await?;
    get_records.release();
    world.ready(NAME).await?;
    told(&client, &[1]).await?;

    let query = deny("Query")?;
    world.update(PK, SK, 2).await?;
    let index = [CONNECTIONS, INDEX];
    asks_for(&world, "ConnectionsAccessDenied", "dynamodb:Query", &index).await?;
    world.update(PK, SK, 3).await?;
    query.release();
    world.ready(NAME).await?;
    told(&client, &[1, 2, 3]).await?;
    operator.stop().await?;
    world.passed();
    Ok(())
}

#[tokio::test]
async fn a_table_asks_for_the_right_to_list_its_streams() -> Result<()> {
    let (world, client, operator) = begin().await?;
    let list_streams = deny(&world, "ListStreams")?;
    world.submit(&world.manifest_of_table(NAME)).await?;
    // AWS knows no resource for it.
    asks_for(&world, "StreamAccessDenied", "dynamodb:ListStreams on *", &[]).await?;
    list_streams.release();
    world.ready(NAME).await?;
    world.update(PK, SK, 1).await?;
    told(&client, &[1]).await?;
    operator.stop().await?;
    world.passed();
    Ok(())
}

#[tokio::test]
async fn a_gateway_that_forbids_holds_everything_and_drops_nothing() -> Result<()> {
    let (world, client, operator) = begin().await?;
    world.apply(&world.manifest(NAME)).await?;
    let reply = Reply::gateway_error(403, "ForbiddenException", "secret")?;
    let forbidden = world.proxy.answer(reply, Recorded::is_post_to_connection);
    for value in 1..=5 {
        world.update(PK, SK, value).await?;
    }
    let endpoint = [world.api.id(), "webSocket.domain", "webSocket.stage"];
    asks_for(&world, "GatewayForbidden", "execute-api:ManageConnections", &endpoint).await?;
    // It asks again now and then, and believes no answer that forbids.
    forbidden.caught(3, LIMIT).await?;
    let checkpoint = world.checkpoint(NAME).await?;
    ensure!(client.messages().is_empty());
    ensure!(rows(&world).await? == 1);
    forbidden.release();
    told(&client, &[1, 2, 3, 4, 5]).await?;
    world.ready(NAME).await?;
    let records = world.ministack.records(&world.stream).await?;
    let numbers = records.iter().map(|record| &record["dynamodb"]["SequenceNumber"]);
    let numbers: Vec<&Value> = numbers.collect();
    let at = numbers.iter().position(|number| **number == checkpoint.after().unwrap_or_default());
    // The first record is no change that matches.
    ensure!(at.unwrap_or(0) == 0, "{checkpoint:?} was ahead of delivery: {numbers:?}");
    ensure!(rows(&world).await? == 1);
    let gone = operator.metric("stream_notifier_messages_total", NAME, "gone").await?;
    let posts =
        operator.metric("stream_notifier_post_attempts_total", NAME, "endpoint_error").await?;
    ensure!(gone == 0 && posts >= 3, "{gone} gone, {posts} held");
    operator.stop().await?;
    world.passed();
    Ok(())
}

/// How many connections are stored.
async fn rows(world: &World) -> Result<i32> {
    let scan = world.ministack.dynamodb().scan().table_name(CONNECTIONS);
    Ok(scan.send().await?.count())
}
