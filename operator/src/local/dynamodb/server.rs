//! The embedded DynamoDB over HTTP, as the SDKs and `aws dynamodb --endpoint-url` speak to it. It
//! works on a thread of its own, so that SQLite holds up none of the process's tasks.

use std::io;
use std::net::TcpListener;
use std::thread::JoinHandle;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, Response, StatusCode};
use axum::middleware::from_fn;
use axum::routing::post;
use tokio_util::sync::CancellationToken;

use super::emulator::Dynamo;
use crate::local::loopback_only::local_only;
use crate::local::serve;

/// What requests name their operation with.
const TARGETS: [&str; 2] = ["DynamoDB_20120810.", "DynamoDBStreams_20120810."];
/// The largest request that DynamoDB takes.
const MAX_REQUEST_BYTES: usize = 16 * 1024 * 1024;
const UNKNOWN_OPERATION: &str =
    r#"{"__type":"com.amazon.coral.service#UnknownOperationException"}"#;

/// A running server.
pub struct TableServer {
    stop: CancellationToken,
    thread: JoinHandle<io::Result<()>>,
}

impl TableServer {
    /// Serves the tables on a new thread.
    pub fn start(listener: TcpListener, dynamo: Dynamo) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let served = serve::until(listener, router(dynamo), stop.clone());
        let thread = std::thread::Builder::new()
            .name("dynamodb".to_owned())
            .spawn(move || runtime.block_on(served))?;
        Ok(Self { stop, thread })
    }

    /// Stops serving, and waits for the thread's end. Blocks.
    pub fn stop(self) -> io::Result<()> {
        self.stop.cancel();
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    }
}

fn router(dynamo: Dynamo) -> Router {
    Router::new()
        .route("/", post(handle).get(async || "healthy: dynamodb\n"))
        .layer(DefaultBodyLimit::max(MAX_REQUEST_BYTES))
        .layer(from_fn(local_only))
        .with_state(dynamo)
}

/// Blocks while SQLite works; the thread does nothing else.
async fn handle(State(dynamo): State<Dynamo>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let target = headers.get("x-amz-target").and_then(|value| value.to_str().ok());
    let operation =
        target.and_then(|target| TARGETS.iter().find_map(|prefix| target.strip_prefix(prefix)));
    let body = String::from_utf8_lossy(&body);
    let (status, json) = match operation.and_then(|operation| dynamo.run(operation, &body)) {
        Some(Ok(json)) => (StatusCode::OK, json),
        Some(Err(refusal)) => {
            let status = StatusCode::from_u16(refusal.status_code());
            (status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), refusal.to_json())
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
    use serde_json::json;

    use super::*;
    use crate::local::plan::AwsLocation;
    use crate::local::tests::client::{Reply, request};

    fn start() -> (TableServer, String) {
        let home = AwsLocation { partition: "aws".into(), region: "r".into(), account: "1".into() };
        let listener = serve::bind(0).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let dynamo = Dynamo::open(None, home).unwrap();
        (TableServer::start(listener, dynamo).unwrap(), address)
    }

    fn call(address: &str, target: &str, body: &serde_json::Value) -> Reply {
        let headers = [("x-amz-target", target), ("content-type", "application/x-amz-json-1.0")];
        request(address, "POST", "/", &headers, body.to_string().as_bytes())
    }

    #[test]
    fn answers_carry_the_services_time_and_refusals_their_type() {
        let (server, address) = start();
        let listed = call(&address, "DynamoDB_20120810.ListTables", &json!({}));
        assert_eq!((listed.status, listed.body.as_str()), (200, r#"{"TableNames":[]}"#));
        assert!(listed.header("date").is_some_and(|date| date.ends_with("GMT")));
        let arn = json!({"StreamArn": "arn:aws:dynamodb:r:1:table/none/stream/x"});
        let refused = call(&address, "DynamoDBStreams_20120810.DescribeStream", &arn);
        assert_eq!(refused.status, 400);
        assert!(refused.header("date").is_some());
        assert!(refused.body.contains(r#"#ResourceNotFoundException","#), "{}", refused.body);
        let unknown = call(&address, "DynamoDB_20120810.MakeTea", &json!({}));
        assert!(unknown.body.contains("#UnknownOperationException"));
        server.stop().unwrap();
        assert!(std::net::TcpStream::connect(address).is_err());
    }

    #[test]
    fn other_sites_pages_are_refused() {
        let (server, address) = start();
        let headers = [("x-amz-target", "DynamoDB_20120810.ListTables"), ("origin", "https://a.b")];
        assert_eq!(request(&address, "POST", "/", &headers, b"{}").status, 403);
        server.stop().unwrap();
    }
}
