//! Records per second that one core filters, for several kinds of records.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use stream_notifier::model::{AttributeValue, EventName, KeySchema, Record};
use stream_notifier::rules::{CompiledSpec, Decision};
use stream_notifier_tests::fakes::{new_record, spec};

/// More records than the CPU caches hold.
const RECORDS: u32 = 20_000;
/// With its keys, an image then has about 280 bytes.
const FILLER: usize = 200;

/// Changes a record to one of its kind.
type Edit = fn(&mut Record);

fn filter(criterion: &mut Criterion) {
    let spec = CompiledSpec::new(&spec()).expect("the spec is valid");
    let keys = KeySchema { partition: "PK".to_owned(), sort: Some("SK".to_owned()) };
    let mut group = criterion.benchmark_group("filter");
    group.throughput(Throughput::Elements(u64::from(RECORDS)));
    let kinds: [(&str, Edit, bool); 4] = [
        ("with another event", |record| record.event = EventName::Insert, false),
        ("with another key", |record| set_key(record, "PK", "order#fuga"), false),
        ("with an unchanged attribute", |record| record.old = record.new.clone(), false),
        ("matching", |_| {}, true),
    ];
    for (name, edit, is_match) in kinds {
        let records: Vec<_> = (0..RECORDS).map(|n| record(n, edit)).collect();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for record in &records {
                    let notifies = spec.matches_prefilter(record)
                        && matches!(spec.evaluate(&keys, record), Decision::Notify(_));
                    assert_eq!(notifies, is_match);
                }
            });
        });
    }
}

fn record(n: u32, edit: Edit) -> Record {
    let mut record = new_record(n, "fuga", "hoge");
    for image in [&mut record.old, &mut record.new] {
        image.insert("Filler".to_owned(), AttributeValue::S("x".repeat(FILLER)));
    }
    edit(&mut record);
    record
}

fn set_key(record: &mut Record, key: &str, value: &str) {
    for item in [&mut record.keys, &mut record.old, &mut record.new] {
        item.insert(key.to_owned(), AttributeValue::S(value.to_owned()));
    }
}

criterion_group!(benches, filter);
criterion_main!(benches);
