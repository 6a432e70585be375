//! Sends single HTTP requests to local servers, with a timeout.

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
pub struct HttpResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl HttpResponse {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("not JSON: {}", self.text()))
    }

    /// Fails with the body, unless the status is a success.
    pub fn success(self) -> Result<Self> {
        ensure!(self.status.is_success(), "{}: {}", self.status, self.text());
        Ok(self)
    }
}

pub async fn get(url: &str) -> Result<HttpResponse> {
    send(Request::get(url).body(Bytes::new())?, Duration::from_secs(30)).await
}

pub async fn post(url: &str, body: impl Into<Bytes>) -> Result<HttpResponse> {
    send(Request::post(url).body(body.into())?, Duration::from_secs(30)).await
}

pub async fn send(request: Request<Bytes>, limit: Duration) -> Result<HttpResponse> {
    let target = format!("{} {}", request.method(), request.uri());
    // A new connection for each request, because the server may have closed an idle one.
    let client: Client<HttpConnector, Full<Bytes>> =
        Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build_http();
    let response = async {
        let (parts, body) = client.request(request.map(Full::new)).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        anyhow::Ok(HttpResponse { status: parts.status, headers: parts.headers, body })
    };
    tokio::time::timeout(limit, response)
        .await
        .with_context(|| format!("{target} had no response within {limit:?}"))?
        .with_context(|| format!("{target} failed"))
}
