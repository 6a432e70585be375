//! `stream-notifier local`: delivery, deletion of stale rows, the data directory, and rejected manifests.

use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use stream_notifier_tests::http;
use stream_notifier_tests::ministack::dynamodb;
use stream_notifier_tests::operator::Operator;
use stream_notifier_tests::process::Exit;
use stream_notifier_tests::scratch::Scratch;
use stream_notifier_tests::tools::built;
use stream_notifier_tests::wait::eventually;
use stream_notifier_tests::websocket::WebSocketClient;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;
use tokio::time::timeout;

const TIMEOUT: Duration = Duration::from_secs(30);
const TABLE: &str = "sample-table-dev";
const CONNECTIONS: &str = "sample-connections-dev";

/// A ready `stream-notifier local` on free ports.
struct Local {
    operator: Operator,
    /// Address of the gateway and the page: `127.0.0.1:<port>`.
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
            operator.wait_for_line(TIMEOUT, "ready", |line| line.starts_with("ready")).await?;
        let mut addresses = ready.split("http://").skip(1).map(|text| {
            text.split(|c: char| c == '/' || c.is_whitespace())
                .next()
                .unwrap_or_default()
                .to_owned()
        });
        let gateway = addresses.next().context("no gateway in the ready line")?;
        let table = addresses.next().context("no DynamoDB in the ready line")?;
        Ok(Self { operator, gateway, dynamodb: dynamodb(&format!("http://{table}")) })
    }

    async fn connect(&self, sk: &str) -> Result<WebSocketClient> {
        WebSocketClient::connect(&format!("ws://{}/api?SK={sk}", self.gateway)).await
    }

    async fn set_attribute(&self, pk: &str, sk: &str, attribute: &str, value: &str) -> Result<()> {
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

    async fn delete_item(&self, pk: &str, sk: &str) -> Result<()> {
        let key = Some(key(pk, sk));
        self.dynamodb.delete_item().table_name(TABLE).set_key(key).send().await?;
        Ok(())
    }

    /// Stores the row of a connection that does not exist.
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

    async fn wait_for_rows(&self, count: usize) -> Result<()> {
        eventually(TIMEOUT, format!("{count} rows"), async || {
            let rows = self.rows().await?;
            ensure!(rows.len() == count, "stored rows: {rows:?}");
            Ok(())
        })
        .await
    }
}

fn key(pk: &str, sk: &str) -> HashMap<String, AttributeValue> {
    let text = |text: &str| AttributeValue::S(text.to_owned());
    HashMap::from([("PK".to_owned(), text(pk)), ("SK".to_owned(), text(sk))])
}

