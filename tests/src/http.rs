//! One HTTP request to a server on this machine, with its whole answer, within a limit.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::http::{HeaderMap, Request, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

#[derive(Clone, Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {}", self.text()))
    }

    /// An error, with what the server says, unless it is a success.
    pub fn success(self) -> Result<Self> {
        ensure!(self.status.is_success(), "{}: {}", self.status, self.text());
        Ok(self)
    }
}

pub async fn get(url: &str) -> Result<Answer> {
    send(Request::get(url).body(Bytes::new())?, Duration::from_secs(30)).await
}

pub async fn post(url: &str, body: impl Into<Bytes>) -> Result<Answer> {
    send(Request::post(url).body(body.into())?, Duration::from_secs(30)).await
}

pub async fn send(request: Request<Bytes>, limit: Duration) -> Result<Answer> {
    let what = format!("{} {}", request.method(), request.uri());
    // A connection for each request: one kept for later may be closed by then.
    let client: Client<HttpConnector, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
    let exchange = async {
        let (parts, body) = client.request(request.map(Full::new)).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        anyhow::Ok(Answer { status: parts.status, headers: parts.headers, body })
    };
    tokio::time::timeout(limit, exchange)
        .await
        .with_context(|| format!("{what} was not answered within {limit:?}"))?
        .with_context(|| format!("{what} failed"))
}
