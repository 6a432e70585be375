//! The example of the README: a changed item reaches the clients that watch it, and no other client.

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use stream_notifier_tests::websocket::WebSocketClient;

use crate::fixture::{TestEnv, WAIT_TIMEOUT, repository_root};

const PK: &str = "target_pk#fuga";
const SK: &str = "target_sk#hoge";

/// The example manifest, with the names of the emulator instead of its placeholders.
fn example(env: &TestEnv) -> Result<String> {
    let file = repository_root()?.join("examples/target-attribute.yaml");
    let mut manifest = std::fs::read_to_string(file)?;
    for (placeholder, name) in [
        (
            "arn:aws:dynamodb:ap-northeast-1:123456789012:table/sample-table-dev/stream/2024-12-03T08:06:15.779",
            &*env.stream,
        ),
        ("abcdefghij.execute-api.ap-northeast-1.amazonaws.com", &*env.api.domain()),
        ("namespace: dev", &*format!("namespace: {}", env.namespace.name())),
    ] {
        ensure!(
            manifest.matches(placeholder).count() == 1,
            "the example must contain {placeholder} once"
        );
        manifest = manifest.replace(placeholder, name);
    }
    Ok(manifest)
}

async fn wait_messages(client: &WebSocketClient, count: usize) -> Result<Vec<Value>> {
    let what = format!("{count} messages");
    let received =
        client.wait_until(WAIT_TIMEOUT, &what, |received| received.len() >= count).await?;
    received.iter().map(|message| message.json()).collect()
}

fn message(value: &str) -> Value {
    json!({"pk": "fuga", "sk": "hoge", "value": value})
}

#[tokio::test]
async fn delivers_a_changed_item_to_the_clients_that_watch_it() -> Result<()> {
    let env = TestEnv::new().await?;
    env.insert_item(PK, SK, 80).await?;
    let operator = env.start_operator()?;
    env.namespace.apply(&example(&env)?).await?;
    env.wait_ready("target-attribute").await?;

    let first = env.api.connect("SK=hoge").await?;
    let second = env.api.connect("SK=hoge").await?;
    let other = env.api.connect("SK=other").await?;

    env.update_item(PK, SK, 90).await?;
    for client in [&first, &second] {
        let messages = wait_messages(client, 1).await?;
        ensure!(messages == [message("90")], "{messages:?}");
    }

    // The notifier skips all of these. The messages about a later change show this.
    env.insert_item("target_pk#new", SK, 1).await?;
    env.delete_item("target_pk#new", SK).await?;
    env.update_attribute(PK, SK, "Another", 1).await?;
    for (pk, sk) in [("fuga", SK), (PK, "hoge"), ("pk#fuga", "sk#hoge")] {
        env.insert_item(pk, sk, 1).await?;
        env.update_item(pk, sk, 2).await?;
    }
    // An update to the same value writes no record.
    env.update_item(PK, SK, 90).await?;
    env.insert_item("target_pk#fuga", "target_sk#other", 1).await?;
    env.update_item("target_pk#fuga", "target_sk#other", 2).await?;
    env.update_item(PK, SK, 91).await?;
    for client in [&first, &second] {
        let messages = wait_messages(client, 2).await?;
        ensure!(messages == [message("90"), message("91")], "{messages:?}");
    }
    // The last change but one has the key of the other client.
    let messages = wait_messages(&other, 1).await?;
    let expected = json!({"pk": "fuga", "sk": "other", "value": "2"});
    ensure!(messages == [expected], "{messages:?}");

    let table = env.namespace.run(&["get", "stn"]).await?;
    let rows: Vec<Vec<&str>> =
        table.lines().map(|line| line.split_whitespace().collect()).collect();
    ensure!(
        rows.len() == 2
            && rows[0] == ["NAME", "READY", "REASON", "AGE"]
            && rows[1][..3] == ["target-attribute", "True", "Reading"],
        "{table}"
    );
    let all = env.namespace.run(&["get", "aws", "--output=name"]).await?;
    ensure!(all.trim() == "streamnotifier.streamnotifier.dev/target-attribute", "{all}");
    let ready = operator.readyz().await?;
    ensure!(ready.status.is_success(), "{}", ready.text());

    operator.stop().await?;
    let log = operator.log();
    let leaked = ["\"90\"", "fuga", "hoge"].iter().find(|text| log.contains(**text));
    ensure!(leaked.is_none(), "the log contains the item value {leaked:?}:\n{log}");
    env.passed();
    Ok(())
}
