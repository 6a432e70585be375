//! The worker, simulated: with the streams, the connections table, the gateway and the checkpoint's
//! store around it on tokio's paused clock, and everything that happens drawn from one seed. Workers
//! crash at any call, pause, restart and meet; every neighbour fails in every way; and whatever
//! happens, the guarantees of the design hold.

mod checks;
mod connections;
mod counts;
mod ending;
mod faults;
mod gateway;
mod hardship;
mod history;
mod letters;
mod life;
mod losses;
mod outside;
mod plan;
mod run;
mod saves;
mod step;
mod store;
mod story;
mod streams;
mod told;
mod trace;
mod worker;
mod world;

pub use counts::Counts;
pub use plan::Plan;
pub use run::{Failure, Report, replay, run_all};
