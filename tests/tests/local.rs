//! The local mode through its own command line: the origin's story, rows of connections that are
//! gone, and a restart with a data directory.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use serde_json::{Value, json};
use stream_notifier_tests::http;
use stream_notifier_tests::ministack::dynamodb;
use stream_notifier_tests::operator::Operator;
use stream_notifier_tests::process::Exit;
use stream_notifier_tests::scratch::Scratch;
use stream_notifier_tests::wait::eventually;
use stream_notifier_tests::websocket::WebSocketClient;

const LIMIT: Duration = Duration::from_secs(30);
const TABLE: &str = "sample-table-dev";
const CONNECTIONS: &str = "sample-connections-dev";

/// `stream-notifier local` on free ports, once it is ready.
struct Local {
    operator: Operator,
    /// `127.0.0.1:<port>` of gateway and page.
    gateway: String,
    dynamodb: Client,
}

impl Local {
    async fn start(arguments: &[&str]) -> Result<Self> {
        let fixed = ["local", "--port", "0", "--dynamodb-port", "0"];
        let operator = Operator::start(
            fixed.iter().chain(arguments).copied(),
            [("AWS_EC2_METADATA_DISABLED", "true")],
            None,
        )?;
        let ready =
            operator.wait_for_line(LIMIT, "ready", |line| line.starts_with("ready")).await?;
        let mut addresses = ready.split("http://").skip(1).map(|text| {
            text.split(|c: char| c == '/' || c.is_whitespace())
                .next()
                .unwrap_or_default()
                .to_owned()
        });
        let gateway = addresses.next().context("the ready line names the gateway")?;
        let table = addresses.next().context("the ready line names DynamoDB")?;
        Ok(Self { operator, gateway, dynamodb: dynamodb(&format!("http://{table}")) })
    }

    async fn connect(&self, sk: &str) -> Result<WebSocketClient> {
        WebSocketClient::connect(&format!("ws://{}/api?SK={sk}", self.gateway)).await
    }

    async fn change(&self, pk: &str, sk: &str, attribute: &str, value: &str) -> Result<()> {
        self.dynamodb
            .update_item()
            .table_name(TABLE)
            .set_key(Some(key(pk, sk)))
            .update_expression("SET #a = :a")
            .expression_attribute_names("#a", attribute)
            .expression_attribute_values(":a", AttributeValue::N(value.to_owned()))
            .send()
            .await?;
        Ok(())
    }

    async fn remove(&self, pk: &str, sk: &str) -> Result<()> {
        let key = Some(key(pk, sk));
        self.dynamodb.delete_item().table_name(TABLE).set_key(key).send().await?;
        Ok(())
    }

    /// Stores a connection's row as a `$connect` that nobody answers for any more.
    async fn put_row(&self, connection: &str, sk: &str, created_at: &str) -> Result<()> {
        let text = |text: &str| AttributeValue::S(text.to_owned());
        self.dynamodb
            .put_item()
            .table_name(CONNECTIONS)
            .item("connection_id", text(connection))
            .item("sk", text(sk))
            .item("created_at", text(created_at))
            .send()
            .await?;
        Ok(())
    }

    async fn rows(&self) -> Result<Vec<String>> {
        let rows =
            self.dynamodb.scan().table_name(CONNECTIONS).send().await?.items.unwrap_or_default();
        Ok(rows.iter().filter_map(|row| row["connection_id"].as_s().ok().cloned()).collect())
    }

    async fn has_rows(&self, count: usize) -> Result<()> {
        eventually(LIMIT, format!("{count} rows"), async || {
            let rows = self.rows().await?;
            ensure!(rows.len() == count, "there are {rows:?}");
            Ok(())
        })
        .await
    }
}

fn key(pk: &str, sk: &str) -> HashMap<String, AttributeValue> {
    let text = |text: &str| AttributeValue::S(text.to_owned());
    HashMap::from([("PK".to_owned(), text(pk)), ("SK".to_owned(), text(sk))])
}

