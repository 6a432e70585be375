//! What one life of a worker sees of the world: every neighbour, over a network that takes its time.
//! A question of a life that has ended is never answered; what it has sent before arrives all the
//! same.

use std::future::pending;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::sleep;

use super::worker_process::{Call, Life, When};
use super::world::{State, World};
use crate::streams_model::{Model, ModelStreams};

/// All four neighbours of one life.
#[derive(Debug)]
pub struct Outside {
    /// The world.
    pub world: Arc<World>,
    /// Whose.
    pub life: Arc<Life>,
    /// Its client of the streams.
    pub(super) streams: ModelStreams,
}

impl Outside {
    /// What `life` sees of `world`.
    pub fn new(world: Arc<World>, life: Arc<Life>) -> Self {
        let streams = ModelStreams::new(world.model.clone(), world.clock.clone());
        Self { world, life, streams }
    }

    /// One side of a call.
    pub(super) async fn pass(&self, call: Call, when: When) {
        if !self.world.admit() {
            pending::<()>().await;
        }
        let crashed = || {
            let what = call.crash(when);
            self.world.count(what);
            self.world.note(|| format!("{}: {what}", self.life));
        };
        self.life.pass(call, when, crashed).await;
    }

    /// A call that changes nothing.
    pub(super) async fn ask<T>(
        &self,
        call: Call,
        answer: impl FnOnce(&Model, &mut State) -> T,
    ) -> T {
        self.pass(call, When::Before).await;
        sleep(self.world.latency()).await;
        let answer = self.world.with(|model, state| answer(model, state));
        self.pass(call, When::After).await;
        answer
    }

    /// A call that changes something: it does so although its caller may not be there any more.
    pub(super) async fn send<T: Send + 'static>(
        &self,
        call: Call,
        act: impl FnOnce(&Model, &mut State) -> T + Send + 'static,
    ) -> T {
        self.pass(call, When::Before).await;
        let (answer, answered) = oneshot::channel();
        let world = self.world.clone();
        let there = world.latency();
        tokio::spawn(async move {
            sleep(there).await;
            let done = world.with(|model, state| act(model, state));
            sleep(world.latency()).await;
            // Nobody may wait for it any more.
            let _ = answer.send(done);
        });
        let Ok(answer) = answered.await else { pending().await };
        self.pass(call, When::After).await;
        answer
    }
}
