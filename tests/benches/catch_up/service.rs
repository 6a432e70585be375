//! The service: a stream that was disabled, so that it has an end, of as many shards as the path says,
//! and a WebSocket API. Each answer is made once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::header::DATE;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::routing::post;
use fastrand::Rng;
use stream_notifier_tests::streams_model::{Key, Model, Settings, date, respond};

use crate::{CONNECTIONS, DELIVERED, RECORDS};

/// How long a record is, as it is sent.
pub const BYTES: usize = 600;

const BEGIN: u64 = 1_795_341_600_123;

/// The streams by their number of shards, and what was answered to what.
type Answers = Arc<Mutex<HashMap<usize, (Model, HashMap<(String, Bytes), Bytes>)>>>;

pub fn routes() -> Router {
    Router::new()
        .route("/api/@connections/{id}", post(async || StatusCode::OK))
        .route("/{shards}/", post(answer))
        .with_state(Answers::default())
}

async fn answer(
    State(answers): State<Answers>,
    Path(shards): Path<usize>,
    headers: HeaderMap,
    body: Bytes,
) -> ([(HeaderName, String); 1], Bytes) {
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok());
    let target = target.unwrap_or_default().to_owned();
    let mut answers = answers.lock().unwrap();
    let (model, answers) =
        answers.entry(shards).or_insert_with(|| (stream(shards), HashMap::new()));
    let date = [(DATE, date(model.now()))];
    let make = |(target, body): &(String, Bytes)| respond(model, target, body).1.into();
    (date, answers.entry((target, body)).or_insert_with_key(make).clone())
}

fn stream(shards: usize) -> Model {
    let mut settings =
        Settings { shards, roll_ms: None, enabling_ms: 1_000, ..Settings::default() };
    settings.throttling.describes = None;
    let mut model = Model::new(settings, Rng::with_seed(1), BEGIN);
    let keys: Vec<_> = (0..CONNECTIONS * DELIVERED).map(key).collect();
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
    match n % DELIVERED {
        0 => Key::target(&n.to_string(), &sk(n / DELIVERED)),
        _ => Key { pk: format!("order#{n}"), sk: "target_sk#hoge".to_owned() },
    }
}

/// What a connection is stored under.
pub fn sk(connection: usize) -> String {
    format!("hoge{connection}")
}
