//! Lookups that records share: at most one of a key is under way, and what it finds serves every
//! record that was read before it began. With a cache it serves later ones too, for so long.
//!
//! What was found is kept while a page that it may serve is at work, or the cache lasts, and within
//! bounds. It is out of date for nobody: a record says by its page's moment which lookups it takes.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, Shared};
use tokio::time::Instant;

use super::row::Connection;
use crate::model::AttributeValue;
use crate::telemetry::LookupKind;

/// The most lookups kept.
const MAX_RESULTS: usize = 2_048;

/// The most rows kept, over all lookups but the newest: a page of changes for more connections than
/// this still looks them up once.
const MAX_ROWS: usize = 65_536;

/// The most connections remembered to be gone.
const MAX_TOMBSTONES: usize = 16_384;

/// What is looked up: a partition key's value, or every row.
pub(crate) type LookupKey = Option<AttributeValue>;

/// How many lookups have begun. Told by number, since two things may happen at one time.
#[derive(Debug, Default)]
pub(crate) struct LookupSequence(AtomicU64);

/// When a lookup began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LookupStart {
    number: u64,
    at: Instant,
}

impl LookupSequence {
    /// Another lookup begins.
    pub fn start(&self) -> LookupStart {
        LookupStart { number: self.0.fetch_add(1, Ordering::SeqCst) + 1, at: Instant::now() }
    }

