//! The page at `/`: changes an item and shows what a WebSocket hears of it. Its two endpoints are
//! reachable from this machine's pages only (see `guard`).

use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{ConnectInfo, Json, Query, State};
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::http::{HeaderMap, Response, StatusCode};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::gateway::{Gateway, connect};
use crate::local::dynamodb::emulator::Dynamo;
use crate::local::dynamodb::json::Answer;
use crate::local::plan::example::Example;

const PAGE: &str = include_str!("page.html");
/// Nothing from elsewhere, whatever a message may hold.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      img-src data:; connect-src 'self' ws:; base-uri 'none'; form-action 'none'";

/// What the page needs to know.
#[derive(Clone)]
pub struct Page {
    /// The tables.
    pub dynamo: Dynamo,
    /// The name of the table that it changes.
    pub table: String,
    /// The notifier's name.
    pub name: String,
    /// The gateway's stage.
    pub stage: Option<String>,
    /// What its fields begin with.
    pub example: Example,
    /// Where connections go that name no stage.
    pub gateway: Gateway,
}

/// What a change consists of.
#[derive(Deserialize)]
struct Change {
    action: Action,
    /// The item's key, in DynamoDB's JSON.
    key: Map<String, Value>,
    /// Attributes to set, in DynamoDB's JSON; none to delete the item.
    attributes: Map<String, Value>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    /// Sets the attributes and keeps the others.
    Update,
    /// Replaces the whole item.
    Put,
    /// Deletes the item.
    Delete,
}

/// The page and its endpoints.
pub fn routes(page: Page) -> Router {
    Router::new()
        .route("/", get(show))
        .route("/_local/notifier", get(describe))
        .route("/_local/items", post(change))
        .with_state(page)
}

/// The page; or, where the API has no stage, a client that connects.
async fn show(
    State(page): State<Page>,
    peer: ConnectInfo<SocketAddr>,
    query: Query<Vec<(String, String)>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response<Body> {
    if upgrade.is_ok() && page.stage.is_none() {
        return connect(State(page.gateway), peer, query, headers, upgrade).await;
    }
    let mut response = Response::new(Body::from(PAGE));
    for (name, value) in
        [(CONTENT_TYPE, "text/html; charset=utf-8"), (CONTENT_SECURITY_POLICY, POLICY)]
    {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

async fn describe(State(page): State<Page>) -> Json<Value> {
    let example = &page.example;
    let also = example.also.iter().map(|(name, value)| json!({ "name": name, "value": value }));
    let key = example.key.iter().map(|(name, value)| json!({ "name": name, "value": value }));
    Json(json!({
        "name": page.name,
        "table": page.table,
        "stage": page.stage,
        "key": key.collect::<Vec<_>>(),
        "attribute": example.attribute,
        "also": also.collect::<Vec<_>>(),
        "parameter": example.parameter,
        "lookup": example.lookup,
    }))
}

async fn change(
    State(page): State<Page>,
    Json(change): Json<Change>,
) -> Result<Json<Value>, (StatusCode, Json<Value>)> {
    match write(&page, change).await {
        // Without an item before, a change is an INSERT, of which most manifests tell nobody.
        Ok(existed) => Ok(Json(json!({ "existed": existed }))),
        Err(refusal) => {
            let status = StatusCode::from_u16(refusal.status_code());
            let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            Err((status, Json(json!({ "message": refusal.to_string() }))))
        }
    }
}

/// Whether there was such an item before. The engine's ALL_OLD does not say: it has the key of a new
/// item, too.
async fn write(page: &Page, change: Change) -> Answer<bool> {
    let key = json!({ "TableName": page.table, "Key": change.key });
    let before = page.dynamo.ask("GetItem", key.clone()).await?;
    match change.action {
        Action::Update => page.dynamo.ask("UpdateItem", update(page, change)).await?,
        Action::Put => {
            let mut item = change.attributes;
            item.extend(change.key);
            page.dynamo.ask("PutItem", json!({ "TableName": page.table, "Item": item })).await?
        }
        Action::Delete => page.dynamo.ask("DeleteItem", key).await?,
    };
    Ok(before.get("Item").is_some())
}

fn update(page: &Page, change: Change) -> Value {
    let (mut names, mut values, mut sets) = (Map::new(), Map::new(), Vec::new());
    for (at, (name, value)) in change.attributes.into_iter().enumerate() {
        names.insert(format!("#a{at}"), Value::String(name));
        values.insert(format!(":v{at}"), value);
        sets.push(format!("#a{at} = :v{at}"));
    }
    json!({
        "TableName": page.table,
        "Key": change.key,
        "UpdateExpression": format!("SET {}", sets.join(", ")),
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": values,
    })
}
