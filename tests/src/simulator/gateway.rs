//! The WebSocket API: connections that are gone, not up yet or slow, wrong rights, faults, and
//! answers that get lost. What arrives is looked at here: it must be due, new and in order.

use bytes::Bytes;
use futures::future::BoxFuture;
use stream_notifier::delivery::{Gateway, PostResponse};

use super::boundary::Outside;
use super::faults::now;
use super::worker_process::{Call, When};
use super::world::State;
use crate::streams_model::Model;

/// One post on its way.
#[derive(Clone, Copy, Debug)]
pub struct Post {
    /// Under which claim.
    pub claim: usize,
    /// To which connection.
    pub connection: usize,
    /// Of which record.
    pub record: usize,
}

/// What becomes of a post.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Delivered,
    /// Delivered, and its answer is lost.
    Unanswered,
    /// Lost on its way.
    Lost,
    Refused(u16),
    Unreachable,
    NoCredentials,
}

/// The windows of [`Faults::gateway`](super::faults::Faults) are statuses, and these two.
pub const UNREACHABLE: u16 = 0;
pub const NO_CREDENTIALS: u16 = 1;

impl Fate {
    fn of(status: u16) -> Self {
        match status {
            UNREACHABLE => Self::Unreachable,
            NO_CREDENTIALS => Self::NoCredentials,
            status => Self::Refused(status),
        }
    }

    fn answer(self) -> PostResponse {
        let status = |status| PostResponse::Status { status, names_connection: false };
        match self {
            Self::Delivered => status(200),
            Self::Refused(refused) => status(refused),
            Self::Unanswered | Self::Lost => PostResponse::NoResponse,
            Self::Unreachable => PostResponse::Unreachable,
            Self::NoCredentials => PostResponse::NoCredentials,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Delivered => "post delivered",
            Self::Unanswered => "post delivered, answer lost",
            Self::Lost => "post lost",
            Self::Refused(403) => "post answered 403",
            Self::Refused(410) => "post answered 410",
            Self::Refused(429) => "post answered 429",
            Self::Refused(_) => "post answered 5xx",
            Self::Unreachable => "gateway unreachable",
            Self::NoCredentials => "gateway without credentials",
        }
    }
}

impl State {
    /// What becomes of a post to a connection.
    fn fate(&mut self, model: &Model, connection: usize) -> Fate {
        if let Some(status) = now(self.faults.gateway, model.now()) {
            return Fate::of(status);
        }
        let moment = model.now();
        let to = &self.connections[connection];
        if to.is_gone || moment < to.up_at {
            return Fate::Refused(410);
        }
        if moment < to.slow_until {
            return Fate::Refused(429);
        }
        if !self.chance(self.faults.chances.posts) {
            return Fate::Delivered;
        }
        let fates = [
            Fate::Refused(429),
            Fate::Refused(500),
            Fate::Refused(503),
            Fate::Refused(403),
            Fate::Unanswered,
            Fate::Unanswered,
            Fate::Lost,
            Fate::Unreachable,
        ];
        fates[self.rng.usize(..fates.len())]
    }

    /// A post arrives.
    fn arrive(&mut self, model: &Model, post: Post) -> PostResponse {
        let fate = self.fate(model, post.connection);
        self.counts.add(fate.word());
        let Post { claim, connection, record } = post;
        self.note(model, || {
            format!("claim {claim}, record {record} to conn{connection:02}: {}", fate.word())
        });
        self.check_arrival(model, post);
        if matches!(fate, Fate::Delivered | Fate::Unanswered) {
            self.history.delivered.insert((record, connection));
        }
        if fate == Fate::Delivered {
            self.history.claims[claim].settled.insert((record, connection));
        }
        fate.answer()
    }

    /// Which post this is; `None` if it is none that could be, which is told.
    fn post(
        &mut self,
        model: &Model,
        life: usize,
        connection: &str,
        message: &Bytes,
    ) -> Option<Post> {
        let connection = self.connections.iter().position(|it| it.id == connection);
        let body: serde_json::Value = serde_json::from_slice(message).ok()?;
        let value = body["value"].as_str()?.parse().ok()?;
        let record = self.history.record_of.get(&value).copied();
        let claim = self.history.lives[life].claim;
        let post = Some(Post { claim: claim?, connection: connection?, record: record? });
        if let Some(post) = post {
            self.check_departure(model, post);
        }
        post
    }

    /// What becomes of a disconnection.
    fn close(&mut self, model: &Model, connection: usize) -> PostResponse {
        let fate = match self.fate(model, connection) {
            // It may be slow, and is closed all the same.
            Fate::Refused(429) if !self.chance(self.faults.chances.posts * 5.0) => Fate::Delivered,
            fate => fate,
        };
        let is_closed = matches!(fate, Fate::Delivered | Fate::Unanswered);
        self.counts.add(if is_closed { "client disconnected" } else { "disconnection fails" });
        self.note(model, || format!("conn{connection:02} is to be closed: {is_closed}, {fate:?}"));
        self.connections[connection].is_gone |= is_closed;
        fate.answer()
    }
}

impl Gateway for Outside {
    fn post<'a>(&'a self, connection: &'a str, message: &'a Bytes) -> BoxFuture<'a, PostResponse> {
        Box::pin(async move {
            let began = self.world.clock.now();
            self.pass(Call::Post, When::Before).await;
            let life = self.life.number;
            let post = self.world.with(|model, state| {
                let post = state.post(model, life, connection, message);
                if post.is_none() {
                    let how = format!("{}: {message:?} was posted to {connection}", self.life);
                    state.break_guarantee(model, "nothing posted that is not due", how);
                }
                post
            });
            let Some(post) = post else { return PostResponse::NoResponse };
            let answer = self.send(Call::Post, move |model, state| state.arrive(model, post)).await;
            self.world.with(|model, state| state.answered(model, life, post, began, &answer));
            answer
        })
    }

    fn disconnect<'a>(&'a self, connection: &'a str) -> BoxFuture<'a, PostResponse> {
        Box::pin(async move {
            let life = self.life.number;
            let connection = self.world.with(|model, state| {
                let index = state.connections.iter().position(|it| it.id == connection)?;
                state.check_disconnection(model, life, index);
                Some(index)
            });
            let Some(connection) = connection else { return PostResponse::NoResponse };
            let closes = move |model: &Model, state: &mut State| state.close(model, connection);
            let answer = self.send(Call::Disconnect, closes).await;
            self.world.with(|model, state| state.closed(model, life, connection));
            answer
        })
    }
}
