//! Calls that bypass the SDK's clients because they are on the hot path: posts and GetRecords.

pub mod aws_json;
pub mod clock_skew;
pub mod endpoint;
pub mod get_records;
pub mod sigv4_client;
