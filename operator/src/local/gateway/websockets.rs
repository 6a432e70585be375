//! The open WebSockets, by connection id. A post to one is queued in bounded space and written in
//! order; an id that is not here is gone.

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

/// Messages that wait for a client which does not read, beyond what the system's buffers take.
const BUFFER: usize = 32;
/// How long a client may take over its half of the closing handshake.
const CLOSING: Duration = Duration::from_secs(1);
/// An id's length before it is encoded: its text ends in `=`, as API Gateway's ids do.
const ID_BYTES: usize = 11;

/// A connection id as API Gateway makes them: `L0SM9cOFvHcCIhw=`.
pub fn new_id() -> String {
    let mut bytes = [0; ID_BYTES];
    fastrand::fill(&mut bytes);
    URL_SAFE.encode(bytes)
}

/// Whether a text could be a connection id at all.
pub fn is_id(text: &str) -> bool {
    URL_SAFE.decode(text).is_ok_and(|bytes| bytes.len() == ID_BYTES)
}

/// The present, to the millisecond.
pub fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
}

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Its address.
    pub source_ip: IpAddr,
    /// Its `User-Agent`, or nothing.
    pub user_agent: String,
}

/// What is known of an open connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// Who is at the other end.
    pub client: Client,
    /// Since when.
    pub connected_at: Timestamp,
    /// When a message last went either way.
    pub last_active_at: Timestamp,
}

/// What became of a post.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Posted {
    /// It will be written after those before it.
    Queued,
    /// The client does not read, and no more of its messages are kept.
    BufferFull,
    /// There is no such connection.
    Gone,
}

struct Open {
    connection: Connection,
    outgoing: mpsc::Sender<Utf8Bytes>,
    closing: CancellationToken,
}

/// The open connections. Clones share them.
#[derive(Clone, Default)]
pub struct Sockets {
    open: Arc<Mutex<HashMap<String, Open>>>,
    closing: CancellationToken,
}

impl Sockets {
    /// Queues a message.
    pub fn post(&self, id: &str, text: Utf8Bytes) -> Posted {
        let mut open = self.lock();
        let Some(socket) = open.get_mut(id) else {
            return Posted::Gone;
        };
        match socket.outgoing.try_send(text) {
            Ok(()) => {
                socket.connection.last_active_at = now();
                Posted::Queued
            }
            Err(mpsc::error::TrySendError::Full(_)) => Posted::BufferFull,
            Err(mpsc::error::TrySendError::Closed(_)) => Posted::Gone,
        }
    }

    /// What is known of a connection.
    pub fn get(&self, id: &str) -> Option<Connection> {
        self.lock().get(id).map(|open| open.connection.clone())
    }

    /// Closes a connection, if there is one. It is gone at once; the client hears of it soon.
    pub fn close(&self, id: &str) -> bool {
        let open = self.lock().remove(id);
        open.is_some_and(|open| {
            open.closing.cancel();
            true
        })
    }

    /// Closes every connection, and those to come.
    pub fn close_all(&self) {
        self.closing.cancel();
    }

    /// Serves a connection that is established, until either side closes it.
    pub async fn run(&self, id: &str, mut socket: WebSocket, client: Client) {
        let (outgoing, mut queued) = mpsc::channel(BUFFER);
        let closing = self.closing.child_token();
        let now = now();
        let connection = Connection { client, connected_at: now, last_active_at: now };
        let open = Open { connection, outgoing, closing: closing.clone() };
        self.lock().insert(id.to_owned(), open);
        tokio::select! {
            () = closing.cancelled() => {}
            () = self.relay(id, &mut socket, &mut queued) => {}
        }
        self.lock().remove(id);
        let farewell = CloseFrame { code: close_code::NORMAL, reason: Utf8Bytes::default() };
        // The client may be gone, or not read: then there is nobody to tell.
        let told = tokio::time::timeout(CLOSING, async {
            if socket.send(Message::Close(Some(farewell))).await.is_ok() {
                while let Some(Ok(_)) = socket.recv().await {}
            }
        });
        let _ = told.await;
    }

    /// Writes what is queued. What the client says is ignored: this API has no routes.
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
                said = socket.recv() => {
                    let Some(Ok(message)) = said else { return };
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

    /// The map is whole at any time, so a panic elsewhere spoils nothing.
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_look_like_api_gateways() {
        let id = new_id();
        assert_eq!(id.len(), 16);
        assert!(id.ends_with('='));
        assert!(is_id(&id) && id != new_id());
        for malformed in ["", "abc", "L0SM9cOFvHcCIhw", "L0SM9cOFvHcCIhw==", "not an id at all="] {
            assert!(!is_id(malformed), "{malformed}");
        }
    }
}
