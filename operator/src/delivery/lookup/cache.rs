//! The lookups of a notifier, shared by its records.
//!
//! At most one lookup of a key is in flight. Its result serves every record whose page was read
//! before it began. With a cache, it also serves later records until it expires.
//!
//! The cache keeps a result, within bounds, until it is expired and can serve no page in progress.
//! It is never stale for a record, because each page remembers the latest lookup at its read.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, Shared};
use tokio::time::Instant;

use super::row::Connection;
use crate::model::AttributeValue;
use crate::telemetry::LookupKind;

/// Maximum number of results.
const MAX_RESULTS: usize = 2_048;

/// Maximum number of rows in all results except the latest. A page of records for more connections
/// than this still looks them up only once.
const MAX_ROWS: usize = 65_536;

/// Maximum number of closed connections that are remembered.
const MAX_TOMBSTONES: usize = 16_384;

/// The partition key to look up. `None` reads every row.
pub(crate) type LookupKey = Option<AttributeValue>;

/// Numbers lookups in the order in which they begin. Times would not do, because two lookups can
/// begin at the same time.
#[derive(Debug, Default)]
pub(crate) struct LookupSequence(AtomicU64);

/// When a lookup began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LookupStart {
    number: u64,
    at: Instant,
}

impl LookupSequence {
    /// Records that another lookup begins.
    pub fn record_start(&self) -> LookupStart {
        LookupStart { number: self.0.fetch_add(1, Ordering::SeqCst) + 1, at: Instant::now() }
    }