fn message(value: &str) -> String {
    format!(r#"{{"pk":"fuga","sk":"hoge","value":"{value}"}}"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn delivers_the_changes_of_the_original_application() -> Result<()> {
    let local = Local::start(&[]).await?;
    let first = local.connect("hoge").await?;
    let second = local.connect("hoge").await?;
    let other = local.connect("other").await?;
    let (pk, sk) = ("target_pk#fuga", "target_sk#hoge");
    // The filter skips an INSERT, another attribute, an unchanged value, another item and a REMOVE.
    local.set_attribute(pk, sk, "TargetAttribute", "80").await?;
    local.set_attribute(pk, sk, "Another", "1").await?;
    local.set_attribute(pk, sk, "TargetAttribute", "80").await?;
    local.set_attribute("another#fuga", sk, "TargetAttribute", "1").await?;
    local.set_attribute("another#fuga", sk, "TargetAttribute", "2").await?;
    local.set_attribute(pk, "target_sk#deleted", "TargetAttribute", "1").await?;
    local.delete_item(pk, "target_sk#deleted").await?;
    local.set_attribute(pk, sk, "TargetAttribute", "90").await?;
    // Messages arrive in order, so the last one proves that no other precedes it.
    local.set_attribute(pk, sk, "TargetAttribute", "91").await?;
    local.set_attribute(pk, "target_sk#other", "TargetAttribute", "1").await?;
    local.set_attribute(pk, "target_sk#other", "TargetAttribute", "2").await?;
    for client in [&first, &second] {
        client.wait_until(TIMEOUT, "the last change", |all| all.len() >= 2).await?;
        assert_eq!(client.texts(), [message("90"), message("91")]);
    }
    other.wait_until(TIMEOUT, "its change", |all| !all.is_empty()).await?;
    assert_eq!(other.texts(), [r#"{"pk":"fuga","sk":"other","value":"2"}"#]);
    // The gateway deletes the row of a closed connection.
    local.wait_for_rows(3).await?;
    first.close().await?;
    local.wait_for_rows(2).await?;
    let page = http::get(&format!("http://{}/", local.gateway)).await?.success()?;
    assert!(page.text().contains("<form"), "the page must have a form");
    let exit = local.operator.terminate(TIMEOUT).await?;
    assert_eq!(exit, Exit::Code(0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn deletes_rows_of_closed_connections() -> Result<()> {
    let local = Local::start(&[]).await?;
    let client = local.connect("hoge").await?;
    local.put_row("R29uZUdvbmVHb25lR28=", "hoge", "2026-01-01T00:00:00Z").await?;
    local.put_row("V3JpdHRlbkFnYWluISE=", "hoge", "2026-01-01T00:00:00Z").await?;
    local.set_attribute("target_pk#fuga", "target_sk#hoge", "TargetAttribute", "80").await?;
    local.set_attribute("target_pk#fuga", "target_sk#hoge", "TargetAttribute", "90").await?;
    client.wait_until(TIMEOUT, "the change", |all| !all.is_empty()).await?;
    // The lookup has finished. The operator decides about the rows 7 s later, so it must keep this one,
    // which has changed since.
    local.put_row("V3JpdHRlbkFnYWluISE=", "hoge", "2026-12-31T00:00:00Z").await?;
    local.wait_for_rows(1).await?;
    assert_eq!(client.texts(), [message("90")]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn resumes_from_the_data_directory() -> Result<()> {
    let scratch = Scratch::new("local-data")?;
    let directory = scratch.path().join("data");
    let directory = directory.to_str().context("a path in UTF-8")?;
    let local = Local::start(&["--data-dir", directory]).await?;
    let client = local.connect("hoge").await?;
    local.set_attribute("target_pk#fuga", "target_sk#hoge", "TargetAttribute", "80").await?;
    local.set_attribute("target_pk#fuga", "target_sk#hoge", "TargetAttribute", "90").await?;
    client.wait_until(TIMEOUT, "the change", |all| !all.is_empty()).await?;
    local.operator.terminate(TIMEOUT).await?;
    let local = Local::start(&["--data-dir", directory]).await?;
    let client = local.connect("hoge").await?;
    local.set_attribute("target_pk#fuga", "target_sk#hoge", "TargetAttribute", "91").await?;
    client.wait_until(TIMEOUT, "the change", |all| !all.is_empty()).await?;
    assert_eq!(
        client.texts(),
        [message("91")],
        "the table and the checkpoint must be those of the first run"
    );
    Ok(())
}

/// Local mode applies delivery policies, but has no dead-letter queue. It logs this once.
#[tokio::test(flavor = "multi_thread")]
async fn broadcasts_matching_changes_to_every_client() -> Result<()> {
    let scratch = Scratch::new("local-broadcast")?;
    let mut manifest: Value =
        serde_saphyr::from_str(include_str!("../../../examples/target-attribute.yaml"))?;
    let spec = &mut manifest["spec"];
    let connections = json!({"tableName": CONNECTIONS, "connectionIdAttribute": "connection_id"});
    spec["connections"] = connections;
    spec["filter"] = json!("new.TargetAttribute > 85");
    spec["message"]["text"] = json!("new.?text.orValue('')");
    let queue = "arn:aws:sqs:ap-northeast-1:123456789012:lost";
    spec["delivery"] = json!({"oversize": "KeysOnly", "deadLetterQueueArn": queue});
    let path = scratch.write("broadcast.yaml", &manifest.to_string())?;
    let local = Local::start(&["-f", path.to_str().context("a path in UTF-8")?]).await?;
    let warnings = local.operator.log().matches("deadLetterQueueArn").count();
    assert_eq!(warnings, 1, "{}", local.operator.log());

    let url = format!("ws://{}/api", local.gateway);
    let clients = [WebSocketClient::connect(&url).await?, WebSocketClient::connect(&url).await?];
    let (pk, sk) = ("target_pk#fuga", "target_sk#hoge");
    for value in ["70", "80", "90"] {
        local.set_attribute(pk, sk, "TargetAttribute", value).await?;
    }
    let large = AttributeValue::S("x".repeat(200_000));
    let put = local.dynamodb.put_item().table_name(TABLE).set_item(Some(key(pk, sk)));
    let put = put.item("TargetAttribute", AttributeValue::N("91".to_owned())).item("text", large);
    put.send().await?;
    for client in &clients {
        let received = client.wait_until(TIMEOUT, "both changes", |all| all.len() >= 2).await?;
        let expected = json!({"pk": "fuga", "sk": "hoge", "value": "90", "text": ""});
        assert_eq!(received[0].json()?, expected);
        assert_eq!(received[1].json()?, json!({"pk": pk, "sk": sk, "truncated": true}));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_why_a_manifest_is_rejected() -> Result<()> {
    let scratch = Scratch::new("local-manifests")?;
    let manifest = include_str!("../../../examples/target-attribute.yaml");
    for (file, text, expected) in [
        ("garbage.yaml", "{".to_owned(), "is not a StreamNotifier"),
        ("expression.yaml", manifest.replace("keys.PK.split('#')[1]", "keys.PK.("), "message.pk"),
        ("stream.yaml", manifest.replace("/stream/", "/index/"), "streamArn"),
    ] {
        let path = scratch.write(file, &text)?;
        let log = log_of_failed_start(&["-f", path.to_str().context("a path in UTF-8")?]).await?;
        assert!(log.contains(expected), "{file}: {log}");
    }
    let log = log_of_failed_start(&["-f", "no/such/file.yaml"]).await?;
    assert!(log.contains("cannot read no/such/file.yaml"), "{log}");
    Ok(())
}

/// Runs a local mode that must exit by itself. Returns its log.
async fn log_of_failed_start(arguments: &[&str]) -> Result<String> {
    let fixed = ["local", "--port", "0", "--dynamodb-port", "0"];
    let environment: [(&str, &str); 0] = [];
    let operator = Operator::start(fixed.iter().chain(arguments).copied(), environment, None)?;
    operator.process().wait_exit(TIMEOUT).await?;
    Ok(operator.log())
}

/// Users start from the examples, so each must run unchanged.
#[tokio::test(flavor = "multi_thread")]
async fn runs_every_example() -> Result<()> {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    for example in std::fs::read_dir(examples)? {
        let path = example?.path();
        let local = Local::start(&["-f", path.to_str().context("a path in UTF-8")?]).await?;
        local.operator.terminate(TIMEOUT).await?;
    }
    Ok(())
}

/// Such as `stream-notifier local 2>&1 | head -1`.
#[tokio::test]
async fn stops_after_its_output_was_closed() -> Result<()> {
    let mut process = Command::new(built("stream-notifier")?)
        .args(["local", "--port", "0", "--dynamodb-port", "0"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut stderr = BufReader::new(process.stderr.take().context("no standard error")?).lines();
    stderr.next_line().await?.context("no log")?;
    drop((stderr, process.stdout.take()));
    let id = process.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)).context("no id")?;
    kill_process(id, Signal::INT)?;
    let status = timeout(TIMEOUT, process.wait()).await.context("it has not stopped")??;
    ensure!(status.success(), "{status}");
    Ok(())
}
