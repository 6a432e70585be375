//! HTTP proxy between the operator and the AWS emulator. It records every request in order, and
//! holds, delays, rewrites or answers those that match a rule of the test.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Request, Response, StatusCode, header};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::http::{self, HttpResponse};
use crate::ministack;

/// Longer than the timeout of any client in the operator.
const UPSTREAM_TIMEOUT: Duration = Duration::from_secs(120);

/// A recorded request.
#[derive(Clone, Debug)]
pub struct ProxiedRequest {
    pub at: Instant,
    pub method: String,
    /// Path and query, as sent.
    pub path: String,
    /// The end of `X-Amz-Target`, such as `GetShardIterator`.
    pub operation: Option<String>,
    pub body: Bytes,
    /// The status of the response, once it is sent.
    pub status: Option<StatusCode>,
}

impl ProxiedRequest {
    pub fn json(&self) -> Result<Value> {
        serde_json::from_slice(&self.body).context("the body is not JSON")
    }

    pub fn is(&self, operation: &str) -> bool {
        self.operation.as_deref() == Some(operation)
    }

    pub fn is_post_to_connection(&self) -> bool {
        self.method == "POST" && self.path.contains("/@connections/")
    }
}

/// A response that replaces that of the emulator.
#[derive(Clone, Debug)]
pub struct ProxyResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl ProxyResponse {
    /// An error of DynamoDB or its streams, such as a 400 `AccessDeniedException`.
    pub fn dynamodb_error(kind: &str, message: &str) -> Result<Self> {
        let body =
            json!({"__type": format!("com.amazon.coral.service#{kind}"), "message": message});
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, "application/x-amz-json-1.0".parse()?);
        let body = body.to_string().into();
        Ok(Self { status: StatusCode::BAD_REQUEST, headers, body })
    }

    /// As SQS says it, for example a 403 `AccessDenied`.
    pub fn sqs_error(status: u16, kind: &str, message: &str) -> Result<Self> {
        let body =
            json!({"__type": format!("com.amazon.coral.service#{kind}"), "message": message});
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, "application/x-amz-json-1.0".parse()?);
        headers.insert("x-amzn-query-error", format!("{kind};Sender").parse()?);
        let body = body.to_string().into();
        Ok(Self { status: StatusCode::from_u16(status)?, headers, body })
    }

    /// As `@connections` says it, for example a 403 `ForbiddenException`.
    pub fn gateway_error(status: u16, kind: &str, message: &str) -> Result<Self> {
        let mut headers = HeaderMap::new();
        headers.insert("x-amzn-errortype", kind.parse()?);
        headers.insert(header::CONTENT_TYPE, "application/json".parse()?);
        let body = json!({"message": message}).to_string().into();
        Ok(Self { status: StatusCode::from_u16(status)?, headers, body })
    }
}

enum Action {
    Hold,
    HoldResponse,
    Delay(Duration),
    Rewrite(fn(&[u8]) -> Result<Bytes>),
    Respond(ProxyResponse),
}

struct RuleState {
    matches: Box<dyn Fn(&ProxiedRequest) -> bool + Send + Sync>,
    action: Action,
    /// The number of requests that matched, and whether the rule is released.
    progress: watch::Sender<(usize, bool)>,
}

/// A rule, in force until [`Rule::release`] or until the proxy ends.
pub struct Rule(Arc<RuleState>);

impl Rule {
    /// Waits until the rule has matched this number of requests.
    pub async fn wait_matched(&self, count: usize, limit: Duration) -> Result<()> {
        let mut progress = self.0.progress.subscribe();
        tokio::time::timeout(limit, progress.wait_for(|(matched, _)| *matched >= count))
            .await
            .with_context(|| format!("the rule matched fewer than {count} requests in {limit:?}"))??;
        Ok(())
    }

    /// Releases held requests, and matches no more.
    pub fn release(&self) {
        self.0.progress.send_modify(|(_, released)| *released = true);
    }

    async fn wait_released(&self) {
        // The rule owns the sender, so there is no error.
        let _ = self.0.progress.subscribe().wait_for(|(_, released)| *released).await;
    }
}

/// Matches only the first `count` requests that `matches` does.
pub fn first(
    count: usize,
    matches: impl Fn(&ProxiedRequest) -> bool + Send + Sync + 'static,
) -> impl Fn(&ProxiedRequest) -> bool + Send + Sync + 'static {
    let seen = AtomicUsize::new(0);
    move |request| matches(request) && seen.fetch_add(1, Ordering::Relaxed) < count
}

pub struct Proxy {
    endpoint: String,
    state: Arc<ProxyState>,
    server: JoinHandle<()>,
}

struct ProxyState {
    upstream: String,
    recorded: watch::Sender<Vec<ProxiedRequest>>,
    rules: Mutex<Vec<Arc<RuleState>>>,
}

impl Proxy {
    /// Starts a proxy before this endpoint, on a free port.
    pub async fn start(upstream: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let state = Arc::new(ProxyState {
            upstream: upstream.into(),
            recorded: watch::Sender::default(),
            rules: Mutex::default(),
        });
        let router = Router::new().fallback(handle).with_state(state.clone());
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { endpoint, state, server })
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The environment with which a process uses the proxy as AWS.
    pub fn environment(&self) -> Vec<(String, String)> {
        ministack::environment(&self.endpoint)
    }

    /// All requests so far, in order.
    pub fn requests(&self) -> Vec<ProxiedRequest> {
        self.state.recorded.borrow().clone()
    }

