//! Tests of the whole local mode over real sockets.

pub mod client;
pub mod fixture;

use std::path::PathBuf;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::local::tests::client::{HttpResponse, request};
use crate::local::tests::fixture::{Scratch, example_manifest};
use crate::local::*;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

fn options() -> Options {
    Options {
        manifest: example_manifest(),
        listen_address: Ipv4Addr::LOCALHOST.into(),
        dynamodb_port: 0,
        port: 0,
        keys: Vec::new(),
        data_dir: None,
    }
}

async fn start_in(data_dir: Option<PathBuf>) -> Local {
    start(Options { data_dir, ..options() }).await.unwrap()
}

fn address(url: &str) -> String {
    url.trim_start_matches("http://").split('/').next().unwrap().to_owned()
}

async fn http(address: &str, method: &'static str, path: &str, body: &[u8]) -> HttpResponse {
    let (address, path, body) = (address.to_owned(), path.to_owned(), body.to_owned());
    let headers = [("content-type", "application/json")];
    tokio::task::spawn_blocking(move || request(&address, method, &path, &headers, &body))
        .await
        .unwrap()
}

async fn open(local: &Local, path: &str) -> Result<Socket, Error> {
    let url = format!("ws://{}{path}", address(&local.gateway_endpoint));
    connect_async(url).await.map(|(socket, _)| socket)
}

async fn rows(local: &Local) -> Vec<Value> {
    let body = json!({ "TableName": "sample-connections-dev" }).to_string();
    let address = address(&local.dynamodb_endpoint);
    let scan = tokio::task::spawn_blocking(move || {
        let headers = [("x-amz-target", "DynamoDB_20120810.Scan")];
        request(&address, "POST", "/", &headers, body.as_bytes())
    });
    let page: Value = serde_json::from_str(&scan.await.unwrap().body).unwrap();
    page["Items"].as_array().unwrap().clone()
}

async fn id_of_only_row(local: &Local) -> String {
    rows(local).await[0]["connection_id"]["S"].as_str().unwrap().to_owned()
}

