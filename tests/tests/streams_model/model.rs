//! The simulated table follows the rules of DynamoDB Streams.

use std::collections::BTreeSet;

use fastrand::Rng;
use stream_notifier_tests::streams_model::{
    IteratorPosition, Key, Model, ServiceError, Settings, Status,
};

use super::fixture::{
    BEGIN, HOUR, LABEL, MINUTE, SECOND, describe, iterator, read_page, read_shard, unrolled_table,
    write,
};

#[test]
fn formats_labels_and_ids_as_aws_does() {
    let model = unrolled_table(|_| {});
    assert_eq!(model.streams()[0].label, LABEL);
    let (time, random) = model.shards()[0].id.rsplit_once('-').unwrap();
    assert_eq!((time, random.len()), ("shardId-00000001795341600123", 8));
}

#[test]
fn keeps_an_item_in_one_lineage_with_numerically_growing_sequence_numbers() {
    let mut model = unrolled_table(|settings| settings.shards = 3);
    let mut rng = Rng::with_seed(2);
    for round in 1..200 {
        model.advance_to(model.now() + SECOND);
        let open = model.open_shards();
        let shard = open[rng.usize(..open.len())];
        match round % 20 {
            0 => model.split(shard),
            10 => model.roll(shard),
            _ => {}
        }
        for item in 0..20 {
            write(&mut model, &item.to_string(), round);
        }
    }
    // Pairs whose order as text differs from their numeric order.
    let mut longer = 0;
    for item in 0..20 {
        let key = Key::target(&item.to_string(), "hoge");
        let records: Vec<_> = model.records().iter().filter(|record| record.key == key).collect();
        for pair in records.windows(2) {
            let (before, after) = (pair[0], pair[1]);
            assert!(before.number < after.number && before.new == after.old);
            longer += usize::from(before.number.to_string() > after.number.to_string());
            let mut ancestors = model.ancestors(after.shard);
            assert!(before.shard == after.shard || ancestors.any(|shard| shard == before.shard));
        }
    }
    assert!(longer > 20, "only {longer} pairs are in another order as text");
    assert!(model.records().iter().all(|record| record.number.to_string().len() >= 21));
}

#[test]
fn makes_no_record_of_an_unchanged_item() {
    let mut model = unrolled_table(|_| {});
    let key = Key::target("fuga", "hoge");
    assert_eq!(model.write(&key, None), None);
    let records = [Some(1), Some(1), Some(2), None, None].map(|value| model.write(&key, value));
    assert_eq!(records, [Some(0), None, Some(1), Some(2), None]);
    let images: Vec<_> = model.records().iter().map(|record| (record.old, record.new)).collect();
    assert_eq!(images, [(None, Some(1)), (Some(1), Some(2)), (Some(2), None)]);
    assert_ne!(model.event_id(0), model.event_id(1));
}

#[test]
fn rolls_shards_about_every_four_hours() {
    let mut model =
        Model::new(Settings { shards: 2, ..Settings::default() }, Rng::with_seed(3), BEGIN);
    model.advance_to(BEGIN + 24 * HOUR);
    let count = model.shards().len();
    assert!((10..=16).contains(&count), "{count} shards");
    for shard in model.shards() {
        assert!(shard.children.len() < 2 && shard.children.is_empty() == shard.closed.is_none());
        let open = shard.closed.unwrap_or(model.now()) - shard.opened;
        assert!(open <= 4 * HOUR + 24 * MINUTE, "open for {open} ms");
    }
}

#[test]
fn ends_a_closed_shard_with_a_page_without_next_iterator() {
    for separate_end in [0.0, 1.0] {
        let mut model = unrolled_table(|settings| settings.separate_end = separate_end);
        let record = write(&mut model, "fuga", 1);
        assert_eq!(read_shard(&mut model, 0, IteratorPosition::TrimHorizon), (vec![record], false));
        model.roll(0);
        let first = read_page(&mut model, 0, IteratorPosition::TrimHorizon);
        assert_eq!(first.records, [record]);
        assert_eq!(first.next.is_some(), separate_end == 1.0);
        assert_eq!(read_shard(&mut model, 0, IteratorPosition::TrimHorizon), (vec![record], true));
        assert_eq!(read_shard(&mut model, 1, IteratorPosition::TrimHorizon), (vec![], false));
    }
}

