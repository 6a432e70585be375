//! What a simulated table is like. The defaults are the service's documented limits and no fault at
//! all, so that a test can switch on each fault alone. Probabilities go from 0 to 1.

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

/// A table and its streams.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The table's name.
    pub table: String,
    /// Which images records carry.
    pub view: View,
    /// How much longer each image is made, in bytes.
    pub filler_bytes: usize,
    /// How many shards a new stream has.
    pub shards: usize,
    /// How long a shard stays open, a tenth more or less; `None`: until a test rolls it.
    pub roll_ms: Option<u64>,
    /// How long records, closed shards and disabled streams are kept.
    pub retention_ms: u64,
    /// How long an iterator is good.
    pub iterator_ms: u64,
    /// How long a stream is `ENABLING`; it has no shards and takes no records meanwhile.
    pub enabling_ms: u64,
    /// How long a stream is `DISABLING`; its shards are closed already.
    pub disabling_ms: u64,
    /// A record can be read this much later than it was written, at the most.
    pub record_delay_ms: u64,

    /// The most records on a page.
    pub records_on_a_page: usize,
    /// The most bytes on a page, unless its first record alone is larger.
    pub bytes_on_a_page: usize,
    /// The most shards on a page of a description.
    pub shards_on_a_page: usize,
    /// A page without records, although there are some and the shard goes on.
    pub empty_page: f64,
    /// A page with fewer records than would fit.
    pub short_page: f64,
    /// The last records of a closed shard come with a next iterator, whose page is empty and the
    /// last one. Otherwise the last page carries records.
    pub separate_end: f64,

    /// Whether AT_TIMESTAMP is known; emulators refuse it.
    pub knows_timestamps: bool,
    /// Whether ShardFilter is known; emulators ignore it.
    pub knows_filter: bool,
    /// How far descriptions are behind.
    pub inconsistency: Inconsistency,
    /// How calls are throttled.
    pub throttling: Throttling,
    /// Any call fails with a fault of the service.
    pub unavailable: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            table: "sample-table-dev".to_owned(),
            view: View::NewAndOldImages,
            filler_bytes: 0,
            shards: 1,
            roll_ms: Some(4 * HOUR),
            retention_ms: 24 * HOUR,
            iterator_ms: 15 * MINUTE,
            enabling_ms: 0,
            disabling_ms: 0,
            record_delay_ms: 0,
            records_on_a_page: 1_000,
            bytes_on_a_page: 1 << 20,
            shards_on_a_page: 100,
            empty_page: 0.0,
            short_page: 0.0,
            separate_end: 0.0,
            knows_timestamps: true,
            knows_filter: true,
            inconsistency: Inconsistency::default(),
            throttling: Throttling::default(),
            unavailable: 0.0,
        }
    }
}

/// How DescribeStream and ListStreams differ from what is.
#[derive(Clone, Debug, Default)]
pub struct Inconsistency {
    /// An answer shows everything as it was before.
    pub stale: f64,
    /// How long before, at the most.
    pub stale_ms: u64,
    /// A shard is listed later than it was opened.
    pub late: f64,
    /// How much later, at the most.
    pub late_ms: u64,
    /// A shard is missing from one answer.
    pub missing: f64,
    /// A closed shard is shown without an `EndingSequenceNumber`.
    pub open_parent: f64,
    /// Open shards are shown with an `EndingSequenceNumber`, as an emulator does.
    pub ends_on_open: bool,
}

/// When calls are refused with LimitExceededException. The figures of `default` are AWS's.
#[derive(Clone, Debug)]
pub struct Throttling {
    /// The most calls of DescribeStream in a second.
    pub describes: Option<usize>,
    /// The most calls of ListStreams in a second.
    pub lists: Option<usize>,
    /// The most calls of GetRecords on one shard in a second.
    pub reads: Option<usize>,
    /// The most readers (chains of iterators) of one shard in a second.
    pub readers: Option<usize>,
    /// Any call, at random.
    pub random: f64,
}

impl Default for Throttling {
    fn default() -> Self {
        Self { describes: Some(10), lists: Some(5), reads: None, readers: None, random: 0.0 }
    }
}

/// Which images records carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// Keys only.
    KeysOnly,
    /// Keys and the item after.
    NewImage,
    /// Keys and the item before.
    OldImage,
    /// Keys and both.
    NewAndOldImages,
}

impl View {
    /// The type as AWS spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::KeysOnly => "KEYS_ONLY",
            Self::NewImage => "NEW_IMAGE",
            Self::OldImage => "OLD_IMAGE",
            Self::NewAndOldImages => "NEW_AND_OLD_IMAGES",
        }
    }

    /// Whether records carry the item as it was.
    pub fn has_old(self) -> bool {
        matches!(self, Self::OldImage | Self::NewAndOldImages)
    }

    /// Whether records carry the item as it is.
    pub fn has_new(self) -> bool {
        matches!(self, Self::NewImage | Self::NewAndOldImages)
    }
}
