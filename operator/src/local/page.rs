//! Page at `/`: changes an item and shows the messages that a WebSocket receives.
//!
//! Its endpoints accept only pages of this machine (see [`crate::local::local_host_only`]).

use std::net::{IpAddr, SocketAddr};

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
use crate::local::dynamodb::emulator::Emulator;
use crate::local::dynamodb::json::DynamoResult;
use crate::local::plan::example::Example;

const PAGE: &str = include_str!("page.html");
/// Content security policy. It blocks external resources, because a message can contain any text.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      img-src data:; connect-src 'self' ws:; base-uri 'none'; form-action 'none'";

/// State of the page and its endpoints.
#[derive(Clone)]
pub struct PageState {
    pub emulator: Emulator,
    /// Name of the table whose items the page changes.
    pub table: String,
    /// Name of the notifier.
    pub name: String,
    /// Stage of the gateway.
    pub stage: Option<String>,
    /// Initial values of the form.
    pub example: Example,
    /// Address on which the servers listen, if other machines can reach it.
    pub exposed_address: Option<IpAddr>,
    /// Gateway for connections to `/`, if the API has no stage.
    pub gateway: Gateway,
}

/// Change of an item, as the page sends it.
#[derive(Deserialize)]
struct ItemChange {
    action: Action,
    /// Key of the item, in DynamoDB JSON.
    key: Map<String, Value>,
    /// Attributes to set, in DynamoDB JSON. Empty to delete the item.
    attributes: Map<String, Value>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Action {
    /// Sets the attributes and keeps all others.
    Update,
    /// Replaces the whole item.
    Put,
    Delete,
}

/// Creates the routes of the page and its endpoints.
pub fn routes(state: PageState) -> Router {
    Router::new()
        .route("/", get(serve_page))
        .route("/_local/notifier", get(describe_notifier))
        .route("/_local/items", post(change_item))
        .with_state(state)
}

/// Serves the page. If the API has no stage, it also accepts WebSocket clients at the same path.
async fn serve_page(
    State(state): State<PageState>,
    peer: ConnectInfo<SocketAddr>,
    query: Query<Vec<(String, String)>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response<Body> {
    if upgrade.is_ok() && state.stage.is_none() {
        return connect(State(state.gateway), peer, query, headers, upgrade).await;
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

async fn describe_notifier(State(state): State<PageState>) -> Json<Value> {
    let example = &state.example;
    let field = |(name, value): &(String, String)| json!({ "name": name, "value": value });
    let key: Vec<_> = example.key.iter().map(field).collect();
    let extra: Vec<_> = example.lookup_attribute.iter().map(field).collect();
    Json(json!({
        "name": state.name,
        "table": state.table,
        "stage": state.stage,
        "exposedAddress": state.exposed_address,
        "key": key,
        "attribute": example.attribute,
        "extraAttributes": extra,
        "parameter": example.parameter,
        "lookup": example.lookup_value,
    }))
}

async fn change_item(
    State(state): State<PageState>,
    Json(change): Json<ItemChange>,
) -> Result<Json<Value>, (StatusCode, Json<Value>)> {
    match write_item(&state, change).await {
        // The page explains that a new item is an INSERT, which most manifests do not match.
        Ok(existed) => Ok(Json(json!({ "existed": existed }))),
        Err(error) => {
            let status = StatusCode::from_u16(error.status_code());
            let status = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            Err((status, Json(json!({ "message": error.to_string() }))))
        }
    }
}

/// Writes the change, and returns whether the item existed before.
///
/// It reads the item first, because the engine's `ALL_OLD` also contains the key of a new item.
async fn write_item(state: &PageState, change: ItemChange) -> DynamoResult<bool> {
    let key = json!({ "TableName": state.table, "Key": change.key });
    let before = state.emulator.request("GetItem", key.clone()).await?;
    match change.action {
        Action::Update => {
            state.emulator.request("UpdateItem", update_request(state, change)).await?
        }
        Action::Put => {
            let mut item = change.attributes;
            item.extend(change.key);
            state
                .emulator
                .request("PutItem", json!({ "TableName": state.table, "Item": item }))
                .await?
        }
        Action::Delete => state.emulator.request("DeleteItem", key).await?,
    };
    Ok(before.get("Item").is_some())
}

fn update_request(state: &PageState, change: ItemChange) -> Value {
    let (mut names, mut values, mut sets) = (Map::new(), Map::new(), Vec::new());
    for (index, (name, value)) in change.attributes.into_iter().enumerate() {
        names.insert(format!("#a{index}"), Value::String(name));
        values.insert(format!(":v{index}"), value);
        sets.push(format!("#a{index} = :v{index}"));
    }
    json!({
        "TableName": state.table,
        "Key": change.key,
        "UpdateExpression": format!("SET {}", sets.join(", ")),
        "ExpressionAttributeNames": names,
        "ExpressionAttributeValues": values,
    })
}
