//! Settings of a modelled table. The defaults are the documented limits of AWS without any fault,
//! so that a test can enable one fault at a time. Probabilities are from 0 to 1.

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

#[derive(Clone, Debug)]
pub struct Settings {
    pub table: String,
    pub view: StreamViewType,
    /// Bytes that are added to each image.
    pub filler_bytes: usize,
    /// Shards of a new stream.
    pub shards: usize,
    /// Time after which a shard rolls, plus or minus 10 %. `None`: only a test rolls it.
    pub roll_ms: Option<u64>,
    /// Time for which records, closed shards and disabled streams are kept.
    pub retention_ms: u64,
    /// Lifetime of an iterator.
    pub iterator_ms: u64,
    /// Time for which a stream is `ENABLING`. It has no shards then, and receives no records.
    pub enabling_ms: u64,
    /// Time for which a stream is `DISABLING`. Its shards are closed then.
    pub disabling_ms: u64,
    /// Maximum time until a written record can be read.
    pub record_delay_ms: u64,

    /// Maximum of records per page.
    pub records_per_page: usize,
    /// Maximum of bytes per page, unless its first record alone is larger.
    pub bytes_per_page: usize,
    /// Maximum of shards per page of a description.
    pub shards_per_page: usize,
    /// Probability of a page without records although the shard has more.
    pub empty_page: f64,
    /// Probability of a page with fewer records than fit.
    pub short_page: f64,
    /// Probability that the last records of a closed shard come with a next iterator, whose page is
    /// empty and the last one. Otherwise the last page has records.
    pub separate_end: f64,

    /// Whether AT_TIMESTAMP is supported. Emulators reject it.
    pub supports_timestamps: bool,
    /// Whether ShardFilter is supported. Emulators ignore it.
    pub supports_shard_filter: bool,
    pub inconsistency: Inconsistency,
    pub throttling: Throttling,
    /// Probability that a request fails with an internal server error.
    pub unavailable: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            table: "sample-table-dev".to_owned(),
            view: StreamViewType::NewAndOldImages,
            filler_bytes: 0,
            shards: 1,
            roll_ms: Some(4 * HOUR),
            retention_ms: 24 * HOUR,
            iterator_ms: 15 * MINUTE,
            enabling_ms: 0,
            disabling_ms: 0,
            record_delay_ms: 0,
            records_per_page: 1_000,
            bytes_per_page: 1 << 20,
            shards_per_page: 100,
            empty_page: 0.0,
            short_page: 0.0,
            separate_end: 0.0,
            supports_timestamps: true,
            supports_shard_filter: true,
            inconsistency: Inconsistency::default(),
            throttling: Throttling::default(),
            unavailable: 0.0,
        }
    }
}

/// Differences between the true state and the responses of DescribeStream and ListStreams.
#[derive(Clone, Debug, Default)]
pub struct Inconsistency {
    /// Probability that a response shows an earlier state.
    pub stale: f64,
    /// Maximum age of that state.
    pub stale_ms: u64,
    /// Probability that a shard is listed later than it was opened.
    pub late: f64,
    /// Maximum of that delay.
    pub late_ms: u64,
    /// Probability that a response lacks a shard.
    pub missing: f64,
    /// Probability that a closed shard is shown without an `EndingSequenceNumber`.
    pub open_parent: f64,
    /// Whether open shards have an `EndingSequenceNumber`, as those of an emulator.
    pub ends_on_open: bool,
}

/// Limits above which requests are rejected with LimitExceededException. The defaults are those of
/// AWS.
#[derive(Clone, Debug)]
pub struct Throttling {
    /// DescribeStream requests per second.
    pub describes: Option<usize>,
    /// ListStreams requests per second.
    pub lists: Option<usize>,
    /// GetRecords requests per second and shard.
    pub reads: Option<usize>,
    /// Readers of one shard in a second. A reader is a chain of iterators.
    pub readers: Option<usize>,
    /// Probability that any request is throttled.
    pub random: f64,
}

impl Default for Throttling {
    fn default() -> Self {
        Self { describes: Some(10), lists: Some(5), reads: None, readers: None, random: 0.0 }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamViewType {
    KeysOnly,
    NewImage,
    OldImage,
    NewAndOldImages,
}

impl StreamViewType {
    /// The name that AWS uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::KeysOnly => "KEYS_ONLY",
            Self::NewImage => "NEW_IMAGE",
            Self::OldImage => "OLD_IMAGE",
            Self::NewAndOldImages => "NEW_AND_OLD_IMAGES",
        }
    }

    pub fn has_old(self) -> bool {
        matches!(self, Self::OldImage | Self::NewAndOldImages)
    }

    pub fn has_new(self) -> bool {
        matches!(self, Self::NewImage | Self::NewAndOldImages)
    }
}
