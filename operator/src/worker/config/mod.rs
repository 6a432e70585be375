//! Turns a resource's spec into the configuration of a worker.

pub mod arn;
pub mod endpoint;
pub mod validate;
pub mod worker_config;
