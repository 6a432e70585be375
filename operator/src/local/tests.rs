//! The parts together, over real sockets.

pub mod client;
pub mod fixture;

use std::path::PathBuf;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::local::tests::client::{Reply, request};
use crate::local::tests::fixture::{Scratch, origin};
use crate::local::*;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn start_in(data_dir: Option<PathBuf>) -> Local {
    start(Options { manifest: origin(), dynamodb_port: 0, port: 0, keys: Vec::new(), data_dir })
        .await
        .unwrap()
}

fn address(url: &str) -> String {
    url.trim_start_matches("http://").split('/').next().unwrap().to_owned()
}

async fn http(address: &str, method: &'static str, path: &str, body: &[u8]) -> Reply {
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

/// A post right after the handshake may come before the connection is up, as at API Gateway.
async fn post(local: &Local, id: &str, body: &[u8]) -> Reply {
    let path = format!("/api/@connections/{}", id.replace('=', "%3D"));
    for _ in 0..100 {
        let reply = http(&address(&local.gateway_endpoint), "POST", &path, body).await;
        if reply.status != 410 {
            return reply;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the connection never came up");
}

async fn no_rows(local: &Local) {
    for _ in 0..250 {
        if rows(local).await.is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("a closed connection kept its row");
}

#[tokio::test]
async fn a_connection_has_a_row_and_hears_what_is_posted() {
    let local = start_in(None).await;
    let mut socket = open(&local, "/api/?SK=hoge").await.unwrap();
    let row = rows(&local).await[0].clone();
    assert_eq!(row["sk"], json!({"S": "hoge"}));
    row["created_at"]["S"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let id = id_of_only_row(&local).await;
    assert_eq!(post(&local, &id, br#"{"value":"90"}"#).await.status, 200);
    let heard = socket.next().await.unwrap().unwrap();
    assert_eq!(heard, Message::text(r#"{"value":"90"}"#));

    socket.close(None).await.unwrap();
    no_rows(&local).await;
    let path = format!("/api/@connections/{id}");
    let reply = http(&address(&local.gateway_endpoint), "POST", &path, b"x").await;
    assert_eq!((reply.status, reply.header("x-amzn-errortype")), (410, Some("GoneException")));
    assert!(reply.body.contains(r#""message":"Gone""#), "{}", reply.body);
    local.stop().await.unwrap();
}

#[tokio::test]
async fn a_client_that_vanishes_loses_its_row() {
    let local = start_in(None).await;
    let socket = open(&local, "/api?sk=hoge").await.unwrap();
    assert_eq!(rows(&local).await.len(), 1);
    drop(socket);
    no_rows(&local).await;
    local.stop().await.unwrap();
}

#[tokio::test]
async fn a_client_that_leaves_within_the_handshake_leaves_no_row() {
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
    // Once a later one has connected, the gateway has seen those before it.
    let mut stays = open(&local, "/api?SK=hoge").await.unwrap();
    stays.close(None).await.unwrap();
    no_rows(&local).await;
    local.stop().await.unwrap();
}

#[tokio::test]
async fn every_example_gives_tables_and_lines() {
    let examples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let mut seen = 0;
    for entry in std::fs::read_dir(examples).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let manifest = serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        let keys = Vec::new();
        let options = Options { manifest, dynamodb_port: 0, port: 0, keys, data_dir: None };
        let local = start(options).await.unwrap();
        assert!(local.hints().iter().all(|line| !line.contains("a guess")), "{path:?}");
        local.stop().await.unwrap();
        seen += 1;
    }
    assert!(seen > 0);
}

#[tokio::test]
async fn a_connection_without_a_lookup_or_to_another_stage_is_refused() {
    let local = start_in(None).await;
    for (path, expected) in [("/api", 400), ("/api?SK=", 400), ("/prod?SK=hoge", 403)] {
        match open(&local, path).await {
            Err(Error::Http(response)) => assert_eq!(response.status(), expected, "{path}"),
            other => panic!("{path}: {other:?}"),
        }
    }
    assert!(rows(&local).await.is_empty());
    local.stop().await.unwrap();
}

#[tokio::test]
async fn connections_answer_as_api_gateway_does() {
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

    let known: Value = serde_json::from_str(&http(&gateway, "GET", &path, b"").await.body).unwrap();
    assert_eq!(known["identity"]["sourceIp"], "127.0.0.1");
    for name in ["connectedAt", "lastActiveAt"] {
        known[name].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    }
    let malformed = http(&gateway, "POST", "/api/@connections/nonsense", b"x").await;
    assert_eq!(malformed.status, 400);
    assert!(malformed.body.contains("Invalid connectionId: nonsense"));
    let elsewhere = http(&gateway, "POST", &format!("/prod/@connections/{id}"), b"x").await;
    let kind = elsewhere.header("x-amzn-errortype").unwrap();
    assert_eq!((elsewhere.status, kind), (403, "ForbiddenException"));

    assert_eq!(http(&gateway, "DELETE", &path, b"").await.status, 204);
    assert!(matches!(socket.next().await, Some(Ok(Message::Close(_)))));
    assert_eq!(http(&gateway, "DELETE", &path, b"").await.status, 410);
    drop(socket);
    no_rows(&local).await;
    local.stop().await.unwrap();
}

#[tokio::test]
async fn a_client_that_does_not_read_fills_its_own_buffer_only() {
    let local = start_in(None).await;
    let slow = open(&local, "/api?SK=slow").await.unwrap();
    let id = id_of_only_row(&local).await;
    let message = vec![b'a'; 131_072];
    let mut answers = Vec::new();
    for _ in 0..200 {
        answers.push(post(&local, &id, &message).await);
        if answers.last().is_some_and(|reply| reply.status != 200) {
            break;
        }
    }
    let last = answers.last().unwrap();
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
async fn clients_may_talk_and_stopping_closes_them() {
    let scratch = Scratch::new();
    let local = start_in(Some(scratch.path().to_owned())).await;
    let mut socket = open(&local, "/api?SK=hoge").await.unwrap();
    socket.send(Message::text("hello?")).await.unwrap();
    let id = id_of_only_row(&local).await;
    post(&local, &id, b"1").await;
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("1"));
    let reader = tokio::spawn(async move { socket.next().await });
    local.stop().await.unwrap();
    assert!(matches!(reader.await.unwrap(), Some(Ok(Message::Close(_)))));
    let again = start_in(Some(scratch.path().to_owned())).await;
    assert!(rows(&again).await.is_empty());
    again.stop().await.unwrap();
}

#[tokio::test]
async fn the_page_changes_items_and_is_for_this_machine_only() {
    let local = start_in(None).await;
    let gateway = address(&local.gateway_endpoint);
    let page = http(&gateway, "GET", "/", b"").await;
    assert!(page.body.contains("<!doctype html>"));
    assert!(!page.body.contains("innerHTML"));
    let names: Value =
        serde_json::from_str(&http(&gateway, "GET", "/_local/notifier", b"").await.body).unwrap();
    assert_eq!(names["key"][0], json!({"name": "PK", "value": "target_pk#fuga"}));
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
        let reply = http(&gateway, "POST", "/_local/items", &body).await;
        let answer: Value = serde_json::from_str(&reply.body).unwrap();
        assert_eq!(answer, json!({ "existed": existed }), "{action}");
    }
    let body = change("update", value);
    let wrong = change("update", json!({"value": {"N": "x"}}));
    let refused = http(&gateway, "POST", "/_local/items", &wrong).await;
    assert_eq!(refused.status, 400);
    assert!(refused.body.contains("message"));
    let foreign = tokio::task::spawn_blocking(move || {
        let headers = [("content-type", "application/json"), ("origin", "https://example.com")];
        request(&gateway, "POST", "/_local/items", &headers, &body)
    });
    assert_eq!(foreign.await.unwrap().status, 403);
    local.stop().await.unwrap();
}

#[tokio::test]
async fn tables_and_stream_survive_a_restart_with_a_data_directory() {
    let scratch = Scratch::new();
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
async fn a_used_port_names_the_flag_that_changes_it() {
    let taken = serve::bind(0).unwrap();
    let port = taken.local_addr().unwrap().port();
    let options = Options {
        manifest: origin(),
        dynamodb_port: port,
        port: 0,
        keys: Vec::new(),
        data_dir: None,
    };
    let refused = start(options).await.err().unwrap().to_string();
    assert!(
        refused.contains(&port.to_string()) && refused.contains("--dynamodb-port"),
        "{refused}"
    );
}
