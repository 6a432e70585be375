//! One shard: the part of the keys that it owns, and where its sequence numbers are.

use fastrand::Rng;

/// A sequence number has 21 digits at least; the first shards begin shortly before there are 22, so
/// that comparing texts goes wrong soon.
const TWENTY_TWO_DIGITS: u128 = 10_u128.pow(21);
/// Numbers grow no longer than 37 digits, for which there is room here.
const LONGEST: u128 = 10_u128.pow(36);
/// The most that lies between two numbers.
const STEP: u128 = 1_000;

/// A shard. Times are milliseconds since 1970.
#[derive(Clone, Debug)]
pub struct Shard {
    /// Its id, as AWS writes them.
    pub id: String,
    /// Its stream, as an index into the model's.
    pub stream: usize,
    /// Its parent, as an index into the model's shards.
    pub parent: Option<usize>,
    /// Its children.
    pub children: Vec<usize>,
    /// When it was opened.
    pub opened: u64,
    /// When it was closed.
    pub closed: Option<u64>,
    /// When a description shows it at the earliest.
    pub listed: u64,
    /// Its records, as indices into the model's.
    pub records: Vec<usize>,
    /// Its `StartingSequenceNumber`.
    pub starting: u128,
    /// The number that its next record gets.
    pub(super) next: u128,
    /// The first and the last hash of the keys that it owns.
    pub(super) keys: (u64, u64),
}

impl Shard {
    /// Whether it can be read at a time.
    pub(super) fn exists(&self, at: u64, retention: u64) -> bool {
        self.opened <= at && self.closed.is_none_or(|closed| at < closed + retention)
    }

    /// The number of its next record, and on to the one after it.
    pub(super) fn take_number(&mut self, rng: &mut Rng) -> u128 {
        let number = self.next;
        self.next += rng.u128(1..=STEP);
        number
    }
}

/// The id of a shard opened at a time.
pub(super) fn id(opened: u64, rng: &mut Rng) -> String {
    format!("shardId-{opened:020}-{:08x}", rng.u32(..))
}

/// The first number of a shard without a parent.
pub(super) fn first_number(rng: &mut Rng) -> u128 {
    TWENTY_TWO_DIGITS - rng.u128(1..=5 * STEP)
}

/// The first number of a child: above its parent's, and now and then shortly before a longer one.
pub(super) fn number_after(parent: u128, rng: &mut Rng) -> u128 {
    let longer = 10_u128.pow(parent.ilog10() + 1);
    if longer < LONGEST && rng.u8(..4) == 0 {
        return parent.max(longer - rng.u128(1..=5 * STEP));
    }
    parent + rng.u128(1..=STEP)
}

/// Whose keys are whose: FNV-1a, the same on every machine.
pub(super) fn hash(texts: [&str; 2]) -> u64 {
    let bytes = texts.into_iter().flat_map(|text| text.bytes().chain([0]));
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    // The upper bits of FNV move little between short keys, and the upper bits decide here.
    (hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
