//! ListStreams and DescribeStream: in pages, and with the inconsistency of the settings.

use std::ops::Bound;

use super::{Model, ServiceError, Status};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    pub status: Status,
    pub shards: Vec<DescribedShard>,
    /// `LastEvaluatedShardId`. Without it, this is the last page.
    pub last: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedShard {
    pub id: String,
    /// Its parent, which may be trimmed.
    pub parent: Option<String>,
    /// `StartingSequenceNumber`.
    pub starting: u128,
    /// `EndingSequenceNumber`.
    pub ending: Option<u128>,
}

impl Model {
    /// The labels of the streams that exist, oldest first.
    pub fn list_streams(&mut self) -> Result<Vec<String>, ServiceError> {
        self.admit_list()?;
        let at = self.draw_visible_time();
        let existing =
            self.streams.iter().filter(|stream| stream.exists(at, self.settings.retention_ms));
        Ok(existing.map(|stream| stream.label.clone()).collect())
    }

    /// Returns a page of a stream's shards, or of the children of a shard, after a shard.
    pub fn describe(
        &mut self,
        label: &str,
        children_of: Option<&str>,
        after: Option<&str>,
        limit: Option<usize>,
    ) -> Result<Description, ServiceError> {
        self.admit_describe()?;
        let stream = self.find_stream(label)?;
        let at = self.draw_visible_time().max(self.streams[stream].requested);
        let max = self.settings.shards_per_page.min(limit.unwrap_or(usize::MAX));
        let page = self.find_page(stream, children_of, after, max, at);
        let full = page.len() == max;
        let last = page.last().filter(|_| full).map(|&shard| self.shards[shard].id.clone());
        let shards = page.into_iter().filter_map(|shard| self.describe_shard(shard, at)).collect();
        Ok(Description { status: self.streams[stream].status(at), shards, last })
    }

    /// Draws the time whose state a response shows.
    fn draw_visible_time(&mut self) -> u64 {
        let (stale, max_ms) =
            (self.settings.inconsistency.stale, self.settings.inconsistency.stale_ms);
        if !self.chance(stale) {
            return self.now;
        }
        self.now.saturating_sub(self.read_rng.u64(0..=max_ms))
    }

    /// The shards of a page.
    fn find_page(
        &mut self,
        stream: usize,
        children_of: Option<&str>,
        after: Option<&str>,
        max: usize,
        at: u64,
    ) -> Vec<usize> {
        let (mut stale, mut late) = (0, 0);
        let is_listed = |shard: &usize| {
            let shard = &self.shards[*shard];
            stale += u64::from(shard.opened > at);
            late += u64::from(shard.opened <= at && shard.listed > at);
            shard.listed <= at && shard.exists(at, self.settings.retention_ms)
        };
        let ids = &self.streams[stream].shards;
        let page = match children_of.filter(|_| self.settings.supports_shard_filter) {
            None => {
                let start = after.map_or(Bound::Unbounded, Bound::Excluded);
                let shards =
                    ids.range::<str, _>((start, Bound::Unbounded)).map(|(_, shard)| *shard);
                // In the order of opening. After a rewind, later ones must not be counted.
                let until_now = shards.take_while(|shard| self.shards[*shard].opened <= self.now);
                until_now.filter(is_listed).take(max).collect()
            }
            Some(parent) => {
                let id = |shard: &usize| self.shards[*shard].id.as_str();
                let mut children = match ids.get(parent) {
                    Some(parent) => self.shards[*parent].children.clone(),
                    None => vec![],
                };
                children.sort_by_key(|child| id(child).to_owned());
                children.retain(|child| after.is_none_or(|after| after < id(child)));
                children.into_iter().filter(is_listed).take(max).collect()
            }
        };
        self.count_more("shard not listed: stale", stale);
        self.count_more("shard not listed: late", late);
        page
    }

    fn describe_shard(&mut self, shard: usize, at: u64) -> Option<DescribedShard> {
        let inconsistency = self.settings.inconsistency.clone();
        if self.chance(inconsistency.missing) {
            self.count("shard not listed: missing");
            return None;
        }
        let mut closed = self.shards[shard].closed.is_some_and(|closed| closed <= at);
        if closed && self.chance(inconsistency.open_parent) {
            self.count("closed shard shown as open");
            closed = false;
        } else if !closed && inconsistency.ends_on_open {
            self.count("open shard shown as closed");
            closed = true;
        }
        let shard = &self.shards[shard];
        let last = shard.records.last().map_or(shard.starting, |&last| self.records[last].number);
        Some(DescribedShard {
            id: shard.id.clone(),
            parent: shard.parent.map(|parent| self.shards[parent].id.clone()),
            starting: shard.starting,
            ending: closed.then_some(last),
        })
    }
}
