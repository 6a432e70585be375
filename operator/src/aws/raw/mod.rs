//! Sends posts and GetRecords without the SDK's clients, because these requests are on the hot
//! path.

pub mod aws_json;
pub mod clock_skew;
pub mod endpoint;
pub mod get_records;
pub mod sigv4_client;
