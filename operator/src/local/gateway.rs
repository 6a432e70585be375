//! A WebSocket API of one stage, as API Gateway serves it: connections on the stage, `$connect`
//! and `$disconnect` keep their rows, and `@connections` answers what the service answers.

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

use crate::local::gateway::connection_rows::{Row, Rows};
use crate::local::gateway::websockets::{Client, Sockets, new_id, now};
use crate::telemetry;

/// What API Gateway takes from a client, in a frame and in a message.
const MAX_FRAME_BYTES: usize = 32 * 1024;
const MAX_MESSAGE_BYTES: usize = 128 * 1024;
/// How long closing handshakes and the last rows may take when the gateway stops.
const STOP: Duration = Duration::from_secs(3);

/// The gateway. Clones are one.
#[derive(Clone)]
pub struct Gateway {
    sockets: Sockets,
    rows: Rows,
    /// The name of the lookup key, and of the query parameter that has its value, unless everybody is
    /// told.
    parameter: Option<String>,
    tasks: TaskTracker,
    /// Where the tasks run, also those that a dropped future leaves behind.
    runtime: Handle,
}

impl Gateway {
    /// A gateway without connections. Must be called within a runtime.
    pub fn new(rows: Rows, parameter: Option<String>) -> Self {
        Self {
            sockets: Sockets::default(),
            rows,
            parameter,
            tasks: TaskTracker::new(),
            runtime: Handle::current(),
        }
    }

    /// Its routes: the stage, with and without a slash after it, and its `@connections`.
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
        if tokio::time::timeout(STOP, self.tasks.wait()).await.is_err() {
            telemetry::local_socket_left_open();
        }
    }

    /// `$connect`: stores the row. A client that leaves meanwhile takes this future with it, not
    /// the task that stores the row and that knows when to delete it.
    async fn admit(&self, row: Row) -> Result<Admitted, String> {
        let admitted = Admitted { row, open: self.tasks.token(), gateway: self.clone() };
        let stored = self.tasks.spawn_on(
            async move {
                let stored = admitted.gateway.rows.put(&admitted.row, now()).await;
                stored.map(|()| admitted).map_err(|error| error.to_string())
            },
            &self.runtime,
        );
        stored.await.unwrap_or_else(|stopped| Err(stopped.to_string()))
    }
}

/// A connection with a row, established or not. Dropped, however it ends, it is `$disconnect`: the
/// row is deleted.
struct Admitted {
    row: Row,
    /// Until it is dropped, a stop of the gateway waits.
    open: TaskTrackerToken,
    gateway: Gateway,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let (rows, row, open) = (self.gateway.rows.clone(), self.row.clone(), self.open.clone());
        self.gateway.runtime.spawn(async move {
            if let Err(error) = rows.delete(&row).await {
                telemetry::local_row_left(&error);
            }
            drop(open);
        });
    }
}

/// A client connects. Its row is stored before the connection is established, as by an integration
/// of `$connect`: a post in between meets a connection that is not there yet.
pub async fn connect(
    State(gateway): State<Gateway>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Query(query): Query<Vec<(String, String)>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response<Body> {
    let upgrade = match upgrade {
        Ok(upgrade) => upgrade,
        Err(_) => return plain(StatusCode::UPGRADE_REQUIRED, "this is a WebSocket API"),
    };
    let mut lookup = None;
    if let Some(parameter) = &gateway.parameter {
        lookup = find(&query, parameter).map(str::to_owned);
        if lookup.is_none() {
            let sentence = format!(
                "say what to watch in the query: ?{parameter}=<value>, the value that connections.value gives"
            );
            return plain(StatusCode::BAD_REQUEST, &sentence);
        }
    }
    let row = Row { id: new_id(), lookup };
    let admitted = match gateway.admit(row).await {
        Ok(admitted) => admitted,
        Err(error) => {
            let sentence = format!("the connection's row could not be stored: {error}");
            return plain(StatusCode::INTERNAL_SERVER_ERROR, &sentence);
        }
    };
    let client = Client { source_ip: peer.ip(), user_agent: user_agent(&headers) };
    upgrade.max_frame_size(MAX_FRAME_BYTES).max_message_size(MAX_MESSAGE_BYTES).on_upgrade(
        async move |socket| {
            admitted.gateway.sockets.run(&admitted.row.id, socket, client).await;
        },
    )
}

/// The parameter as it is spelled, or else in another case (`?SK=` for `sk`).
fn find<'a>(query: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let exact = query.iter().find(|(known, _)| known == name);
    exact
        .or_else(|| query.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)))
        .map(|(_, value)| value.as_str())
        .filter(|value| !value.is_empty())
}

fn user_agent(headers: &HeaderMap) -> String {
    let text = headers.get(USER_AGENT).and_then(|value| value.to_str().ok());
    text.unwrap_or_default().to_owned()
}

fn plain(status: StatusCode, sentence: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(format!("{sentence}\n")));
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
    fn the_parameter_is_found_in_either_case_and_its_own_first() {
        assert_eq!(find(&query(&[("SK", "hoge")]), "sk"), Some("hoge"));
        assert_eq!(find(&query(&[("sk", "hoge")]), "SK"), Some("hoge"));
        assert_eq!(find(&query(&[("SK", "a"), ("sk", "b")]), "sk"), Some("b"));
        assert_eq!(find(&query(&[("SK", ""), ("x", "y")]), "sk"), None);
    }
}
