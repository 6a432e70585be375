//! Emulates a WebSocket API of API Gateway with one stage.
//!
//! Clients connect to the stage, `$connect` and `$disconnect` write the rows of the connections table,
//! and `@connections` responds as API Gateway does.

pub mod connection_rows;
pub mod connections_api;
pub mod websockets;

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::header::USER_AGENT;
use axum::http::{HeaderMap, Response, StatusCode};
use axum::routing::get;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

use crate::local::gateway::connection_rows::{ConnectionRow, ConnectionRows};
use crate::local::gateway::websockets::{ClientInfo, WebSockets, new_connection_id, now};
use crate::telemetry;

/// Maximum size of a frame from a client, as in API Gateway.
const MAX_FRAME_BYTES: usize = 32 * 1024;
/// Maximum size of a message from a client, as in API Gateway.
const MAX_MESSAGE_BYTES: usize = 128 * 1024;
/// Time for closing handshakes and the deletion of rows when the gateway stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// Emulated WebSocket API. Clones share its connections.
#[derive(Clone)]
pub struct Gateway {
    sockets: WebSockets,
    rows: ConnectionRows,
    /// Query parameter with the value of the lookup key. `None` if the manifest sends each message to
    /// every connection.
    parameter: Option<String>,
    tasks: TaskTracker,
    /// Runtime of the tasks. A row is also deleted if its future is dropped outside the runtime.
    runtime: Handle,
}

impl Gateway {
    /// Creates a gateway without connections. It must be called within a Tokio runtime.
    pub fn new(rows: ConnectionRows, parameter: Option<String>) -> Self {
        Self {
            sockets: WebSockets::default(),
            rows,
            parameter,
            tasks: TaskTracker::new(),
            runtime: Handle::current(),
        }
    }

    /// Creates the routes: the stage, with and without a trailing slash, and its `@connections`.
    pub fn routes(&self, stage: Option<&str>) -> Router {
        let base = stage.map(|stage| format!("/{stage}")).unwrap_or_default();
        let mut router = Router::new();
        if stage.is_some() {
            router = router.route(&base, get(connect)).route(&format!("{base}/"), get(connect));
        }
        router
            .with_state(self.clone())
            .merge(connections_api::routes(&base, self.sockets.clone()))
            .fallback(connections_api::forbidden)
    }

    /// Closes every connection and deletes its row.
    pub async fn stop(&self) {
        self.sockets.close_all();
        self.tasks.close();
        if tokio::time::timeout(STOP_TIMEOUT, self.tasks.wait()).await.is_err() {
            telemetry::websocket_not_closed();
        }
    }

    /// Handles `$connect`: stores the row.
    ///
    /// The row is stored by a task of its own. If the client disconnects meanwhile, this future is
    /// dropped, but the task still completes and the row is deleted afterwards.
    async fn admit(&self, row: ConnectionRow) -> Result<AdmittedConnection, String> {
        let admitted = AdmittedConnection { row, token: self.tasks.token(), gateway: self.clone() };
        let stored = self.tasks.spawn_on(
            async move {
                let stored = admitted.gateway.rows.put(&admitted.row, now()).await;
                stored.map(|()| admitted).map_err(|error| error.to_string())
            },
            &self.runtime,
        );
        stored.await.unwrap_or_else(|error| Err(error.to_string()))
    }
}

/// Connection with a stored row. Dropping it is `$disconnect`: it deletes the row.
struct AdmittedConnection {
    row: ConnectionRow,
    /// Keeps [`Gateway::stop`] waiting until the row is deleted.
    token: TaskTrackerToken,
    gateway: Gateway,
}

impl Drop for AdmittedConnection {
    fn drop(&mut self) {
        let (rows, row, token) = (self.gateway.rows.clone(), self.row.clone(), self.token.clone());
        self.gateway.runtime.spawn(async move {
            if let Err(error) = rows.delete(&row).await {
                telemetry::local_row_not_deleted(&error);
            }
            drop(token);
        });
    }
}

/// Handles a request to connect.
///
/// The row is stored before the connection is established, as with an integration of `$connect`. A post
/// in between gets a 410 response.
pub async fn connect(
    State(gateway): State<Gateway>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Query(query): Query<Vec<(String, String)>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response<Body> {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(_) => {
            return text_response(
                StatusCode::UPGRADE_REQUIRED,
                "this is a WebSocket API; connect with a WebSocket client",
            );
        }
    };
    let mut lookup = None;
    if let Some(parameter) = &gateway.parameter {
        lookup = find_parameter(&query, parameter).map(str::to_owned);
        if lookup.is_none() {
            let message = format!(
                "the query parameter {parameter} is missing; connect with ?{parameter}=<value>, where \
                 <value> is a result of connections.value"
            );
            return text_response(StatusCode::BAD_REQUEST, &message);
        }
    }
    let row = ConnectionRow { id: new_connection_id(), lookup };
    let admitted = match gateway.admit(row).await {
        Ok(admitted) => admitted,
        Err(error) => {
            let message = format!("cannot store the row of the connection: {error}");
            return text_response(StatusCode::INTERNAL_SERVER_ERROR, &message);
        }
    };
    let client = ClientInfo { source_ip: peer.ip(), user_agent: user_agent(&headers) };
    upgrade.max_frame_size(MAX_FRAME_BYTES).max_message_size(MAX_MESSAGE_BYTES).on_upgrade(
        async move |socket| {
            admitted.gateway.sockets.run(&admitted.row.id, socket, client).await;
        },
    )
}

/// Finds a parameter by its exact name, or else in another case (`?SK=` for `sk`).
fn find_parameter<'a>(query: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let exact = query.iter().find(|(key, _)| key == name);
    exact
        .or_else(|| query.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)))
        .map(|(_, value)| value.as_str())
        .filter(|value| !value.is_empty())
}

fn user_agent(headers: &HeaderMap) -> String {
    let text = headers.get(USER_AGENT).and_then(|value| value.to_str().ok());
    text.unwrap_or_default().to_owned()
}

fn text_response(status: StatusCode, message: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{message}\n")));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| (String::from(*name), String::from(*value))).collect()
    }

    #[test]
    fn finds_the_parameter_in_any_case_and_prefers_the_exact_name() {
        assert_eq!(find_parameter(&query(&[("SK", "hoge")]), "sk"), Some("hoge"));
        assert_eq!(find_parameter(&query(&[("sk", "hoge")]), "SK"), Some("hoge"));
        assert_eq!(find_parameter(&query(&[("SK", "a"), ("sk", "b")]), "sk"), Some("b"));
        assert_eq!(find_parameter(&query(&[("SK", ""), ("x", "y")]), "sk"), None);
    }
}