    /// Number of the latest lookup that has begun. 0 before the first one.
    pub fn latest(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// The result of a lookup.
#[derive(Debug)]
pub(crate) struct LookupResult {
    pub start: LookupStart,
    pub connections: Vec<Arc<Connection>>,
}

/// A lookup in flight. Every record that waits for it also polls it, so it makes progress even if
/// the record that started it is stopped.
pub(crate) type InFlightLookup = Shared<BoxFuture<'static, Arc<LookupResult>>>;

/// The lookup for a record.
#[derive(Debug)]
pub(crate) enum CacheEntry {
    /// A result that serves the record.
    Hit(Arc<LookupResult>),
    /// A lookup in flight. It may not serve the record, but the next one must wait for its end.
    Pending(InFlightLookup),
    /// A lookup that the record started.
    Started(InFlightLookup),
}

/// The lookups of one notifier.
#[derive(Debug)]
pub(crate) struct LookupCache {
    ttl: Duration,
    state: Mutex<CacheState>,
}

#[derive(Debug, Default)]
struct CacheState {
    /// Number of pages in progress, by the latest lookup when they were read.
    pages: BTreeMap<u64, usize>,
    in_flight: HashMap<LookupKey, InFlightLookup>,
    results: HashMap<LookupKey, Arc<LookupResult>>,
    /// Keys of `results`, by the number of their lookup.
    by_age: BTreeMap<u64, LookupKey>,
    /// Number of rows in `results`.
    rows: usize,
    /// Closed connections, each with the latest lookup that may still contain it.
    tombstones: HashMap<String, u64>,
}

impl LookupCache {
    pub fn new(ttl: Duration) -> Self {
        Self { ttl, state: Mutex::default() }
    }

    /// Records that a page was read, and that `latest_lookup` was the latest lookup then.
    pub fn begin_page(&self, latest_lookup: u64) {
        *self.state().pages.entry(latest_lookup).or_default() += 1;
    }

    /// Records that a page needs no more lookups.
    pub fn end_page(&self, latest_lookup: u64) {
        let mut state = self.state();
        if let Some(count) = state.pages.get_mut(&latest_lookup) {
            *count -= 1;
            if *count == 0 {
                state.pages.remove(&latest_lookup);
            }
        }
        state.evict_unusable(self.ttl);
    }

    /// How a lookup serves the records of a page. `None` if it must not serve them.
    pub fn reuse_kind(&self, start: LookupStart, latest_lookup: u64) -> Option<LookupKind> {
        if start.number > latest_lookup || start.number > 0 && fault!(StaleLookupReused) {
            Some(LookupKind::Coalesced)
        } else if start.at.elapsed() < self.ttl {
            Some(LookupKind::Cached)
        } else {
            None
        }
    }

    /// Returns the lookup for a record of a page. Calls `start` only if none is in flight.
    pub fn get_or_start(
        &self,
        key: &LookupKey,
        latest_lookup: u64,
        start: impl FnOnce() -> InFlightLookup,
    ) -> CacheEntry {
        let mut state = self.state();
        if let Some(result) =
            state.results.get(key).filter(|it| self.reuse_kind(it.start, latest_lookup).is_some())
        {
            return CacheEntry::Hit(result.clone());
        }
        if let Some(lookup) = state.in_flight.get(key) {
            return CacheEntry::Pending(lookup.clone());
        }
        let lookup = start();
        state.in_flight.insert(key.clone(), lookup.clone());
        CacheEntry::Started(lookup)
    }

    /// Waits for the result of a lookup in flight.
    pub async fn wait(&self, key: &LookupKey, lookup: InFlightLookup) -> Arc<LookupResult> {
        let result = lookup.clone().await;
        let mut state = self.state();
        // Only the first of several waiting records stores the result.
        if state.in_flight.get(key).is_some_and(|current| current.ptr_eq(&lookup)) {
            state.in_flight.remove(key);
            state.insert(key, &result);
        }
        result
    }

    /// Excludes a closed connection from the results of all lookups up to `latest_lookup`.
    pub fn add_tombstone(&self, connection: &str, latest_lookup: u64) {
        let mut state = self.state();
        if state.tombstones.len() >= MAX_TOMBSTONES {
            // Without results, no tombstones are needed.
            state.clear_results();
        }
        state.tombstones.insert(connection.to_owned(), latest_lookup);
    }

    /// The connections of a result, except those that were found closed since.
    pub fn without_gone(&self, result: &LookupResult) -> Vec<Arc<Connection>> {
        let state = self.state();
        if state.tombstones.is_empty() {
            return result.connections.clone();
        }
        let is_open = |connection: &&Arc<Connection>| {
            let closed_at = state.tombstones.get(&connection.id);
            closed_at.is_none_or(|latest_lookup| result.start.number > *latest_lookup)
        };
        result.connections.iter().filter(is_open).cloned().collect()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, CacheState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CacheState {
    fn insert(&mut self, key: &LookupKey, result: &Arc<LookupResult>) {
        if let Some(previous) = self.results.insert(key.clone(), result.clone()) {
            self.by_age.remove(&previous.start.number);
            self.rows -= previous.connections.len();
        }
        self.by_age.insert(result.start.number, key.clone());
        self.rows += result.connections.len();
        while self.by_age.len() > 1 && (self.by_age.len() > MAX_RESULTS || self.rows > MAX_ROWS) {
            self.evict_oldest();
        }
    }

    /// Evicts the results that can serve no record, and the tombstones that no result needs.
    fn evict_unusable(&mut self, ttl: Duration) {
        let oldest_page = self.pages.keys().next().copied();
        while let Some((number, key)) = self.by_age.first_key_value() {
            let serves_page = oldest_page.is_some_and(|latest_lookup| *number > latest_lookup);
            let is_fresh = |result: &Arc<LookupResult>| result.start.at.elapsed() < ttl;
            if serves_page || self.results.get(key).is_some_and(is_fresh) {
                break;
            }
            self.evict_oldest();
        }
        if self.in_flight.is_empty() {
            let oldest = self.by_age.keys().next().copied();
            self.tombstones
                .retain(|_, latest_lookup| oldest.is_some_and(|oldest| oldest <= *latest_lookup));
        }
    }

    fn evict_oldest(&mut self) {
        let Some((_, key)) = self.by_age.pop_first() else {
            return;
        };
        if let Some(result) = self.results.remove(&key) {
            self.rows -= result.connections.len();
        }
    }

    fn clear_results(&mut self) {
        self.results.clear();
        self.by_age.clear();
        self.tombstones.clear();
        self.rows = 0;
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn key(n: usize) -> LookupKey {
        Some(AttributeValue::N(n.to_string()))
    }

    /// Runs a lookup that returns these connections at once.
    async fn look_up(
        cache: &LookupCache,
        sequence: &LookupSequence,
        key: &LookupKey,
        ids: &[&str],
    ) {
        let result = LookupResult {
            start: sequence.record_start(),
            connections: ids.iter().map(|id| Arc::new(Connection::with_id(id))).collect(),
        };
        let start = || async { Arc::new(result) }.boxed().shared();
        let CacheEntry::Started(lookup) = cache.get_or_start(key, u64::MAX, start) else {
            panic!("the cache has an entry for {key:?}");
        };
        cache.wait(key, lookup).await;
    }

    /// Number of cached lookups, and of their rows.
    fn sizes(cache: &LookupCache) -> (usize, usize) {
        let state = cache.state();
        (state.results.len(), state.rows)
    }

    fn unexpected_lookup() -> InFlightLookup {
        async { panic!("the lookup was polled") }.boxed().shared()
    }

    /// The cached connection ids that serve a page. `None` if it needs a lookup.
    fn cached_ids(cache: &LookupCache, key: &LookupKey, latest_lookup: u64) -> Option<Vec<String>> {
        let CacheEntry::Hit(result) = cache.get_or_start(key, latest_lookup, unexpected_lookup)
        else {
            cache.state().in_flight.remove(key);
            return None;
        };
        let connections = cache.without_gone(&result);
        Some(connections.iter().map(|connection| connection.id.clone()).collect())
    }

    #[tokio::test(start_paused = true)]
    async fn evicts_a_result_with_the_last_page_that_it_serves() {
        let (cache, sequence) = (LookupCache::new(Duration::ZERO), LookupSequence::default());
        let (first, second) = (sequence.latest(), sequence.latest());
        cache.begin_page(first);
        cache.begin_page(second);
        look_up(&cache, &sequence, &key(1), &["a"]).await;
        let third = sequence.latest();
        cache.begin_page(third);
        assert_eq!(cached_ids(&cache, &key(1), second), Some(vec!["a".to_owned()]));
        assert_eq!(cached_ids(&cache, &key(1), third), None, "began before the page was read");
        cache.end_page(first);
        assert_eq!(sizes(&cache), (1, 1));
        cache.end_page(second);
        assert_eq!(sizes(&cache), (0, 0));
        assert_eq!(cache.state().pages.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn evicts_results_by_age() {
        let (cache, sequence) =
            (LookupCache::new(Duration::from_secs(5)), LookupSequence::default());
        look_up(&cache, &sequence, &key(1), &["a"]).await;
        tokio::time::advance(Duration::from_secs(3)).await;
        look_up(&cache, &sequence, &key(2), &["b"]).await;
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(cached_ids(&cache, &key(1), u64::MAX), None);
        assert_eq!(cached_ids(&cache, &key(2), u64::MAX), Some(vec!["b".to_owned()]));
        cache.begin_page(2);
        cache.end_page(2);
        assert_eq!(sizes(&cache), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn bounds_results_and_rows_but_keeps_the_latest_result() {
        let (cache, sequence) =
            (LookupCache::new(Duration::from_secs(300)), LookupSequence::default());
        for n in 0..MAX_RESULTS + 10 {
            look_up(&cache, &sequence, &key(n), &["a"]).await;
        }
        assert_eq!(sizes(&cache).0, MAX_RESULTS);
        assert_eq!(
            cached_ids(&cache, &key(9), u64::MAX),
            None,
            "the oldest result was not evicted"
        );
        let many = vec!["b"; MAX_ROWS + 1];
        look_up(&cache, &sequence, &key(0), &many).await;
        assert_eq!(sizes(&cache), (1, MAX_ROWS + 1));
        look_up(&cache, &sequence, &key(1), &["a"]).await;
        assert_eq!(sizes(&cache), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn excludes_a_closed_connection_from_earlier_results() {
        let (cache, sequence) =
            (LookupCache::new(Duration::from_secs(5)), LookupSequence::default());
        look_up(&cache, &sequence, &key(1), &["a", "b"]).await;
        cache.add_tombstone("a", sequence.latest());
        assert_eq!(cached_ids(&cache, &key(1), u64::MAX), Some(vec!["b".to_owned()]));
        look_up(&cache, &sequence, &key(2), &["a"]).await;
        let later = Some(vec!["a".to_owned()]);
        assert_eq!(cached_ids(&cache, &key(2), u64::MAX), later, "its row was written again");
        tokio::time::advance(Duration::from_secs(5)).await;
        cache.begin_page(2);
        cache.end_page(2);
        assert!(cache.state().tombstones.is_empty());
    }
}
