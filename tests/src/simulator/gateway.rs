//! Simulated API Gateway: connections that are closed, not yet established or slow, rejected posts,
//! and lost responses. It checks that each message that arrives is due, new and in order.

use bytes::Bytes;
use futures::future::BoxFuture;
use stream_notifier::delivery::{Gateway, PostResponse};

use super::boundary::Boundary;
use super::faults::active;
use super::worker_process::Call;
use super::world::State;
use crate::streams_model::Model;

/// A post in flight.
#[derive(Clone, Copy, Debug)]
pub struct Post {
    pub claim: usize,
    pub connection: usize,
    pub record: usize,
}

/// How API Gateway treats a post.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behavior {
    Delivered,
    /// Delivered, but the response is lost.
    DeliveredWithoutResponse,
    /// The request is lost.
    Lost,
    Rejected(u16),
    Unreachable,
    NoCredentials,
}

/// Values of [`Faults::gateway`](super::faults::Faults) that are not HTTP statuses.
pub const UNREACHABLE: u16 = 0;
pub const NO_CREDENTIALS: u16 = 1;

impl Behavior {
    fn of(status: u16) -> Self {
        match status {
            UNREACHABLE => Self::Unreachable,
            NO_CREDENTIALS => Self::NoCredentials,
            status => Self::Rejected(status),
        }
    }

    fn response(self) -> PostResponse {
        let status = |status| PostResponse::Status { status, mentions_connection_id: false };
        match self {
            Self::Delivered => status(200),
            Self::Rejected(refused) => status(refused),
            Self::DeliveredWithoutResponse | Self::Lost => PostResponse::NoResponse,
            Self::Unreachable => PostResponse::Unreachable,
            Self::NoCredentials => PostResponse::NoCredentials { cause: "simulated".to_owned() },
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Delivered => "post delivered",
            Self::DeliveredWithoutResponse => "post delivered, response lost",
            Self::Lost => "post lost",
            Self::Rejected(403) => "post rejected with 403",
            Self::Rejected(410) => "post rejected with 410",
            Self::Rejected(429) => "post rejected with 429",
            Self::Rejected(_) => "post rejected with 5xx",
            Self::Unreachable => "gateway unreachable",
            Self::NoCredentials => "gateway without credentials",
        }
    }
}

impl State {
    fn draw_behavior(&mut self, model: &Model, connection: usize) -> Behavior {
        if let Some(status) = active(self.faults.gateway, model.now()) {
            return Behavior::of(status);
        }
        let now = model.now();
        let to = &self.connections[connection];
        if to.is_closed || now < to.established_at {
            return Behavior::Rejected(410);
        }
        if now < to.slow_until {
            return Behavior::Rejected(429);
        }
        if !self.chance(self.faults.chances.posts) {
            return Behavior::Delivered;
        }
        let behaviors = [
            Behavior::Rejected(429),
            Behavior::Rejected(500),
            Behavior::Rejected(503),
            Behavior::Rejected(403),
            Behavior::DeliveredWithoutResponse,
            Behavior::DeliveredWithoutResponse,
            Behavior::Lost,
            Behavior::Unreachable,
        ];
        behaviors[self.rng.usize(..behaviors.len())]
    }

    /// Handles a post that arrives.
    fn receive_post(&mut self, model: &Model, post: Post) -> PostResponse {
        let behavior = self.draw_behavior(model, post.connection);
        self.counts.add(behavior.label());
        let Post { claim, connection, record } = post;
        self.trace_line(model, || {
            format!("claim {claim}, record {record} to conn{connection:02}: {}", behavior.label())
        });
        self.check_post_arrived(model, post);
        if matches!(behavior, Behavior::Delivered | Behavior::DeliveredWithoutResponse) {
            self.history.delivered.insert((record, connection));
        }
        if behavior == Behavior::Delivered {
            self.history.claims[claim].settled.insert((record, connection));
        }
        behavior.response()
    }

    /// Identifies a post that starts, and checks it. `None` if no record has such a message.
    fn start_post(
        &mut self,
        model: &Model,
        process: usize,
        connection: &str,
        message: &Bytes,
    ) -> Option<Post> {
        let connection = self.connections.iter().position(|it| it.id == connection);
        let body: serde_json::Value = serde_json::from_slice(message).ok()?;
        let value = body["value"].as_str()?.parse().ok()?;
        let record = self.history.record_of.get(&value).copied();
        let claim = self.history.processes[process].claim;
        let post = Post { claim: claim?, connection: connection?, record: record? };
        self.check_post_started(model, post);
        Some(post)
    }

    /// Handles a disconnect.
    fn receive_disconnect(&mut self, model: &Model, connection: usize) -> PostResponse {
        let behavior = match self.draw_behavior(model, connection) {
            // A slow client can still be disconnected.
            Behavior::Rejected(429) if !self.chance(self.faults.chances.posts * 5.0) => {
                Behavior::Delivered
            }
            behavior => behavior,
        };
        let is_closed =
            matches!(behavior, Behavior::Delivered | Behavior::DeliveredWithoutResponse);
        self.counts.add(if is_closed { "client disconnected" } else { "disconnect failed" });
        self.trace_line(model, || format!("disconnect of conn{connection:02}: {behavior:?}"));
        self.connections[connection].is_closed |= is_closed;
        behavior.response()
    }
}

impl Gateway for Boundary {
    fn post<'a>(&'a self, connection: &'a str, message: &'a Bytes) -> BoxFuture<'a, PostResponse> {
        Box::pin(async move {
            let (process, started_at) = (self.process.number, self.world.clock.now());
            let post = self.world.with(|model, state| {
                let post = state.start_post(model, process, connection, message);
                if post.is_none() {
                    let details =
                        format!("{}: {message:?} was posted to {connection}", self.process);
                    state.report_violation(model, "no undue messages", details);
                }
                post
            });
            let Some(post) = post else { return PostResponse::NoResponse };
            let response =
                self.write(Call::Post, move |model, state| state.receive_post(model, post)).await;
            self.world.with(|model, state| {
                state.record_response(model, process, post, started_at, &response)
            });
            response
        })
    }

    fn disconnect<'a>(&'a self, connection: &'a str) -> BoxFuture<'a, PostResponse> {
        Box::pin(async move {
            let process = self.process.number;
            let connection = self.world.with(|model, state| {
                let index = state.connections.iter().position(|it| it.id == connection)?;
                state.check_disconnect(model, process, index);
                Some(index)
            });
            let Some(connection) = connection else { return PostResponse::NoResponse };
            let closes =
                move |model: &Model, state: &mut State| state.receive_disconnect(model, connection);
            let response = self.write(Call::Disconnect, closes).await;
            self.world.with(|model, state| {
                state.record_disconnect_response(model, process, connection, &response)
            });
            response
        })
    }
}
