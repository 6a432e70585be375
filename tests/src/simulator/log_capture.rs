//! Captures the log events by which workers report lost records: dropped messages, lost dead
//! letters and data gaps. A loss without a report is a violation.

use std::cell::RefCell;
use std::fmt::Debug;
use std::sync::Arc;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Metadata, Subscriber};

use super::world::World;

thread_local! {
    /// The world of the run on this thread.
    static WORLD: RefCell<Option<Arc<World>>> = const { RefCell::new(None) };
}

/// Captures the events of this thread until it is dropped.
#[derive(Debug)]
pub struct LogCapture(#[allow(dead_code, reason = "held for its Drop")] DefaultGuard);

impl LogCapture {
    pub fn start() -> Self {
        Self(tracing::subscriber::set_default(CaptureSubscriber))
    }

    /// Sets the world that captured events belong to.
    pub fn set_world(&self, world: Option<Arc<World>>) {
        WORLD.set(world);
    }
}

struct CaptureSubscriber;

impl Subscriber for CaptureSubscriber {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // Such an event names the record or its shard, and the reason.
        let names = |name| metadata.fields().field(name).is_some();
        // An event with `suppressed` repeats one that was captured before.
        let is_loss = names("reason") && !names("suppressed");
        let is_dead_letter = *metadata.level() == Level::ERROR;
        *metadata.level() <= Level::DEBUG
            && (is_loss || is_dead_letter)
            && (names("sequence_number") || names("shard"))
    }

    fn event(&self, event: &Event<'_>) {
        let mut captured = CapturedEvent::default();
        event.record(&mut captured);
        WORLD.with_borrow(|world| {
            if let Some(world) = world {
                captured.check(world);
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

#[derive(Debug, Default)]
struct CapturedEvent {
    name: String,
    shard: String,
    connection: String,
    sequence_number: String,
    reason: String,
    seconds: u64,
}

impl CapturedEvent {
    fn check(self, world: &World) {
        let process = self.name.strip_prefix("worker-").and_then(|number| number.parse().ok());
        let process: usize = process.expect("the notifier has the name of its process");
        world.with(|model, state| {
            if !self.shard.is_empty() {
                let shard = model.shards().iter().position(|shard| shard.id == self.shard);
                return state.check_gap(model, process, shard, self.seconds);
            }
            if self.reason.is_empty() {
                let number = self
                    .sequence_number
                    .parse()
                    .expect("an event of a dead letter names its record");
                return state.check_dead_letter_lost(model, process, number);
            }
            let shortened = self.connection.trim_end_matches('…');
            let connection = state.connections.iter().position(|it| it.id == shortened);
            let number = self.sequence_number.parse().ok();
            let (connection, number) =
                connection.zip(number).expect("a drop event names its message");
            state.check_drop(model, process, connection, number, &self.reason);
        });
    }
}

impl Visit for CapturedEvent {
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
            "reason" => &mut self.reason,
            _ => return,
        };
        // A text is formatted with quotes, a value with `%` is not.
        *text = format!("{value:?}").trim_matches('"').to_owned();
    }
}
