//! What the user typed becomes what the worker needs; after this step nobody reads the spec.

use std::sync::Arc;

use super::endpoint::{Endpoint, Endpoints};
use crate::api::{Connections, StartingPosition, StreamNotifierSpec};
use crate::checkpoint::StartedAt;
use crate::delivery::Source;
use crate::notifier::{InvalidSpec, Notifier};

/// A spec that can be worked on.
#[derive(Clone, Debug)]
pub enum Prepared {
    /// Nothing is read.
    Suspended,
    /// The stream is read.
    Active(Box<Work>),
}

/// What to work on.
#[derive(Clone, Debug)]
pub struct Work {
    /// Who is told what.
    pub notifier: Arc<Notifier>,
    /// The stream's ARN.
    pub stream: String,
    /// The region of stream and connections.
    pub region: String,
    /// Where reading begins without a checkpoint.
    pub starting_position: StartedAt,
    /// Where connections are stored.
    pub source: Source,
    /// Where messages go.
    pub endpoint: Endpoint,
}

/// Checks a spec, also for what the schema has checked before: an older one may have let it pass.
pub fn prepare(spec: &StreamNotifierSpec, endpoints: &Endpoints) -> Result<Prepared, InvalidSpec> {
    let StreamNotifierSpec {
        stream_arn,
        starting_position,
        connections,
        web_socket,
        suspend,
        // The notifier's.
        events: _,
        key_filters: _,
        attribute: _,
        message: _,
    } = spec;
    let work = Work {
        notifier: Arc::new(Notifier::new(spec)?),
        region: region(stream_arn)?.to_owned(),
        stream: stream_arn.clone(),
        starting_position: match starting_position {
            StartingPosition::Latest => StartedAt::Latest,
            StartingPosition::TrimHorizon => StartedAt::TrimHorizon,
        },
        source: source(connections),
        endpoint: endpoints.of(web_socket)?,
    };
    Ok(if *suspend { Prepared::Suspended } else { Prepared::Active(Box::new(work)) })
}

/// The region in `arn:aws:dynamodb:<region>:<account>:table/<table>/stream/<label>`.
fn region(arn: &str) -> Result<&str, InvalidSpec> {
    let parts: Vec<_> = arn.splitn(6, ':').collect();
    match parts[..] {
        ["arn", _, "dynamodb", region, _, resource]
            if !region.is_empty() && resource.contains("/stream/") =>
        {
            Ok(region)
        }
        _ => Err(InvalidSpec {
            field: "streamArn".to_owned(),
            problem: "must be the ARN of a stream: take LatestStreamArn of the table".to_owned(),
        }),
    }
}

fn source(connections: &Connections) -> Source {
    let Connections { table_name, index_name, partition_key, connection_id_attribute, value: _ } =
        connections;
    Source {
        table: table_name.clone(),
        index: index_name.clone(),
        partition_key: partition_key.clone(),
        connection_id_attribute: connection_id_attribute.clone(),
    }
}
