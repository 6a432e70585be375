//! HTTP proxy that connects every tunnel to one server, whatever host the client names.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

/// A running proxy.
pub struct ConnectProxy {
    url: String,
    targets: Arc<Mutex<Vec<String>>>,
}

impl ConnectProxy {
    /// Starts a proxy of the server at this address.
    pub async fn start(server: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let targets = Arc::new(Mutex::default());
        let recorded = targets.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let recorded = recorded.clone();
                // A client can close its tunnel at any time.
                tokio::spawn(async move { drop(tunnel(client, server, &recorded).await) });
            }
        });
        Ok(Self { url, targets })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// The host and port of each tunnel so far.
    pub fn targets(&self) -> Vec<String> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn tunnel(client: TcpStream, server: SocketAddr, targets: &Mutex<Vec<String>>) -> Result<()> {
    let mut client = BufReader::new(client);
    let mut request = String::new();
    client.read_line(&mut request).await?;
    let mut words = request.split_whitespace();
    ensure!(words.next() == Some("CONNECT"), "not a tunnel: {request}");
    let target = words.next().context("no target")?.to_owned();
    targets.lock().unwrap_or_else(PoisonError::into_inner).push(target);
    let mut header = String::from("not empty");
    while !header.trim().is_empty() {
        header.clear();
        client.read_line(&mut header).await?;
    }
    let mut server = TcpStream::connect(server).await?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
