//! WebSocket client that records text messages with the time of their arrival.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

const TIMEOUT: Duration = Duration::from_secs(30);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

#[derive(Clone, Debug)]
pub struct Received {
    pub at: Instant,
    pub text: String,
}

impl Received {
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.text).with_context(|| format!("not JSON: {}", self.text))
    }
}

#[derive(Default)]
struct State {
    messages: Vec<Received>,
    closed: bool,
}

pub struct WebSocketClient {
    connection_id: Option<String>,
    sink: SplitSink<Socket, Message>,
    state: Arc<watch::Sender<State>>,
    reader: JoinHandle<()>,
}

impl WebSocketClient {
    pub async fn connect(url: &str) -> Result<Self> {
        let connect = tokio_tungstenite::connect_async(url);
        let (socket, _) = tokio::time::timeout(TIMEOUT, connect)
            .await
            .with_context(|| format!("no connection to {url} within {TIMEOUT:?}"))?
            .with_context(|| format!("cannot connect to {url}"))?;
        let (sink, stream) = socket.split();
        let state = Arc::new(watch::Sender::default());
        let reader = tokio::spawn(read(stream, state.clone()));
        Ok(Self { connection_id: None, sink, state, reader })
    }

    /// The connection id, if the client has requested it.
    pub fn connection_id(&self) -> Result<&str> {
        self.connection_id.as_deref().context("the client has not requested its connection id")
    }

    pub(crate) fn set_connection_id(&mut self, id: String) {
        self.connection_id = Some(id);
    }

    pub async fn send(&mut self, text: &str) -> Result<()> {
        tokio::time::timeout(TIMEOUT, self.sink.send(Message::text(text))).await??;
        Ok(())
    }

    /// All messages so far.
    pub fn messages(&self) -> Vec<Received> {
        self.state.borrow().messages.clone()
    }

    /// The texts of all messages so far.
    pub fn texts(&self) -> Vec<String> {
        self.state.borrow().messages.iter().map(|message| message.text.clone()).collect()
    }

    /// Waits until the messages meet a condition, and returns them.
    pub async fn wait_until(
        &self,
        limit: Duration,
        what: &str,
        condition: impl Fn(&[Received]) -> bool,
    ) -> Result<Vec<Received>> {
        let mut state = self.state.subscribe();
        let waited = tokio::time::timeout(
            limit,
            state.wait_for(|state| state.closed || condition(&state.messages)),
        )
        .await
        .map(|state| state.map(drop));
        let messages = self.messages();
        match waited {
            Ok(_) if condition(&messages) => Ok(messages),
            Ok(_) => Err(anyhow!("the connection was closed")),
            Err(_) => Err(anyhow!("timed out after {limit:?}")),
        }
        .with_context(|| format!("waiting for {what}; received {:?}", self.texts()))
    }

    /// Removes the first message for which `find` returns a value, and returns that value.
    pub fn take<T>(&self, find: impl Fn(&str) -> Option<T>) -> Option<T> {
        let mut found = None;
        self.state.send_modify(|state| {
            let at = state.messages.iter().position(|message| {
                found = find(&message.text);
                found.is_some()
            });
            at.map(|at| state.messages.remove(at));
        });
        found
    }

    /// Waits until the server has closed the connection.
    pub async fn wait_closed(&self, limit: Duration) -> Result<()> {
        let mut state = self.state.subscribe();
        let closed = tokio::time::timeout(limit, state.wait_for(|state| state.closed)).await;
        ensure!(closed.is_ok(), "the connection was not closed within {limit:?}");
        Ok(())
    }

    /// Sends a close frame and waits for that of the server.
    pub async fn close(mut self) -> Result<()> {
        tokio::time::timeout(TIMEOUT, self.sink.send(Message::Close(None))).await??;
        self.wait_closed(TIMEOUT).await
    }
}

impl Drop for WebSocketClient {
    /// Sends no close frame, like a browser that loses its network.
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn read(mut stream: SplitStream<Socket>, state: Arc<watch::Sender<State>>) {
    while let Some(Ok(message)) = stream.next().await {
        if let Message::Text(text) = message {
            let received = Received { at: Instant::now(), text: text.to_string() };
            state.send_modify(|state| state.messages.push(received));
        }
    }
    state.send_modify(|state| state.closed = true);
}
