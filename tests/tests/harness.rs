//! The harness itself: its services are real, and no process outlives its test.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use aws_sdk_dynamodb::types::{AttributeValue, StreamViewType};
use axum::http::StatusCode;
use stream_notifier_tests::control_plane::ControlPlane;
use stream_notifier_tests::http;
use stream_notifier_tests::ministack::MiniStack;
use stream_notifier_tests::process::{self, Exit, Process, Spec};
use stream_notifier_tests::proxy::{Proxy, ProxyResponse, first};
use stream_notifier_tests::scratch::Scratch;
use stream_notifier_tests::wait::eventually;
use stream_notifier_tests::web_socket_api::WebSocketApi;

const TIMEOUT: Duration = Duration::from_secs(60);

/// Set in the process of this test binary that the test kills.
const VICTIM: &str = "STREAM_NOTIFIER_VICTIM";

#[tokio::test]
async fn starts_a_control_plane_with_namespaces_and_permissions() -> Result<()> {
    let control_plane = ControlPlane::shared().await?;
    let names = control_plane.kubectl().run(&["get", "namespaces"]).await?;
    ensure!(names.contains("kube-system"), "{names}");

    let namespace = control_plane.namespace().await?;
    let name = namespace.name().to_owned();
    let pod = serde_json::json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "unrestricted"},
        "spec": {"containers": [{"name": "unrestricted", "image": "unrestricted"}]},
    });
    let error = namespace.apply_rejected(&pod.to_string()).await?;
    ensure!(error.contains("restricted"), "{error}");

    let account = control_plane.as_service_account(&name, "default").await?;
    let user =
        account.run(&["auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"]).await?;
    ensure!(user == format!("system:serviceaccount:{name}:default"), "{user}");
    let denied = account.output(&["get", "configmaps"], "").await?;
    let error = String::from_utf8_lossy(&denied.stderr).into_owned();
    ensure!(!denied.status.success() && error.contains("Forbidden"), "{error}");

    namespace.passed();
    eventually(TIMEOUT, "the namespace to be deleted", async || {
        let names = control_plane.kubectl().run(&["get", "namespaces", "-o", "name"]).await?;
        ensure!(!names.contains(&name), "{names}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn runs_helm_4_against_the_cluster() -> Result<()> {
    let helm = ControlPlane::shared().await?.helm().await?;
    let version = helm.run(&["version", "--template", "{{.Version}}"]).await?;
    ensure!(version.starts_with("v4."), "{version}");
    let releases = helm.run(&["list", "--all-namespaces", "--output", "json"]).await?;
    ensure!(releases.trim() == "[]", "{releases}");
    Ok(())
}

#[tokio::test]
async fn stores_connections_and_delivers_a_post() -> Result<()> {
    let ministack = MiniStack::start().await?;
    let stream =
        ministack.create_table_with_stream("sample-table", StreamViewType::NewAndOldImages).await?;
    ensure!(stream.contains(":table/sample-table/stream/"), "{stream}");
    ministack.create_connections_table("connections").await?;
    let api = WebSocketApi::create(&ministack, "api", Some("connections")).await?;

    let client = api.connect("SK=hoge").await?;
    let stored = async || {
        let rows = ministack
            .dynamodb()
            .query()
            .table_name("connections")
            .index_name("sk-index")
            .key_condition_expression("sk = :sk")
            .expression_attribute_values(":sk", AttributeValue::S("hoge".into()))
            .send()
            .await?;
        anyhow::Ok(rows.items().to_vec())
    };
    let rows = stored().await?;
    let id = AttributeValue::S(client.connection_id()?.into());
    ensure!(rows.len() == 1 && rows[0].get("connection_id") == Some(&id), "{rows:?}");

    let url = format!("{}/@connections/{}", api.gateway_url(), client.connection_id()?);
    http::post(&url, r#"{"pk":"fuga"}"#).await?.success()?;
    let messages = client.wait_until(TIMEOUT, "the post", |messages| !messages.is_empty()).await?;
    ensure!(messages[0].json()?["pk"] == "fuga", "{messages:?}");

    client.close().await?;
    eventually(TIMEOUT, "the row to be deleted", async || {
        let rows = stored().await?;
        ensure!(rows.is_empty(), "{rows:?}");
        Ok(())
    })
    .await?;
    ensure!(http::post(&url, "late").await?.status == StatusCode::GONE);

    ministack.reset().await?;
    let tables = ministack.dynamodb().list_tables().send().await?;
    ensure!(tables.table_names().is_empty(), "{tables:?}");
    Ok(())
}

#[tokio::test]
async fn records_holds_and_replaces_responses_in_the_proxy() -> Result<()> {
    let ministack = MiniStack::start().await?;
    let proxy = Proxy::start(ministack.endpoint()).await?;
    let health = format!("{}/_ministack/health", proxy.endpoint());

    let denied = proxy.respond(
        ProxyResponse::gateway_error(403, "ForbiddenException", "Forbidden")?,
        first(1, |request| request.path.ends_with("/health")),
    );
    ensure!(http::get(&health).await?.status == StatusCode::FORBIDDEN);
    ensure!(http::get(&health).await?.status == StatusCode::OK);
    denied.release();

    let held = proxy.hold_response(|request| request.path.ends_with("/health"));
    let waiting = tokio::spawn({
        let health = health.clone();
        async move { http::get(&health).await }
    });
    held.wait_matched(1, TIMEOUT).await?;
    ensure!(!waiting.is_finished());
    held.release();
    ensure!(waiting.await??.status == StatusCode::OK);

    let statuses: Vec<_> = proxy.requests().iter().filter_map(|request| request.status).collect();
    ensure!(statuses == [StatusCode::FORBIDDEN, StatusCode::OK, StatusCode::OK], "{statuses:?}");
    Ok(())
}

#[tokio::test]
async fn reports_the_exit_of_a_process() -> Result<()> {
    let scratch = Scratch::new("end")?;
    let spec = Spec::new("sh", scratch.path().join("log")).arguments(["-c", "echo line; exit 3"]);
    let process = Process::start("sh", spec)?;
    ensure!(process.wait_exit(TIMEOUT).await? == Exit::Code(3));
    ensure!(process.log() == "line\n");

    let missing = Process::start("missing", Spec::new("/nowhere", scratch.path().join("log")));
    let error = missing.err().context("the process started")?;
    ensure!(format!("{error:#}").contains("/nowhere"), "{error:#}");
    Ok(())
}

#[tokio::test]
async fn leaves_no_process_of_a_killed_test() -> Result<()> {
    let mut victim = Command::new(std::env::current_exe()?)
        .args(["--exact", "victim", "--nocapture"])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()?;
    let output = BufReader::new(victim.stdout.take().context("no output")?);
    let line = output
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.split_once("victim ").map(|(_, rest)| rest.to_owned()))
        .context("the victim printed nothing")?;
    let (pids, folder) = line.split_once(" in ").context("no folder")?;
    let pids: Vec<i32> = pids.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    for pid in &pids {
        ensure!(process::is_running(*pid)?, "{pid} does not run");
    }

    victim.kill()?;
    victim.wait()?;
    eventually(TIMEOUT, "the processes and files of the victim to be removed", async || {
        for pid in &pids {
            ensure!(!process::is_running(*pid)?, "{pid} still runs");
        }
        ensure!(!std::path::Path::new(folder).exists(), "{folder} still exists");
        Ok(())
    })
    .await
}

/// Not a test: `leaves_no_process_of_a_killed_test` runs it in another process and kills that.
#[tokio::test]
async fn victim() -> Result<()> {
    if std::env::var_os(VICTIM).is_none() {
        return Ok(());
    }
    let scratch = Scratch::new("victim")?;
    // A shell with a child process.
    let log = scratch.path().join("log");
    let spec = Spec::new("sh", &log).arguments(["-c", "sleep 600 & echo $!; wait"]);
    let shell = Process::start("shell", spec)?;
    let child = eventually(TIMEOUT, "the child of the shell", async || {
        Ok(shell.log().trim().parse::<i32>()?)
    })
    .await?;
    println!("victim {} {child} in {}", shell.pid(), scratch.path().display());
    shell.wait_exit(TIMEOUT * 10).await.map(drop)
}
