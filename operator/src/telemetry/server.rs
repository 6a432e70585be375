//! HTTP server for `/livez`, `/readyz` and `/metrics`.

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use tokio::net::TcpListener;

use super::metrics::Metrics;

/// Content type of [`Metrics::encode`].
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Check behind `/readyz`.
pub trait ReadinessCheck: Send + Sync + 'static {
    /// Lists the failures, one line each. An empty list means ready.
    fn failures(&self) -> Vec<String>;
}

/// Serves HTTP until `stop` resolves.
///
/// It then aborts open requests without a response, because a client that never completes its request
/// would otherwise keep the process from ending.
pub async fn serve(
    listener: TcpListener,
    metrics: Metrics,
    readiness: Arc<dyn ReadinessCheck>,
    stop: impl Future<Output = ()>,
) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .with_state(readiness)
        .route("/metrics", get(async move || ([(CONTENT_TYPE, OPEN_METRICS)], metrics.encode())));
    tokio::select! {
        biased;
        () = stop => Ok(()),
        served = axum::serve(listener, routes).into_future() => served,
    }
}

async fn readyz(State(readiness): State<Arc<dyn ReadinessCheck>>) -> (StatusCode, String) {
    let failures = readiness.failures();
    if failures.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, failures.join("\n") + "\n")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;
    use tokio::time::timeout;
    use tokio_util::sync::CancellationToken;

    use super::*;

    struct Ready;

    impl ReadinessCheck for Ready {
        fn failures(&self) -> Vec<String> {
            vec![]
        }
    }

    #[tokio::test]
    async fn serves_metrics_with_their_content_type() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let served = serve(listener, Metrics::default(), Arc::new(Ready), std::future::pending());
        let request = async {
            client.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.unwrap();
            let mut response = String::new();
            client.read_to_string(&mut response).await.unwrap();
            response
        };
        let response = tokio::select! {
            biased;
            response = request => response,
            served = served => panic!("the server ended: {served:?}"),
        };
        let head = format!("content-type: {OPEN_METRICS}\r\n");
        assert!(response.contains(&head) && response.ends_with("\r\n\r\n# EOF\n"), "{response}");
    }

    #[tokio::test]
    async fn stops_despite_an_incomplete_request() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let served = tokio::spawn(serve(listener, Metrics::default(), Arc::new(Ready), stopped));
        let mut incomplete = TcpStream::connect(address).await.unwrap();
        incomplete.write_all(b"GET /metr").await.unwrap();
        // The response to a later request proves that the server accepted the first connection.
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET /livez HTTP/1.0\r\n\r\n").await.unwrap();
        client.read_to_string(&mut String::new()).await.unwrap();
        stop.cancel();
        timeout(Duration::from_secs(10), served).await.expect("the server stops").unwrap().unwrap();
    }
}
