//! Open WebSockets, by connection id.
//!
//! Each one has a bounded queue, which is written in order. An id without a WebSocket is closed.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, close_code};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Number of messages queued for a client that does not read, besides those in the socket's buffers.
const MAX_QUEUED_MESSAGES: usize = 32;
/// Time for the client's half of the closing handshake.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Length of an id before encoding. The encoded text ends in `=`, as in API Gateway.
const ID_BYTES: usize = 11;

/// Creates a connection id in the format of API Gateway. Example: `L0SM9cOFvHcCIhw=`.
pub fn new_connection_id() -> String {
    let mut bytes = [0; ID_BYTES];
    fastrand::fill(&mut bytes);
    URL_SAFE.encode(bytes)
}

/// Whether a text has the format of a connection id.
pub fn is_connection_id(text: &str) -> bool {
    URL_SAFE.decode(text).is_ok_and(|bytes| bytes.len() == ID_BYTES)
}

/// Returns the current time in whole milliseconds, as API Gateway reports it.
pub fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
}

/// Client of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientInfo {
    pub source_ip: IpAddr,
    /// Value of `User-Agent`, or an empty text.
    pub user_agent: String,
}

/// Open connection, as `GET @connections/<id>` describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionInfo {
    pub client: ClientInfo,
    pub connected_at: Timestamp,
    /// Time of the last message in either direction.
    pub last_active_at: Timestamp,
}

/// Result of a post.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostStatus {
    /// The message is queued.
    Queued,
    /// The client does not read, and its queue is full.
    BufferFull,
    /// No connection has this id.
    Gone,
}

struct OpenSocket {
    connection: ConnectionInfo,
    outgoing: mpsc::Sender<Utf8Bytes>,
    closing: CancellationToken,
}

/// Open WebSockets. Clones share them.
#[derive(Clone, Default)]
pub struct WebSockets {
    open: Arc<Mutex<HashMap<String, OpenSocket>>>,
    closing: CancellationToken,
}

impl WebSockets {
    /// Queues a message for a connection.
    pub fn post(&self, id: &str, text: Utf8Bytes) -> PostStatus {
        let mut open = self.lock();
        let Some(socket) = open.get_mut(id) else {
            return PostStatus::Gone;
        };
        match socket.outgoing.try_send(text) {
            Ok(()) => {
                socket.connection.last_active_at = now();
                PostStatus::Queued
            }
            Err(mpsc::error::TrySendError::Full(_)) => PostStatus::BufferFull,
            Err(mpsc::error::TrySendError::Closed(_)) => PostStatus::Gone,
        }
    }

    /// Returns the description of an open connection.
    pub fn get(&self, id: &str) -> Option<ConnectionInfo> {
        self.lock().get(id).map(|open| open.connection.clone())
    }

    /// Closes a connection and returns whether it existed.
    ///
    /// Posts to it fail from now on. The client receives the close frame soon after.
    pub fn close(&self, id: &str) -> bool {
        let open = self.lock().remove(id);
        open.is_some_and(|open| {
            open.closing.cancel();
            true
        })
    }

    /// Closes every connection, also those that are accepted later.
    pub fn close_all(&self) {
        self.closing.cancel();
    }

    /// Serves an established connection until either side closes it.
    pub async fn run(&self, id: &str, mut socket: WebSocket, client: ClientInfo) {
        let (outgoing, mut queued) = mpsc::channel(MAX_QUEUED_MESSAGES);
        let closing = self.closing.child_token();
        let now = now();
        let connection = ConnectionInfo { client, connected_at: now, last_active_at: now };
        let open = OpenSocket { connection, outgoing, closing: closing.clone() };
        self.lock().insert(id.to_owned(), open);
        tokio::select! {
            () = closing.cancelled() => {}
            () = self.relay(id, &mut socket, &mut queued) => {}
        }
        self.lock().remove(id);
        let frame = CloseFrame { code: close_code::NORMAL, reason: Utf8Bytes::default() };
        // The handshake fails if the client has disconnected or does not read.
        let handshake = tokio::time::timeout(CLOSE_TIMEOUT, async {
            if socket.send(Message::Close(Some(frame))).await.is_ok() {
                while let Some(Ok(_)) = socket.recv().await {}
            }
        });
        let _ = handshake.await;
    }

    /// Writes queued messages. Ignores messages of the client, because the emulated API has no routes.
    async fn relay(
        &self,
        id: &str,
        socket: &mut WebSocket,
        queued: &mut mpsc::Receiver<Utf8Bytes>,
    ) {
        loop {
            tokio::select! {
                message = queued.recv() => {
                    let Some(text) = message else { return };
                    if socket.send(Message::Text(text)).await.is_err() {
                        return;
                    }
                }
                received = socket.recv() => {
                    let Some(Ok(message)) = received else { return };
                    if matches!(message, Message::Close(_)) {
                        return;
                    }
                    if let Some(open) = self.lock().get_mut(id) {
                        open.connection.last_active_at = now();
                    }
                }
            }
        }
    }

    /// Ignores poisoning, because the map is consistent at any time.
    fn lock(&self) -> MutexGuard<'_, HashMap<String, OpenSocket>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn creates_ids_in_the_format_of_api_gateway() {
        let id = new_connection_id();
        assert_eq!(id.len(), 16);
        assert!(id.ends_with('='));
        assert!(is_connection_id(&id) && id != new_connection_id());
        for malformed in ["", "abc", "L0SM9cOFvHcCIhw", "L0SM9cOFvHcCIhw==", "not an id at all="] {
            assert!(!is_connection_id(malformed), "{malformed}");
        }
    }
}
