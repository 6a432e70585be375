//! Throttles requests by the limits of the settings.

use std::collections::{BTreeMap, VecDeque};

use super::{Model, ServiceError};

const SECOND: u64 = 1_000;

/// The requests of the last second.
#[derive(Debug, Default)]
pub struct RequestLog {
    describes: VecDeque<u64>,
    lists: VecDeque<u64>,
    /// By shard.
    reads: BTreeMap<usize, VecDeque<u64>>,
    /// The last request of each reader, by shard.
    readers: BTreeMap<usize, BTreeMap<u64, u64>>,
    /// The number of the last reader.
    last_reader: u64,
}

impl RequestLog {
    /// Allocates the number of a reader.
    pub(super) fn new_reader(&mut self) -> u64 {
        self.last_reader += 1;
        self.last_reader
    }
}

/// Whether one more request exceeds a limit. Counts it otherwise.
fn exceeds(requests: &mut VecDeque<u64>, max: usize, now: u64) -> bool {
    while requests.front().is_some_and(|at| at + SECOND <= now) {
        requests.pop_front();
    }
    let is_exceeded = requests.len() >= max;
    if !is_exceeded {
        requests.push_back(now);
    }
    is_exceeded
}

impl Model {
    pub(super) fn admit_list(&mut self) -> Result<(), ServiceError> {
        self.count("ListStreams");
        self.admit_any()?;
        match self.settings.throttling.lists {
            Some(max) if exceeds(&mut self.requests.lists, max, self.now) => {
                self.reject("ListStreams throttled")
            }
            _ => Ok(()),
        }
    }

    pub(super) fn admit_describe(&mut self) -> Result<(), ServiceError> {
        self.count("DescribeStream");
        self.admit_any()?;
        match self.settings.throttling.describes {
            Some(max) if exceeds(&mut self.requests.describes, max, self.now) => {
                self.reject("DescribeStream throttled")
            }
            _ => Ok(()),
        }
    }

    pub(super) fn admit_iterator(&mut self) -> Result<(), ServiceError> {
        self.count("GetShardIterator");
        self.admit_any()
    }

    pub(super) fn admit_read(&mut self, shard: usize, reader: u64) -> Result<(), ServiceError> {
        self.count("GetRecords");
        self.admit_any()?;
        let now = self.now;
        if let Some(max) = self.settings.throttling.readers {
            let readers = self.requests.readers.entry(shard).or_default();
            readers.retain(|_, requested_at| now < *requested_at + SECOND);
            if readers.len() >= max && !readers.contains_key(&reader) {
                return self.reject("too many readers of a shard");
            }
            readers.insert(reader, now);
        }
        match self.settings.throttling.reads {
            Some(max) if exceeds(self.requests.reads.entry(shard).or_default(), max, now) => {
                self.reject("too many reads of a shard")
            }
            _ => Ok(()),
        }
    }

    fn admit_any(&mut self) -> Result<(), ServiceError> {
        if self.chance(self.settings.unavailable) {
            self.count("internal server error");
            return Err(ServiceError::InternalServerError);
        }
        if self.chance(self.settings.throttling.random) {
            return self.reject("throttled at random");
        }
        Ok(())
    }

    fn reject(&mut self, what: &'static str) -> Result<(), ServiceError> {
        self.count(what);
        Err(ServiceError::LimitExceeded)
    }
}
