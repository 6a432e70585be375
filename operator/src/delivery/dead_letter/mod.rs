//! Dead letters: records with dropped messages, sent to a queue before they settle.

pub mod payload;
pub mod queue;
pub mod sender;
