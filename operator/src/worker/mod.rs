//! The life cycle of one notifier: configures, starts, runs and restarts its worker.

pub mod backends;
pub mod config;
pub mod factory;
pub mod rate_limiters;
pub mod run;
pub mod startup;
pub mod supervisor;

pub use self::backends::Backends;
pub use self::config::endpoint::Endpoints;
pub use self::config::validate::{MAX_PAGES, Validated, validate};
pub use self::config::worker_config::{WorkerConfig, WorkerSpec};
pub use self::factory::WorkerFactory;
pub use self::rate_limiters::RateLimiters;
pub use self::run::run_worker;
pub use self::supervisor::{NotifierId, Revision, Supervisor};
