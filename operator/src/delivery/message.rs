//! The message of one record, shared by all connections that receive it.

use bytes::Bytes;

use crate::model::{Item, UnixSeconds};

/// Maximum size of a message, in bytes. API Gateway rejects longer ones.
///
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html>
pub const MAX_MESSAGE_BYTES: usize = 128 * 1024;

/// The message of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub body: Bytes,
    /// Sent instead of a `body` that is too large. Present only with `oversize: KeysOnly`.
    pub keys_only: Option<Bytes>,
    /// Key of the item. A newer message for the same item can supersede an older one.
    pub item_key: Item,
    /// When the item changed, in seconds since 1970.
    pub created_at: UnixSeconds,
    /// Memory that the record itself holds until it is settled, in bytes. It is held for a dead
    /// letter only, so it is 0 without a dead-letter queue.
    pub record_bytes: usize,
}

impl Message {
    /// Memory of the message and its record, in KiB, rounded up.
    pub fn size_kib(&self) -> u32 {
        let bytes =
            self.body.len() + self.keys_only.as_ref().map_or(0, Bytes::len) + self.record_bytes;
        u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX)
    }
}
