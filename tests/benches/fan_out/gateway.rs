//! The WebSocket API of all rows, in a process of its own.
//!
//! It uses little CPU time, because it parses only the length of a request. The stage of a URL is the delay of
//! its response in milliseconds. For the original loop it is the connections table too. The sort key of a
//! query is then the number of connections.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use super::support;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

/// The id of a connection, in the form of API Gateway.
pub fn connection(n: usize) -> String {
    format!("L0SM9cOFvHc{n:06}C=")
}

/// Serves requests until the parent process exits.
pub async fn serve() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    support::announce(&listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        // An error means only that the client has closed the connection.
        tokio::spawn(async move { serve_connection(stream).await.ok() });
    }
}

async fn serve_connection(mut stream: TcpStream) -> Result<()> {
    let mut buffer = Vec::with_capacity(4096);
    while let Some((head, end)) = read_request(&mut stream, &mut buffer).await? {
        let path = buffer.split(|byte| *byte == b' ').nth(1).context("a path")?;
        match path.split(|byte| *byte == b'/').nth(1) {
            Some(b"") | None => stream.write_all(&query_response(&buffer[head..end])?).await?,
            Some(stage) => {
                let delay_ms: u64 = std::str::from_utf8(stage)?.parse()?;
                if delay_ms > 0 {
                    sleep(Duration::from_millis(delay_ms)).await;
                }
                stream.write_all(OK).await?;
            }
        }
        buffer.drain(..end);
    }
    Ok(())
}

/// Reads a request into the buffer. Returns the end of its head and the end of its body.
async fn read_request(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
) -> Result<Option<(usize, usize)>> {
    loop {
        if let Some(head) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let length = content_length(&buffer[..head]).context("a content length")?;
            if buffer.len() >= head + 4 + length {
                return Ok(Some((head + 4, head + 4 + length)));
            }
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

fn content_length(head: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"\ncontent-length:";
    let is_name = |bytes: &[u8]| bytes.eq_ignore_ascii_case(NAME);
    let begin = head.windows(NAME.len()).position(is_name)? + NAME.len();
    let line = head[begin..].split(|byte| *byte == b'\r').next()?;
    std::str::from_utf8(line).ok()?.trim().parse().ok()
}

/// The response of DynamoDB to a Query. All rows are on one page, so the loop sends no second request.
fn query_response(body: &[u8]) -> Result<Vec<u8>> {
    let body: Value = serde_json::from_slice(body)?;
    let values = body["ExpressionAttributeValues"].as_object().context("values")?;
    let sk = values.values().next().and_then(|value| value["S"].as_str()).context("a key")?;
    let row = |n| {
        BTreeMap::from([
            ("connection_id", json!({"S": connection(n)})),
            ("sk", json!({"S": sk})),
            ("created_at", json!({"S": "2026-01-01"})),
        ])
    };
    let rows: Vec<_> = (0..sk.parse()?).map(row).collect();
    let page = json!({"Count": rows.len(), "ScannedCount": rows.len(), "Items": rows}).to_string();
    let length = page.len();
    Ok(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{page}").into_bytes())
}
