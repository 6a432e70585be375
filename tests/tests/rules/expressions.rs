//! Expressions of a running worker: filters, failures, and fairness between notifiers.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use stream_notifier::api::{StreamNotifier, StreamNotifierSpec};
use stream_notifier::model::{AttributeValue, Record};
use stream_notifier::rules::{CompiledSpec, EvaluatorPool};
use stream_notifier::telemetry::Phase;
use stream_notifier::worker::{Endpoints, WorkerConfig, validate};
use stream_notifier_tests::fakes::{Call, Worker, new_record, sequence_number, spec};
use stream_notifier_tests::wait::eventually;
use tokio::sync::oneshot;
use tokio::task::yield_now;

/// Starts `worker` with an edited spec.
async fn start(
    worker: &mut Worker,
    evaluators: &EvaluatorPool,
    edit: impl FnOnce(&mut StreamNotifierSpec),
) {
    let mut spec = spec();
    edit(&mut spec);
    let (rules, evaluators) = (Arc::new(CompiledSpec::new(&spec).unwrap()), evaluators.clone());
    worker.start_and_wait(|config| WorkerConfig { rules, evaluators, ..config }).await;
}

/// Starts a worker on the open shard `only` with an edited spec, which it evaluates inline.
async fn start_inline(edit: impl FnOnce(&mut StreamNotifierSpec)) -> Worker {
    let mut worker = Worker::new();
    worker.streams.open("only", None);
    start(&mut worker, &EvaluatorPool::Inline, edit).await;
    worker
}

/// The number of records with this result.
fn records(worker: &Worker, result: &str) -> u64 {
    worker.metric_value("records_total", &[("result", result)])
}

#[tokio::test(start_paused = true)]
async fn settles_records_that_a_filter_skips() {
    let worker = start_inline(|spec| {
        spec.filter = Some("int(new.TargetAttribute) % 10 == 0".to_owned());
    })
    .await;
    worker.connections.put_new("browser", "hoge");
    // More records than a time slice evaluates.
    for n in 1..=705 {
        worker.streams.append("only", new_record(n, "fuga", "hoge"));
    }
    worker.wait_settled("only", 705).await;
    let message = |n: u32| format!(r#"{{"pk":"fuga","sk":"hoge","value":"{}"}}"#, 10 * n);
    assert_eq!(worker.gateway.received("browser"), (1..=70).map(message).collect::<Vec<_>>());
    assert_eq!((records(&worker, "matched"), records(&worker, "skipped")), (70, 635));
}

#[tokio::test(start_paused = true)]
async fn reports_a_failing_expression_once_a_minute() {
    let worker = start_inline(|spec| {
        spec.message = Some(BTreeMap::from([("odd".to_owned(), "1 / (1 - 1)".to_owned())]));
        spec.filter = Some("int(new.TargetAttribute) < 1000 || new.hush == 1".to_owned());
    })
    .await;
    for n in 1..=3 {
        worker.streams.append("only", new_record(n, "fuga", "hoge"));
    }
    worker.wait_settled("only", 3).await;
    let reported = worker.health().invalid.expect("the failure must be reported");
    assert_eq!((reported.count, records(&worker, "invalid")), (1, 3));
    for part in ["message.odd failed", "key attributes PK and SK", ": division by zero; "] {
        assert!(reported.message.contains(part), "{}", reported.message);
    }
    for value in ["fuga", "hoge"] {
        assert!(!reported.message.contains(value), "{}", reported.message);
    }

    worker.sleep_seconds(61).await;
    worker.streams.append("only", new_record(1_004, "fuga", "hoge"));
    worker.wait_settled("only", 1_004).await;
    let reported = worker.health().invalid.expect("the failure must be reported");
    assert_eq!(reported.count, 2, "a failure one minute later is reported again");
    assert!(reported.message.contains("no such key: hush"), "{}", reported.message);
    // An invalid record is no problem of the notifier.
    assert_eq!((worker.health().phase, worker.problem_reasons()), (Phase::Reading, vec![]));
}

#[test]
fn accepts_every_example() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let endpoints = Endpoints { allowed: vec![], template: None };
    let mut examples = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let notifier: StreamNotifier = serde_saphyr::from_str(&text).unwrap();
        let validated = validate(&notifier.spec, &endpoints);
        assert!(validated.is_ok(), "{}: {validated:?}", path.display());
        examples += 1;
    }
    assert!(examples >= 6);
}

