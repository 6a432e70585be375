//! ListStreams and DescribeStream: page by page, and as far behind as the settings want.

use std::ops::Bound;

use super::{Model, Refusal, Status};

/// One page of DescribeStream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Whether records still arrive.
    pub status: Status,
    /// The shards on this page.
    pub shards: Vec<DescribedShard>,
    /// `LastEvaluatedShardId`: there may be more after it.
    pub last: Option<String>,
}

/// A shard as a description shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedShard {
    /// Its id.
    pub id: String,
    /// Its parent, which may be gone.
    pub parent: Option<String>,
    /// Its `StartingSequenceNumber`.
    pub starting: u128,
    /// Its `EndingSequenceNumber`.
    pub ending: Option<u128>,
}

impl Model {
    /// The labels of the streams that are kept, the oldest first.
    pub fn list_streams(&mut self) -> Result<Vec<String>, Refusal> {
        self.admit_list()?;
        let at = self.seen_at();
        let kept =
            self.streams.iter().filter(|stream| stream.exists(at, self.settings.retention_ms));
        Ok(kept.map(|stream| stream.label.clone()).collect())
    }

    /// A page of a stream's shards: all, or the children of one, after that of this id.
    pub fn describe(
        &mut self,
        label: &str,
        children_of: Option<&str>,
        after: Option<&str>,
        limit: Option<usize>,
    ) -> Result<Description, Refusal> {
        self.admit_describe()?;
        let stream = self.kept_stream(label)?;
        let at = self.seen_at().max(self.streams[stream].asked);
        let most = self.settings.shards_on_a_page.min(limit.unwrap_or(usize::MAX));
        let page = self.page(stream, children_of, after, most, at);
        let full = page.len() == most;
        let last = page.last().filter(|_| full).map(|&shard| self.shards[shard].id.clone());
        let shards = page.into_iter().filter_map(|shard| self.show(shard, at)).collect();
        Ok(Description { status: self.streams[stream].status(at), shards, last })
    }

    /// The time as which an answer shows everything.
    fn seen_at(&mut self) -> u64 {
        let (stale, most) =
            (self.settings.inconsistency.stale, self.settings.inconsistency.stale_ms);
        if !self.chance(stale) {
            return self.now;
        }
        self.now.saturating_sub(self.faults.u64(0..=most))
    }

    /// The shards that a page is about.
    fn page(
        &mut self,
        stream: usize,
        children_of: Option<&str>,
        after: Option<&str>,
        most: usize,
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
        let page = match children_of.filter(|_| self.settings.knows_filter) {
            None => {
                let begin = after.map_or(Bound::Unbounded, Bound::Excluded);
                let shards =
                    ids.range::<str, _>((begin, Bound::Unbounded)).map(|(_, shard)| *shard);
                // In the order opened: those after a clock that was set back are not looked at.
                let until_now = shards.take_while(|shard| self.shards[*shard].opened <= self.now);
                until_now.filter(is_listed).take(most).collect()
            }
            Some(parent) => {
                let id = |shard: &usize| self.shards[*shard].id.as_str();
                let mut children = match ids.get(parent) {
                    Some(parent) => self.shards[*parent].children.clone(),
                    None => vec![],
                };
                children.sort_by_key(|child| id(child).to_owned());
                children.retain(|child| after.is_none_or(|after| after < id(child)));
                children.into_iter().filter(is_listed).take(most).collect()
            }
        };
        self.count_more("shard not listed: as it was before", stale);
        self.count_more("shard not listed: late", late);
        page
    }

    fn show(&mut self, shard: usize, at: u64) -> Option<DescribedShard> {
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
            self.count("open shard shown with an end");
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
