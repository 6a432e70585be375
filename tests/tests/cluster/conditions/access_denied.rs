//! Missing permissions: the condition names them, and no record is lost meanwhile.

use anyhow::{Result, ensure};
use serde_json::Value;
use stream_notifier_tests::proxy::{ProxiedRequest, ProxyResponse, Rule};

use super::{NAME, PK, SK, start_env, wait_values};
use crate::fixture::{CONNECTIONS, INDEX, TestEnv, WAIT_TIMEOUT, condition};

/// The response of AWS to an identity without the permission for an operation.
fn access_denied() -> Result<ProxyResponse> {
    // The AWS message names the account and the identity, which must not appear in a condition.
    ProxyResponse::dynamodb_error(
        "AccessDeniedException",
        "User: arn:aws:iam::1:user/secret is not allowed",
    )
}

/// Denies an operation until the rule is released.
pub fn deny(env: &TestEnv, operation: &'static str) -> Result<Rule> {
    Ok(env.proxy.respond(access_denied()?, move |request| request.is(operation)))
}

/// Waits until the notifier is `Stalled` and names a permission and these resources.
async fn wait_permission_named(
    env: &TestEnv,
    reason: &str,
    permission: &str,
    resources: &[&str],
) -> Result<()> {
    let what = format!("{reason} that names {permission}");
    let message = env
        .notifiers
        .wait_for(WAIT_TIMEOUT, NAME, &what, |notifier| {
            let stalled = condition(notifier, "Stalled")?;
            let message = stalled["message"].as_str()?;
            (stalled["reason"] == reason && message.contains(permission))
                .then(|| message.to_owned())
        })
        .await?;
    ensure!(
        resources.iter().all(|name| message.contains(name)),
        "{message} does not name {resources:?}"
    );
    ensure!(!message.contains("secret"), "{message}");
    Ok(())
}

#[tokio::test]
async fn names_a_missing_permission_until_it_is_granted() -> Result<()> {
    let (env, client, operator) = start_env().await?;
    let deny = |operation: &'static str| deny(&env, operation);

    let describe_stream = deny("DescribeStream")?;
    let describe_table = deny("DescribeTable")?;
    env.apply_spec(&env.manifest(NAME)).await?;
    let stream = [&*env.stream];
    wait_permission_named(&env, "StreamAccessDenied", "dynamodb:DescribeStream", &stream).await?;
    describe_stream.release();
    wait_permission_named(
        &env,
        "ConnectionsAccessDenied",
        "dynamodb:DescribeTable",
        &[CONNECTIONS],
    )
    .await?;
    describe_table.release();
    env.wait_ready(NAME).await?;

    let get_records = deny("GetRecords")?;
    wait_permission_named(&env, "StreamAccessDenied", "dynamodb:GetRecords", &stream).await?;
    let ready = operator.readyz().await?;
    ensure!(
        !ready.status.is_success() && ready.text().contains("StreamAccessDenied"),
        "{}",
        ready.text()
    );
    env.update_item(PK, SK, 1).await?;
    get_records.release();
    env.wait_ready(NAME).await?;
    wait_values(&client, &[1]).await?;

    let query = deny("Query")?;
    env.update_item(PK, SK, 2).await?;
    let index = [CONNECTIONS, INDEX];
    wait_permission_named(&env, "ConnectionsAccessDenied", "dynamodb:Query", &index).await?;
    env.update_item(PK, SK, 3).await?;
    query.release();
    env.wait_ready(NAME).await?;
    wait_values(&client, &[1, 2, 3]).await?;
    operator.stop().await?;
    env.passed();
    Ok(())
}

#[tokio::test]
async fn names_the_permission_to_list_the_streams_of_a_table() -> Result<()> {
    let (env, client, operator) = start_env().await?;
    let list_streams = deny(&env, "ListStreams")?;
    env.apply_spec(&env.table_manifest(NAME)).await?;
    // ListStreams has no resource-level permission.
    wait_permission_named(&env, "StreamAccessDenied", "dynamodb:ListStreams on *", &[]).await?;
    list_streams.release();
    env.wait_ready(NAME).await?;
    env.update_item(PK, SK, 1).await?;
    wait_values(&client, &[1]).await?;
    operator.stop().await?;
    env.passed();
    Ok(())
}

#[tokio::test]
async fn holds_every_message_while_the_gateway_forbids_posts() -> Result<()> {
    let (env, client, operator) = start_env().await?;
    env.apply_and_wait_ready(&env.manifest(NAME)).await?;
    let response = ProxyResponse::gateway_error(403, "ForbiddenException", "secret")?;
    let forbidden = env.proxy.respond(response, ProxiedRequest::is_post_to_connection);
    for value in 1..=5 {
        env.update_item(PK, SK, value).await?;
    }
    let endpoint = [env.api.id(), "webSocket.domain", "webSocket.stage"];
    wait_permission_named(&env, "GatewayForbidden", "execute-api:ManageConnections", &endpoint)
        .await?;
    // The circuit breaker admits probes, and each is rejected.
    forbidden.wait_matched(3, WAIT_TIMEOUT).await?;
    let checkpoint = env.checkpoint(NAME).await?;
    ensure!(client.messages().is_empty());
    ensure!(rows(&env).await? == 1);
    forbidden.release();
    wait_values(&client, &[1, 2, 3, 4, 5]).await?;
    env.wait_ready(NAME).await?;
    let records = env.ministack.records(&env.stream).await?;
    let numbers = records.iter().map(|record| &record["dynamodb"]["SequenceNumber"]);
    let numbers: Vec<&Value> = numbers.collect();
    let index =
        numbers.iter().position(|number| **number == checkpoint.position().unwrap_or_default());
    // The filter skips the first record.
    ensure!(index.unwrap_or(0) == 0, "{checkpoint:?} was ahead of delivery: {numbers:?}");
    ensure!(rows(&env).await? == 1);
    let closed = operator.counter("stream_notifier_messages_total", NAME, "gone").await?;
    let posts =
        operator.counter("stream_notifier_post_attempts_total", NAME, "endpoint_error").await?;
    ensure!(closed == 0 && posts >= 3, "{closed} closed connections, {posts} rejected posts");
    operator.stop().await?;
    env.passed();
    Ok(())
}

/// The number of stored connections.
async fn rows(env: &TestEnv) -> Result<i32> {
    let scan = env.ministack.dynamodb().scan().table_name(CONNECTIONS);
    Ok(scan.send().await?.count())
}
