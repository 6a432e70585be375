//! Puts a page of changes to work, in order: judges each, looks its connections up, and queues its
//! messages.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesOrdered;
use tokio::sync::OwnedSemaphorePermit;

use super::judge::{Judged, Page};
use super::shard::{Shared, Task};
use crate::delivery::{Connection, Connections, Gateway, NotAKey, Ticket};
use crate::notifier::{Notification, Verdict};
use crate::record::{Change, KeyNames, SequenceNumber};
use crate::telemetry::Counts;

/// Lookups of one shard under way at once.
const LOOKUPS: usize = 16;

/// Puts a page of changes to work. Lookups run side by side, messages are queued in the records'
/// order. Told to stop, it finishes the changes begun and leaves the rest unread.
pub async fn take<S, C: Connections, G: Gateway>(
    shared: &Shared<C, G>,
    changes: Vec<Change>,
    task: &Task<S>,
) {
    let mut lookups = FuturesOrdered::new();
    let mut page = Page::new(changes);
    while let Some(judged) = judged(shared, &mut page, task, &mut lookups).await {
        let mut counts = Counts::default();
        for (number, verdict) in judged {
            if shared.stop.is_cancelled() {
                break;
            }
            let Some(notification) = note(shared, &number, &task.keys, verdict, &mut counts) else {
                task.progress.skip(number);
                continue;
            };
            let held = loop {
                // What was found goes out while this one waits for room: that is what makes room.
                tokio::select! {
                    biased;
                    held = memory(shared, &notification), if lookups.len() < LOOKUPS => break held,
                    Some(found) = lookups.next() => queue(shared, &task.keys, found).await,
                }
            };
            let ticket = task.progress.begin(number, held);
            lookups.push_back(find(shared, notification, ticket));
        }
        shared.telemetry.read(&counts);
    }
    while let Some(found) = lookups.next().await {
        queue(shared, &task.keys, found).await;
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
            Some(found) = lookups.next() => queue(shared, &task.keys, found).await,
        }
    }
}

/// The connections that a change concerns.
struct Found {
    connections: Result<Vec<Arc<Connection>>, NotAKey>,
    body: Bytes,
    ticket: Ticket,
}

async fn find<C: Connections, G>(
    shared: &Shared<C, G>,
    notification: Notification,
    ticket: Ticket,
) -> Found {
    let connections = shared.lookup.find(&notification.lookup).await;
    Found { connections, body: notification.body, ticket }
}

async fn queue<C: Connections, G: Gateway>(shared: &Shared<C, G>, keys: &KeyNames, found: Found) {
    let Found { connections, body, ticket } = found;
    match connections {
        Ok(connections) => shared.deliverer.send(connections, &body, ticket).await,
        Err(not_a_key) => {
            let problem = not_a_key.to_string();
            shared.invalid(ticket.number(), keys, "connections.value", &problem);
            ticket.settle();
        }
    }
}

/// Whom to tell what, if anybody; what else a verdict says is counted.
fn note<C, G>(
    shared: &Shared<C, G>,
    number: &SequenceNumber,
    keys: &KeyNames,
    verdict: Option<Verdict>,
    counts: &mut Counts,
) -> Option<Notification> {
    match verdict? {
        Verdict::Notify(notification) => {
            counts.matched += 1;
            return Some(notification);
        }
        Verdict::Skip => counts.skipped += 1,
        Verdict::Invalid(invalid) => {
            shared.invalid(number, keys, &invalid.field, &invalid.problem);
        }
    }
    None
}

/// Waits for a record's share of the memory.
async fn memory<C, G>(
    shared: &Shared<C, G>,
    notification: &Notification,
) -> Option<OwnedSemaphorePermit> {
    let most = shared.bounds.memory_kib;
    let size = u32::try_from(notification.body.len() / 1024 + 1).unwrap_or(most).min(most);
    shared.memory.clone().acquire_many_owned(size).await.ok()
}
