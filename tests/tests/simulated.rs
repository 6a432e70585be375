//! The simulated table keeps the rules of the real one, and each of its faults happens where it is
//! switched on and nowhere else.

use std::collections::BTreeSet;

use fastrand::Rng;
use stream_notifier_tests::streams_model::{
    Description, From, Key, Model, Page, Refusal, Settings, Status,
};

/// 2026-11-22T10:00:00.123Z
const BEGIN: u64 = 1_795_341_600_123;
const LABEL: &str = "2026-11-22T10:00:00.123";
const SECOND: u64 = 1_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

/// A table with a stream whose shards do not roll by themselves.
fn still(change: impl FnOnce(&mut Settings)) -> Model {
    let mut settings = Settings { roll_ms: None, ..Settings::default() };
    settings.throttling.describes = None;
    change(&mut settings);
    Model::new(settings, Rng::with_seed(1), BEGIN)
}

fn write(model: &mut Model, item: &str, value: u64) -> usize {
    model.write(&Key::target(item, "hoge"), Some(value)).expect("a record")
}

fn iterator(model: &mut Model, shard: usize, from: From) -> Result<String, Refusal> {
    let shard = &model.shards()[shard];
    let (label, id) = (model.streams()[shard.stream].label.clone(), shard.id.clone());
    model.shard_iterator(&label, &id, from)
}

/// The page at a place.
fn page(model: &mut Model, shard: usize, from: From) -> Page {
    let iterator = iterator(model, shard, from).unwrap();
    model.get_records(&iterator, None).unwrap()
}

