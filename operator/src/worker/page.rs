//! Puts a page of changes to work, in order: judges each, looks its connections up, and queues its
//! messages.

use std::pin::pin;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::FuturesOrdered;
use tokio::sync::OwnedSemaphorePermit;

use super::judge::{Judged, Page};
use super::shared::{Shared, Task};
use crate::delivery::{Connection, Connections, Gateway, Letter, Message, PageLookup, Ticket};
use crate::notifier::{Notification, Verdict};
use crate::record::{AttributeValue, Change, ShardId};
use crate::stream::Streams;
use crate::telemetry::{Counts, Dropped};

/// Lookups of one shard under way at once.
const LOOKUPS: usize = 16;

/// Puts a page of changes to work. Lookups run side by side, messages are queued in the records'
/// order. Told to stop, it finishes the changes begun and leaves the rest unread.
pub async fn take<S: Streams, C: Connections, G: Gateway>(
    shared: &Shared<C, G>,
    changes: Vec<Change>,
    task: &Task<S>,
) {
    let lookup = shared.lookup.of_page(shared.clock.now());
    let mut lookups = FuturesOrdered::new();
    let mut page = Page::new(changes);
    while let Some(judged) = judged(shared, &mut page, task, &mut lookups).await {
        let mut counts = Counts::default();
        for (number, verdict) in judged {
            if shared.stop.is_cancelled() {
                break;
            }
            let Some((verdict, change)) = verdict else {
                task.progress.skip(number);
                continue;
            };
            let Some(work) = work(shared, task, verdict, change, &mut counts) else {
                task.progress.skip(number);
                continue;
            };
            let held = loop {
                // What was found goes out while this one waits for room: that is what makes room.
                tokio::select! {
                    biased;
                    held = memory(shared, &work), if lookups.len() < LOOKUPS => break held,
                    Some(found) = lookups.next() => queue(shared, found).await,
                }
            };
            let ticket = task.progress.begin(number, work.letter, held);
            match work.told {
                Some((key, message)) => lookups.push_back(find(&lookup, key, message, ticket)),
                None => ticket.lose(Dropped::Invalid),
            }
        }
        shared.telemetry.read(&counts);
    }
    while let Some(found) = lookups.next().await {
        queue(shared, found).await;
    }
}

/// The next verdicts of a page, while what was found before goes out; `None` at its end, or told to
/// stop.
async fn judged<S, C: Connections, G: Gateway>(
    shared: &Shared<C, G>,
    page: &mut Page,
    task: &Task<S>,
    lookups: &mut FuturesOrdered<impl Future<Output = Found>>,
) -> Option<Vec<Judged>> {
    let mut judged = pin!(page.judge(shared, task));
    loop {
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => return None,
            judged = &mut judged => return judged,
            Some(found) = lookups.next() => queue(shared, found).await,
        }
    }
}

/// What is to be done about a change.
struct Work {
    /// The partition key by which connections are looked up, or `None` for every connection, and what
    /// they are told; nothing if that cannot be said.
    told: Option<(Option<AttributeValue>, Message)>,
    letter: Option<Letter>,
}

/// The connections that a change concerns.
struct Found {
    connections: Vec<Arc<Connection>>,
    message: Message,
    ticket: Ticket,
}

async fn find<C: Connections>(
    lookup: &PageLookup<C>,
    key: Option<AttributeValue>,
    message: Message,
    ticket: Ticket,
) -> Found {
    let connections = lookup.find(key).await;
    Found { connections, message, ticket }
}

async fn queue<C: Connections, G: Gateway>(shared: &Shared<C, G>, found: Found) {
    let Found { connections, message, ticket } = found;
    shared.deliverer.send(connections, message, ticket).await;
}

/// What is to be done about a change, if anything.
fn work<S: Streams, C: Connections, G>(
    shared: &Shared<C, G>,
    task: &Task<S>,
    verdict: Verdict,
    change: Change,
    counts: &mut Counts,
) -> Option<Work> {
    let shard = task.reader.shard();
    let (field, problem) = match verdict {
        Verdict::Notify(notification) => match shared.lookup.check(notification.lookup.as_ref()) {
            Ok(()) => {
                counts.matched += 1;
                return Some(notify(shared, shard, notification, change));
            }
            Err(not_a_key) => ("connections.value".to_owned(), not_a_key.to_string()),
        },
        Verdict::Skip => {
            counts.skipped += 1;
            return None;
        }
        Verdict::Invalid(invalid) => (invalid.field, invalid.problem),
    };
    shared.invalid(&change.sequence_number, &task.keys, &field, &problem);
    let letter = letter(shared, shard, change)?;
    Some(Work { told: None, letter: Some(letter) })
}

fn notify<C, G>(
    shared: &Shared<C, G>,
    shard: &ShardId,
    notification: Notification,
    change: Change,
) -> Work {
    let Notification { lookup, body, keys_only } = notification;
    let (item, created) = (change.keys.clone(), change.created);
    let letter = letter(shared, shard, change);
    let beside = letter.as_ref().map_or(0, |letter| letter.change.size());
    let message = Message { body, keys_only, item, created, beside };
    Work { told: Some((lookup, message)), letter }
}

/// What is sent to the dead-letter queue, if there is one and anything of the change is lost.
fn letter<C, G>(shared: &Shared<C, G>, shard: &ShardId, change: Change) -> Option<Letter> {
    let by = shared.dead_letters.clone()?;
    Some(Letter { change, shard: shard.clone(), by })
}

/// Waits for a record's share of the memory.
async fn memory<C, G>(shared: &Shared<C, G>, work: &Work) -> Option<OwnedSemaphorePermit> {
    let kib = match (&work.told, &work.letter) {
        (Some((_, message)), _) => message.kib(),
        (None, letter) => {
            let bytes = letter.as_ref().map_or(0, |letter| letter.change.size());
            u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX)
        }
    };
    shared.memory.clone().acquire_many_owned(kib.min(shared.bounds.memory_kib)).await.ok()
}
