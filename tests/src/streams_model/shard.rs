//! A shard: its keys and its sequence numbers.

use fastrand::Rng;

/// A sequence number has at least 21 digits. The first shards start shortly below 22 digits, so
/// that a comparison as text soon gives a wrong order.
const TWENTY_TWO_DIGITS: u128 = 10_u128.pow(21);
/// Sequence numbers have at most 37 digits, so that they fit into 128 bits.
const MAX_START: u128 = 10_u128.pow(36);
/// Maximum distance of two sequence numbers.
const MAX_STEP: u128 = 1_000;

/// A shard. Times are in milliseconds since 1970.
#[derive(Clone, Debug)]
pub struct Shard {
    pub id: String,
    /// Index of its stream.
    pub stream: usize,
    /// Index of its parent.
    pub parent: Option<usize>,
    pub children: Vec<usize>,
    pub opened: u64,
    pub closed: Option<u64>,
    /// The earliest time at which a description shows it.
    pub listed: u64,
    /// Indices of its records.
    pub records: Vec<usize>,
    /// `StartingSequenceNumber`.
    pub starting: u128,
    /// The sequence number of its next record.
    pub(super) next: u128,
    /// The first and last hash that it owns.
    pub(super) keys: (u64, u64),
}

impl Shard {
    /// Whether it can be read at a time.
    pub(super) fn exists(&self, at: u64, retention: u64) -> bool {
        self.opened <= at && self.closed.is_none_or(|closed| at < closed + retention)
    }

    /// Takes the sequence number of its next record.
    pub(super) fn take_number(&mut self, rng: &mut Rng) -> u128 {
        let number = self.next;
        self.next += rng.u128(1..=MAX_STEP);
        number
    }
}

/// Draws a random id for a shard that opens at the time `opened`.
pub(super) fn id(opened: u64, rng: &mut Rng) -> String {
    format!("shardId-{opened:020}-{:08x}", rng.u32(..))
}

/// Draws the first sequence number of a shard without a parent.
pub(super) fn first_number(rng: &mut Rng) -> u128 {
    TWENTY_TWO_DIGITS - rng.u128(1..=5 * MAX_STEP)
}

/// Draws the first sequence number of a child: above its parent's, often shortly before one more
/// digit.
pub(super) fn number_after(parent: u128, rng: &mut Rng) -> u128 {
    let longer = 10_u128.pow(parent.ilog10() + 1);
    if longer < MAX_START && rng.u8(..4) == 0 {
        return parent.max(longer - rng.u128(1..=5 * MAX_STEP));
    }
    parent + rng.u128(1..=MAX_STEP)
}

/// Hash that assigns a key to a shard. Uses FNV-1a, which returns the same value on every machine.
pub(super) fn hash(texts: [&str; 2]) -> u64 {
    let bytes = texts.into_iter().flat_map(|text| text.bytes().chain([0]));
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // The upper bits of FNV differ little between short keys, but they decide here.
    (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
