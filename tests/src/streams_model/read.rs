//! GetShardIterator and GetRecords. An iterator carries all that is known of it, so that none is
//! remembered.

use super::{Model, Refusal, Shard};

/// Where an iterator is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
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
    /// Its records, as indices into the model's.
    pub records: Vec<usize>,
    /// `NextShardIterator`.
    pub next: Option<String>,
}

/// What an iterator's text says.
struct Iterator {
    issued: u64,
    shard: usize,
    /// How many of the shard's records come before it.
    position: usize,
    /// Which chain of iterators it belongs to.
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
    /// An iterator of a shard.
    pub fn shard_iterator(&mut self, label: &str, id: &str, from: From) -> Result<String, Refusal> {
        self.admit_iterator()?;
        let stream = self.kept_stream(label)?;
        let shard = *self.streams[stream].shards.get(id).ok_or(Refusal::ResourceNotFound)?;
        if !self.shards[shard].exists(self.now, self.settings.retention_ms) {
            return Err(Refusal::ResourceNotFound);
        }
        let position = self.position(shard, from).inspect_err(|refusal| {
            if *refusal == Refusal::TrimmedDataAccess {
                self.count("sequence number is trimmed");
            }
        })?;
        let reader = self.calls.new_reader();
        Ok(Iterator { issued: self.now, shard, position, reader }.text())
    }

    /// The shard that an iterator is of.
    pub fn shard_of(&self, iterator: &str) -> Option<usize> {
        Iterator::parse(iterator).map(|iterator| iterator.shard)
    }

    /// How many of a shard's records come before this place.
    fn position(&self, shard: usize, from: From) -> Result<usize, Refusal> {
        let Shard { records, starting, next, .. } = &self.shards[shard];
        let trimmed = self.trimmed(shard);
        match from {
            From::TrimHorizon => Ok(trimmed),
            From::Latest => Ok(self.readable(shard).max(trimmed)),
            From::Timestamp(at) => {
                if !self.settings.knows_timestamps || at > self.now / 1_000 {
                    return Err(Refusal::Validation);
                }
                let before = |&record: &usize| self.records[record].created / 1_000 < at;
                Ok(records.partition_point(before).max(trimmed))
            }
            From::At(number) | From::After(number) => {
                if number < *starting || number >= *next {
                    return Err(Refusal::Validation);
                }
                let before =
                    records.partition_point(|&record| self.records[record].number < number);
                let after =
                    records.partition_point(|&record| self.records[record].number <= number);
                if before < trimmed {
                    return Err(Refusal::TrimmedDataAccess);
                }
                Ok(if matches!(from, From::At(_)) { before } else { after })
            }
        }
    }

    /// The page at an iterator.
    pub fn get_records(&mut self, iterator: &str, limit: Option<usize>) -> Result<Page, Refusal> {
        let Some(iterator) = Iterator::parse(iterator).filter(|it| it.shard < self.shards.len())
        else {
            return Err(Refusal::Validation);
        };
        let Iterator { issued, shard, position, reader } = iterator;
        self.admit_read(shard, reader)?;
        if issued + self.settings.iterator_ms <= self.now {
            self.count("iterator expired");
            return Err(Refusal::ExpiredIterator);
        }
        if position < self.trimmed(shard) {
            self.count("iterator's records trimmed");
            return Err(Refusal::TrimmedDataAccess);
        }
        if !self.shards[shard].exists(self.now, self.settings.retention_ms) {
            return Err(Refusal::ResourceNotFound);
        }
        let (end, has_next) = self.page_end(shard, position, limit);
        let records = self.shards[shard].records[position..end].to_vec();
        let next = Iterator { issued: self.now, shard, position: end, reader };
        Ok(Page { records, next: has_next.then(|| next.text()) })
    }

    /// Where the page that begins at a position ends, and whether it has a next iterator.
    fn page_end(&mut self, shard: usize, position: usize, limit: Option<usize>) -> (usize, bool) {
        let most = self.settings.records_on_a_page.min(limit.unwrap_or(usize::MAX));
        let fitting = self.fitting(shard, position, most);
        let mut taken = fitting;
        if fitting > 0 && self.chance(self.settings.empty_page) {
            self.count("empty page");
            return (position, true);
        }
        if fitting > 1 && self.chance(self.settings.short_page) {
            self.count("short page");
            taken = self.faults.usize(1..fitting);
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

    /// How many records from a position on are readable and fit on a page.
    fn fitting(&self, shard: usize, position: usize, most: usize) -> usize {
        let readable = self.readable(shard).max(position);
        let mut bytes = 0;
        let fits = |&&record: &&usize| {
            let first = bytes == 0;
            bytes += self.size(record);
            first || bytes <= self.settings.bytes_on_a_page
        };
        self.shards[shard].records[position..readable].iter().take(most).take_while(fits).count()
    }

    /// What a record counts for on a page (`SizeBytes`): its keys and images.
    pub fn size(&self, record: usize) -> usize {
        let key = &self.records[record].key;
        let keys = "PKSK".len() + key.pk.len() + key.sk.len();
        let image = keys + "TargetAttribute".len() + 10 + self.settings.filler_bytes;
        keys + self.images(record).into_iter().flatten().count() * image
    }

    fn trimmed(&self, shard: usize) -> usize {
        let records = &self.shards[shard].records;
        records.partition_point(|&record| self.is_trimmed(record, self.now))
    }

    fn readable(&self, shard: usize) -> usize {
        let records = &self.shards[shard].records;
        records.partition_point(|&record| self.records[record].readable <= self.now)
    }
}
