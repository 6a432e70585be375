//! Serves HTTP until a token is cancelled, then finishes requests in flight for at most 1 s.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use tokio_util::sync::CancellationToken;

use crate::local::local_host_only::require_local_host;

/// Time for requests in flight after the server stops.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(1);

/// Binds a port of an address. 0 selects a free port.
pub fn bind(address: IpAddr, port: u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind((address, port))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves requests to local hosts until `stop` is cancelled.
pub async fn serve_until(
    listener: TcpListener,
    router: Router,
    stop: CancellationToken,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let address = listener.local_addr()?.ip();
    let router = router.layer(from_fn_with_state(address, require_local_host));
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let server =
        axum::serve(listener, service).with_graceful_shutdown(stop.clone().cancelled_owned());
    tokio::select! {
        result = server => result,
        () = async { stop.cancelled().await; tokio::time::sleep(SHUTDOWN_TIMEOUT).await } => Ok(()),
    }
}
