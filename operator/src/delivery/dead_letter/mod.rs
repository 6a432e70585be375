//! Sends the records of dropped messages to a queue, before they are settled.

pub mod payload;
pub mod queue;
pub mod sender;
