//! Tells connections of a change: every one stored at lookup time, in order per connection, none
//! held up by another.

mod config;
mod connections;
mod dead_letters;
mod deliverer;
mod flight;
mod gate;
mod gateway;
mod guard;
mod letter;
mod limits;
mod lookup;
mod message;
mod outbox;
mod outcome;
mod pipeline;
mod problems;
mod queue;
mod settle;
mod tasks;
mod tries;

pub use config::{Bounds, DeliveryConfig, Policy, SlowClient};
pub use connections::{
    Connections, ConnectionsError, ConnectionsErrorKind, RowPage, Segment, TableDescription,
};
pub use dead_letters::{DeadLetters, Letter};
pub use deliverer::{Deliverer, Setup};
pub use gateway::{Answer, Gateway};
pub use letter::From as LetterFrom;
pub use limits::PostLimits;
pub use lookup::{Connection, Lookup, NotAKey, PageLookup, Source};
pub use message::Message;
pub use pipeline::Pipeline;
pub use queue::{DeadLetterError, DeadLetterErrorKind, DeadLetterQueue};
pub use settle::Ticket;
pub use tasks::Tasks;
