//! The worker, simulated: with the streams, the connections table, the gateway and the checkpoint's
//! store around it on tokio's paused clock, and everything that happens drawn from one seed. Workers
//! crash at any call, pause, restart and meet; every neighbour fails in every way; and whatever
//! happens, the guarantees of the design hold.

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
mod run;
mod scenario;
mod step;
mod store;
mod streams;
mod trace;
mod worker;
mod worker_process;
mod world;

pub use config::Plan;
pub use counts::Counts;
pub use run::{Failure, Report, replay, run_all};