/// A record of an item of the maximum size, which exhausts the budget of an expensive filter.
fn large_record() -> Record {
    let mut record = new_record(1, "fuga", "hoge");
    for (name, length) in [("list", 50_000), ("hundred", 100)] {
        let list = (0..length).map(|n: u32| AttributeValue::N(n.to_string()));
        record.new.insert(name.to_owned(), AttributeValue::L(list.collect()));
    }
    record
}

/// Occupies the only thread of a pool until it is dropped.
struct ThreadHold {
    started: oneshot::Receiver<()>,
    _release: mpsc::Sender<()>,
}

impl ThreadHold {
    /// Queues for the thread, behind the notifiers that wait for it now.
    async fn queue(evaluators: &EvaluatorPool) -> Self {
        let (release, released) = mpsc::channel::<()>();
        let (sender, started) = oneshot::channel();
        let evaluator = evaluators.handle();
        tokio::spawn(async move {
            let hold = move || {
                let _ = sender.send(());
                // Dropping the sender ends this.
                let _ = released.recv();
            };
            evaluator.run(hold).await;
        });
        run_ready_tasks().await;
        Self { started, _release: release }
    }

    /// Waits until it occupies the thread.
    async fn wait_started(&mut self) -> Result<()> {
        tokio::time::timeout(TIMEOUT, &mut self.started).await??;
        run_ready_tasks().await;
        Ok(())
    }
}

/// Ends a test that would never end.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Polls every task of the single-threaded runtime until each waits for a timer or a thread.
async fn run_ready_tasks() {
    for _ in 0..1_000 {
        yield_now().await;
    }
}

/// The number of GetRecords calls of a worker.
fn reads(worker: &Worker) -> usize {
    worker.streams.calls().iter().filter(|call| matches!(call, Call::Records(_))).count()
}

/// The test holds the only evaluation thread while both notifiers queue for it. It counts what the
/// expensive notifier evaluates until the other one's record is delivered, so that the speed of the
/// machine does not matter.
#[tokio::test]
async fn evaluates_one_slice_of_an_expensive_notifier_before_another_notifier() -> Result<()> {
    const ROUNDS: u32 = 8;
    const SHARDS: u32 = 4;
    /// Enough for two records per round, which is the maximum.
    const RECORDS_PER_SHARD: u32 = 2 * ROUNDS / SHARDS;
    let evaluators = EvaluatorPool::on_threads(NonZero::new(1))?;
    let mut other = Worker::new();
    other.streams.open("only", None);
    other.connections.put_new("browser", "hoge");
    start(&mut other, &evaluators, |_| {}).await;

    let mut hold = ThreadHold::queue(&evaluators).await;
    hold.wait_started().await?;
    let mut expensive = Worker::new();
    let record = large_record();
    for shard in 0..SHARDS {
        let shard = format!("shard-{shard}");
        expensive.streams.open(&shard, None);
        for n in 1..=RECORDS_PER_SHARD {
            let record = Record { sequence_number: sequence_number(n), ..record.clone() };
            expensive.streams.append(&shard, record);
        }
    }
    start(&mut expensive, &evaluators, |spec| {
        // It costs more than the budget of a record.
        spec.filter = Some("new.hundred.all(x, !(-1 in new.list))".to_owned());
    })
    .await;
    run_ready_tasks().await;

    for n in 1..=ROUNDS {
        let (evaluated, reads_before) = (records(&expensive, "invalid"), reads(&other));
        other.streams.append("only", new_record(n, "fuga", "hoge"));
        eventually(TIMEOUT, "the record is read", async || {
            ensure!(reads(&other) > reads_before);
            Ok(())
        })
        .await?;
        // This releases the thread, and takes it again behind the two notifiers.
        hold = ThreadHold::queue(&evaluators).await;
        hold.wait_started().await.context("the thread is free after two time slices")?;
        eventually(TIMEOUT, format!("record {n} is delivered"), async || {
            ensure!(other.gateway.delivered() == n as usize);
            Ok(())
        })
        .await?;
        let evaluated = records(&expensive, "invalid") - evaluated;
        assert!(
            (1..=2).contains(&evaluated),
            "record {n}: {evaluated} expensive records before it"
        );
    }
    drop(hold);
    other.stop().await;
    expensive.kill().await;
    Ok(())
}
