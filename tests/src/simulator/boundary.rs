//! Boundary between one worker process and the simulated world: every backend, behind a network
//! with latency. A request of an ended process never gets a response, but a request that it has
//! sent still arrives.

use std::future::pending;
use std::sync::Arc;

use tokio::sync::oneshot;
use tokio::time::sleep;

use super::worker_process::{Call, CallSide, WorkerProcess};
use super::world::{State, World};
use crate::streams_model::{Model, ModelStreams};

/// All backends of one process.
#[derive(Debug)]
pub struct Boundary {
    pub world: Arc<World>,
    pub process: Arc<WorkerProcess>,
    pub(super) streams: ModelStreams,
}

impl Boundary {
    pub fn new(world: Arc<World>, process: Arc<WorkerProcess>) -> Self {
        let streams = ModelStreams::new(world.model.clone(), world.clock.clone());
        Self { world, process, streams }
    }

    pub(super) async fn pass(&self, call: Call, side: CallSide) {
        if !self.world.try_admit_call() {
            pending::<()>().await;
        }
        let on_crash = || {
            let label = call.crash_label(side);
            self.world.count(label);
            self.world.trace_line(|| format!("{}: {label}", self.process));
        };
        self.process.pass(call, side, on_crash).await;
    }

    /// Makes a call without an effect.
    pub(super) async fn read<T>(&self, call: Call, act: impl FnOnce(&Model, &mut State) -> T) -> T {
        self.pass(call, CallSide::Before).await;
        sleep(self.world.latency()).await;
        let response = self.world.with(|model, state| act(model, state));
        self.pass(call, CallSide::After).await;
        response
    }

    /// Makes a call with an effect. The effect happens even if the caller ends after it has sent
    /// the call.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        call: Call,
        act: impl FnOnce(&Model, &mut State) -> T + Send + 'static,
    ) -> T {
        self.pass(call, CallSide::Before).await;
        let (result_tx, result_rx) = oneshot::channel();
        let world = self.world.clone();
        let request_latency = world.latency();
        tokio::spawn(async move {
            sleep(request_latency).await;
            let result = world.with(|model, state| act(model, state));
            sleep(world.latency()).await;
            // The receiver is dropped if the process has ended.
            let _ = result_tx.send(result);
        });
        let Ok(result) = result_rx.await else { pending().await };
        self.pass(call, CallSide::After).await;
        result
    }
}
