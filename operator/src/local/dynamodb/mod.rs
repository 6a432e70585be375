//! Embedded DynamoDB with streams.

pub mod emulator;
pub mod json;
pub mod provision;
pub mod server;
pub mod streams;
