//! How many records a second one core judges, by what a record is like.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use stream_notifier::model::{AttributeValue, EventName, KeySchema, Record};
use stream_notifier::rules::{CompiledSpec, Decision};
use stream_notifier_tests::fakes::{change, spec};

/// More than the processor's caches hold.
const RECORDS: u32 = 20_000;
/// Makes an image, keys included, about 280 bytes.
const FILLER: usize = 200;

/// Makes a record like those of a kind.
type Like = fn(&mut Record);

fn filter(criterion: &mut Criterion) {
    let notifier = CompiledSpec::new(&spec()).expect("the spec is valid");
    let keys = KeySchema { partition: "PK".to_owned(), sort: Some("SK".to_owned()) };
    let mut group = criterion.benchmark_group("filter");
    group.throughput(Throughput::Elements(u64::from(RECORDS)));
    let kinds: [(&str, Like, bool); 4] = [
        ("of another kind", |change| change.event = EventName::Insert, false),
        ("of another key", |change| rename(change, "PK", "order#fuga"), false),
        ("attribute unchanged", |change| change.old = change.new.clone(), false),
        ("matches", |_| {}, true),
    ];
    for (name, like, matches) in kinds {
        let changes: Vec<_> = (0..RECORDS).map(|n| record(n, like)).collect();
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for change in &changes {
                    let verdict = notifier.decide(&keys, change);
                    assert_eq!(matches!(verdict, Decision::Notify(_)), matches);
                }
            });
        });
    }
}

fn record(n: u32, like: Like) -> Record {
    let mut change = change(n, "fuga", "hoge");
    for image in [&mut change.old, &mut change.new] {
        image.insert("Filler".to_owned(), AttributeValue::S("x".repeat(FILLER)));
    }
    like(&mut change);
    change
}

fn rename(change: &mut Record, key: &str, value: &str) {
    for item in [&mut change.keys, &mut change.old, &mut change.new] {
        item.insert(key.to_owned(), AttributeValue::S(value.to_owned()));
    }
}

criterion_group!(benches, filter);
criterion_main!(benches);