#[test]
fn limits_pages_to_1000_records_and_1_mib() {
    let mut model = unrolled_table(|_| {});
    for value in 1..=1_500 {
        write(&mut model, "fuga", value);
    }
    assert_eq!(read_page(&mut model, 0, IteratorPosition::TrimHorizon).records.len(), 1_000);
    model.settings.filler_bytes = 10_000;
    let large = read_page(&mut model, 0, IteratorPosition::TrimHorizon).records;
    let bytes: usize = large.iter().map(|record| model.size(*record)).sum();
    assert!(bytes <= 1 << 20 && bytes + model.size(1) > 1 << 20, "{bytes} bytes");
    model.settings.filler_bytes = 2 << 20;
    assert_eq!(read_page(&mut model, 0, IteratorPosition::TrimHorizon).records.len(), 1);
    model.settings.filler_bytes = 0;
    let iterator = iterator(&mut model, 0, IteratorPosition::TrimHorizon).unwrap();
    assert_eq!(model.get_records(&iterator, Some(7)).unwrap().records.len(), 7);

    model.settings.empty_page = 0.5;
    model.settings.short_page = 0.5;
    assert_eq!(
        read_shard(&mut model, 0, IteratorPosition::TrimHorizon).0,
        Vec::from_iter(0..1_500)
    );
    assert!(model.counts()["empty page"] > 0 && model.counts()["short page"] > 0);
}

#[test]
fn returns_iterators_for_every_position() {
    let mut model = unrolled_table(|_| {});
    for value in 0..10 {
        write(&mut model, "fuga", value + 1);
        model.advance_to(BEGIN + (value + 1) * SECOND / 2);
    }
    let number = model.records()[4].number;
    // The clock starts at .123, so second 2 has the records 4, 5 and 6.
    let second = BEGIN / SECOND + 2;
    for (from, expected) in [
        (IteratorPosition::TrimHorizon, 0),
        (IteratorPosition::At(number), 4),
        (IteratorPosition::After(number), 5),
        (IteratorPosition::Timestamp(second), 4),
        (IteratorPosition::Timestamp(0), 0),
        (IteratorPosition::Latest, 10),
    ] {
        assert_eq!(
            read_page(&mut model, 0, from).records,
            Vec::from_iter(expected..10),
            "{from:?}"
        );
    }
    model.roll(0);
    write(&mut model, "fuga", 99);
    for (shard, from) in [
        (0, IteratorPosition::Timestamp(BEGIN / SECOND + 6)),
        (0, IteratorPosition::After(model.records()[10].number)),
        (1, IteratorPosition::After(model.records()[9].number)),
    ] {
        assert_eq!(iterator(&mut model, shard, from), Err(ServiceError::Validation), "{from:?}");
    }
    model.settings.supports_timestamps = false;
    assert_eq!(
        iterator(&mut model, 0, IteratorPosition::Timestamp(second)),
        Err(ServiceError::Validation)
    );
}

#[test]
fn expires_iterators_after_15_minutes() {
    let mut model = unrolled_table(|_| {});
    let iterator = iterator(&mut model, 0, IteratorPosition::Latest).unwrap();
    write(&mut model, "fuga", 1);
    model.advance_to(BEGIN + 15 * MINUTE - 1);
    assert_eq!(model.get_records(&iterator, None).unwrap().records, [0]);
    model.advance_to(BEGIN + 15 * MINUTE);
    assert_eq!(model.get_records(&iterator, None), Err(ServiceError::ExpiredIterator));
    assert_eq!(model.get_records("nonsense", None), Err(ServiceError::Validation));
}

#[test]
fn trims_records_and_closed_shards_after_24_hours() {
    let mut model = unrolled_table(|_| {});
    let first = write(&mut model, "fuga", 1);
    model.advance_to(BEGIN + 10 * MINUTE);
    let second = write(&mut model, "fuga", 2);
    model.roll(0);
    let day = BEGIN + 24 * HOUR;
    model.advance_to(day - 1);
    let old = iterator(&mut model, 0, IteratorPosition::TrimHorizon).unwrap();
    assert!(!model.is_trimmed(first, model.now()));
    model.advance_to(day);
    assert!(model.is_trimmed(first, model.now()) && !model.is_trimmed(second, model.now()));
    assert_eq!(model.get_records(&old, None), Err(ServiceError::TrimmedDataAccess));
    let number = model.records()[first].number;
    assert_eq!(
        iterator(&mut model, 0, IteratorPosition::After(number)),
        Err(ServiceError::TrimmedDataAccess)
    );
    for from in [IteratorPosition::TrimHorizon, IteratorPosition::Timestamp(BEGIN / SECOND)] {
        assert_eq!(read_page(&mut model, 0, from).records, [second]);
    }
    assert_eq!(describe(&mut model).shards.len(), 2);
    model.advance_to(day + 10 * MINUTE);
    let left = describe(&mut model).shards;
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].parent.as_deref(), Some(&*model.shards()[0].id));
    assert_eq!(
        iterator(&mut model, 0, IteratorPosition::TrimHorizon),
        Err(ServiceError::ResourceNotFound)
    );
}