/// Posts to a connection, and retries a 410 response for up to 2 s.
///
/// The row is stored before the connection is established, so the first post can be too early.
async fn post(local: &Local, id: &str, body: &[u8]) -> HttpResponse {
    let path = format!("/api/@connections/{}", id.replace('=', "%3D"));
    for _ in 0..100 {
        let response = http(&address(&local.gateway_endpoint), "POST", &path, body).await;
        if response.status != 410 {
            return response;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the connection was not established");
}

async fn wait_until_no_rows(local: &Local) {
    for _ in 0..250 {
        if rows(local).await.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the row of a closed connection was not deleted");
}

#[tokio::test]
async fn stores_a_row_and_delivers_posts() {
    let local = start_in(None).await;
    let mut socket = open(&local, "/api/?SK=hoge").await.unwrap();
    let row = rows(&local).await[0].clone();
    assert_eq!(row["sk"], json!({"S": "hoge"}));
    row["created_at"]["S"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let id = id_of_only_row(&local).await;
    assert_eq!(post(&local, &id, br#"{"value":"90"}"#).await.status, 200);
    let message = socket.next().await.unwrap().unwrap();
    assert_eq!(message, Message::text(r#"{"value":"90"}"#));

    socket.close(None).await.unwrap();
    wait_until_no_rows(&local).await;
    let path = format!("/api/@connections/{id}");
    let response = http(&address(&local.gateway_endpoint), "POST", &path, b"x").await;
    assert_eq!(
        (response.status, response.header("x-amzn-errortype")),
        (410, Some("GoneException"))
    );
    assert!(response.body.contains(r#""message":"Gone""#), "{}", response.body);
    local.stop().await.unwrap();
}

#[tokio::test]
async fn deletes_the_row_of_a_client_without_a_close_handshake() {
    let local = start_in(None).await;
    let socket = open(&local, "/api?sk=hoge").await.unwrap();
    assert_eq!(rows(&local).await.len(), 1);
    drop(socket);
    wait_until_no_rows(&local).await;
    local.stop().await.unwrap();
}

#[tokio::test]
async fn deletes_the_row_of_a_client_that_disconnects_during_the_handshake() {
    let local = start_in(None).await;
    let address = address(&local.gateway_endpoint);
    let handshake = format!(
        "GET /api?SK=hoge HTTP/1.1\r\nhost: {address}\r\nconnection: Upgrade\r\n\
         upgrade: websocket\r\nsec-websocket-version: 13\r\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    for _ in 0..20 {
        let mut stream = std::net::TcpStream::connect(&address).unwrap();
        std::io::Write::write_all(&mut stream, handshake.as_bytes()).unwrap();
    }
    // The gateway has accepted all of them once a later client is connected.
    let mut later = open(&local, "/api?SK=hoge").await.unwrap();
    later.close(None).await.unwrap();
    wait_until_no_rows(&local).await;
    local.stop().await.unwrap();
}

#[tokio::test]
async fn starts_with_every_example_without_guesses() {
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut count = 0;
    for entry in std::fs::read_dir(examples).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let manifest = serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let local = start(Options { manifest, ..options() }).await.unwrap();
        assert!(local.hints().iter().all(|line| !line.contains("a guess")), "{path:?}");
        local.stop().await.unwrap();
        count += 1;
    }
    assert!(count > 0);
}

#[tokio::test]
async fn rejects_connections_without_a_lookup_or_to_another_stage() {
    let local = start_in(None).await;
    for (path, expected) in [("/api", 400), ("/api?SK=", 400), ("/prod?SK=hoge", 403)] {
        match open(&local, path).await {
            Err(Error::Http(response)) => assert_eq!(response.status(), expected, "{path}"),
            result => panic!("{path}: {result:?}"),
        }
    }
    assert!(rows(&local).await.is_empty());
    local.stop().await.unwrap();
}

#[tokio::test]
async fn responds_to_connections_requests_as_api_gateway_does() {
    let local = start_in(None).await;
    let gateway = address(&local.gateway_endpoint);
    let mut socket = open(&local, "/api?SK=hoge").await.unwrap();
    let id = id_of_only_row(&local).await;
    let path = format!("/api/@connections/{id}");
    let largest = vec![b'a'; 131_072];
    assert_eq!(post(&local, &id, &largest).await.status, 200);
    assert_eq!(socket.next().await.unwrap().unwrap().into_data().len(), 131_072);
    let too_long = post(&local, &id, &[largest, vec![b'a']].concat()).await;
    let kind = too_long.header("x-amzn-errortype").unwrap();
    assert_eq!((too_long.status, kind), (413, "PayloadTooLargeException"));

    let description: Value =
        serde_json::from_str(&http(&gateway, "GET", &path, b"").await.body).unwrap();
    assert_eq!(description["identity"]["sourceIp"], "127.0.0.1");
    for name in ["connectedAt", "lastActiveAt"] {
        description[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    }
    let malformed = http(&gateway, "POST", "/api/@connections/nonsense", b"x").await;
    assert_eq!(malformed.status, 400);
    assert!(malformed.body.contains("Invalid connectionId: nonsense"));
    let other_stage = http(&gateway, "POST", &format!("/prod/@connections/{id}"), b"x").await;
    let kind = other_stage.header("x-amzn-errortype").unwrap();
    assert_eq!((other_stage.status, kind), (403, "ForbiddenException"));

    assert_eq!(http(&gateway, "DELETE", &path, b"").await.status, 204);
    assert!(matches!(socket.next().await, Some(Ok(Message::Close(_)))));
    assert_eq!(http(&gateway, "DELETE", &path, b"").await.status, 410);
    drop(socket);
    wait_until_no_rows(&local).await;
    local.stop().await.unwrap();
}

#[tokio::test]
async fn limits_the_queue_of_a_slow_client_without_affecting_others() {
    let local = start_in(None).await;
    let slow = open(&local, "/api?SK=slow").await.unwrap();
    let id = id_of_only_row(&local).await;
    let message = vec![b'a'; 131_072];
    let mut responses = Vec::new();
    for _ in 0..200 {
        responses.push(post(&local, &id, &message).await);
        if responses.last().is_some_and(|response| response.status != 200) {
            break;
        }
    }
    let last = responses.last().unwrap();
    let kind = last.header("x-amzn-errortype");
    assert_eq!((last.status, kind), (429, Some("LimitExceededException")));
    let mut other = open(&local, "/api?SK=other").await.unwrap();
    let rows = rows(&local).await;
    let row = rows.iter().find(|row| row["sk"]["S"] == "other").unwrap();
    post(&local, row["connection_id"]["S"].as_str().unwrap(), b"hello").await;
    assert_eq!(other.next().await.unwrap().unwrap(), Message::text("hello"));
    drop(slow);
    local.stop().await.unwrap();
}

#[tokio::test]
async fn ignores_client_messages_and_closes_connections_on_stop() {
    let scratch = Scratch::create();
    let local = start_in(Some(scratch.path().to_owned())).await;
    let mut socket = open(&local, "/api?SK=hoge").await.unwrap();
    socket.send(Message::text("hello?")).await.unwrap();
    let id = id_of_only_row(&local).await;
    post(&local, &id, b"1").await;
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("1"));
    let reader = tokio::spawn(async move { socket.next().await });
    local.stop().await.unwrap();
    assert!(matches!(reader.await.unwrap(), Some(Ok(Message::Close(_)))));
    let restarted = start_in(Some(scratch.path().to_owned())).await;
    assert!(rows(&restarted).await.is_empty());
    restarted.stop().await.unwrap();
}

#[tokio::test]
async fn changes_items_only_for_pages_of_this_machine() {
    let local = start_in(None).await;
    let gateway = address(&local.gateway_endpoint);
    let page = http(&gateway, "GET", "/", b"").await;
    assert!(page.body.contains("<!doctype html>"));
    assert!(!page.body.contains("innerHTML"));
    let notifier: Value =
        serde_json::from_str(&http(&gateway, "GET", "/_local/notifier", b"").await.body).unwrap();
    assert_eq!(notifier["key"][0], json!({"name": "PK", "value": "target_pk#fuga"}));
    let change = |action: &str, attributes: Value| {
        let key = json!({"PK": {"S": "a"}, "SK": {"S": "b"}});
        json!({"action": action, "key": key, "attributes": attributes}).to_string().into_bytes()
    };
    let value = json!({"value": {"N": "80"}});
    for (action, attributes, existed) in [
        ("update", &value, false),
        ("put", &value, true),
        ("delete", &json!({}), true),
        ("delete", &json!({}), false),
    ] {
        let body = change(action, attributes.clone());
        let response = http(&gateway, "POST", "/_local/items", &body).await;
        let result: Value = serde_json::from_str(&response.body).unwrap();
        assert_eq!(result, json!({ "existed": existed }), "{action}");
    }
    let body = change("update", value);
    let invalid = change("update", json!({"value": {"N": "x"}}));
    let rejected = http(&gateway, "POST", "/_local/items", &invalid).await;
    assert_eq!(rejected.status, 400);
    assert!(rejected.body.contains("message"));
    let from_other_site = tokio::task::spawn_blocking(move || {
        let headers = [("content-type", "application/json"), ("origin", "https://example.com")];
        request(&gateway, "POST", "/_local/items", &headers, &body)
    });
    assert_eq!(from_other_site.await.unwrap().status, 403);
    local.stop().await.unwrap();
}

#[tokio::test]
async fn keeps_the_stream_across_a_restart_with_a_data_directory() {
    let scratch = Scratch::create();
    let first = start_in(Some(scratch.path().to_owned())).await;
    let arn = first.spec.stream_arn.clone();
    let body = json!({
        "action": "update",
        "key": {"PK": {"S": "a"}, "SK": {"S": "b"}}, "attributes": {"value": {"N": "80"}},
    });
    let gateway = address(&first.gateway_endpoint);
    http(&gateway, "POST", "/_local/items", body.to_string().as_bytes()).await;
    first.stop().await.unwrap();
    let second = start_in(Some(scratch.path().to_owned())).await;
    assert_eq!(second.spec.stream_arn, arn);
    assert!(second.hints().last().unwrap().starts_with("ready"));
    second.stop().await.unwrap();
}

#[tokio::test]
async fn names_the_flag_of_a_port_in_use() {
    let listener = serve::bind(Ipv4Addr::LOCALHOST.into(), 0).unwrap();
    let port = listener.local_addr().unwrap().port();
    let options = Options { dynamodb_port: port, ..options() };
    let error = start(options).await.err().unwrap().to_string();
    assert!(error.contains(&port.to_string()) && error.contains("--dynamodb-port"), "{error}");
}

/// An address of this machine that is no loopback address, if it has one. No packet is sent.
fn other_address() -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    // An address for documentation (RFC 5737).
    socket.connect("192.0.2.1:9").ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

#[tokio::test]
async fn listens_on_the_given_address_and_reports_it() {
    let listen_address = Ipv4Addr::UNSPECIFIED.into();
    let local = start(Options { listen_address, ..options() }).await.unwrap();
    let gateway = address(&local.gateway_endpoint);
    assert!(gateway.starts_with("127.0.0.1:"), "{gateway}");
    let port = gateway.split(':').next_back().unwrap();
    assert!(local.hints().iter().any(|line| line.contains("listen on 0.0.0.0")));
    let notifier = http(&gateway, "GET", "/_local/notifier", b"").await;
    assert!(notifier.body.contains(r#""exposedAddress":"0.0.0.0""#), "{}", notifier.body);
    for server in [&gateway, &address(&local.dynamodb_endpoint)] {
        assert_eq!(http(server, "GET", "/", b"").await.status, 200);
    }
    if let Some(ip) = other_address() {
        // The server receives the request, but its `Host` could be a name that a page rebinds.
        assert_eq!(http(&format!("{ip}:{port}"), "GET", "/", b"").await.status, 403);
    }
    local.stop().await.unwrap();
}

#[tokio::test]
async fn is_not_exposed_by_default() {
    let local = start(options()).await.unwrap();
    assert!(local.hints().iter().all(|line| !line.contains("listen on")));
    let gateway = address(&local.gateway_endpoint);
    let notifier = http(&gateway, "GET", "/_local/notifier", b"").await;
    assert!(notifier.body.contains(r#""exposedAddress":null"#), "{}", notifier.body);
    if let Some(ip) = other_address() {
        let port: u16 = gateway.split(':').next_back().unwrap().parse().unwrap();
        assert!(TcpStream::connect((ip, port)).await.is_err());
    }
    local.stop().await.unwrap();
}
