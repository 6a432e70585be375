//! Each fault of the simulated table happens if it is enabled, and only then.

use std::collections::BTreeSet;

use stream_notifier_tests::streams_model::{IteratorPosition, Model, ServiceError, Settings};

use super::fixture::{
    BEGIN, HOUR, MINUTE, SECOND, describe, iterator, read_shard, shard_ids, unrolled_table, write,
};

#[test]
fn filters_children_unless_it_behaves_as_an_emulator() {
    let mut model = unrolled_table(|settings| settings.shards = 2);
    model.split(0);
    let (label, parent) = (model.streams()[0].label.clone(), model.shards()[0].id.clone());
    let children = model.describe(&label, Some(&parent), None, None).unwrap();
    assert_eq!(children.shards.len(), 2);
    assert!(children.shards.iter().all(|shard| shard.parent.as_ref() == Some(&parent)));
    model.settings.supports_shard_filter = false;
    assert_eq!(model.describe(&label, Some(&parent), None, None).unwrap().shards.len(), 4);
}

#[test]
fn describes_every_shard_without_faults() {
    let mut model = unrolled_table(|settings| settings.shards = 3);
    model.roll(1);
    let shown = describe(&mut model);
    let all: BTreeSet<_> = model.shards().iter().map(|shard| shard.id.as_str()).collect();
    assert_eq!(shard_ids(&shown).into_iter().collect::<BTreeSet<_>>(), all);
    let ended: Vec<_> = shown.shards.iter().filter(|shard| shard.ending.is_some()).collect();
    assert!(ended.len() == 1 && ended[0].id == model.shards()[1].id);
}

#[test]
fn returns_stale_descriptions() {
    let mut model = unrolled_table(|_| {});
    model.advance_to(BEGIN + MINUTE);
    model.roll(0);
    model.settings.inconsistency.stale = 1.0;
    model.settings.inconsistency.stale_ms = 10 * SECOND;
    let shown = describe(&mut model);
    assert!(shown.shards.len() == 1 && shown.shards[0].ending.is_none());
    model.advance_to(model.now() + 11 * SECOND);
    assert_eq!(describe(&mut model).shards.len(), 2);
}

#[test]
fn returns_descriptions_that_lack_shards_or_show_a_wrong_state() {
    let mut model = unrolled_table(|_| {});
    model.settings.inconsistency.late = 1.0;
    model.settings.inconsistency.late_ms = HOUR;
    model.advance_to(BEGIN + 1);
    model.roll(0);
    assert_eq!(describe(&mut model).shards.len(), 1, "late");
    model.advance_to(BEGIN + HOUR + 1);
    assert_eq!(describe(&mut model).shards.len(), 2);

    model.settings.inconsistency.missing = 0.5;
    let counts: BTreeSet<_> = (0..50).map(|_| describe(&mut model).shards.len()).collect();
    assert_eq!(counts, BTreeSet::from([0, 1, 2]), "missing");
    model.settings.inconsistency.missing = 0.0;

    let closed = |model: &mut Model| {
        describe(model).shards.iter().map(|shard| shard.ending.is_some()).collect::<Vec<_>>()
    };
    assert_eq!(closed(&mut model), [true, false]);
    model.settings.inconsistency.open_parent = 1.0;
    assert_eq!(closed(&mut model), [false, false]);
    model.settings.inconsistency.open_parent = 0.0;
    model.settings.inconsistency.ends_on_open = true;
    assert_eq!(closed(&mut model), [true, true]);
}

#[test]
fn throttles_requests_above_the_limit_for_one_second() {
    let mut model = unrolled_table(|settings| settings.throttling.describes = Some(10));
    let label = model.streams()[0].label.clone();
    for _ in 0..10 {
        model.describe(&label, None, None, None).unwrap();
    }
    assert_eq!(model.describe(&label, None, None, None), Err(ServiceError::LimitExceeded));
    model.advance_to(BEGIN + SECOND);
    assert!(model.describe(&label, None, None, None).is_ok());

    model.settings.throttling.reads = Some(5);
    let iterator_id = iterator(&mut model, 0, IteratorPosition::Latest).unwrap();
    for _ in 0..5 {
        model.get_records(&iterator_id, None).unwrap();
    }
    assert_eq!(model.get_records(&iterator_id, None), Err(ServiceError::LimitExceeded));
}

#[test]
fn throttles_only_the_third_reader_of_a_shard() {
    let mut model = unrolled_table(|settings| settings.throttling.readers = Some(2));
    let readers =
        [0; 3].map(|shard| iterator(&mut model, shard, IteratorPosition::Latest).unwrap());
    let is_accepted = readers.each_ref().map(|reader| model.get_records(reader, None).is_ok());
    assert_eq!(is_accepted, [true, true, false]);
    let next = model.get_records(&readers[0], None).unwrap().next.unwrap();
    assert!(model.get_records(&next, None).is_ok(), "the next iterator belongs to the same reader");
    model.advance_to(BEGIN + SECOND);
    assert!(model.get_records(&readers[2], None).is_ok());
}

#[test]
fn throttles_or_fails_any_request() {
    for (refusal, enable) in [
        (ServiceError::LimitExceeded, (|s| s.throttling.random = 1.0) as fn(&mut Settings)),
        (ServiceError::InternalServerError, |s| s.unavailable = 1.0),
    ] {
        let mut model = unrolled_table(|_| {});
        let iterator_id = iterator(&mut model, 0, IteratorPosition::Latest).unwrap();
        enable(&mut model.settings);
        assert_eq!(model.list_streams(), Err(refusal));
        let label = model.streams()[0].label.clone();
        assert_eq!(model.describe(&label, None, None, None), Err(refusal));
        assert_eq!(iterator(&mut model, 0, IteratorPosition::Latest), Err(refusal));
        assert_eq!(model.get_records(&iterator_id, None), Err(refusal));
    }
}

#[test]
fn delays_records_without_reordering_them() {
    let mut model = unrolled_table(|settings| settings.record_delay_ms = 5 * SECOND);
    for value in 1..=50 {
        write(&mut model, "fuga", value);
        model.advance_to(model.now() + 100);
    }
    let some = read_shard(&mut model, 0, IteratorPosition::TrimHorizon).0;
    assert!(some.len() < 50 && some == Vec::from_iter(0..some.len()));
    model.roll(0);
    assert!(
        !read_shard(&mut model, 0, IteratorPosition::TrimHorizon).1,
        "the shard must not end before all records are readable"
    );
    model.advance_to(model.now() + 5 * SECOND);
    assert_eq!(
        read_shard(&mut model, 0, IteratorPosition::TrimHorizon),
        (Vec::from_iter(0..50), true)
    );
}
