//! Serving until told to stop: requests in flight are finished, but not for ever.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use axum::Router;
use tokio_util::sync::CancellationToken;

/// How long requests in flight may take once the server stops.
const GRACE: Duration = Duration::from_secs(1);

/// Binds 127.0.0.1, and nothing beyond it; port 0 is any free one.
pub fn bind(port: u16) -> io::Result<TcpListener> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Serves until `stopped`.
pub async fn until(
    listener: TcpListener,
    router: Router,
    stopped: CancellationToken,
) -> io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let service = router.into_make_service_with_connect_info::<SocketAddr>();
    let serve =
        axum::serve(listener, service).with_graceful_shutdown(stopped.clone().cancelled_owned());
    tokio::select! {
        served = serve => served,
        () = async { stopped.cancelled().await; tokio::time::sleep(GRACE).await } => Ok(()),
    }
}
