//! A stream, a table or an index that is not there (yet), and a record that makes no message.

use anyhow::{Context, Result, ensure};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, CreateGlobalSecondaryIndexAction, DeleteGlobalSecondaryIndexAction,
    GlobalSecondaryIndexUpdate, KeySchemaElement, KeyType, Projection, ProjectionType,
    ScalarAttributeType,
};
use serde_json::json;
use stream_notifier_tests::proxy::Reply;

use super::{NAME, PK, SK, begin, told};
use crate::fixture::{CONNECTIONS, INDEX, World};

#[tokio::test]
async fn a_missing_stream_is_named_until_it_appears() -> Result<()> {
    let (world, client, operator) = begin().await?;
    let mut manifest = world.manifest(NAME);
    let elsewhere = world.stream.replace("sample-table-dev", "sample-table-prod");
    manifest["spec"]["streamArn"] = json!(elsewhere);
    world.submit(&manifest).await?;
    let said = world.stalled(NAME, "StreamNotFound").await?;
    ensure!(said.contains(&elsewhere), "{said}");

    // The label of a stream is the moment of its making: no test can make one that was named
    // before. So the other one is hidden.
    let reply = Reply::dynamodb_error("ResourceNotFoundException", "Requested resource not found")?;
    let hidden = world.proxy.answer(reply, |request| {
        request.operation.as_deref().is_some_and(|name| name.contains("Stream"))
    });
    world.submit(&world.manifest(NAME)).await?;
    let said = world.stalled(NAME, "StreamNotFound").await?;
    ensure!(said.contains(&world.stream), "{said}");
    hidden.release();
    world.ready(NAME).await?;
    world.update(PK, SK, 1).await?;
    told(&client, &[1]).await?;
    operator.stop().await?;
    world.passed();
    Ok(())
}

#[tokio::test]
async fn a_missing_table_or_index_is_named_until_it_appears() -> Result<()> {
    let (world, _, operator) = begin().await?;
    let mut manifest = world.manifest(NAME);
    manifest["spec"]["connections"]["tableName"] = json!("connections-late");
    world.submit(&manifest).await?;
    let said = world.stalled(NAME, "ConnectionsNotFound").await?;
    ensure!(said.contains("connections-late") && said.contains("connections.tableName"), "{said}");
    world.ministack.create_connections_table("connections-late").await?;
    world.ready(NAME).await?;

    manifest["spec"]["connections"]["tableName"] = json!(CONNECTIONS);
    manifest["spec"]["connections"]["partitionKey"] = json!("room");
    world.submit(&manifest).await?;
    let said = world.stalled(NAME, "ConnectionsKeyMismatch").await?;
    ensure!(
        ["connections.partitionKey", "\"room\"", "\"sk\"", INDEX]
            .iter()
            .all(|it| said.contains(it)),
        "{said}"
    );

    update_index(&world, delete_index()?).await?;
    let manifest = world.manifest(NAME);
    world.submit(&manifest).await?;
    let said = world.stalled(NAME, "ConnectionsIndexNotFound").await?;
    ensure!(
        [INDEX, CONNECTIONS, "connections.indexName"].iter().all(|it| said.contains(it)),
        "{said}"
    );
    update_index(&world, create_index()?).await?;
    world.ready(NAME).await?;
    let client = world.api.connect("SK=hoge").await?;
    world.update(PK, SK, 1).await?;
    told(&client, &[1]).await?;
    operator.stop().await?;
    world.passed();
    Ok(())
}

#[tokio::test]
async fn an_index_that_goes_away_holds_its_records_until_it_is_back() -> Result<()> {
    let (world, client, operator) = begin().await?;
    world.apply(&world.manifest(NAME)).await?;
    world.update(PK, SK, 1).await?;
    told(&client, &[1]).await?;
    update_index(&world, delete_index()?).await?;
    world.update(PK, SK, 2).await?;
    let said = world.stalled(NAME, "ConnectionsIndexNotFound").await?;
    ensure!(said.contains(INDEX), "{said}");
    update_index(&world, create_index()?).await?;
    world.ready(NAME).await?;
    told(&client, &[1, 2]).await?;
    let invalid = operator.metric("stream_notifier_records_total", NAME, "invalid").await?;
    ensure!(invalid == 0, "{invalid} records are invalid");
    operator.stop().await?;
    world.passed();
    Ok(())
}

#[tokio::test]
async fn a_record_without_a_message_is_counted_and_the_next_one_arrives() -> Result<()> {
    let (world, client, operator) = begin().await?;
    world.apply(&world.manifest(NAME)).await?;
    // `split('#')[1]` of these gives nothing; the filters let them through.
    for (pk, sk) in [("target_pk", SK), (PK, "target_sk"), (PK, "target_sk#")] {
        world.insert(pk, sk, 1).await?;
        world.update(pk, sk, 2).await?;
    }
    world.update(PK, SK, 1).await?;
    told(&client, &[1]).await?;
    let invalid = operator.metric("stream_notifier_records_total", NAME, "invalid").await?;
    ensure!(invalid == 3, "{invalid} records are invalid");
    world.ready(NAME).await?;
    let records = world.ministack.records(&world.stream).await?;
    let last = records.last().context("no record")?["dynamodb"]["SequenceNumber"].clone();
    let settled = |now: &crate::fixture::Checkpoint| now.after().is_ok_and(|after| last == after);
    world.checkpointed(NAME, "all records", settled).await?;
    operator.stop().await?;
    world.passed();
    Ok(())
}

async fn update_index(world: &World, update: GlobalSecondaryIndexUpdate) -> Result<()> {
    let sk = AttributeDefinition::builder()
        .attribute_name("sk")
        .attribute_type(ScalarAttributeType::S)
        .build()?;
    world
        .ministack
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
