//! The DynamoDB Streams API behind the trait [`Streams`](streams::Streams), and its rate limits.

pub mod error;
pub mod rate_limited;
pub mod rate_limits;
pub mod streams;
