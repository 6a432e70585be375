//! Fake WebSocket API with scripted responses. It records every post with its time.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use stream_notifier::delivery::{Gateway, PostResponse};
use tokio::time::{Instant, sleep};

/// The time for which the real client waits for a response.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// A WebSocket API that returns 200, unless a test sets another response.
#[derive(Debug, Default)]
pub struct FakeGateway(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Responses by connection, each used once, except the last one.
    scripts: HashMap<String, VecDeque<(Duration, PostResponse)>>,
    default_response: Option<(Duration, PostResponse)>,
    posts: Vec<Post>,
    disconnected: Vec<String>,
    disconnect_errors: VecDeque<u16>,
    delivered: usize,
    in_flight: HashMap<String, usize>,
    total_in_flight: usize,
    max_in_flight: usize,
    had_concurrent_posts: bool,
}

/// A post that has a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    pub connection: String,
    pub message: String,
    pub response: PostResponse,
    /// The time of the response.
    pub at: Instant,
}

impl FakeGateway {
    /// Sets the responses of a connection, each with a latency in milliseconds. The last one
    /// repeats.
    pub fn script(&self, connection: &str, responses: &[(u64, u16)]) {
        let responses =
            responses.iter().map(|(ms, code)| (Duration::from_millis(*ms), status(*code)));
        self.0.lock().unwrap().scripts.insert(connection.to_owned(), responses.collect());
    }

    /// Lets every post to a connection time out.
    pub fn time_out(&self, connection: &str) {
        let timeout = VecDeque::from([(CALL_TIMEOUT, PostResponse::NoResponse)]);
        self.0.lock().unwrap().scripts.insert(connection.to_owned(), timeout);
    }

    /// Sets the response of all connections without a script.
    pub fn set_default_response(&self, after_ms: u64, code: u16) {
        self.0.lock().unwrap().default_response =
            Some((Duration::from_millis(after_ms), status(code)));
    }

    /// All posts, in the order of their responses.
    pub fn posts(&self) -> Vec<Post> {
        self.0.lock().unwrap().posts.clone()
    }

    /// Sets the statuses of the next disconnects.
    pub fn script_disconnect_errors(&self, statuses: &[u16]) {
        self.0.lock().unwrap().disconnect_errors.extend(statuses);
    }

    /// Removes and returns all posts, in the order of their responses.
    pub fn take_posts(&self) -> Vec<Post> {
        std::mem::take(&mut self.0.lock().unwrap().posts)
    }

    pub fn disconnected(&self) -> Vec<String> {
        self.0.lock().unwrap().disconnected.clone()
    }

    /// The messages that a connection has received, in order.
    pub fn received(&self, connection: &str) -> Vec<String> {
        let is_received =
            |post: &Post| post.connection == connection && post.response == status(200);
        self.posts().into_iter().filter(is_received).map(|post| post.message).collect()
    }

    /// The number of messages that all connections have received.
    pub fn delivered(&self) -> usize {
        self.0.lock().unwrap().delivered
    }

    /// The largest number of posts that were in flight together.
    pub fn max_in_flight(&self) -> usize {
        self.0.lock().unwrap().max_in_flight
    }

    /// Whether a connection ever had two posts in flight.
    pub fn had_concurrent_posts(&self) -> bool {
        self.0.lock().unwrap().had_concurrent_posts
    }

    fn start_post(&self, connection: &str) -> (Duration, PostResponse) {
        let mut state = self.0.lock().unwrap();
        let state = &mut *state;
        *state.in_flight.entry(connection.to_owned()).or_default() += 1;
        state.had_concurrent_posts |= state.in_flight[connection] > 1;
        state.total_in_flight += 1;
        state.max_in_flight = state.max_in_flight.max(state.total_in_flight);
        match state.scripts.get_mut(connection) {
            Some(script) if script.len() > 1 => script.pop_front().unwrap(),
            Some(script) => script[0].clone(),
            None => state.default_response.clone().unwrap_or((Duration::ZERO, status(200))),
        }
    }
}

impl Gateway for FakeGateway {
    fn post<'a>(&'a self, connection: &'a str, message: &'a Bytes) -> BoxFuture<'a, PostResponse> {
        Box::pin(async move {
            let (after, response) = self.start_post(connection);
            sleep(after).await;
            let mut state = self.0.lock().unwrap();
            *state.in_flight.get_mut(connection).unwrap() -= 1;
            state.total_in_flight -= 1;
            state.delivered += usize::from(response == status(200));
            state.posts.push(Post {
                connection: connection.to_owned(),
                message: String::from_utf8(message.to_vec()).unwrap(),
                response: response.clone(),
                at: Instant::now(),
            });
            response
        })
    }

    fn disconnect<'a>(&'a self, connection: &'a str) -> BoxFuture<'a, PostResponse> {
        Box::pin(async move {
            let mut state = self.0.lock().unwrap();
            if let Some(status_code) = state.disconnect_errors.pop_front() {
                return status(status_code);
            }
            state.disconnected.push(connection.to_owned());
            status(204)
        })
    }
}

fn status(status: u16) -> PostResponse {
    PostResponse::Status { status, mentions_connection_id: false }
}
