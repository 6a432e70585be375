//! Makes the worker be what the spec asks for, and says what it is.

use std::sync::Arc;
use std::time::Duration;

use kube_runtime::reflector::ObjectRef;

use super::Context;
use super::validate::{Prepared, Work};
use crate::api::StreamNotifier;
use crate::aws::{ApiGateway, DynamoDbConnections, DynamoDbStreams};
use crate::backoff::Random;
use crate::kubernetes::ConfigMapStore;
use crate::notifier::InvalidSpec;
use crate::telemetry::{NotifierTelemetry, Picture};
use crate::worker::{Job, Neighbours, NotifierId, work};

/// How often a quiet shard is asked: as often as Lambda does.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// What has been applied.
#[derive(Debug)]
pub enum Applied {
    /// The spec cannot be worked on; no worker runs.
    Invalid(InvalidSpec),
    /// No worker runs, on request.
    Suspended,
    /// A worker runs, and this is how it is.
    Working(Picture),
}

/// Starts, restarts or stops the worker.
pub async fn apply(
    notifier: &StreamNotifier,
    id: &NotifierId,
    prepared: Result<Prepared, InvalidSpec>,
    context: &Context,
) -> Applied {
    let generation = notifier.metadata.generation.unwrap_or_default();
    let work = match prepared {
        Ok(Prepared::Active(work)) => work,
        Ok(Prepared::Suspended) => {
            context.supervisor.stop(id).await;
            return Applied::Suspended;
        }
        Err(invalid) => {
            context.supervisor.stop(id).await;
            return Applied::Invalid(invalid);
        }
    };
    if let Some(picture) = context.supervisor.health(id, generation) {
        return Applied::Working(picture);
    }
    // The one of an earlier generation, or of an earlier resource of this name.
    context.supervisor.stop(id).await;
    start(notifier, id, generation, *work, context);
    Applied::Working(
        context
            .supervisor
            .health(id, generation)
            .unwrap_or_default(),
    )
}

fn start(
    notifier: &StreamNotifier,
    id: &NotifierId,
    generation: i64,
    to_do: Work,
    context: &Context,
) {
    let Some(store) = ConfigMapStore::new(context.client.clone(), notifier) else {
        return;
    };
    let Work {
        notifier: judge,
        stream,
        region,
        starting_position,
        source,
        endpoint,
    } = to_do;
    let aws = &context.aws;
    let signed_for = endpoint.region.as_deref().unwrap_or(&region);
    let neighbours = Neighbours {
        streams: Arc::new(DynamoDbStreams::new(aws, &region, &stream)),
        connections: Arc::new(DynamoDbConnections::new(aws, &region, source.clone())),
        gateway: Arc::new(ApiGateway::new(aws, signed_for, &endpoint.url)),
        store: Arc::new(store),
    };
    let telemetry = NotifierTelemetry::new(context.metrics.clone(), &id.namespace, &id.name);
    let holder = context.holder.clone();
    let (wake, object) = (context.wake.clone(), ObjectRef::from_obj(notifier));
    context.supervisor.start(
        id.clone(),
        generation,
        |health, stop| async move {
            let job = Job {
                notifier: judge,
                stream,
                starting_position,
                source,
                endpoint: endpoint.url,
                holder,
                poll_interval: POLL_INTERVAL,
                health,
                telemetry,
                random: Arc::new(Random::seeded(fastrand::u64(..))),
            };
            work(&neighbours, &job, &stop).await;
        },
        // The receiver lives as long as the controller; without one there is nobody to tell.
        move || drop(wake.send(object.clone())),
    );
}
