//! The AWS services and the checkpoint store that a worker talks to, each behind its trait.

use std::sync::Arc;

use crate::aws::{ApiGateway, AwsConfig, DynamoDbConnections, DynamoDbStreams, SqsDeadLetterQueue};
use crate::checkpoint::CheckpointStore;
use crate::delivery::{ConnectionsTable, DeadLetterQueue, Gateway};
use crate::streams::Streams;
use crate::worker::config::worker_config::WorkerSpec;

/// The backends of one worker. Production and local mode differ in these alone.
#[derive(Clone, Debug)]
pub struct Backends {
    /// The table's streams.
    pub streams: Arc<dyn Streams>,
    /// The connections table.
    pub connections: Arc<dyn ConnectionsTable>,
    /// The WebSocket API.
    pub gateway: Arc<dyn Gateway>,
    /// The checkpoint's store.
    pub checkpoints: Arc<dyn CheckpointStore>,
    /// The queue for the records of dropped messages, if there is one.
    pub dead_letters: Option<Arc<dyn DeadLetterQueue>>,
}

impl Backends {
    /// The backends of a spec in AWS, with this checkpoint store.
    pub fn new(spec: &WorkerSpec, aws: &AwsConfig, checkpoints: Arc<dyn CheckpointStore>) -> Self {
        let WorkerSpec { table, delivery, signing_region, dead_letter_queue, .. } = spec;
        Self {
            streams: Arc::new(DynamoDbStreams::new(aws, &table.region, &table.arn)),
            connections: Arc::new(DynamoDbConnections::new(aws, delivery.connections.clone())),
            gateway: Arc::new(ApiGateway::new(aws, signing_region, &delivery.endpoint)),
            checkpoints,
            dead_letters: dead_letter_queue.as_ref().map(|queue| {
                Arc::new(SqsDeadLetterQueue::new(aws, &queue.region, &queue.arn, &queue.url))
                    as Arc<dyn DeadLetterQueue>
            }),
        }
    }
}
