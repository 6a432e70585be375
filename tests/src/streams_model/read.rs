//! GetShardIterator and GetRecords. The text of an iterator contains all of its state, so the model
//! stores none.

use super::{Model, ServiceError, Shard};

/// The position of an iterator request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IteratorPosition {
    /// `TRIM_HORIZON`.
    TrimHorizon,
    /// `LATEST`.
    Latest,
    /// `AT_SEQUENCE_NUMBER`.
    At(u128),
    /// `AFTER_SEQUENCE_NUMBER`.
    After(u128),
    /// `AT_TIMESTAMP`, in seconds since 1970.
    Timestamp(u64),
}

/// One page of GetRecords.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Indices of its records.
    pub records: Vec<usize>,
    /// `NextShardIterator`.
    pub next: Option<String>,
}

/// The content of an iterator's text.
struct Iterator {
    issued: u64,
    shard: usize,
    /// Records of the shard that come before it.
    position: usize,
    /// The chain of iterators to which it belongs.
    reader: u64,
}

impl Iterator {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.').map(|part| part.parse::<u64>().ok());
        let mut part = || parts.next()?;
        let (issued, shard, position, reader) = (part()?, part()?, part()?, part()?);
        Some(Self { issued, shard: shard as usize, position: position as usize, reader })
    }

    fn text(&self) -> String {
        format!("{}.{}.{}.{}", self.issued, self.shard, self.position, self.reader)
    }
}

impl Model {
    /// Issues an iterator.
    pub fn shard_iterator(
        &mut self,
        label: &str,
        id: &str,
        from: IteratorPosition,
    ) -> Result<String, ServiceError> {
        self.admit_iterator()?;
        let stream = self.find_stream(label)?;
        let shard = *self.streams[stream].shards.get(id).ok_or(ServiceError::ResourceNotFound)?;
        if !self.shards[shard].exists(self.now, self.settings.retention_ms) {
            return Err(ServiceError::ResourceNotFound);
        }
        let position = self.position(shard, from).inspect_err(|service_error| {
            if *service_error == ServiceError::TrimmedDataAccess {
                self.count("sequence number is trimmed");
            }
        })?;
        let reader = self.requests.new_reader();
        Ok(Iterator { issued: self.now, shard, position, reader }.text())
    }

    /// The index of an iterator's shard.
    pub fn shard_of(&self, iterator: &str) -> Option<usize> {
        Iterator::parse(iterator).map(|iterator| iterator.shard)
    }

    /// The number of records in a shard that come before a position.
    fn position(&self, shard: usize, from: IteratorPosition) -> Result<usize, ServiceError> {
        let Shard { records, starting, next, .. } = &self.shards[shard];
        let trimmed = self.count_trimmed(shard);
        match from {
            IteratorPosition::TrimHorizon => Ok(trimmed),
            IteratorPosition::Latest => Ok(self.count_readable(shard).max(trimmed)),
            IteratorPosition::Timestamp(at) => {
                if !self.settings.supports_timestamps || at > self.now / 1_000 {
                    return Err(ServiceError::Validation);
                }
                let before = |&record: &usize| self.records[record].created / 1_000 < at;
                Ok(records.partition_point(before).max(trimmed))
            }
            IteratorPosition::At(number) | IteratorPosition::After(number) => {
                if number < *starting || number >= *next {
                    return Err(ServiceError::Validation);
                }
                let before =
                    records.partition_point(|&record| self.records[record].number < number);
                let after =
                    records.partition_point(|&record| self.records[record].number <= number);
                if before < trimmed {
                    return Err(ServiceError::TrimmedDataAccess);
                }
                Ok(if matches!(from, IteratorPosition::At(_)) { before } else { after })
            }
        }
    }

    /// Returns the page at an iterator.
    pub fn get_records(
        &mut self,
        iterator: &str,
        limit: Option<usize>,
    ) -> Result<Page, ServiceError> {
        let Some(iterator) = Iterator::parse(iterator).filter(|it| it.shard < self.shards.len())
        else {
            return Err(ServiceError::Validation);
        };
        let Iterator { issued, shard, position, reader } = iterator;
        self.admit_read(shard, reader)?;
        if issued + self.settings.iterator_ms <= self.now {
            self.count("iterator expired");
            return Err(ServiceError::ExpiredIterator);
        }
        if position < self.count_trimmed(shard) {
            self.count("iterator's records trimmed");
            return Err(ServiceError::TrimmedDataAccess);
        }
        if !self.shards[shard].exists(self.now, self.settings.retention_ms) {
            return Err(ServiceError::ResourceNotFound);
        }
        let (end, has_next) = self.page_end(shard, position, limit);
        let records = self.shards[shard].records[position..end].to_vec();
        let next = Iterator { issued: self.now, shard, position: end, reader };
        Ok(Page { records, next: has_next.then(|| next.text()) })
    }

    /// The end of the page that starts at a position, and whether it has a next iterator.
    fn page_end(&mut self, shard: usize, position: usize, limit: Option<usize>) -> (usize, bool) {
        let max = self.settings.records_per_page.min(limit.unwrap_or(usize::MAX));
        let fitting = self.count_fitting(shard, position, max);
        let mut taken = fitting;
        if fitting > 0 && self.chance(self.settings.empty_page) {
            self.count("empty page");
            return (position, true);
        }
        if fitting > 1 && self.chance(self.settings.short_page) {
            self.count("short page");
            taken = self.read_rng.usize(1..fitting);
        }
        let end = position + taken;
        let Shard { records, closed, .. } = &self.shards[shard];
        if closed.is_none_or(|closed| closed > self.now) || end < records.len() {
            return (end, true);
        }
        if taken == 0 {
            self.count("end of a shard without records");
        } else if self.chance(self.settings.separate_end) {
            return (end, true);
        } else {
            self.count("end of a shard with records");
        }
        (end, false)
    }

    /// The number of records from a position on that are readable and fit on a page.
    fn count_fitting(&self, shard: usize, position: usize, max: usize) -> usize {
        let readable = self.count_readable(shard).max(position);
        let mut bytes = 0;
        let fits = |&&record: &&usize| {
            let first = bytes == 0;
            bytes += self.size(record);
            first || bytes <= self.settings.bytes_per_page
        };
        self.shards[shard].records[position..readable].iter().take(max).take_while(fits).count()
    }

    /// The `SizeBytes` of a record, which its keys and images determine.
    pub fn size(&self, record: usize) -> usize {
        let key = &self.records[record].key;
        let keys = "PKSK".len() + key.pk.len() + key.sk.len();
        let image = keys + "TargetAttribute".len() + 10 + self.settings.filler_bytes;
        keys + self.images(record).into_iter().flatten().count() * image
    }

    fn count_trimmed(&self, shard: usize) -> usize {
        let records = &self.shards[shard].records;
        records.partition_point(|&record| self.is_trimmed(record, self.now))
    }

    fn count_readable(&self, shard: usize) -> usize {
        let records = &self.shards[shard].records;
        records.partition_point(|&record| self.records[record].readable <= self.now)
    }
}
