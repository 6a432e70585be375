//! Which calls are refused because there were too many.

use std::collections::{BTreeMap, VecDeque};

use super::{Model, Refusal};

const SECOND: u64 = 1_000;

/// The calls of the last second.
#[derive(Debug, Default)]
pub struct Calls {
    describes: VecDeque<u64>,
    lists: VecDeque<u64>,
    /// By shard.
    reads: BTreeMap<usize, VecDeque<u64>>,
    /// By shard: when each reader last asked.
    readers: BTreeMap<usize, BTreeMap<u64, u64>>,
    /// The last reader there was.
    last_reader: u64,
}

impl Calls {
    /// A number for a reader of its own.
    pub(super) fn new_reader(&mut self) -> u64 {
        self.last_reader += 1;
        self.last_reader
    }
}

/// Whether one more call would be too many; if not, it is counted.
fn too_many(calls: &mut VecDeque<u64>, most: usize, now: u64) -> bool {
    while calls.front().is_some_and(|at| at + SECOND <= now) {
        calls.pop_front();
    }
    let too_many = calls.len() >= most;
    if !too_many {
        calls.push_back(now);
    }
    too_many
}

impl Model {
    pub(super) fn admit_list(&mut self) -> Result<(), Refusal> {
        self.count("ListStreams");
        self.admit_any()?;
        match self.settings.throttling.lists {
            Some(most) if too_many(&mut self.calls.lists, most, self.now) => {
                self.throttled("ListStreams throttled")
            }
            _ => Ok(()),
        }
    }

    pub(super) fn admit_describe(&mut self) -> Result<(), Refusal> {
        self.count("DescribeStream");
        self.admit_any()?;
        match self.settings.throttling.describes {
            Some(most) if too_many(&mut self.calls.describes, most, self.now) => {
                self.throttled("DescribeStream throttled")
            }
            _ => Ok(()),
        }
    }

    pub(super) fn admit_iterator(&mut self) -> Result<(), Refusal> {
        self.count("GetShardIterator");
        self.admit_any()
    }

    pub(super) fn admit_read(&mut self, shard: usize, reader: u64) -> Result<(), Refusal> {
        self.count("GetRecords");
        self.admit_any()?;
        let now = self.now;
        if let Some(most) = self.settings.throttling.readers {
            let readers = self.calls.readers.entry(shard).or_default();
            readers.retain(|_, asked| now < *asked + SECOND);
            if readers.len() >= most && !readers.contains_key(&reader) {
                return self.throttled("too many readers of a shard");
            }
            readers.insert(reader, now);
        }
        match self.settings.throttling.reads {
            Some(most) if too_many(self.calls.reads.entry(shard).or_default(), most, now) => {
                self.throttled("too many reads of a shard")
            }
            _ => Ok(()),
        }
    }

    fn admit_any(&mut self) -> Result<(), Refusal> {
        if self.chance(self.settings.unavailable) {
            self.count("fault of the service");
            return Err(Refusal::InternalServerError);
        }
        if self.chance(self.settings.throttling.random) {
            return self.throttled("throttled at random");
        }
        Ok(())
    }

    fn throttled(&mut self, what: &'static str) -> Result<(), Refusal> {
        self.count(what);
        Err(Refusal::LimitExceeded)
    }
}
