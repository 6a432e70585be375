//! A missing stream, table or index, and a record without a message.

use anyhow::{Context, Result, ensure};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, CreateGlobalSecondaryIndexAction, DeleteGlobalSecondaryIndexAction,
    GlobalSecondaryIndexUpdate, KeySchemaElement, KeyType, Projection, ProjectionType,
    ScalarAttributeType,
};
use serde_json::json;
use stream_notifier_tests::proxy::ProxyResponse;

use super::{NAME, PK, SK, start_env, wait_values};
use crate::fixture::{CONNECTIONS, Checkpoint, INDEX, TestEnv};

#[tokio::test]
async fn names_a_missing_stream_until_it_exists() -> Result<()> {
    let (env, client, operator) = start_env().await?;
    let mut manifest = env.manifest(NAME);
    let elsewhere = env.stream.replace("sample-table-dev", "sample-table-prod");
    manifest["spec"]["streamArn"] = json!(elsewhere);
    env.apply_spec(&manifest).await?;
    let message = env.wait_stalled(NAME, "StreamNotFound").await?;
    ensure!(message.contains(&elsewhere), "{message}");

    // The label of a stream is its creation time, so a test cannot create a stream that a spec named
    // before. The proxy hides the existing stream instead.
    let response =
        ProxyResponse::dynamodb_error("ResourceNotFoundException", "Requested resource not found")?;
    let hidden = env.proxy.respond(response, |request| {
        request.operation.as_deref().is_some_and(|name| name.contains("Stream"))
    });
    env.apply_spec(&env.manifest(NAME)).await?;
    let message = env.wait_stalled(NAME, "StreamNotFound").await?;
    ensure!(message.contains(&env.stream), "{message}");
    hidden.release();
    env.wait_ready(NAME).await?;
    env.update_item(PK, SK, 1).await?;
    wait_values(&client, &[1]).await?;
    operator.stop().await?;
    env.passed();
    Ok(())
}

#[tokio::test]
async fn names_a_missing_table_or_index_until_it_exists() -> Result<()> {
    let (env, _, operator) = start_env().await?;
    let mut manifest = env.manifest(NAME);
    manifest["spec"]["connections"]["tableName"] = json!("connections-late");
    env.apply_spec(&manifest).await?;
    let message = env.wait_stalled(NAME, "ConnectionsNotFound").await?;
    ensure!(
        message.contains("connections-late") && message.contains("connections.tableName"),
        "{message}"
    );
    env.ministack.create_connections_table("connections-late").await?;
    env.wait_ready(NAME).await?;

    manifest["spec"]["connections"]["tableName"] = json!(CONNECTIONS);
    manifest["spec"]["connections"]["partitionKey"] = json!("room");
    env.apply_spec(&manifest).await?;
    let message = env.wait_stalled(NAME, "ConnectionsKeyMismatch").await?;
    ensure!(
        ["connections.partitionKey", "\"room\"", "\"sk\"", INDEX]
            .iter()
            .all(|it| message.contains(it)),
        "{message}"
    );

    update_index(&env, delete_index()?).await?;
    let manifest = env.manifest(NAME);
    env.apply_spec(&manifest).await?;
    let message = env.wait_stalled(NAME, "ConnectionsIndexNotFound").await?;
    ensure!(
        [INDEX, CONNECTIONS, "connections.indexName"].iter().all(|it| message.contains(it)),
        "{message}"
    );
    update_index(&env, create_index()?).await?;
    env.wait_ready(NAME).await?;
    let client = env.api.connect("SK=hoge").await?;
    env.update_item(PK, SK, 1).await?;
    wait_values(&client, &[1]).await?;
    operator.stop().await?;
    env.passed();
    Ok(())
}

#[tokio::test]
async fn holds_records_while_the_index_is_missing() -> Result<()> {
    let (env, client, operator) = start_env().await?;
    env.apply_and_wait_ready(&env.manifest(NAME)).await?;
    env.update_item(PK, SK, 1).await?;
    wait_values(&client, &[1]).await?;
    update_index(&env, delete_index()?).await?;
    env.update_item(PK, SK, 2).await?;
    let message = env.wait_stalled(NAME, "ConnectionsIndexNotFound").await?;
    ensure!(message.contains(INDEX), "{message}");
    update_index(&env, create_index()?).await?;
    env.wait_ready(NAME).await?;
    wait_values(&client, &[1, 2]).await?;
    let invalid = operator.counter("stream_notifier_records_total", NAME, "invalid").await?;
    ensure!(invalid == 0, "{invalid} records are invalid");
    operator.stop().await?;
    env.passed();
    Ok(())
}

#[tokio::test]
async fn counts_an_invalid_record_and_delivers_the_next_one() -> Result<()> {
    let (env, client, operator) = start_env().await?;
    env.apply_and_wait_ready(&env.manifest(NAME)).await?;
    // These match the key filters, but `split('#')[1]` fails.
    for (pk, sk) in [("target_pk", SK), (PK, "target_sk"), (PK, "target_sk#")] {
        env.insert_item(pk, sk, 1).await?;
        env.update_item(pk, sk, 2).await?;
    }
    env.update_item(PK, SK, 1).await?;
    wait_values(&client, &[1]).await?;
    let invalid = operator.counter("stream_notifier_records_total", NAME, "invalid").await?;
    ensure!(invalid == 3, "{invalid} records are invalid");
    env.wait_ready(NAME).await?;
    let records = env.ministack.records(&env.stream).await?;
    let last = records.last().context("no record")?["dynamodb"]["SequenceNumber"].clone();
    let is_last = |now: &Checkpoint| now.position().is_ok_and(|after| last == after);
    env.wait_checkpoint(NAME, "all records", is_last).await?;
    operator.stop().await?;
    env.passed();
    Ok(())
}

async fn update_index(env: &TestEnv, update: GlobalSecondaryIndexUpdate) -> Result<()> {
    let sk = AttributeDefinition::builder()
        .attribute_name("sk")
        .attribute_type(ScalarAttributeType::S)
        .build()?;
    env.ministack
        .dynamodb()
        .update_table()
        .table_name(CONNECTIONS)
        .attribute_definitions(sk)
        .global_secondary_index_updates(update)
        .send()
        .await?;
    Ok(())
}

fn delete_index() -> Result<GlobalSecondaryIndexUpdate> {
    let delete = DeleteGlobalSecondaryIndexAction::builder().index_name(INDEX).build()?;
    Ok(GlobalSecondaryIndexUpdate::builder().delete(delete).build())
}

fn create_index() -> Result<GlobalSecondaryIndexUpdate> {
    let key = KeySchemaElement::builder().attribute_name("sk").key_type(KeyType::Hash).build()?;
    let all = Projection::builder().projection_type(ProjectionType::All).build();
    let create = CreateGlobalSecondaryIndexAction::builder()
        .index_name(INDEX)
        .key_schema(key)
        .projection(all)
        .build()?;
    Ok(GlobalSecondaryIndexUpdate::builder().create(create).build())
}
