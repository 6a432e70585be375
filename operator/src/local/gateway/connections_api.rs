//! `@connections` routes, with the status codes and bodies of API Gateway's management API.
//!
//! <https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-how-to-call-websocket-api-connections.html>

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ws::Utf8Bytes;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::{HeaderValue, Response, StatusCode};
use axum::routing::post;
use serde_json::{Value, json};

use super::websockets::{PostStatus, WebSockets, is_connection_id};

/// Maximum size of a message, as in API Gateway.
const MAX_MESSAGE_BYTES: usize = 128 * 1024;

/// Maximum size of a request body. It exceeds [`MAX_MESSAGE_BYTES`], so that a message over the limit
/// gets a 413 response and not a closed connection.
const MAX_BODY_BYTES: usize = 16 * 1024 * 1024;

/// Creates the routes below `base`, which is empty or `/<stage>`.
pub fn routes(base: &str, sockets: WebSockets) -> Router {
    let connection = post(post_to_connection).get(get_connection).delete(delete_connection);
    Router::new()
        .route(&format!("{base}/@connections/{{id}}"), connection)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .with_state(sockets)
}

/// `POST /<stage>/@connections/<id>`.
async fn post_to_connection(
    State(sockets): State<WebSockets>,
    Path(id): Path<String>,
    body: Bytes,
) -> Response<Body> {
    if !is_connection_id(&id) {
        return malformed_id(&id);
    }
    if body.len() > MAX_MESSAGE_BYTES {
        return error_response(
            StatusCode::PAYLOAD_TOO_LARGE,
            "PayloadTooLargeException",
            json!({ "message": "Message too long", "connectionId": id }),
        );
    }
    let Ok(text) = Utf8Bytes::try_from(body) else {
        let body = json!({ "message": "Only text messages are supported" });
        return error_response(StatusCode::BAD_REQUEST, "BadRequestException", body);
    };
    match sockets.post(&id, text) {
        PostStatus::Queued => response_with(StatusCode::OK, Body::empty()),
        PostStatus::Gone => gone_response(&id),
        PostStatus::BufferFull => error_response(
            StatusCode::TOO_MANY_REQUESTS,
            "LimitExceededException",
            json!({ "message": "The client's buffer is full", "connectionId": id }),
        ),
    }
}

/// `GET /<stage>/@connections/<id>`.
async fn get_connection(
    State(sockets): State<WebSockets>,
    Path(id): Path<String>,
) -> Response<Body> {
    if !is_connection_id(&id) {
        return malformed_id(&id);
    }
    let Some(connection) = sockets.get(&id) else {
        return gone_response(&id);
    };
    let body = json!({
        "connectedAt": connection.connected_at.to_string(),
        "identity": {
            "sourceIp": connection.client.source_ip.to_string(),
            "userAgent": connection.client.user_agent,
        },
        "lastActiveAt": connection.last_active_at.to_string(),
    });
    response_with(StatusCode::OK, Body::from(body.to_string()))
}

/// `DELETE /<stage>/@connections/<id>`.
async fn delete_connection(
    State(sockets): State<WebSockets>,
    Path(id): Path<String>,
) -> Response<Body> {
    if !is_connection_id(&id) {
        return malformed_id(&id);
    }
    if sockets.close(&id) {
        response_with(StatusCode::NO_CONTENT, Body::empty())
    } else {
        gone_response(&id)
    }
}

/// Responds to a path outside the stage. API Gateway sends the same response for a missing permission.
pub async fn forbidden() -> Response<Body> {
    error_response(StatusCode::FORBIDDEN, "ForbiddenException", json!({ "message": "Forbidden" }))
}

fn gone_response(id: &str) -> Response<Body> {
    let body = json!({ "message": "Gone", "connectionId": id });
    error_response(StatusCode::GONE, "GoneException", body)
}

fn malformed_id(id: &str) -> Response<Body> {
    let message = format!("Invalid connectionId: {id}");
    let body = json!({ "message": message, "connectionId": id });
    error_response(StatusCode::BAD_REQUEST, "BadRequestException", body)
}

fn error_response(status: StatusCode, kind: &'static str, body: Value) -> Response<Body> {
    let mut response = response_with(status, Body::from(body.to_string()));
    response.headers_mut().insert("x-amzn-errortype", HeaderValue::from_static(kind));
    response
}

fn response_with(status: StatusCode, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert("content-type", HeaderValue::from_static("application/json"));
    if let Ok(id) = format!("{:032x}", fastrand::u128(..)).parse() {
        headers.insert("x-amzn-requestid", id);
    }
    response
}
