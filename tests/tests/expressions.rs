//! Expressions at work in a worker: what a filter leaves out, what is told of a change on which one
//! fails, and a team's dear expressions beside another's.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use stream_notifier::api::{StreamNotifier, StreamNotifierSpec};
use stream_notifier::model::{AttributeValue, Position, Record};
use stream_notifier::rules::{CompiledSpec, EvaluatorPool};
use stream_notifier::telemetry::Phase;
use stream_notifier::worker::{Endpoints, WorkerConfig, validate};
use stream_notifier_tests::fakes::{Worker, change, number, shard_id, spec};

/// A worker that reads the open shard `only`, with a spec that is another than the usual one.
fn start(
    worker: &mut Worker,
    evaluator: &EvaluatorPool,
    edit: impl FnOnce(&mut StreamNotifierSpec),
) {
    let mut spec = spec();
    edit(&mut spec);
    let notifier = Arc::new(CompiledSpec::new(&spec).unwrap());
    worker.streams.open("only", None);
    worker.start_with(|job| WorkerConfig { rules: notifier, evaluators: evaluator.clone(), ..job });
}

fn settled_up_to(worker: &Worker, n: u32) -> bool {
    let checkpoint = worker.store.checkpoint();
    checkpoint.and_then(|checkpoint| checkpoint.shards.get(&shard_id("only")).cloned())
        == Some(Position::After(number(n)))
}

/// How many records had this result.
fn records(worker: &Worker, result: &str) -> u64 {
    let text = worker.metrics.encode();
    let is_it = |line: &&str| {
        line.starts_with("stream_notifier_records_total{")
            && line.contains(&format!("\"{result}\""))
    };
    // Every counter is there from the start.
    let line = text.lines().find(is_it).expect(result);
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_a_filter_leaves_out_is_settled_and_told_to_nobody() {
    let mut worker = Worker::new();
    start(&mut worker, &EvaluatorPool::Inline, |spec| {
        spec.filter = Some("int(new.TargetAttribute) % 10 == 0".to_owned());
    });
    worker.started().await;
    worker.connections.put("browser", "hoge", "2026-01-01");
    // More than are evaluated in a turn.
    for n in 1..=705 {
        worker.streams.append("only", change(n, "fuga", "hoge"));
    }
    worker.until("all is settled", || settled_up_to(&worker, 705)).await;
    let tenth = |n: u32| format!(r#"{{"pk":"fuga","sk":"hoge","value":"{}"}}"#, 10 * n);
    assert_eq!(worker.gateway.received("browser"), (1..=70).map(tenth).collect::<Vec<_>>());
    assert_eq!((records(&worker, "matched"), records(&worker, "skipped")), (70, 635));
}

#[tokio::test(start_paused = true)]
async fn an_expression_that_fails_is_told_once_a_minute_and_the_rest_goes_on() {
    let mut worker = Worker::new();
    start(&mut worker, &EvaluatorPool::Inline, |spec| {
        spec.message = Some(BTreeMap::from([("odd".to_owned(), "1 / (1 - 1)".to_owned())]));
        spec.filter = Some("int(new.TargetAttribute) < 1000 || new.hush == 1".to_owned());
    });
    worker.started().await;
    for n in 1..=3 {
        worker.streams.append("only", change(n, "fuga", "hoge"));
    }
    worker.until("all are settled", || settled_up_to(&worker, 3)).await;
    let told = worker.picture().invalid.expect("it is told");
    assert_eq!((told.count, records(&worker, "invalid")), (1, 3));
    for part in ["message.odd failed", "key attributes PK and SK", ": division by zero; "] {
        assert!(told.message.contains(part), "{}", told.message);
    }
    for value in ["fuga", "hoge"] {
        assert!(!told.message.contains(value), "{}", told.message);
    }

    worker.after(61).await;
    worker.streams.append("only", change(1_004, "fuga", "hoge"));
    worker.until("it is settled", || settled_up_to(&worker, 1_004)).await;
    let told = worker.picture().invalid.expect("it is told");
    assert_eq!(told.count, 2, "a minute later, once more");
    assert!(told.message.contains("no such key: hush"), "{}", told.message);
    // Nothing is wrong with the notifier.
    assert_eq!((worker.picture().phase, worker.reasons()), (Phase::Reading, vec![]));
}

#[test]
fn every_example_can_be_worked_on() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let endpoints = Endpoints { allowed: vec![], template: None };
    let mut examples = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let notifier: StreamNotifier = serde_saphyr::from_str(&text).unwrap();
        let prepared = validate(&notifier.spec, &endpoints);
        assert!(prepared.is_ok(), "{}: {prepared:?}", path.display());
        examples += 1;
    }
    assert!(examples >= 6);
}

/// A change of an item as large as there can be.
fn large(n: u32) -> Record {
    let mut change = change(n, "fuga", "hoge");
    for (name, length) in [("list", 50_000), ("hundred", 100)] {
        let list = (0..length).map(|n: u32| AttributeValue::N(n.to_string()));
        change.new.insert(name.to_owned(), AttributeValue::L(list.collect()));
    }
    change
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dear_expressions_of_one_team_do_not_starve_those_of_another() {
    /// More than the machine evaluates in the time that the test takes.
    const BACKLOG: u32 = 150;
    let evaluator = EvaluatorPool::on_threads(std::num::NonZero::new(1)).unwrap();
    let mut dear = Worker::new();
    start(&mut dear, &evaluator, |spec| {
        // More than there is to pay with.
        spec.filter = Some("new.hundred.all(x, !(-1 in new.list))".to_owned());
    });
    let shared = large(1);
    for n in 1..=BACKLOG {
        let change = Record { sequence_number: number(n), ..shared.clone() };
        dear.streams.append("only", change);
    }
    dear.started().await;
    dear.until("it is busy", || records(&dear, "invalid") > 0).await;

    let mut other = Worker::new();
    start(&mut other, &evaluator, |_| {});
    other.started().await;
    other.connections.put("browser", "hoge", "2026-01-01");
    for n in 1..=10 {
        let before = records(&dear, "invalid");
        let begun = tokio::time::Instant::now();
        other.streams.append("only", change(n, "fuga", "hoge"));
        other.until("it is told", || other.gateway.delivered() == n as usize).await;
        let meanwhile = records(&dear, "invalid") - before;
        println!("change {n} told after {:?}, {meanwhile} dear ones later", begun.elapsed());
    }
    assert!(records(&dear, "invalid") < u64::from(BACKLOG), "the dear ones were done first");
    other.stop().await;
    dear.kill().await;
}
