//! `/livez` says that the process serves, `/readyz` what is missing, `/metrics` the figures.

use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use tokio::net::TcpListener;

use super::Metrics;

/// Whatever can say what keeps the process from being ready; nothing means that it is.
pub trait Readiness: Send + Sync + 'static {
    /// One line for each thing that is missing.
    fn missing(&self) -> Vec<String>;
}

/// Serves until `stop` resolves.
pub async fn serve(
    listener: TcpListener,
    metrics: Metrics,
    readiness: Arc<dyn Readiness>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let routes = Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .with_state(readiness)
        .route("/metrics", get(async move || metrics.encode()));
    axum::serve(listener, routes).with_graceful_shutdown(stop).await
}

async fn readyz(State(readiness): State<Arc<dyn Readiness>>) -> (StatusCode, String) {
    let missing = readiness.missing();
    if missing.is_empty() {
        (StatusCode::OK, "ok\n".to_owned())
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, missing.join("\n") + "\n")
    }
}
