//! A WebSocket API whose answers a test writes down; every post is noted with its time.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use stream_notifier::delivery::{Gateway, PostResponse};
use tokio::time::{Instant, sleep};

/// How long the real client waits for an answer.
const CALL_LIMIT: Duration = Duration::from_secs(15);

/// A gateway that answers 200 unless told otherwise.
#[derive(Debug, Default)]
pub struct FakeGateway(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Answers by connection, used up one by one, the last one for ever.
    scripts: HashMap<String, VecDeque<(Duration, PostResponse)>>,
    everyone: Option<(Duration, PostResponse)>,
    posts: Vec<Post>,
    disconnected: Vec<String>,
    refusals: VecDeque<u16>,
    delivered: usize,
    in_flight: HashMap<String, usize>,
    all_in_flight: usize,
    most_in_flight: usize,
    two_for_one: bool,
}

/// One post that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Post {
    /// To whom.
    pub connection: String,
    /// What.
    pub message: String,
    /// What was answered.
    pub answer: PostResponse,
    /// When it was answered.
    pub at: Instant,
}

impl FakeGateway {
    /// What a connection answers, in turn, each after a while; the last answer stays.
    pub fn script(&self, connection: &str, answers: &[(u64, u16)]) {
        let answers = answers.iter().map(|(ms, code)| (Duration::from_millis(*ms), status(*code)));
        self.0.lock().unwrap().scripts.insert(connection.to_owned(), answers.collect());
    }

    /// A connection answers nothing: each post to it ends by the client's own limit.
    pub fn hang(&self, connection: &str) {
        let hangs = VecDeque::from([(CALL_LIMIT, PostResponse::NoResponse)]);
        self.0.lock().unwrap().scripts.insert(connection.to_owned(), hangs);
    }

    /// What every connection without a script of its own answers from now on.
    pub fn everyone(&self, after_ms: u64, code: u16) {
        self.0.lock().unwrap().everyone = Some((Duration::from_millis(after_ms), status(code)));
    }

    /// Every post so far, in the order answered.
    pub fn posts(&self) -> Vec<Post> {
        self.0.lock().unwrap().posts.clone()
    }

    /// The next tries to close a connection are answered so.
    pub fn refuse_to_close(&self, statuses: &[u16]) {
        self.0.lock().unwrap().refusals.extend(statuses);
    }

    /// Every post since this was asked last, in the order answered.
    pub fn take_posts(&self) -> Vec<Post> {
        std::mem::take(&mut self.0.lock().unwrap().posts)
    }

    /// The connections that were closed.
    pub fn disconnected(&self) -> Vec<String> {
        self.0.lock().unwrap().disconnected.clone()
    }

    /// The messages a connection has, in the order it got them.
    pub fn received(&self, connection: &str) -> Vec<String> {
        let mine = |post: &Post| post.connection == connection && post.answer == status(200);
        self.posts().into_iter().filter(mine).map(|post| post.message).collect()
    }

    /// How many messages all connections have.
    pub fn delivered(&self) -> usize {
        self.0.lock().unwrap().delivered
    }

    /// The most posts that were under way at once.
    pub fn most_in_flight(&self) -> usize {
        self.0.lock().unwrap().most_in_flight
    }

    /// Whether one connection ever had two posts under way.
    pub fn two_for_one(&self) -> bool {
        self.0.lock().unwrap().two_for_one
    }

    fn begin(&self, connection: &str) -> (Duration, PostResponse) {
        let mut state = self.0.lock().unwrap();
        let state = &mut *state;
        *state.in_flight.entry(connection.to_owned()).or_default() += 1;
        state.two_for_one |= state.in_flight[connection] > 1;
        state.all_in_flight += 1;
        state.most_in_flight = state.most_in_flight.max(state.all_in_flight);
        match state.scripts.get_mut(connection) {
            Some(script) if script.len() > 1 => script.pop_front().unwrap(),
            Some(script) => script[0].clone(),
            None => state.everyone.clone().unwrap_or((Duration::ZERO, status(200))),
        }
    }
}

impl Gateway for FakeGateway {
    fn post<'a>(&'a self, connection: &'a str, message: &'a Bytes) -> BoxFuture<'a, PostResponse> {
        Box::pin(async move {
            let (after, answer) = self.begin(connection);
            sleep(after).await;
            let mut state = self.0.lock().unwrap();
            *state.in_flight.get_mut(connection).unwrap() -= 1;
            state.all_in_flight -= 1;
            state.delivered += usize::from(answer == status(200));
            state.posts.push(Post {
                connection: connection.to_owned(),
                message: String::from_utf8(message.to_vec()).unwrap(),
                answer: answer.clone(),
                at: Instant::now(),
            });
            answer
        })
    }

    fn disconnect<'a>(&'a self, connection: &'a str) -> BoxFuture<'a, PostResponse> {
        Box::pin(async move {
            let mut state = self.0.lock().unwrap();
            if let Some(refusal) = state.refusals.pop_front() {
                return status(refusal);
            }
            state.disconnected.push(connection.to_owned());
            status(204)
        })
    }
}

fn status(status: u16) -> PostResponse {
    PostResponse::Status { status, names_connection: false }
}
