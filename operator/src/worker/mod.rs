//! The life cycle of one notifier: configures, starts, runs and restarts its worker.

mod backends;
pub mod config;
mod factory;
mod rate_limiters;
mod run;
mod startup;
mod worker_handle;

pub use self::backends::Backends;
pub use self::config::endpoint::Endpoints;
pub use self::config::validate::{MAX_PAGES, Validated, validate};
pub use self::config::worker_config::{WorkerConfig, WorkerSpec};
pub use self::factory::{FactoryError, WorkerFactory};
pub use self::rate_limiters::RateLimiters;
pub use self::run::run_worker;
pub use self::worker_handle::{NotifierId, Revision, RunWorker, WorkerHandle};
pub use crate::rules::InvalidSpec;
