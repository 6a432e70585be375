//! Puts a page of changes to work, in order: judges each, looks its connections up, and queues its
//! messages.

use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesOrdered;
use tokio::sync::OwnedSemaphorePermit;

use super::shard::{Shared, Task};
use crate::delivery::{Connection, Connections, Gateway, NotAKey, Page, Ticket};
use crate::notifier::{Notification, Verdict};
use crate::record::{Change, SequenceNumber};
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
    let page = shared.lookup.page(shared.clock.now());
    let mut lookups = FuturesOrdered::new();
    let mut counts = Counts::default();
    for change in changes {
        if shared.stop.is_cancelled() {
            break;
        }
        let Some((number, notification)) = judge(shared, change, task, &mut counts) else {
            continue;
        };
        let held = loop {
            // What was found goes out while this one waits for room: that is what makes room.
            tokio::select! {
                biased;
                held = memory(shared, &notification), if lookups.len() < LOOKUPS => break held,
                Some(found) = lookups.next() => queue(shared, found).await,
            }
        };
        let ticket = task.progress.begin(number, held);
        lookups.push_back(find(&page, notification, ticket));
    }
    shared.telemetry.read(&counts);
    while let Some(found) = lookups.next().await {
        queue(shared, found).await;
    }
}

/// The connections that a change concerns.
struct Found {
    connections: Result<Vec<Arc<Connection>>, NotAKey>,
    body: Bytes,
    ticket: Ticket,
}

async fn find<C: Connections>(page: &Page<C>, notification: Notification, ticket: Ticket) -> Found {
    let connections = page.find(notification.lookup.as_ref()).await;
    Found { connections, body: notification.body, ticket }
}

async fn queue<C: Connections, G: Gateway>(shared: &Shared<C, G>, found: Found) {
    let Found { connections, body, ticket } = found;
    match connections {
        Ok(connections) => shared.deliverer.send(connections, &body, ticket).await,
        Err(not_a_key) => {
            shared.telemetry.invalid(ticket.number(), "connections.value", &not_a_key.to_string());
            ticket.settle();
        }
    }
}

/// What is to be done about a change; one that needs no work is noted as read.
fn judge<S, C, G>(
    shared: &Shared<C, G>,
    change: Change,
    task: &Task<S>,
    counts: &mut Counts,
) -> Option<(SequenceNumber, Notification)> {
    let Task { keys, progress, .. } = task;
    if shared.not_before.is_some_and(|start| change.created < start) {
        counts.old += 1;
        progress.skip(change.sequence_number);
        return None;
    }
    match shared.notifier.judge(keys, &change) {
        Verdict::Notify(notification) => {
            counts.matched += 1;
            return Some((change.sequence_number, notification));
        }
        Verdict::Skip => counts.skipped += 1,
        Verdict::Invalid(invalid) => {
            let number = &change.sequence_number;
            shared.telemetry.invalid(number, &invalid.field, &invalid.problem);
        }
    }
    progress.skip(change.sequence_number);
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
