//! The SDK's client and hyper's client, without a notifier. Each has a number of tasks that post in a loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, ensure};
use aws_sdk_apigatewaymanagement::Client;
use aws_sdk_apigatewaymanagement::config::retry::RetryConfig;
use aws_sdk_apigatewaymanagement::config::{BehaviorVersion, Config, Credentials, Region};
use aws_sdk_apigatewaymanagement::primitives::Blob;
use axum::http::Request;
use bytes::Bytes;
use http_body_util::Full;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::task::JoinSet;

use super::gateway::connection;

const MESSAGE: &[u8] = br#"{"pk":"fuga","sk":"hoge","value":"1"}"#;

/// Posts one message to one connection.
pub trait Post: Clone + Send + Sync + 'static {
    fn post(&self, connection: String) -> impl Future<Output = Result<()>> + Send;
}

/// The SDK's client with its defaults, but without retries.
#[derive(Clone)]
pub struct Sdk(Client);

impl Sdk {
    pub fn new(endpoint: &str) -> Self {
        let config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::from_static("eu-west-1"))
            .endpoint_url(endpoint)
            .credentials_provider(Credentials::new("local", "local", None, None, "bench"))
            .retry_config(RetryConfig::disabled())
            .build();
        Self(Client::from_conf(config))
    }
}

impl Post for Sdk {
    async fn post(&self, connection: String) -> Result<()> {
        let post = self.0.post_to_connection().connection_id(connection);
        post.data(Blob::new(MESSAGE)).send().await?;
        Ok(())
    }
}

/// hyper's client, without signatures.
#[derive(Clone)]
pub struct Hyper {
    client: hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>,
    endpoint: Arc<str>,
}

impl Hyper {
    pub fn new(endpoint: &str) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = hyper_util::client::legacy::Client::builder(TokioExecutor::new());
        Self { client: client.build(connector), endpoint: endpoint.into() }
    }
}

impl Post for Hyper {
    async fn post(&self, connection: String) -> Result<()> {
        let request = Request::post(format!("{}/@connections/{connection}", self.endpoint));
        let response = self.client.request(request.body(Full::from(MESSAGE))?).await?;
        ensure!(response.status().is_success());
        // The pool reuses the connection only after the end of the body, although it is empty.
        http_body_util::BodyExt::collect(response.into_body()).await?;
        Ok(())
    }
}

/// Posts one message to each connection, with a fixed number of posts in flight.
pub async fn post_to_all(client: &impl Post, connections: usize, in_flight: usize) -> Result<()> {
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..in_flight {
        let (client, next) = (client.clone(), next.clone());
        tasks.spawn(async move {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= connections {
                    return anyhow::Ok(());
                }
                client.post(connection(n)).await?;
            }
        });
    }
    while let Some(result) = tasks.join_next().await {
        result??;
    }
    Ok(())
}