#[test]
fn deletes_a_disabled_stream_after_24_hours_and_labels_its_successor_differently() {
    let mut model = unrolled_table(|settings| {
        settings.enabling_ms = 10 * SECOND;
        settings.disabling_ms = 10 * SECOND;
    });
    let key = Key::target("fuga", "hoge");
    assert_eq!(describe(&mut model).status, Status::Enabling);
    assert_eq!((model.write(&key, Some(1)), model.open_shards().len()), (None, 0));
    model.advance_to(BEGIN + 10 * SECOND);
    assert_eq!(describe(&mut model).status, Status::Enabled);
    let record = model.write(&key, Some(2)).unwrap();
    model.disable();
    assert_eq!(describe(&mut model).status, Status::Disabling);
    model.enable();
    assert_eq!(model.streams().len(), 1, "a stream that is DISABLING has no successor");
    model.advance_to(BEGIN + 20 * SECOND);
    assert_eq!(describe(&mut model).status, Status::Disabled);
    assert_eq!(model.write(&key, Some(3)), None);
    model.enable();
    model.advance_to(BEGIN + 30 * SECOND);
    let after = model.write(&key, Some(4)).unwrap();
    let labels = model.list_streams().unwrap();
    assert!(labels.len() == 2 && labels[0] < labels[1]);
    assert_eq!(read_shard(&mut model, 0, IteratorPosition::TrimHorizon), (vec![record], true));
    assert_eq!(read_shard(&mut model, 1, IteratorPosition::TrimHorizon), (vec![after], false));
    model.advance_to(BEGIN + 20 * SECOND + 24 * HOUR);
    assert_eq!(model.list_streams().unwrap(), labels[1..]);
    assert_eq!(model.describe(&labels[0], None, None, None), Err(ServiceError::ResourceNotFound));
}

#[test]
fn describes_a_stream_in_pages_of_100_shards() {
    let mut model = unrolled_table(|settings| settings.shards = 200);
    let label = model.streams()[0].label.clone();
    let mut seen = BTreeSet::new();
    let mut last = None;
    for (shards, more) in [(100, true), (100, true), (0, false)] {
        let page = model.describe(&label, None, last.as_deref(), None).unwrap();
        assert_eq!((page.shards.len(), page.last.is_some()), (shards, more));
        seen.extend(page.shards.into_iter().map(|shard| shard.id));
        last = page.last;
    }
    assert_eq!(seen.len(), 200);
}

#[test]
fn repeats_its_history_after_the_clock_is_set_back() {
    let mut model = unrolled_table(|_| {});
    let mut seen = vec![];
    let observe = |model: &mut Model| {
        let shown = describe(model);
        let shards: Vec<_> =
            shown.shards.iter().map(|it| model.shard(LABEL, &it.id).unwrap()).collect();
        let read: Vec<_> = shards
            .into_iter()
            .map(|shard| read_shard(model, shard, IteratorPosition::TrimHorizon))
            .collect();
        (shown.shards.len(), read)
    };
    for value in 1..=20 {
        model.advance_to(BEGIN + value * MINUTE);
        write(&mut model, "fuga", value);
        if value % 5 == 0 {
            model.roll(*model.open_shards().last().unwrap());
        }
        seen.push(observe(&mut model));
    }
    model.rewind_to(BEGIN);
    for (minute, seen) in (1..).zip(seen) {
        model.advance_to(BEGIN + minute * MINUTE);
        let repeated = observe(&mut model);
        assert_eq!(repeated.0, seen.0, "shards after {minute} min");
        assert_eq!(repeated.1, seen.1, "records after {minute} min");
    }
}

#[test]
fn writes_the_same_records_independent_of_reads() {
    let history = |reads: usize| {
        let mut model = unrolled_table(|settings| settings.throttling.random = 0.5);
        for value in 1..100 {
            write(&mut model, "fuga", value);
            (0..reads).for_each(|_| drop(model.list_streams()));
            if value % 10 == 0 {
                model.split(*model.open_shards().last().unwrap());
            }
        }
        let ids: Vec<_> = model.shards().iter().map(|shard| shard.id.clone()).collect();
        (model.records().to_vec(), ids)
    };
    assert_eq!(history(0), history(3));
}
