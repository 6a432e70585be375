//! The service: a stream with the number of shards in the path, and a WebSocket API.
//!
//! The stream is disabled, so that its shards end. Each response is created once and then repeated.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::header::DATE;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::routing::post;
use fastrand::Rng;
use stream_notifier_tests::streams_model::{Key, Model, Settings, http_date, respond};

use crate::{CONNECTIONS, RECORDS, RECORDS_PER_MATCH};

/// The size of a record in a response.
pub const BYTES: usize = 600;

const BEGIN: u64 = 1_795_341_600_123;

/// For each number of shards: the table, and the responses by operation and body of the request.
type Tables = Arc<Mutex<HashMap<usize, (Model, HashMap<(String, Bytes), Bytes>)>>>;

pub fn routes() -> Router {
    Router::new()
        .route("/api/@connections/{id}", post(async || StatusCode::OK))
        .route("/{shards}/", post(respond_once))
        .with_state(Tables::default())
}

async fn respond_once(
    State(tables): State<Tables>,
    Path(shards): Path<usize>,
    headers: HeaderMap,
    body: Bytes,
) -> ([(HeaderName, String); 1], Bytes) {
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok());
    let target = target.unwrap_or_default().to_owned();
    let mut tables = tables.lock().unwrap();
    let (model, responses) =
        tables.entry(shards).or_insert_with(|| (table(shards), HashMap::new()));
    let date = [(DATE, http_date(model.now()))];
    let create = |(target, body): &(String, Bytes)| respond(model, target, body).1.into();
    (date, responses.entry((target, body)).or_insert_with_key(create).clone())
}

fn table(shards: usize) -> Model {
    let mut settings =
        Settings { shards, roll_ms: None, enabling_ms: 1_000, ..Settings::default() };
    settings.throttling.describes = None;
    let mut model = Model::new(settings, Rng::with_seed(1), BEGIN);
    let keys: Vec<_> = (0..CONNECTIONS * RECORDS_PER_MATCH).map(key).collect();
    for key in &keys {
        model.write(key, Some(1));
    }
    model.advance_to(BEGIN + 1_000);
    for n in 0..RECORDS {
        model.write(&keys[n % keys.len()], Some(1_000_000 + n as u64));
    }
    model.settings.filler_bytes = (BYTES - model.size(0)) / 2;
    model.disable();
    model
}

fn key(n: usize) -> Key {
    match n % RECORDS_PER_MATCH {
        0 => Key::target(&n.to_string(), &sk(n / RECORDS_PER_MATCH)),
        _ => Key { pk: format!("order#{n}"), sk: "target_sk#hoge".to_owned() },
    }
}

/// The sort key of a connection's row.
pub fn sk(connection: usize) -> String {
    format!("hoge{connection}")
}
