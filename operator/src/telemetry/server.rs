//! HTTP server for `/livez`, `/readyz` and `/metrics`.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::routing::get;
use socket2::{Domain, Socket, Type};
use thiserror::Error;
use tokio::net::TcpListener;

use super::metrics::Metrics;

/// Content type of [`Metrics::encode`].
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Default address. It includes IPv4.
const DEFAULT_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 8080);
/// Default address on a machine without IPv6.
const DEFAULT_IPV4_ADDRESS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8080);

/// Maximum number of connections that wait to be accepted.
const BACKLOG: i32 = 1024;

/// An address on which the server cannot listen.
#[derive(Debug, Error)]
#[error("cannot listen on {address}; choose another --bind-address")]
pub struct ListenError {
    address: SocketAddr,
    source: io::Error,
}

/// Check behind `/readyz`.
pub trait ReadinessCheck: Send + Sync + 'static {
    /// Lists the failures, one line each. An empty list means ready.
    fn failures(&self) -> Vec<String>;
}

/// Listens on `address`, or by default on port 8080 of every address.
///
/// # Errors
///
/// The address is in use, or not one of this machine.
pub fn listen(address: Option<SocketAddr>) -> Result<TcpListener, ListenError> {
    match address {
        Some(address) => bind(address),
        None => bind_or(DEFAULT_ADDRESS, DEFAULT_IPV4_ADDRESS),
    }
}

/// Listens on `fallback` if the machine has no address like the first one.
fn bind_or(address: SocketAddr, fallback: SocketAddr) -> Result<TcpListener, ListenError> {
    bind(address).or_else(|error| match error.source.kind() {
        // IPv4 alone would not show that requests over IPv6 arrive at another process.
        io::ErrorKind::AddrInUse => Err(error),
        _ => bind(fallback),
    })
}

fn bind(address: SocketAddr) -> Result<TcpListener, ListenError> {
    let bind = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        if address.is_ipv6() {
            // `[::]` includes IPv4, whatever the default of the system is.
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    bind().map_err(|source| ListenError { address, source })
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
    async fn listens_for_ipv6_and_ipv4_on_every_address() {
        if bind((Ipv6Addr::LOCALHOST, 0).into()).is_err() {
            // This machine has no IPv6.
            return;
        }
        let listener = bind((DEFAULT_ADDRESS.ip(), 0).into()).unwrap();
        let port = listener.local_addr().unwrap().port();
        for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            TcpStream::connect((ip, port)).await.unwrap();
        }
    }

    #[tokio::test]
    async fn listens_for_ipv4_on_a_machine_without_the_address() {
        // An address for documentation (RFC 3849), which no machine has.
        let missing = "[2001:db8::1]:0".parse().unwrap();
        let listener = bind_or(missing, (Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(address.ip(), Ipv4Addr::LOCALHOST);
        let error = bind_or(address, (Ipv4Addr::LOCALHOST, 0).into()).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::AddrInUse);
        assert!(error.to_string().contains(&address.to_string()), "{error}");
        assert!(listen(Some(missing)).is_err(), "a given address has no fallback");
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