/// Every record of a shard, and whether it came to an end, within 100 pages.
fn read(model: &mut Model, shard: usize, from: From) -> (Vec<usize>, bool) {
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

fn describe(model: &mut Model) -> Description {
    let label = model.streams().last().unwrap().label.clone();
    model.describe(&label, None, None, None).unwrap()
}

fn ids(description: &Description) -> Vec<&str> {
    description.shards.iter().map(|shard| shard.id.as_str()).collect()
}

#[test]
fn labels_and_ids_are_as_aws_writes_them() {
    let model = still(|_| {});
    assert_eq!(model.streams()[0].label, LABEL);
    let (time, random) = model.shards()[0].id.rsplit_once('-').unwrap();
    assert_eq!((time, random.len()), ("shardId-00000001795341600123", 8));
}

#[test]
fn an_item_stays_within_one_lineage_and_its_numbers_grow_as_numbers_only() {
    let mut model = still(|settings| settings.shards = 3);
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
    let mut longer = 0;
    for item in 0..20 {
        let key = Key::target(&item.to_string(), "hoge");
        let records: Vec<_> = model.records().iter().filter(|record| record.key == key).collect();
        for pair in records.windows(2) {
            let (before, after) = (pair[0], pair[1]);
            assert!(before.number < after.number && before.new == after.old);
            longer += usize::from(before.number.to_string() > after.number.to_string());
            let mut line = model.ancestors(after.shard);
            assert!(before.shard == after.shard || line.any(|shard| shard == before.shard));
        }
    }
    assert!(longer > 20, "comparing texts would go wrong {longer} times only");
    assert!(model.records().iter().all(|record| record.number.to_string().len() >= 21));
}

#[test]
fn what_changes_nothing_is_no_record() {
    let mut model = still(|_| {});
    let key = Key::target("fuga", "hoge");
    assert_eq!(model.write(&key, None), None);
    let records = [Some(1), Some(1), Some(2), None, None].map(|value| model.write(&key, value));
    assert_eq!(records, [Some(0), None, Some(1), Some(2), None]);
    let images: Vec<_> = model.records().iter().map(|record| (record.old, record.new)).collect();
    assert_eq!(images, [(None, Some(1)), (Some(1), Some(2)), (Some(2), None)]);
    assert_ne!(model.event_id(0), model.event_id(1));
}

#[test]
fn shards_roll_by_themselves_every_four_hours_or_so() {
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
fn a_closed_shard_ends_with_a_page_without_next_iterator_that_may_carry_records() {
    for separate_end in [0.0, 1.0] {
        let mut model = still(|settings| settings.separate_end = separate_end);
        let record = write(&mut model, "fuga", 1);
        assert_eq!(read(&mut model, 0, From::TrimHorizon), (vec![record], false));
        model.roll(0);
        let first = page(&mut model, 0, From::TrimHorizon);
        assert_eq!(first.records, [record]);
        assert_eq!(first.next.is_some(), separate_end == 1.0);
        assert_eq!(read(&mut model, 0, From::TrimHorizon), (vec![record], true));
        assert_eq!(read(&mut model, 1, From::TrimHorizon), (vec![], false));
    }
}

#[test]
fn pages_hold_a_thousand_records_or_a_megabyte_and_may_be_empty_or_short() {
    let mut model = still(|_| {});
    for value in 1..=1_500 {
        write(&mut model, "fuga", value);
    }
    assert_eq!(page(&mut model, 0, From::TrimHorizon).records.len(), 1_000);
    model.settings.filler_bytes = 10_000;
    let large = page(&mut model, 0, From::TrimHorizon).records;
    let bytes: usize = large.iter().map(|record| model.size(*record)).sum();
    assert!(bytes <= 1 << 20 && bytes + model.size(1) > 1 << 20, "{bytes} bytes");
    model.settings.filler_bytes = 2 << 20;
    assert_eq!(page(&mut model, 0, From::TrimHorizon).records.len(), 1);
    model.settings.filler_bytes = 0;
    let iterator = iterator(&mut model, 0, From::TrimHorizon).unwrap();
    assert_eq!(model.get_records(&iterator, Some(7)).unwrap().records.len(), 7);

    model.settings.empty_page = 0.5;
    model.settings.short_page = 0.5;
    assert_eq!(read(&mut model, 0, From::TrimHorizon).0, Vec::from_iter(0..1_500));
    assert!(model.counts()["empty page"] > 0 && model.counts()["short page"] > 0);
}

#[test]
fn every_place_is_found() {
    let mut model = still(|_| {});
    for value in 0..10 {
        write(&mut model, "fuga", value + 1);
        model.advance_to(BEGIN + (value + 1) * SECOND / 2);
    }
    let number = model.records()[4].number;
    // The clock began at .123: three records were written in second 2.
    let second = BEGIN / SECOND + 2;
    for (from, expected) in [
        (From::TrimHorizon, 0),
        (From::At(number), 4),
        (From::After(number), 5),
        (From::Timestamp(second), 4),
        (From::Timestamp(0), 0),
        (From::Latest, 10),
    ] {
        assert_eq!(page(&mut model, 0, from).records, Vec::from_iter(expected..10), "{from:?}");
    }
    model.roll(0);
    write(&mut model, "fuga", 99);
    for (shard, from) in [
        (0, From::Timestamp(BEGIN / SECOND + 6)),
        (0, From::After(model.records()[10].number)),
        (1, From::After(model.records()[9].number)),
    ] {
        assert_eq!(iterator(&mut model, shard, from), Err(Refusal::Validation), "{from:?}");
    }
    model.settings.knows_timestamps = false;
    assert_eq!(iterator(&mut model, 0, From::Timestamp(second)), Err(Refusal::Validation));
}

#[test]
fn iterators_expire_after_fifteen_minutes() {
    let mut model = still(|_| {});
    let iterator = iterator(&mut model, 0, From::Latest).unwrap();
    write(&mut model, "fuga", 1);
    model.advance_to(BEGIN + 15 * MINUTE - 1);
    assert_eq!(model.get_records(&iterator, None).unwrap().records, [0]);
    model.advance_to(BEGIN + 15 * MINUTE);
    assert_eq!(model.get_records(&iterator, None), Err(Refusal::ExpiredIterator));
    assert_eq!(model.get_records("nonsense", None), Err(Refusal::Validation));
}

#[test]
fn records_are_trimmed_after_a_day_and_closed_shards_with_them() {
    let mut model = still(|_| {});
    let first = write(&mut model, "fuga", 1);
    model.advance_to(BEGIN + 10 * MINUTE);
    let second = write(&mut model, "fuga", 2);
    model.roll(0);
    let day = BEGIN + 24 * HOUR;
    model.advance_to(day - 1);
    let old = iterator(&mut model, 0, From::TrimHorizon).unwrap();
    assert!(!model.is_trimmed(first, model.now()));
    model.advance_to(day);
    assert!(model.is_trimmed(first, model.now()) && !model.is_trimmed(second, model.now()));
    assert_eq!(model.get_records(&old, None), Err(Refusal::TrimmedDataAccess));
    let number = model.records()[first].number;
    assert_eq!(iterator(&mut model, 0, From::After(number)), Err(Refusal::TrimmedDataAccess));
    for from in [From::TrimHorizon, From::Timestamp(BEGIN / SECOND)] {
        assert_eq!(page(&mut model, 0, from).records, [second]);
    }
    assert_eq!(describe(&mut model).shards.len(), 2);
    model.advance_to(day + 10 * MINUTE);
    let left = describe(&mut model).shards;
    assert_eq!(left.len(), 1);
    assert_eq!(left[0].parent.as_deref(), Some(&*model.shards()[0].id));
    assert_eq!(iterator(&mut model, 0, From::TrimHorizon), Err(Refusal::ResourceNotFound));
}

#[test]
fn a_disabled_stream_is_drained_and_gone_after_a_day_and_the_next_has_another_label() {
    let mut model = still(|settings| {
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
    assert_eq!(model.streams().len(), 1, "not while it is DISABLING");
    model.advance_to(BEGIN + 20 * SECOND);
    assert_eq!(describe(&mut model).status, Status::Disabled);
    assert_eq!(model.write(&key, Some(3)), None);
    model.enable();
    model.advance_to(BEGIN + 30 * SECOND);
    let after = model.write(&key, Some(4)).unwrap();
    let labels = model.list_streams().unwrap();
    assert!(labels.len() == 2 && labels[0] < labels[1]);
    assert_eq!(read(&mut model, 0, From::TrimHorizon), (vec![record], true));
    assert_eq!(read(&mut model, 1, From::TrimHorizon), (vec![after], false));
    model.advance_to(BEGIN + 20 * SECOND + 24 * HOUR);
    assert_eq!(model.list_streams().unwrap(), labels[1..]);
    assert_eq!(model.describe(&labels[0], None, None, None), Err(Refusal::ResourceNotFound));
}

#[test]
fn descriptions_come_page_by_page_and_a_last_one_may_be_empty() {
    let mut model = still(|settings| settings.shards = 200);
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
fn a_filter_gives_the_children_and_an_emulator_ignores_it() {
    let mut model = still(|settings| settings.shards = 2);
    model.split(0);
    let (label, parent) = (model.streams()[0].label.clone(), model.shards()[0].id.clone());
    let children = model.describe(&label, Some(&parent), None, None).unwrap();
    assert_eq!(children.shards.len(), 2);
    assert!(children.shards.iter().all(|shard| shard.parent.as_ref() == Some(&parent)));
    model.settings.knows_filter = false;
    assert_eq!(model.describe(&label, Some(&parent), None, None).unwrap().shards.len(), 4);
}

#[test]
fn without_faults_a_description_is_what_is() {
    let mut model = still(|settings| settings.shards = 3);
    model.roll(1);
    let shown = describe(&mut model);
    let all: BTreeSet<_> = model.shards().iter().map(|shard| shard.id.as_str()).collect();
    assert_eq!(ids(&shown).into_iter().collect::<BTreeSet<_>>(), all);
    let ended: Vec<_> = shown.shards.iter().filter(|shard| shard.ending.is_some()).collect();
    assert!(ended.len() == 1 && ended[0].id == model.shards()[1].id);
}

#[test]
fn a_description_may_be_as_it_was() {
    let mut model = still(|_| {});
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
fn a_shard_may_be_listed_late_or_be_missing_or_look_open_or_closed() {
    let mut model = still(|_| {});
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
fn too_many_calls_are_refused_for_a_second() {
    let mut model = still(|settings| settings.throttling.describes = Some(10));
    let label = model.streams()[0].label.clone();
    for _ in 0..10 {
        model.describe(&label, None, None, None).unwrap();
    }
    assert_eq!(model.describe(&label, None, None, None), Err(Refusal::LimitExceeded));
    model.advance_to(BEGIN + SECOND);
    assert!(model.describe(&label, None, None, None).is_ok());

    model.settings.throttling.reads = Some(5);
    let one = iterator(&mut model, 0, From::Latest).unwrap();
    for _ in 0..5 {
        model.get_records(&one, None).unwrap();
    }
    assert_eq!(model.get_records(&one, None), Err(Refusal::LimitExceeded));
}

#[test]
fn a_third_reader_of_a_shard_is_refused_and_the_first_two_are_not() {
    let mut model = still(|settings| settings.throttling.readers = Some(2));
    let readers = [0; 3].map(|shard| iterator(&mut model, shard, From::Latest).unwrap());
    let answers = readers.each_ref().map(|reader| model.get_records(reader, None).is_ok());
    assert_eq!(answers, [true, true, false]);
    let next = model.get_records(&readers[0], None).unwrap().next.unwrap();
    assert!(model.get_records(&next, None).is_ok(), "its next iterator is the same reader");
    model.advance_to(BEGIN + SECOND);
    assert!(model.get_records(&readers[2], None).is_ok());
}

#[test]
fn any_call_may_be_throttled_or_fail() {
    for (refusal, change) in [
        (Refusal::LimitExceeded, (|s| s.throttling.random = 1.0) as fn(&mut Settings)),
        (Refusal::InternalServerError, |s| s.unavailable = 1.0),
    ] {
        let mut model = still(|_| {});
        let one = iterator(&mut model, 0, From::Latest).unwrap();
        change(&mut model.settings);
        assert_eq!(model.list_streams(), Err(refusal));
        let label = model.streams()[0].label.clone();
        assert_eq!(model.describe(&label, None, None, None), Err(refusal));
        assert_eq!(iterator(&mut model, 0, From::Latest), Err(refusal));
        assert_eq!(model.get_records(&one, None), Err(refusal));
    }
}

#[test]
fn records_may_be_readable_later_than_written_and_never_out_of_order() {
    let mut model = still(|settings| settings.record_delay_ms = 5 * SECOND);
    for value in 1..=50 {
        write(&mut model, "fuga", value);
        model.advance_to(model.now() + 100);
    }
    let some = read(&mut model, 0, From::TrimHorizon).0;
    assert!(some.len() < 50 && some == Vec::from_iter(0..some.len()));
    model.roll(0);
    assert!(!read(&mut model, 0, From::TrimHorizon).1, "it ends once everything can be read");
    model.advance_to(model.now() + 5 * SECOND);
    assert_eq!(read(&mut model, 0, From::TrimHorizon), (Vec::from_iter(0..50), true));
}

#[test]
fn a_clock_that_is_set_back_shows_everything_as_it_was() {
    let mut model = still(|_| {});
    let mut seen = vec![];
    let look = |model: &mut Model| {
        let shown = describe(model);
        let shards: Vec<_> =
            shown.shards.iter().map(|it| model.shard(LABEL, &it.id).unwrap()).collect();
        let read: Vec<_> =
            shards.into_iter().map(|shard| read(model, shard, From::TrimHorizon)).collect();
        (shown.shards.len(), read)
    };
    for value in 1..=20 {
        model.advance_to(BEGIN + value * MINUTE);
        write(&mut model, "fuga", value);
        if value % 5 == 0 {
            model.roll(*model.open_shards().last().unwrap());
        }
        seen.push(look(&mut model));
    }
    model.rewind_to(BEGIN);
    for (minute, seen) in (1..).zip(seen) {
        model.advance_to(BEGIN + minute * MINUTE);
        let again = look(&mut model);
        assert_eq!(again.0, seen.0, "shards after {minute} minutes");
        assert_eq!(again.1, seen.1, "records after {minute} minutes");
    }
}

#[test]
fn what_is_written_does_not_depend_on_who_reads() {
    let history = |reads: usize| {
        let mut model = still(|settings| settings.throttling.random = 0.5);
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
