//! Helpers of the delivery tests.

use std::sync::Arc;

use stream_notifier::api::StreamNotifierSpec;
use stream_notifier::delivery::{DeadLetterQueue, DeliveryPolicy};
use stream_notifier::model::{AttributeValue, Record};
use stream_notifier::rules::CompiledSpec;
use stream_notifier::worker::WorkerConfig;
use stream_notifier_tests::fakes::{FakeQueue, Worker, new_record, spec};

/// The shard that the workers read.
pub const SHARD: &str = "only";

/// Starts `worker` on the open shard [`SHARD`], with an edited configuration.
pub async fn start(mut worker: Worker, edit: impl FnOnce(WorkerConfig) -> WorkerConfig) -> Worker {
    worker.streams.open(SHARD, None);
    worker.start_and_wait(edit).await;
    worker
}

/// Starts a worker with the default configuration.
pub async fn start_default() -> Worker {
    start(Worker::new(), |config| config).await
}

/// Starts a worker with a dead-letter queue.
pub async fn start_with_queue(
    queue: Arc<dyn DeadLetterQueue>,
    edit: impl FnOnce(WorkerConfig) -> WorkerConfig,
) -> Worker {
    let mut worker = Worker::new();
    worker.dead_letters = Some(queue);
    start(worker, edit).await
}

/// Starts a worker with an edited delivery policy and a dead-letter queue.
pub async fn start_policy(
    edit: impl FnOnce(DeliveryPolicy) -> DeliveryPolicy,
) -> (Worker, Arc<FakeQueue>) {
    start_spec(spec(), edit).await
}

/// Starts a worker on `spec` with an edited delivery policy and a dead-letter queue.
pub async fn start_spec(
    spec: StreamNotifierSpec,
    edit: impl FnOnce(DeliveryPolicy) -> DeliveryPolicy,
) -> (Worker, Arc<FakeQueue>) {
    let queue = Arc::new(FakeQueue::default());
    let worker = start_with_queue(queue.clone(), |mut config| {
        config.delivery.policy = edit(config.delivery.policy);
        WorkerConfig { rules: Arc::new(CompiledSpec::new(&spec).unwrap()), ..config }
    })
    .await;
    (worker, queue)
}

/// Stores `count` connections, from `connection-000` on, that receive the records of `hoge`.
pub fn connect(worker: &Worker, count: usize) {
    for n in 0..count {
        worker.connections.put_new(&format!("connection-{n:03}"), "hoge");
    }
}

/// Appends record `n` of `item` with the sort key `hoge`.
pub fn append(worker: &Worker, n: u32, item: &str) {
    worker.streams.append(SHARD, new_record(n, item, "hoge"));
}

/// The message about record `n` of `item`.
pub fn message(item: &str, n: u32) -> String {
    format!(r#"{{"pk":"{item}","sk":"hoge","value":"{n}"}}"#)
}

/// The number of messages with this outcome.
pub fn messages(worker: &Worker, outcome: &str) -> u64 {
    worker.metric_value("messages_total", &[("outcome", outcome)])
}

/// A record whose message is longer than API Gateway accepts.
pub fn long_record(n: u32) -> Record {
    let mut record = new_record(n, "fuga", "hoge");
    let value = AttributeValue::S(format!("{n}{}", "x".repeat(128 * 1024)));
    record.new.insert("TargetAttribute".to_owned(), value);
    record
}