fn told(value: &str) -> String {
    format!(r#"{{"pk":"fuga","sk":"hoge","value":"{value}"}}"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_origins_story() -> Result<()> {
    let local = Local::start(&[]).await?;
    let first = local.connect("hoge").await?;
    let second = local.connect("hoge").await?;
    let other = local.connect("other").await?;
    let (pk, sk) = ("target_pk#fuga", "target_sk#hoge");
    // Nobody is told of an INSERT, another attribute, a value that stays, another item, a REMOVE.
    local.change(pk, sk, "TargetAttribute", "80").await?;
    local.change(pk, sk, "Another", "1").await?;
    local.change(pk, sk, "TargetAttribute", "80").await?;
    local.change("another#fuga", sk, "TargetAttribute", "1").await?;
    local.change("another#fuga", sk, "TargetAttribute", "2").await?;
    local.change(pk, "target_sk#gone", "TargetAttribute", "1").await?;
    local.remove(pk, "target_sk#gone").await?;
    local.change(pk, sk, "TargetAttribute", "90").await?;
    // What arrives last proves that nothing else was to come before it.
    local.change(pk, sk, "TargetAttribute", "91").await?;
    local.change(pk, "target_sk#other", "TargetAttribute", "1").await?;
    local.change(pk, "target_sk#other", "TargetAttribute", "2").await?;
    for client in [&first, &second] {
        client.wait_until(LIMIT, "the last change", |all| all.len() >= 2).await?;
        assert_eq!(client.texts(), [told("90"), told("91")]);
    }
    other.wait_until(LIMIT, "its change", |all| !all.is_empty()).await?;
    assert_eq!(other.texts(), [r#"{"pk":"fuga","sk":"other","value":"2"}"#]);
    // Closing deletes the row.
    local.has_rows(3).await?;
    first.close().await?;
    local.has_rows(2).await?;
    let page = http::get(&format!("http://{}/", local.gateway)).await?.success()?;
    assert!(page.text().contains("<form"), "the page has a form");
    let exit = local.operator.terminate(LIMIT).await?;
    assert_eq!(exit, Exit::Code(0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_connections_that_are_gone() -> Result<()> {
    let local = Local::start(&[]).await?;
    let client = local.connect("hoge").await?;
    local.put_row("R29uZUdvbmVHb25lR28=", "hoge", "2026-01-01T00:00:00Z").await?;
    local.put_row("V3JpdHRlbkFnYWluISE=", "hoge", "2026-01-01T00:00:00Z").await?;
    local.change("target_pk#fuga", "target_sk#hoge", "TargetAttribute", "80").await?;
    local.change("target_pk#fuga", "target_sk#hoge", "TargetAttribute", "90").await?;
    client.wait_until(LIMIT, "the change", |all| !all.is_empty()).await?;
    // The lookup is over, the gateway has its last word seven seconds later: also about a row that is
    // written again meanwhile.
    local.put_row("V3JpdHRlbkFnYWluISE=", "hoge", "2026-12-31T00:00:00Z").await?;
    local.has_rows(1).await?;
    assert_eq!(client.texts(), [told("90")]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_from_the_data_directory() -> Result<()> {
    let scratch = Scratch::new("local-data")?;
    let directory = scratch.path().join("data");
    let directory = directory.to_str().context("a path in UTF-8")?;
    let local = Local::start(&["--data-dir", directory]).await?;
    let client = local.connect("hoge").await?;
    local.change("target_pk#fuga", "target_sk#hoge", "TargetAttribute", "80").await?;
    local.change("target_pk#fuga", "target_sk#hoge", "TargetAttribute", "90").await?;
    client.wait_until(LIMIT, "the change", |all| !all.is_empty()).await?;
    local.operator.terminate(LIMIT).await?;
    let local = Local::start(&["--data-dir", directory]).await?;
    let client = local.connect("hoge").await?;
    local.change("target_pk#fuga", "target_sk#hoge", "TargetAttribute", "91").await?;
    client.wait_until(LIMIT, "the change", |all| !all.is_empty()).await?;
    assert_eq!(client.texts(), [told("91")], "the table and the checkpoint are those of before");
    Ok(())
}

/// Policies are those of the operator; of the queue, which is not there, one line says so.
#[tokio::test(flavor = "multi_thread")]
async fn everybody_is_told_what_passes_the_filter() -> Result<()> {
    let scratch = Scratch::new("local-broadcast")?;
    let mut manifest: Value =
        serde_saphyr::from_str(include_str!("../../examples/target-attribute.yaml"))?;
    let spec = &mut manifest["spec"];
    let connections = json!({"tableName": CONNECTIONS, "connectionIdAttribute": "connection_id"});
    spec["connections"] = connections;
    spec["filter"] = json!("new.TargetAttribute > 85");
    spec["message"]["text"] = json!("new.?text.orValue('')");
    let queue = "arn:aws:sqs:ap-northeast-1:123456789012:lost";
    spec["delivery"] = json!({"oversize": "KeysOnly", "deadLetterQueueArn": queue});
    let path = scratch.write("broadcast.yaml", &manifest.to_string())?;
    let local = Local::start(&["-f", path.to_str().context("a path in UTF-8")?]).await?;
    let says = local.operator.log().matches("deadLetterQueueArn").count();
    assert_eq!(says, 1, "{}", local.operator.log());

    let url = format!("ws://{}/api", local.gateway);
    let clients = [WebSocketClient::connect(&url).await?, WebSocketClient::connect(&url).await?];
    let (pk, sk) = ("target_pk#fuga", "target_sk#hoge");
    for value in ["70", "80", "90"] {
        local.change(pk, sk, "TargetAttribute", value).await?;
    }
    let large = AttributeValue::S("x".repeat(200_000));
    let put = local.dynamodb.put_item().table_name(TABLE).set_item(Some(key(pk, sk)));
    let put = put.item("TargetAttribute", AttributeValue::N("91".to_owned())).item("text", large);
    put.send().await?;
    for client in &clients {
        let received = client.wait_until(LIMIT, "both changes", |all| all.len() >= 2).await?;
        let told = json!({"pk": "fuga", "sk": "hoge", "value": "90", "text": ""});
        assert_eq!(received[0].json()?, told);
        assert_eq!(received[1].json()?, json!({"pk": pk, "sk": sk, "truncated": true}));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_run_says_why() -> Result<()> {
    let scratch = Scratch::new("local-manifests")?;
    let manifest = include_str!("../../examples/target-attribute.yaml");
    for (file, text, says) in [
        ("garbage.yaml", "{".to_owned(), "is not a StreamNotifier"),
        ("expression.yaml", manifest.replace("keys.PK.split('#')[1]", "keys.PK.("), "message.pk"),
        ("stream.yaml", manifest.replace("/stream/", "/index/"), "streamArn"),
    ] {
        let path = scratch.write(file, &text)?;
        let log = failed(&["-f", path.to_str().context("a path in UTF-8")?]).await?;
        assert!(log.contains(says), "{file}: {log}");
    }
    let log = failed(&["-f", "no/such/file.yaml"]).await?;
    assert!(log.contains("cannot read no/such/file.yaml"), "{log}");
    Ok(())
}

/// The log of a local mode that ends by itself.
async fn failed(arguments: &[&str]) -> Result<String> {
    let fixed = ["local", "--port", "0", "--dynamodb-port", "0"];
    let environment: [(&str, &str); 0] = [];
    let operator = Operator::start(fixed.iter().chain(arguments).copied(), environment, None)?;
    operator.process().wait_exit(LIMIT).await?;
    Ok(operator.log())
}

/// The examples are what users start from: each must run as it is.
#[tokio::test(flavor = "multi_thread")]
async fn every_example_runs() -> Result<()> {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    for example in std::fs::read_dir(examples)? {
        let path = example?.path();
        let local = Local::start(&["-f", path.to_str().context("a path in UTF-8")?]).await?;
        local.operator.terminate(LIMIT).await?;
    }
    Ok(())
}
