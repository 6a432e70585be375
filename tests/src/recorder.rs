//! HTTP server that records every request and responds with a fixed response.

use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A request as it was received.
#[derive(Clone, Debug)]
pub struct RecordedRequest {
    /// Number of the TCP connection, from 0.
    pub connection: usize,
    pub method: String,
    /// Path and query, still encoded.
    pub target: String,
    /// In the order received; names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Bytes,
}

impl RecordedRequest {
    /// The value of a header that occurs once; `None` if it is absent or repeated.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(key, _)| key == name);
        let (_, value) = values.next()?;
        values.next().is_none().then_some(value)
    }
}

/// A fixed response.
#[derive(Clone, Debug)]
pub struct FixedResponse {
    bytes: Vec<u8>,
    ending: Ending,
}

/// What the server does with the connection after the bytes of a response.
#[derive(Clone, Copy, Debug)]
enum Ending {
    KeepOpen,
    Close,
}

impl FixedResponse {
    /// A complete response. The connection stays open for the next request.
    pub fn new(status: u16, headers: &[(&str, &str)], body: &str) -> Self {
        Self { bytes: encode(status, headers, body, body.len()), ending: Ending::KeepOpen }
    }

    /// A response whose connection closes before the last byte of its body.
    pub fn cut_off(status: u16, headers: &[(&str, &str)], body: &str) -> Self {
        Self { bytes: encode(status, headers, body, body.len() + 1), ending: Ending::Close }
    }

    /// A response whose body never ends.
    pub fn stalled(status: u16, headers: &[(&str, &str)], body: &str) -> Self {
        Self { bytes: encode(status, headers, body, body.len() + 1), ending: Ending::KeepOpen }
    }

    /// These bytes instead of an HTTP response, then the end of the connection.
    pub fn raw(bytes: &str) -> Self {
        Self { bytes: bytes.into(), ending: Ending::Close }
    }
}

fn encode(status: u16, headers: &[(&str, &str)], body: &str, content_length: usize) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status} Status\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    // RFC 9110 forbids the header with this status.
    if status != 204 {
        head += &format!("content-length: {content_length}\r\n");
    }
    format!("{head}\r\n{body}").into_bytes()
}

/// Server on a free port of 127.0.0.1.
#[derive(Debug)]
pub struct Recorder {
    /// `http://127.0.0.1:<port>`.
    pub origin: String,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    response: FixedResponse,
    requests: Vec<RecordedRequest>,
}

impl Recorder {
    pub async fn start(response: FixedResponse) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let origin = format!("http://{}", listener.local_addr()?);
        let state = Arc::new(Mutex::new(State { response, requests: Vec::new() }));
        let shared = state.clone();
        tokio::spawn(async move {
            for connection in 0.. {
                let (socket, _) = listener.accept().await?;
                tokio::spawn(serve(socket, connection, shared.clone()));
            }
            anyhow::Ok(())
        });
        Ok(Self { origin, state })
    }

    /// Sets the response to every request from now on.
    pub fn set_response(&self, response: FixedResponse) {
        self.state.lock().unwrap().response = response;
    }

    /// Removes and returns the requests received so far.
    pub fn take_requests(&self) -> Vec<RecordedRequest> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }

    /// Removes and returns the only request received so far.
    pub fn take_request(&self) -> Result<RecordedRequest> {
        let mut requests = self.take_requests();
        ensure!(requests.len() == 1, "not one request: {requests:?}");
        requests.pop().context("one request")
    }
}

async fn serve(mut socket: TcpStream, connection: usize, state: Arc<Mutex<State>>) -> Result<()> {
    loop {
        let request = read_request(&mut socket, connection).await?;
        let FixedResponse { bytes, ending } = {
            let mut state = state.lock().unwrap();
            state.requests.push(request);
            state.response.clone()
        };
        socket.write_all(&bytes).await?;
        if let Ending::Close = ending {
            return Ok(());
        }
    }
}

async fn read_request(socket: &mut TcpStream, connection: usize) -> Result<RecordedRequest> {
    const END_OF_HEAD: &[u8] = b"\r\n\r\n";
    let mut received = Vec::new();
    let body_at = loop {
        let end = received.windows(END_OF_HEAD.len()).position(|bytes| bytes == END_OF_HEAD);
        if let Some(end) = end {
            break end + END_OF_HEAD.len();
        }
        ensure!(socket.read_buf(&mut received).await? > 0, "the connection ended");
    };
    let head = String::from_utf8(received[..body_at].to_vec())?;
    let mut lines = head.trim_end().split("\r\n");
    let mut first = lines.next().unwrap_or_default().split(' ');
    let mut word = || first.next().map(str::to_owned).context("not a request line");
    let (method, target) = (word()?, word()?);
    let header = |line: &str| {
        let (name, value) = line.split_once(": ")?;
        Some((name.to_ascii_lowercase(), value.to_owned()))
    };
    let headers: Option<Vec<_>> = lines.map(header).collect();
    let headers = headers.context("not a header")?;
    let mut request =
        RecordedRequest { connection, method, target, headers, body: Bytes::default() };
    let length: usize = request.header("content-length").map_or(Ok(0), str::parse)?;
    while received.len() < body_at + length {
        ensure!(socket.read_buf(&mut received).await? > 0, "the connection ended");
    }
    request.body = received.split_off(body_at).into();
    Ok(request)
}
