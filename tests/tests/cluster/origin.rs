//! The origin's story: what was a Lambda function is one manifest, and a changed item reaches those
//! who watch it, and nobody else.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use stream_notifier_tests::websocket::WebSocketClient;

use crate::fixture::{LIMIT, World, repository};

const PK: &str = "target_pk#fuga";
const SK: &str = "target_sk#hoge";

/// The example as it is shipped, with the emulator's names in place of those that a user replaces.
fn example(world: &World) -> Result<String> {
    let file = repository()?.join("examples/target-attribute.yaml");
    let mut manifest = std::fs::read_to_string(file)?;
    for (placeholder, name) in [
        (
            "arn:aws:dynamodb:ap-northeast-1:123456789012:table/sample-table-dev/stream/2024-12-03T08:06:15.779",
            &*world.stream,
        ),
        ("abcdefghij.execute-api.ap-northeast-1.amazonaws.com", &*world.api.domain()),
        ("namespace: dev", &*format!("namespace: {}", world.namespace.name())),
    ] {
        ensure!(
            manifest.matches(placeholder).count() == 1,
            "{placeholder} is not once in the example"
        );
        manifest = manifest.replace(placeholder, name);
    }
    Ok(manifest)
}

async fn told(client: &WebSocketClient, messages: usize) -> Result<Vec<Value>> {
    let what = format!("{messages} messages");
    let received = client.wait_until(LIMIT, &what, |received| received.len() >= messages).await?;
    received.iter().map(|message| message.json()).collect()
}

fn message(value: &str) -> Value {
    json!({"pk": "fuga", "sk": "hoge", "value": value})
}

#[tokio::test]
async fn a_changed_item_reaches_those_who_watch_it() -> Result<()> {
    let world = World::new().await?;
    world.insert(PK, SK, 80).await?;
    let operator = world.operator()?;
    world.namespace.apply(&example(&world)?).await?;
    world.ready("target-attribute").await?;

    let first = world.api.connect("SK=hoge").await?;
    let second = world.api.connect("SK=hoge").await?;
    let other = world.api.connect("SK=other").await?;

    world.update(PK, SK, 90).await?;
    for client in [&first, &second] {
        let messages = told(client, 1).await?;
        ensure!(messages == [message("90")], "{messages:?}");
    }

    // None of these is told; that shows when a change that is told has come after them.
    world.insert("target_pk#new", SK, 1).await?;
    world.delete("target_pk#new", SK).await?;
    world.update_attribute(PK, SK, "Another", 1).await?;
    for (pk, sk) in [("fuga", SK), (PK, "hoge"), ("pk#fuga", "sk#hoge")] {
        world.insert(pk, sk, 1).await?;
        world.update(pk, sk, 2).await?;
    }
    // The same value again is no change: neither for DynamoDB nor for the notifier.
    world.update(PK, SK, 90).await?;
    world.insert("target_pk#fuga", "target_sk#other", 1).await?;
    world.update("target_pk#fuga", "target_sk#other", 2).await?;
    world.update(PK, SK, 91).await?;
    for client in [&first, &second] {
        let messages = told(client, 2).await?;
        ensure!(messages == [message("90"), message("91")], "{messages:?}");
    }
    // The last but one went to the other's key: posted before, or beside, those two.
    let messages = told(&other, 1).await?;
    let expected = json!({"pk": "fuga", "sk": "other", "value": "2"});
    ensure!(messages == [expected], "{messages:?}");

    let table = world.namespace.run(&["get", "stn"]).await?;
    let rows: Vec<Vec<&str>> =
        table.lines().map(|line| line.split_whitespace().collect()).collect();
    ensure!(
        rows.len() == 2
            && rows[0] == ["NAME", "READY", "REASON", "AGE"]
            && rows[1][..3] == ["target-attribute", "True", "Reading"],
        "{table}"
    );
    let all = world.namespace.run(&["get", "aws", "--output=name"]).await?;
    ensure!(all.trim() == "streamnotifier.streamnotifier.dev/target-attribute", "{all}");
    let ready = operator.readyz().await?;
    ensure!(ready.status.is_success(), "{}", ready.text());

    operator.stop().await?;
    let log = operator.log();
    let told = ["\"90\"", "fuga", "hoge"].iter().find(|text| log.contains(**text));
    ensure!(told.is_none(), "the log has an item's {told:?}:\n{log}");
    world.passed();
    Ok(())
}
