//! A proxy between the operator and AWS's emulator that remembers every request in its order, and
//! holds, delays, rewrites or answers those that a test picks.

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

use crate::http::{self, Answer};
use crate::ministack;

/// Longer than any client of the operator waits.
const UPSTREAM_LIMIT: Duration = Duration::from_secs(120);

/// A request as it came in.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub at: Instant,
    pub method: String,
    /// As sent, with the query.
    pub path: String,
    /// Such as `GetShardIterator`: the end of `X-Amz-Target`.
    pub operation: Option<String>,
    pub body: Bytes,
    /// What the client was answered, once it was.
    pub answered: Option<StatusCode>,
}

impl Recorded {
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

/// An answer in place of the emulator's.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    /// As DynamoDB and its streams say it, for example a 400 `AccessDeniedException`.
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
    HoldAnswer,
    Delay(Duration),
    Rewrite(fn(&[u8]) -> Result<Bytes>),
    Answer(Reply),
}

struct RuleState {
    matches: Box<dyn Fn(&Recorded) -> bool + Send + Sync>,
    action: Action,
    /// How many requests it has caught, and whether it is over.
    progress: watch::Sender<(usize, bool)>,
}

/// What a test has asked for; in force until [`Rule::release`], or as long as the proxy.
pub struct Rule(Arc<RuleState>);

impl Rule {
    /// Waits until it has caught so many requests.
    pub async fn caught(&self, count: usize, limit: Duration) -> Result<()> {
        let mut progress = self.0.progress.subscribe();
        tokio::time::timeout(limit, progress.wait_for(|(caught, _)| *caught >= count))
            .await
            .with_context(|| format!("a rule caught fewer than {count} requests in {limit:?}"))??;
        Ok(())
    }

    /// Lets go what it holds, and catches no more.
    pub fn release(&self) {
        self.0.progress.send_modify(|(_, over)| *over = true);
    }

    async fn released(&self) {
        // The sender lives in the rule itself: there is no error.
        let _ = self.0.progress.subscribe().wait_for(|(_, over)| *over).await;
    }
}

/// Matches only the first so many of what `matches` matches.
pub fn first(
    count: usize,
    matches: impl Fn(&Recorded) -> bool + Send + Sync + 'static,
) -> impl Fn(&Recorded) -> bool + Send + Sync + 'static {
    let seen = AtomicUsize::new(0);
    move |request| matches(request) && seen.fetch_add(1, Ordering::Relaxed) < count
}

pub struct Proxy {
    endpoint: String,
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

struct Shared {
    upstream: String,
    recorded: watch::Sender<Vec<Recorded>>,
    rules: Mutex<Vec<Arc<RuleState>>>,
}

impl Proxy {
    /// Starts a proxy before this endpoint, on a free port.
    pub async fn start(upstream: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let shared = Arc::new(Shared {
            upstream: upstream.into(),
            recorded: watch::Sender::default(),
            rules: Mutex::default(),
        });
        let router = Router::new().fallback(handle).with_state(shared.clone());
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { endpoint, shared, server })
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// What a process needs to take this for AWS.
    pub fn environment(&self) -> Vec<(String, String)> {
        ministack::environment(&self.endpoint)
    }

    /// Every request so far, in the order in which they came in.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.recorded.borrow().clone()
    }

    /// Waits until the requests meet a condition, and gives them.
    pub async fn wait_until(
        &self,
        limit: Duration,
        what: &str,
        condition: impl Fn(&[Recorded]) -> bool,
    ) -> Result<Vec<Recorded>> {
        let mut recorded = self.shared.recorded.subscribe();
        let waited = tokio::time::timeout(limit, recorded.wait_for(|all| condition(all))).await;
        let requests =
            waited.with_context(|| format!("no {what} came to the proxy within {limit:?}"))??;
        Ok(requests.clone())
    }

    /// Holds matching requests back: the emulator does not see them until they are released.
    pub fn hold(&self, matches: impl Fn(&Recorded) -> bool + Send + Sync + 'static) -> Rule {
        self.rule(Action::Hold, matches)
    }