    /// Waits until the requests meet a condition, and returns them.
    pub async fn wait_until(
        &self,
        limit: Duration,
        what: &str,
        condition: impl Fn(&[ProxiedRequest]) -> bool,
    ) -> Result<Vec<ProxiedRequest>> {
        let mut recorded = self.state.recorded.subscribe();
        let waited = tokio::time::timeout(limit, recorded.wait_for(|all| condition(all))).await;
        let requests =
            waited.with_context(|| format!("the proxy received no {what} within {limit:?}"))??;
        Ok(requests.clone())
    }

    /// Holds matching requests until the rule is released. The emulator does not receive them
    /// before.
    pub fn hold(&self, matches: impl Fn(&ProxiedRequest) -> bool + Send + Sync + 'static) -> Rule {
        self.add_rule(Action::Hold, matches)
    }

    /// Forwards matching requests and holds the responses. The requests have their effect, but the
    /// client does not know.
    pub fn hold_response(
        &self,
        matches: impl Fn(&ProxiedRequest) -> bool + Send + Sync + 'static,
    ) -> Rule {
        self.add_rule(Action::HoldResponse, matches)
    }

    /// Forwards matching requests after a delay.
    pub fn delay(
        &self,
        delay: Duration,
        matches: impl Fn(&ProxiedRequest) -> bool + Send + Sync + 'static,
    ) -> Rule {
        self.add_rule(Action::Delay(delay), matches)
    }

    /// Forwards matching requests with another body.
    pub fn rewrite(
        &self,
        rewrite: fn(&[u8]) -> Result<Bytes>,
        matches: impl Fn(&ProxiedRequest) -> bool + Send + Sync + 'static,
    ) -> Rule {
        self.add_rule(Action::Rewrite(rewrite), matches)
    }

    /// Responds to matching requests instead of the emulator.
    pub fn respond(
        &self,
        response: ProxyResponse,
        matches: impl Fn(&ProxiedRequest) -> bool + Send + Sync + 'static,
    ) -> Rule {
        self.add_rule(Action::Respond(response), matches)
    }

    fn add_rule(
        &self,
        action: Action,
        matches: impl Fn(&ProxiedRequest) -> bool + Send + Sync + 'static,
    ) -> Rule {
        let matches = Box::new(matches);
        let rule = Arc::new(RuleState { matches, action, progress: watch::Sender::default() });
        self.state.rules.lock().unwrap_or_else(PoisonError::into_inner).push(rule.clone());
        Rule(rule)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn handle(State(state): State<Arc<ProxyState>>, request: Request<Body>) -> Response<Body> {
    match state.handle(request).await {
        Ok(response) => response,
        Err(error) => {
            let mut response = Response::new(Body::from(format!("{error:#}")));
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            response
        }
    }
}

impl ProxyState {
    async fn handle(&self, request: Request<Body>) -> Result<Response<Body>> {
        let (parts, body) = request.into_parts();
        let body = to_bytes(body, usize::MAX).await?;
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let operation = parts
            .headers
            .get("x-amz-target")
            .and_then(|target| target.to_str().ok())
            .and_then(|target| target.rsplit('.').next())
            .map(str::to_owned);
        let recorded = ProxiedRequest {
            at: Instant::now(),
            method: parts.method.to_string(),
            path: path.clone(),
            operation,
            body: body.clone(),
            status: None,
        };
        // Before a rule counts the request, because a test then looks for it here.
        let mut number = 0;
        self.recorded.send_modify(|all| {
            number = all.len();
            all.push(recorded.clone());
        });
        let rule = self.find_rule(&recorded);

        let response = match &rule {
            None => self.forward(parts, &path, body).await?,
            Some(rule) => match &rule.0.action {
                Action::Respond(response) => response.clone(),
                Action::Hold => {
                    rule.wait_released().await;
                    self.forward(parts, &path, body).await?
                }
                Action::Delay(delay) => {
                    tokio::time::sleep(*delay).await;
                    self.forward(parts, &path, body).await?
                }
                Action::Rewrite(rewrite) => self.forward(parts, &path, rewrite(&body)?).await?,
                Action::HoldResponse => {
                    let response = self.forward(parts, &path, body).await?;
                    rule.wait_released().await;
                    response
                }
            },
        };
        self.recorded.send_modify(|all| {
            if let Some(recorded) = all.get_mut(number) {
                recorded.status = Some(response.status);
            }
        });
        let ProxyResponse { status, headers, body } = response;
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }

    async fn forward(&self, mut parts: Parts, path: &str, body: Bytes) -> Result<ProxyResponse> {
        parts.uri = format!("{}{path}", self.upstream).parse()?;
        // These headers belong to the connection between client and proxy, or to the old body.
        for name in
            [header::HOST, header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH]
        {
            parts.headers.remove(name);
        }
        let request = Request::from_parts(parts, body);
        let HttpResponse { status, mut headers, body } =
            http::send(request, UPSTREAM_TIMEOUT).await?;
        // The body is complete and not chunked.
        headers.remove(header::TRANSFER_ENCODING);
        headers.remove(header::CONNECTION);
        Ok(ProxyResponse { status, headers, body })
    }

    /// The first rule in force that matches the request.
    fn find_rule(&self, request: &ProxiedRequest) -> Option<Rule> {
        let rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let rule =
            rules.iter().find(|rule| !rule.progress.borrow().1 && (rule.matches)(request))?;
        rule.progress.send_modify(|(matched, _)| *matched += 1);
        Some(Rule(rule.clone()))
    }
}
