//! HTTP server of the embedded DynamoDB, for the SDKs and `aws dynamodb --endpoint-url`.
//!
//! It runs on its own thread, so that SQLite does not block other tasks of the process.

use std::io;
use std::net::TcpListener;
use std::thread::JoinHandle;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Response, StatusCode};
use axum::routing::post;
use tokio_util::sync::CancellationToken;

use super::emulator::Emulator;
use crate::local::serve;

/// Prefixes of the operation in the header `X-Amz-Target`.
const TARGET_PREFIXES: [&str; 2] = ["DynamoDB_20120810.", "DynamoDBStreams_20120810."];
/// Maximum size of a request, as in DynamoDB.
const MAX_REQUEST_BYTES: usize = 16 * 1024 * 1024;
const UNKNOWN_OPERATION: &str =
    r#"{"__type":"com.amazon.coral.service#UnknownOperationException"}"#;

/// Running server of the embedded DynamoDB.
pub struct TableServer {
    stop: CancellationToken,
    thread: JoinHandle<io::Result<()>>,
}

impl TableServer {
    /// Starts the server on a new thread.
    pub fn start(listener: TcpListener, emulator: Emulator) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let server = serve::serve_until(listener, router(emulator), stop.clone());
        let thread = std::thread::Builder::new()
            .name("dynamodb".to_owned())
            .spawn(move || runtime.block_on(server))?;
        Ok(Self { stop, thread })
    }

    /// Stops the server, and blocks until its thread has ended.
    pub fn stop(self) -> io::Result<()> {
        self.stop.cancel();
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    }
}

fn router(emulator: Emulator) -> Router {
    Router::new()
        .route("/", post(handle).get(async || "healthy: dynamodb\n"))
        .layer(DefaultBodyLimit::max(MAX_REQUEST_BYTES))
        .with_state(emulator)
}

/// Executes one request. It may block on SQLite, because the thread serves nothing else.
async fn handle(
    State(emulator): State<Emulator>,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let target = headers.get("x-amz-target").and_then(|value| value.to_str().ok());
    let operation = target
        .and_then(|target| TARGET_PREFIXES.iter().find_map(|prefix| target.strip_prefix(prefix)));
    let body = String::from_utf8_lossy(&body);
    let (status, json) = match operation.and_then(|operation| emulator.execute(operation, &body)) {
        Some(Ok(json)) => (StatusCode::OK, json),
        Some(Err(error)) => {
            let status = StatusCode::from_u16(error.status_code());
            (status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), error.to_json())
        }
        None => (StatusCode::BAD_REQUEST, UNKNOWN_OPERATION.to_owned()),
    };
    let mut response = Response::new(Body::from(json));
    *response.status_mut() = status;
    let id = format!("{:032X}", fastrand::u128(..));
    for (name, value) in [("content-type", "application/x-amz-json-1.0"), ("x-amzn-requestid", &id)]
    {
        if let Ok(value) = value.parse() {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use serde_json::json;

    use super::*;
    use crate::local::plan::AwsLocation;
    use crate::local::tests::client::{HttpResponse, request};

    fn start() -> (TableServer, String) {
        let location =
            AwsLocation { partition: "aws".into(), region: "r".into(), account: "1".into() };
        let listener = serve::bind(Ipv4Addr::LOCALHOST.into(), 0).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let emulator = Emulator::open(None, location).unwrap();
        (TableServer::start(listener, emulator).unwrap(), address)
    }

    fn call(address: &str, target: &str, body: &serde_json::Value) -> HttpResponse {
        let headers = [("x-amz-target", target), ("content-type", "application/x-amz-json-1.0")];
        request(address, "POST", "/", &headers, body.to_string().as_bytes())
    }

    #[test]
    fn sends_the_date_and_the_error_type() {
        let (server, address) = start();
        let listed = call(&address, "DynamoDB_20120810.ListTables", &json!({}));
        assert_eq!((listed.status, listed.body.as_str()), (200, r#"{"TableNames":[]}"#));
        assert!(listed.header("date").is_some_and(|date| date.ends_with("GMT")));
        let arn = json!({"StreamArn": "arn:aws:dynamodb:r:1:table/none/stream/x"});
        let rejected = call(&address, "DynamoDBStreams_20120810.DescribeStream", &arn);
        assert_eq!(rejected.status, 400);
        assert!(rejected.header("date").is_some());
        assert!(rejected.body.contains(r#"#ResourceNotFoundException","#), "{}", rejected.body);
        let unknown = call(&address, "DynamoDB_20120810.MakeTea", &json!({}));
        assert!(unknown.body.contains("#UnknownOperationException"));
        server.stop().unwrap();
        assert!(std::net::TcpStream::connect(address).is_err());
    }

    #[test]
    fn rejects_pages_of_other_sites() {
        let (server, address) = start();
        let headers = [("x-amz-target", "DynamoDB_20120810.ListTables"), ("origin", "https://a.b")];
        assert_eq!(request(&address, "POST", "/", &headers, b"{}").status, 403);
        server.stop().unwrap();
    }
}
