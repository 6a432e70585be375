//! What workers say in their logs about records that somebody will not get: messages given up, their
//! dead letters, and gaps. A loss that is told is declared; one that is not is a fault.

use std::cell::RefCell;
use std::fmt::Debug;
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Metadata, Subscriber};

use super::world::World;

thread_local! {
    /// The world whose workers run on this thread.
    static WORLD: RefCell<Option<Arc<World>>> = const { RefCell::new(None) };
}

/// Listens on this thread until it is dropped.
#[derive(Debug)]
pub struct Listening(#[allow(dead_code, reason = "it is held, not read")] DefaultGuard);

impl Listening {
    /// Begins to listen.
    pub fn begin() -> Self {
        Self(tracing::subscriber::set_default(Listener))
    }

    /// What is heard from here on is about this world, or about none.
    pub fn to(&self, world: Option<Arc<World>>) {
        WORLD.set(world);
    }
}

struct Listener;

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // What is told of a lost record names it, or its shard, and why.
        let names = |name| metadata.fields().field(name).is_some();
        // What stands for many that are not said has been heard by itself.
        let is_loss = names("why") && !names("unsaid");
        let is_letter = *metadata.level() == Level::ERROR;
        *metadata.level() <= Level::DEBUG
            && (is_loss || is_letter)
            && (names("sequence_number") || names("shard"))
    }

    fn event(&self, event: &Event<'_>) {
        let mut said = Said::default();
        event.record(&mut said);
        WORLD.with_borrow(|world| {
            if let Some(world) = world {
                said.tell(world);
            }
        });
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// The fields of an event.
#[derive(Debug, Default)]
struct Said {
    name: String,
    shard: String,
    connection: String,
    sequence_number: String,
    why: String,
    seconds: u64,
}

impl Said {
    fn tell(self, world: &World) {
        let life = self.name.strip_prefix("worker-").and_then(|number| number.parse().ok());
        let life: usize = life.expect("workers are named by their lives");
        world.with(|model, state| {
            if !self.shard.is_empty() {
                let shard = model.shards().iter().position(|shard| shard.id == self.shard);
                return state.declare_gap(model, life, shard, self.seconds);
            }
            if self.why.is_empty() {
                let number = self.sequence_number.parse().expect("a letter names its record");
                return state.check_letter_lost(model, life, number);
            }
            let told = self.connection.trim_end_matches('…');
            let connection = state.connections.iter().position(|it| it.id == told);
            let number = self.sequence_number.parse().ok();
            let (connection, number) = connection.zip(number).expect("a drop names its message");
            state.check_drop(model, life, connection, number, &self.why);
        });
    }
}

impl Visit for Said {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "seconds" {
            self.seconds = value;
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = match field.name() {
            "name" => &mut self.name,
            "shard" => &mut self.shard,
            "connection" => &mut self.connection,
            "sequence_number" => &mut self.sequence_number,
            "why" => &mut self.why,
            _ => return,
        };
        // `%` displays, a text is quoted.
        *text = format!("{value:?}").trim_matches('"').to_owned();
    }
}