    /// The newest that has begun.
    pub fn newest(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// What a lookup found.
#[derive(Debug)]
pub(crate) struct LookupResult {
    /// When it began.
    pub start: LookupStart,
    /// The connections.
    pub connections: Vec<Arc<Connection>>,
}

/// A lookup under way. Whoever waits for it moves it on, so that it stands still for nobody.
pub(crate) type InFlightLookup = Shared<BoxFuture<'static, Arc<LookupResult>>>;

/// How a record comes to its connections.
#[derive(Debug)]
pub(crate) enum CacheEntry {
    /// They were found.
    Hit(Arc<LookupResult>),
    /// It waits for this lookup, which is of use to it or keeps the next one from beginning.
    Pending(InFlightLookup),
    /// It has begun this one.
    Started(InFlightLookup),
}

/// The lookups of one notifier.
#[derive(Debug)]
pub(crate) struct LookupCache {
    cache: Duration,
    state: Mutex<CacheState>,
}

#[derive(Debug, Default)]
struct CacheState {
    /// Pages at work: the newest lookup that had begun when they were read, and how many of them.
    pages: BTreeMap<u64, usize>,
    in_flight: HashMap<LookupKey, InFlightLookup>,
    results: HashMap<LookupKey, Arc<LookupResult>>,
    /// What is in `found`, by when it began.
    by_age: BTreeMap<u64, LookupKey>,
    /// How many rows are in `found`.
    rows: usize,
    /// Connections that are gone, and the newest lookup that may still show them.
    tombstones: HashMap<String, u64>,
}

impl LookupCache {
    pub fn new(cache: Duration) -> Self {
        Self { cache, state: Mutex::default() }
    }

    /// A page was read, when this lookup was the newest that had begun.
    pub fn begin_page(&self, newest: u64) {
        *self.state().pages.entry(newest).or_default() += 1;
    }

    /// A page is done.
    pub fn end_page(&self, newest: u64) {
        let mut state = self.state();
        if let Some(count) = state.pages.get_mut(&newest) {
            *count -= 1;
            if *count == 0 {
                state.pages.remove(&newest);
            }
        }
        state.forget(self.cache);
    }

    /// As what a lookup serves a record of this page, if it does.
    pub fn reuse_kind(&self, begun: LookupStart, page: u64) -> Option<LookupKind> {
        if begun.number > page || begun.number > 0 && fault!(StaleLookupReused) {
            Some(LookupKind::Shared)
        } else if begun.at.elapsed() < self.cache {
            Some(LookupKind::Cached)
        } else {
            None
        }
    }

    /// What a record of this page is to do; `begin` makes a lookup that has not begun.
    pub fn get_or_start(
        &self,
        key: &LookupKey,
        page: u64,
        begin: impl FnOnce() -> InFlightLookup,
    ) -> CacheEntry {
        let mut state = self.state();
        if let Some(found) =
            state.results.get(key).filter(|it| self.reuse_kind(it.start, page).is_some())
        {
            return CacheEntry::Hit(found.clone());
        }
        if let Some(lookup) = state.in_flight.get(key) {
            return CacheEntry::Pending(lookup.clone());
        }
        let lookup = begin();
        state.in_flight.insert(key.clone(), lookup.clone());
        CacheEntry::Started(lookup)
    }

    /// Waits for what a lookup finds.
    pub async fn wait(&self, key: &LookupKey, lookup: InFlightLookup) -> Arc<LookupResult> {
        let found = lookup.clone().await;
        let mut state = self.state();
        // The first of those who waited for it keeps it.
        if state.in_flight.get(key).is_some_and(|known| known.ptr_eq(&lookup)) {
            state.in_flight.remove(key);
            state.keep(key, &found);
        }
        found
    }

    /// A connection is gone: no lookup up to `newest` shows it any more.
    pub fn add_tombstone(&self, connection: &str, newest: u64) {
        let mut state = self.state();
        if state.tombstones.len() >= MAX_TOMBSTONES {
            // Without what was found nobody needs to know who is gone of it.
            state.drop_found();
        }
        state.tombstones.insert(connection.to_owned(), newest);
    }

    /// The connections found, without those that were found to be gone since.
    pub fn without_gone(&self, found: &LookupResult) -> Vec<Arc<Connection>> {
        let state = self.state();
        if state.tombstones.is_empty() {
            return found.connections.clone();
        }
        let is_there = |connection: &&Arc<Connection>| {
            state.tombstones.get(&connection.id).is_none_or(|newest| found.start.number > *newest)
        };
        found.connections.iter().filter(is_there).cloned().collect()
    }

    fn state(&self) -> std::sync::MutexGuard<'_, CacheState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CacheState {
    fn keep(&mut self, key: &LookupKey, found: &Arc<LookupResult>) {
        if let Some(older) = self.results.insert(key.clone(), found.clone()) {
            self.by_age.remove(&older.start.number);
            self.rows -= older.connections.len();
        }
        self.by_age.insert(found.start.number, key.clone());
        self.rows += found.connections.len();
        while self.by_age.len() > 1 && (self.by_age.len() > MAX_RESULTS || self.rows > MAX_ROWS) {
            self.drop_oldest();
        }
    }

    /// Forgets what can serve nobody any more.
    fn forget(&mut self, cache: Duration) {
        let oldest_page = self.pages.keys().next().copied();
        while let Some((number, key)) = self.by_age.first_key_value() {
            let serves_a_page = oldest_page.is_some_and(|page| *number > page);
            let is_fresh = |found: &Arc<LookupResult>| found.start.at.elapsed() < cache;
            if serves_a_page || self.results.get(key).is_some_and(is_fresh) {
                break;
            }
            self.drop_oldest();
        }
        if self.in_flight.is_empty() {
            let oldest = self.by_age.keys().next().copied();
            self.tombstones.retain(|_, newest| oldest.is_some_and(|oldest| oldest <= *newest));
        }
    }

    fn drop_oldest(&mut self) {
        let Some((_, key)) = self.by_age.pop_first() else {
            return;
        };
        if let Some(found) = self.results.remove(&key) {
            self.rows -= found.connections.len();
        }
    }

    fn drop_found(&mut self) {
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

    fn connection(id: &str) -> Arc<Connection> {
        Arc::new(Connection::of(id))
    }

    /// A lookup that finds these connections at once.
    async fn look_up(
        lookups: &LookupCache,
        beginnings: &LookupSequence,
        key: &LookupKey,
        ids: &[&str],
    ) {
        let found = LookupResult {
            start: beginnings.start(),
            connections: ids.iter().map(|id| connection(id)).collect(),
        };
        let begin = || async { Arc::new(found) }.boxed().shared();
        let CacheEntry::Started(lookup) = lookups.get_or_start(key, u64::MAX, begin) else {
            panic!("there is one");
        };
        lookups.wait(key, lookup).await;
    }

    /// How many lookups and how many rows are kept.
    fn kept(lookups: &LookupCache) -> (usize, usize) {
        let state = lookups.state();
        (state.results.len(), state.rows)
    }

    fn begin_none() -> InFlightLookup {
        async { panic!("nothing is looked up") }.boxed().shared()
    }

    fn ids(lookups: &LookupCache, key: &LookupKey, page: u64) -> Option<Vec<String>> {
        let turn = lookups.get_or_start(key, page, begin_none);
        let CacheEntry::Hit(found) = turn else {
            lookups.state().in_flight.remove(key);
            return None;
        };
        let present = lookups.without_gone(&found);
        Some(present.iter().map(|connection| connection.id.clone()).collect())
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_found_is_forgotten_with_the_last_page_that_it_serves() {
        let (lookups, beginnings) = (LookupCache::new(Duration::ZERO), LookupSequence::default());
        let (first, second) = (beginnings.newest(), beginnings.newest());
        lookups.begin_page(first);
        lookups.begin_page(second);
        look_up(&lookups, &beginnings, &key(1), &["a"]).await;
        let third = beginnings.newest();
        lookups.begin_page(third);
        assert_eq!(ids(&lookups, &key(1), second), Some(vec!["a".to_owned()]));
        assert_eq!(ids(&lookups, &key(1), third), None, "it began before that page was read");
        lookups.end_page(first);
        assert_eq!(kept(&lookups), (1, 1));
        lookups.end_page(second);
        assert_eq!(kept(&lookups), (0, 0));
        assert_eq!(lookups.state().pages.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_cache_forgets_by_age() {
        let (lookups, beginnings) =
            (LookupCache::new(Duration::from_secs(5)), LookupSequence::default());
        look_up(&lookups, &beginnings, &key(1), &["a"]).await;
        tokio::time::advance(Duration::from_secs(3)).await;
        look_up(&lookups, &beginnings, &key(2), &["b"]).await;
        tokio::time::advance(Duration::from_secs(2)).await;
        assert_eq!(ids(&lookups, &key(1), u64::MAX), None);
        assert_eq!(ids(&lookups, &key(2), u64::MAX), Some(vec!["b".to_owned()]));
        lookups.begin_page(2);
        lookups.end_page(2);
        assert_eq!(kept(&lookups), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_is_bounded_and_the_newest_stays() {
        let (lookups, beginnings) =
            (LookupCache::new(Duration::from_secs(300)), LookupSequence::default());
        for n in 0..MAX_RESULTS + 10 {
            look_up(&lookups, &beginnings, &key(n), &["a"]).await;
        }
        assert_eq!(kept(&lookups).0, MAX_RESULTS);
        assert_eq!(ids(&lookups, &key(9), u64::MAX), None, "the oldest went");
        let many = vec!["b"; MAX_ROWS + 1];
        look_up(&lookups, &beginnings, &key(0), &many).await;
        assert_eq!(kept(&lookups), (1, MAX_ROWS + 1));
        look_up(&lookups, &beginnings, &key(1), &["a"]).await;
        assert_eq!(kept(&lookups), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_gone_is_left_out_of_what_was_found_before() {
        let (lookups, beginnings) =
            (LookupCache::new(Duration::from_secs(5)), LookupSequence::default());
        look_up(&lookups, &beginnings, &key(1), &["a", "b"]).await;
        lookups.add_tombstone("a", beginnings.newest());
        assert_eq!(ids(&lookups, &key(1), u64::MAX), Some(vec!["b".to_owned()]));
        look_up(&lookups, &beginnings, &key(2), &["a"]).await;
        let again = Some(vec!["a".to_owned()]);
        assert_eq!(ids(&lookups, &key(2), u64::MAX), again, "its row was written again");
        tokio::time::advance(Duration::from_secs(5)).await;
        lookups.begin_page(2);
        lookups.end_page(2);
        assert!(lookups.state().tombstones.is_empty());
    }
}