    /// Passes matching requests on, and holds the answers back: what they ask for is done, but the
    /// client does not know.
    pub fn hold_answer(&self, matches: impl Fn(&Recorded) -> bool + Send + Sync + 'static) -> Rule {
        self.rule(Action::HoldAnswer, matches)
    }

    /// Passes matching requests on so much later.
    pub fn delay(
        &self,
        delay: Duration,
        matches: impl Fn(&Recorded) -> bool + Send + Sync + 'static,
    ) -> Rule {
        self.rule(Action::Delay(delay), matches)
    }

    /// Passes matching requests on with another body, made of theirs.
    pub fn rewrite(
        &self,
        rewrite: fn(&[u8]) -> Result<Bytes>,
        matches: impl Fn(&Recorded) -> bool + Send + Sync + 'static,
    ) -> Rule {
        self.rule(Action::Rewrite(rewrite), matches)
    }

    /// Answers matching requests itself.
    pub fn answer(
        &self,
        reply: Reply,
        matches: impl Fn(&Recorded) -> bool + Send + Sync + 'static,
    ) -> Rule {
        self.rule(Action::Answer(reply), matches)
    }

    fn rule(
        &self,
        action: Action,
        matches: impl Fn(&Recorded) -> bool + Send + Sync + 'static,
    ) -> Rule {
        let matches = Box::new(matches);
        let state = Arc::new(RuleState { matches, action, progress: watch::Sender::default() });
        self.shared.rules.lock().unwrap_or_else(PoisonError::into_inner).push(state.clone());
        Rule(state)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn handle(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Response<Body> {
    match shared.handle(request).await {
        Ok(answer) => answer,
        Err(error) => {
            let mut answer = Response::new(Body::from(format!("{error:#}")));
            *answer.status_mut() = StatusCode::BAD_GATEWAY;
            answer
        }
    }
}

impl Shared {
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
        let recorded = Recorded {
            at: Instant::now(),
            method: parts.method.to_string(),
            path: path.clone(),
            operation,
            body: body.clone(),
            answered: None,
        };
        // Before a rule says that it has caught it: a test then looks for it here.
        let mut number = 0;
        self.recorded.send_modify(|all| {
            number = all.len();
            all.push(recorded.clone());
        });
        let rule = self.catch(&recorded);

        let reply = match &rule {
            None => self.forward(parts, &path, body).await?,
            Some(rule) => match &rule.0.action {
                Action::Answer(reply) => reply.clone(),
                Action::Hold => {
                    rule.released().await;
                    self.forward(parts, &path, body).await?
                }
                Action::Delay(delay) => {
                    tokio::time::sleep(*delay).await;
                    self.forward(parts, &path, body).await?
                }
                Action::Rewrite(rewrite) => self.forward(parts, &path, rewrite(&body)?).await?,
                Action::HoldAnswer => {
                    let reply = self.forward(parts, &path, body).await?;
                    rule.released().await;
                    reply
                }
            },
        };
        self.recorded.send_modify(|all| {
            if let Some(recorded) = all.get_mut(number) {
                recorded.answered = Some(reply.status);
            }
        });
        let mut answer = Response::new(Body::from(reply.body));
        *answer.status_mut() = reply.status;
        *answer.headers_mut() = reply.headers;
        Ok(answer)
    }

    async fn forward(&self, mut parts: Parts, path: &str, body: Bytes) -> Result<Reply> {
        parts.uri = format!("{}{path}", self.upstream).parse()?;
        // What concerns the connection between client and proxy, not the one that begins here; and the
        // body may be another one.
        for name in
            [header::HOST, header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH]
        {
            parts.headers.remove(name);
        }
        let request = Request::from_parts(parts, body);
        let Answer { status, mut headers, body } = http::send(request, UPSTREAM_LIMIT).await?;
        // The body is whole now, however it came.
        headers.remove(header::TRANSFER_ENCODING);
        headers.remove(header::CONNECTION);
        Ok(Reply { status, headers, body })
    }

    /// The first rule in force that this request meets.
    fn catch(&self, request: &Recorded) -> Option<Rule> {
        let rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let rule =
            rules.iter().find(|rule| !rule.progress.borrow().1 && (rule.matches)(request))?;
        rule.progress.send_modify(|(caught, _)| *caught += 1);
        Some(Rule(rule.clone()))
    }
}
