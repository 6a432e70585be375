//! `/livez` says that the process serves, `/readyz` what is missing, `/metrics` the figures.

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use tokio::net::TcpListener;

use super::metrics::Metrics;

/// What [`Metrics::encode`] writes.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Whatever can say what keeps the process from being ready; nothing means that it is.
pub trait ReadinessCheck: Send + Sync + 'static {
    /// One line for each thing that is missing.
    fn failures(&self) -> Vec<String>;
}

/// Serves until `stop` resolves. Whoever is asking then gets no answer: one that never ends its
/// request would keep the process from ending.
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
    let missing = readiness.failures();
    if missing.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, missing.join("\n") + "\n")
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
    async fn metrics_are_served_as_the_format_that_they_are() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let served = serve(listener, Metrics::default(), Arc::new(Ready), std::future::pending());
        let asked = async {
            client.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            client.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let answer = tokio::select! {
            biased;
            answer = asked => answer,
            served = served => panic!("the server ended: {served:?}"),
        };
        let head = format!("content-type: {OPEN_METRICS}\r\n");
        assert!(answer.contains(&head) && answer.ends_with("\r\n\r\n# EOF\n"), "{answer}");
    }
    #[tokio::test]
    async fn who_asks_and_never_ends_does_not_keep_it_from_stopping() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let served = tokio::spawn(serve(listener, Metrics::default(), Arc::new(Ready), stopped));
        let mut endless = TcpStream::connect(address).await.unwrap();
        endless.write_all(b"GET /metr").await.unwrap();
        // By the answer to a later one the server has begun with it.
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET /livez HTTP/1.0\r\n\r\n").await.unwrap();
        client.read_to_string(&mut String::new()).await.unwrap();
        stop.cancel();
        timeout(Duration::from_secs(10), served).await.expect("it stops").unwrap().unwrap();
    }
}
