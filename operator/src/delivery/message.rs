//! What connections are told of one change; shared by all that are told.

use bytes::Bytes;

use crate::model::{Item, UnixSeconds};

/// The longest message that API Gateway takes, in bytes.
///
/// <https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-execution-service-websocket-limits-table.html>
pub const MAX_MESSAGE_BYTES: usize = 128 * 1024;

/// One change, as its connections are told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The message.
    pub body: Bytes,
    /// What is sent instead if that is too large: only with `oversize: KeysOnly`.
    pub keys_only: Option<Bytes>,
    /// The key of the item: a newer message of the same item can stand for an older one.
    pub item: Item,
    /// When the item changed.
    pub created_at: UnixSeconds,
    /// What else its record holds until it is settled, in bytes.
    pub record_bytes: usize,
}

impl Message {
    /// What it and its record take of the memory, in KiB, rounded up.
    pub fn kib(&self) -> u32 {
        let bytes =
            self.body.len() + self.keys_only.as_ref().map_or(0, Bytes::len) + self.record_bytes;
        u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX)
    }
}
