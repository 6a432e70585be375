//! Deterministic simulation of workers. One seed decides everything that happens on a paused clock.
//!
//! Workers crash at any call, pause, restart, and run at the same time. Every backend fails in each
//! of its ways: the streams, the connections table, API Gateway, the dead-letter queue and the
//! checkpoint store. The guarantees of `docs/architecture.md` must hold in every run.

mod boundary;
mod checkpoint_invariants;
mod checks;
mod config;
mod connections;
mod counts;
mod dead_letters;
mod drop_invariants;
mod fault_injection;
mod faults;
mod gateway;
mod history;
mod liveness;
mod log_capture;
mod post_history;
mod run;
mod scenario;
mod step;
mod store;
mod streams;
mod trace;
mod worker;
mod worker_process;
mod world;

pub use config::ScenarioConfig;
pub use counts::Counts;
pub use run::{Failure, Report, replay, run_all};
