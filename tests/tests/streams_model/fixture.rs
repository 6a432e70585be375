//! The table and the helpers that the modules of this suite share.

use fastrand::Rng;
use stream_notifier_tests::streams_model::{
    Description, IteratorPosition, Key, Model, Page, ServiceError, Settings,
};

/// The time of the table's creation, in milliseconds: 2026-11-22T10:00:00.123Z.
pub const BEGIN: u64 = 1_795_341_600_123;
/// The label of the first stream.
pub const LABEL: &str = "2026-11-22T10:00:00.123";
// Durations in milliseconds.
pub const SECOND: u64 = 1_000;
pub const MINUTE: u64 = 60 * SECOND;
pub const HOUR: u64 = 60 * MINUTE;

/// A table with a stream whose shards roll only if a test rolls them, and no request limit.
pub fn unrolled_table(edit: impl FnOnce(&mut Settings)) -> Model {
    let mut settings = Settings { roll_ms: None, ..Settings::default() };
    settings.throttling.describes = None;
    edit(&mut settings);
    Model::new(settings, Rng::with_seed(1), BEGIN)
}

pub fn write(model: &mut Model, item: &str, value: u64) -> usize {
    model.write(&Key::target(item, "hoge"), Some(value)).expect("a write must make a record")
}

pub fn iterator(
    model: &mut Model,
    shard: usize,
    from: IteratorPosition,
) -> Result<String, ServiceError> {
    let shard = &model.shards()[shard];
    let (label, id) = (model.streams()[shard.stream].label.clone(), shard.id.clone());
    model.shard_iterator(&label, &id, from)
}

/// Reads the page at a position.
pub fn read_page(model: &mut Model, shard: usize, from: IteratorPosition) -> Page {
    let iterator = iterator(model, shard, from).unwrap();
    model.get_records(&iterator, None).unwrap()
}

/// Reads up to 100 pages. Returns the records, and whether the shard has ended.
pub fn read_shard(model: &mut Model, shard: usize, from: IteratorPosition) -> (Vec<usize>, bool) {
    let mut next = iterator(model, shard, from).unwrap();
    let mut records = vec![];
    for _ in 0..100 {
        let page = model.get_records(&next, None).unwrap();
        records.extend(page.records);
        match page.next {
            Some(iterator) => next = iterator,
            None => return (records, true),
        }
    }
    (records, false)
}

pub fn describe(model: &mut Model) -> Description {
    let label = model.streams().last().unwrap().label.clone();
    model.describe(&label, None, None, None).unwrap()
}

pub fn shard_ids(description: &Description) -> Vec<&str> {
    description.shards.iter().map(|shard| shard.id.as_str()).collect()
}
