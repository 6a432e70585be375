//! `@connections`: the answers of API Gateway's management API, status by status.
//!
//! <https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-how-to-call-websocket-api-connections.html>

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ws::Utf8Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderValue, Response, StatusCode};
use axum::routing::post;
use serde_json::{Value, json};

use super::websockets::{Posted, Sockets, is_id};

/// The largest message.
const MAX_MESSAGE_BYTES: usize = 128 * 1024;

/// Read at most, so that a message over the limit gets its answer and not a broken connection.
const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;

/// The routes below `base`, which is empty or `/<stage>`.
pub fn routes(base: &str, sockets: Sockets) -> Router {
    let connection = post(post_to_connection).get(get_connection).delete(delete_connection);
    Router::new()
        .route(&format!("{base}/@connections/{{id}}"), connection)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(sockets)
}

/// `POST /<stage>/@connections/<id>`.
async fn post_to_connection(
    State(sockets): State<Sockets>,
    Path(id): Path<String>,
    body: Bytes,
) -> Response<Body> {
    if !is_id(&id) {
        return malformed(&id);
    }
    if body.len() > MAX_MESSAGE_BYTES {
        return refuse(
            StatusCode::PAYLOAD_TOO_LARGE,
            "PayloadTooLargeException",
            json!({ "message": "Message too long", "connectionId": id }),
        );
    }
    let Ok(text) = Utf8Bytes::try_from(body) else {
        let body = json!({ "message": "Only text messages are supported" });
        return refuse(StatusCode::BAD_REQUEST, "BadRequestException", body);
    };
    match sockets.post(&id, text) {
        Posted::Queued => answer(StatusCode::OK, Body::empty()),
        Posted::Gone => gone(&id),
        Posted::BufferFull => refuse(
            StatusCode::TOO_MANY_REQUESTS,
            "LimitExceededException",
            json!({ "message": "The client's buffer is full", "connectionId": id }),
        ),
    }
}

/// `GET /<stage>/@connections/<id>`.
async fn get_connection(State(sockets): State<Sockets>, Path(id): Path<String>) -> Response<Body> {
    if !is_id(&id) {
        return malformed(&id);
    }
    let Some(connection) = sockets.get(&id) else {
        return gone(&id);
    };
    let body = json!({
        "connectedAt": connection.connected_at.to_string(),
        "identity": {
            "sourceIp": connection.client.source_ip.to_string(),
            "userAgent": connection.client.user_agent,
        },
        "lastActiveAt": connection.last_active_at.to_string(),
    });
    answer(StatusCode::OK, Body::from(body.to_string()))
}

/// `DELETE /<stage>/@connections/<id>`.
async fn delete_connection(
    State(sockets): State<Sockets>,
    Path(id): Path<String>,
) -> Response<Body> {
    if !is_id(&id) {
        return malformed(&id);
    }
    if sockets.close(&id) { answer(StatusCode::NO_CONTENT, Body::empty()) } else { gone(&id) }
}

/// Whatever is not the stage: API Gateway does not tell a wrong stage from a missing right.
pub async fn forbidden() -> Response<Body> {
    refuse(StatusCode::FORBIDDEN, "ForbiddenException", json!({ "message": "Forbidden" }))
}

fn gone(id: &str) -> Response<Body> {
    let body = json!({ "message": "Gone", "connectionId": id });
    refuse(StatusCode::GONE, "GoneException", body)
}

fn malformed(id: &str) -> Response<Body> {
    let message = format!("Invalid connectionId: {id}");
    let body = json!({ "message": message, "connectionId": id });
    refuse(StatusCode::BAD_REQUEST, "BadRequestException", body)
}

fn refuse(status: StatusCode, kind: &'static str, body: Value) -> Response<Body> {
    let mut response = answer(status, Body::from(body.to_string()));
    response.headers_mut().insert("x-amzn-errortype", HeaderValue::from_static(kind));
    response
}

fn answer(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    if let Ok(id) = format!("{:032x}", fastrand::u128(..)).parse() {
        headers.insert("x-amzn-requestid", id);
    }
    response
}
