//! A service with the AWS JSON protocol that sends scripted responses and records the requests.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use anyhow::Result;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use serde_json::{Value, json};
use stream_notifier::aws::AwsConfig;
use stream_notifier::model::UnixSeconds;
use tokio::net::TcpListener;

/// Status and body.
pub type Response = (u16, Value);

/// The time in the `Date` header of every response.
pub const SERVICE_TIME: UnixSeconds = UnixSeconds(1_789_997_600);
const DATE: &str = "Mon, 21 Sep 2026 13:33:20 GMT";

#[derive(Debug)]
pub struct ScriptedService {
    responses: Mutex<VecDeque<Response>>,
    requests: Mutex<Vec<Request>>,
}

#[derive(Clone, Debug)]
pub struct Request {
    /// The header `x-amz-target`: API version and operation.
    pub target: String,
    pub body: Value,
    pub authorization: String,
}

impl Request {
    pub fn operation(&self) -> &str {
        self.target.rsplit('.').next().unwrap()
    }
}

impl ScriptedService {
    /// Starts a service with these responses in order, and configures clients for it.
    pub async fn start(responses: Vec<Response>) -> Result<(Arc<Self>, AwsConfig)> {
        let responses = Mutex::new(responses.into());
        let service = Arc::new(Self { responses, requests: Mutex::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let routes = Router::new().fallback(respond).with_state(service.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        Ok((service, AwsConfig::local(&endpoint).await))
    }

    /// The requests until now.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    /// The latest request.
    pub fn last_request(&self) -> Request {
        self.requests().pop().expect("the client must have sent a request")
    }
}

async fn respond(
    State(service): State<Arc<ScriptedService>>,
    headers: HeaderMap,
    body: Bytes,
) -> impl IntoResponse + use<> {
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    service.requests.lock().unwrap().push(Request {
        target: header("x-amz-target"),
        body: serde_json::from_slice(&body).unwrap(),
        authorization: header("authorization"),
    });
    let (status, body) = service.responses.lock().unwrap().pop_front().unwrap();
    (StatusCode::from_u16(status).unwrap(), [("date", DATE)], axum::Json(body))
}

/// An error response with the namespace of DynamoDB.
pub fn error(code: &str) -> Response {
    let code = format!("com.amazonaws.dynamodb.v20120810#{code}");
    (400, json!({"__type": code, "message": "because"}))
}
