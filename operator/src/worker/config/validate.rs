//! Validates the spec of a resource, and translates it into the terms of the worker. No later step reads
//! the spec.

use std::sync::Arc;
use std::time::Duration;

use super::arn::{QueueArn, TableArn, is_region};
use super::endpoint::Endpoints;
use super::worker_config::WorkerSpec;
use crate::api;
use crate::api::{Connections, Delivery, StartingPosition, StreamNotifierSpec};
use crate::delivery::{
    ConnectionsConfig, DeliveryConfig, DeliveryLimits, DeliveryPolicy, SlowClientAction,
};
use crate::model::StreamLabel;
use crate::rules::{CompiledSpec, InvalidSpec};
use crate::streams::{ConsumerConfig, InitialPosition, StreamSource};

/// Pages of one notifier that are processed at once. A page has up to 1 MB.
pub const MAX_PAGES: usize = 16;

/// A spec that passed validation.
#[derive(Clone, Debug)]
pub enum Validated {
    /// The notifier is suspended.
    Suspended,
    /// A worker can run.
    Active(Box<WorkerSpec>),
}

/// Validates a spec. Repeats the checks of the CRD's schema, because an older schema may have accepted
/// the stored object.
///
/// # Errors
///
/// Names the first invalid field, and what to write instead.
pub fn validate(
    spec: &StreamNotifierSpec,
    endpoints: &Endpoints,
) -> Result<Validated, InvalidSpec> {
    let StreamNotifierSpec {
        stream_arn,
        table_arn,
        starting_position,
        starting_timestamp,
        connections,
        web_socket,
        on_gap,
        poll_interval_milliseconds,
        delivery,
        suspend,
        // Validated by `CompiledSpec::new`.
        events: _,
        key_filters: _,
        attribute: _,
        filter: _,
        message: _,
    } = spec;
    let (table, source) = stream_source(stream_arn.as_deref(), table_arn.as_deref())?;
    let initial_position = match (starting_position, starting_timestamp) {
        (StartingPosition::Latest, _) => InitialPosition::Latest,
        (StartingPosition::TrimHorizon, _) => InitialPosition::TrimHorizon,
        (StartingPosition::AtTimestamp, Some(since)) => InitialPosition::AtTimestamp(*since),
        (StartingPosition::AtTimestamp, None) => {
            let problem = "is required when startingPosition is AtTimestamp";
            return Err(invalid("startingTimestamp", problem));
        }
    };
    // Compiling expressions costs most, so it comes after what is cheaper to check.
    let connections = connections_config(connections, &table)?;
    let rules = Arc::new(CompiledSpec::new(spec)?);
    let poll_interval = poll_interval(*poll_interval_milliseconds)?;
    let endpoint = endpoints.resolve(web_socket)?;
    let worker_spec = WorkerSpec {
        consumer: ConsumerConfig {
            table: table.arn.clone(),
            source,
            required_images: rules.required_images().clone(),
            poll_interval,
            max_pages: MAX_PAGES,
            stop_on_gap: *on_gap == api::DataGapPolicy::Stop,
        },
        initial_position,
        delivery: DeliveryConfig {
            connections,
            endpoint: endpoint.url,
            policy: policy(delivery)?,
            limits: DeliveryLimits::default(),
        },
        signing_region: endpoint.region.unwrap_or_else(|| table.region.clone()),
        dead_letter_queue: delivery
            .dead_letter_queue_arn
            .as_deref()
            .map(QueueArn::parse)
            .transpose()?,
        rules,
        table,
    };
    Ok(if *suspend { Validated::Suspended } else { Validated::Active(Box::new(worker_spec)) })
}

/// The table, and which of its streams to consume.
fn stream_source(
    stream: Option<&str>,
    table: Option<&str>,
) -> Result<(TableArn, StreamSource), InvalidSpec> {
    match (stream, table) {
        (Some(stream), None) => parse_stream_arn(stream).ok_or_else(|| {
            invalid("streamArn", "must be the ARN of a stream; use LatestStreamArn of the table")
        }),
        (None, Some(table)) => {
            let table = TableArn::parse(table).ok_or_else(|| {
                invalid("tableArn", "must be the ARN of a table; use TableArn of the table")
            })?;
            Ok((table, StreamSource::Table))
        }
        (None, None) | (Some(_), Some(_)) => Err(invalid(
            "streamArn",
            "either streamArn or tableArn is required; set exactly one of them",
        )),
    }
}

fn parse_stream_arn(arn: &str) -> Option<(TableArn, StreamSource)> {
    let (table, label) = arn.split_once("/stream/").filter(|(_, label)| !label.is_empty())?;
    Some((TableArn::parse(table)?, StreamSource::Stream(StreamLabel::new(label))))
}

fn poll_interval(milliseconds: i32) -> Result<Duration, InvalidSpec> {
    match u64::try_from(milliseconds) {
        Ok(milliseconds @ 50..=30_000) => Ok(Duration::from_millis(milliseconds)),
        _ => Err(invalid("pollIntervalMilliseconds", "must be between 50 and 30000")),
    }
}

fn policy(delivery: &Delivery) -> Result<DeliveryPolicy, InvalidSpec> {
    let Delivery { max_record_age_seconds, max_attempts, slow_client, .. } = delivery;
    let max_age = match u64::try_from(*max_record_age_seconds) {
        Ok(seconds @ 1..=43_200) => Duration::from_secs(seconds),
        _ => return Err(invalid("delivery.maxRecordAgeSeconds", "must be between 1 and 43200")),
    };
    let parse_attempts = |attempts: i32| match u32::try_from(attempts) {
        Ok(attempts @ 1..=1_000) => Ok(attempts),
        _ => Err(invalid("delivery.maxAttempts", "must be between 1 and 1000")),
    };
    Ok(DeliveryPolicy {
        max_age,
        max_attempts: max_attempts.map(parse_attempts).transpose()?,
        slow_client: match slow_client {
            api::SlowClientPolicy::Wait => SlowClientAction::Wait,
            api::SlowClientPolicy::Drop => SlowClientAction::Drop,
            api::SlowClientPolicy::Disconnect => SlowClientAction::Disconnect,
        },
    })
}

fn invalid(field: &str, problem: &str) -> InvalidSpec {
    InvalidSpec { field: field.to_owned(), problem: problem.to_owned() }
}

fn connections_config(
    connections: &Connections,
    table: &TableArn,
) -> Result<ConnectionsConfig, InvalidSpec> {
    let Connections {
        table_name,
        region,
        index_name,
        partition_key,
        value,
        connection_id_attribute,
        ttl_attribute,
        cache_seconds,
    } = connections;
    if partition_key.is_some() != value.is_some() {
        let problem = "requires connections.value, and the reverse; set both, or neither to post to every connection of the table";
        return Err(invalid("connections.partitionKey", problem));
    }
    let cache_ttl = match u64::try_from(*cache_seconds) {
        Ok(seconds @ 0..=300) => Duration::from_secs(seconds),
        _ => return Err(invalid("connections.cacheSeconds", "must be between 0 and 300")),
    };
    if region.as_ref().is_some_and(|region| !is_region(region)) {
        return Err(invalid("connections.region", "must be an AWS region such as eu-west-1"));
    }
    Ok(ConnectionsConfig {
        region: region.clone().unwrap_or_else(|| table.region.clone()),
        table: table_name.clone(),
        index: index_name.clone(),
        partition_key: partition_key.clone(),
        connection_id_attribute: connection_id_attribute.clone(),
        ttl_attribute: ttl_attribute.clone(),
        cache_ttl,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TABLE: &str = "arn:aws:dynamodb:eu-west-1:123456789012:table/orders";

    fn stream() -> String {
        format!("{TABLE}/stream/2024-12-03T08:06:15.779")
    }

    #[test]
    fn parses_the_same_table_from_stream_and_table_arn() {
        let (by_stream, source) = stream_source(Some(&stream()), None).unwrap();
        assert_eq!(source, StreamSource::Stream(StreamLabel::new("2024-12-03T08:06:15.779")));
        let (by_table, source) = stream_source(None, Some(TABLE)).unwrap();
        assert_eq!(source, StreamSource::Table);
        assert_eq!(by_stream, by_table);
        assert_eq!((&*by_table.arn, &*by_table.region), (TABLE, "eu-west-1"));
        assert_eq!(by_table.account, "123456789012");
    }

    /// An older schema may have accepted what this one rejects.
    #[test]
    fn names_the_field_of_an_invalid_arn() {
        let (stream, unlabelled) = (stream(), format!("{TABLE}/stream/"));
        for (stream, table, field) in [
            (None, None, "streamArn"),
            (Some(&*stream), Some(TABLE), "streamArn"),
            (Some(TABLE), None, "streamArn"),
            (Some(&*unlabelled), None, "streamArn"),
            (Some("arn:aws:s3:::bucket/stream/x"), None, "streamArn"),
            (None, Some(&*stream), "tableArn"),
            (None, Some("orders"), "tableArn"),
            (None, Some("arn:aws:dynamodb::123456789012:table/orders"), "tableArn"),
        ] {
            let error = stream_source(stream, table).unwrap_err();
            assert_eq!(error.field, field, "{stream:?} {table:?}: {error}");
        }
    }

    fn connections(change: impl FnOnce(&mut Connections)) -> Connections {
        let mut connections = Connections {
            table_name: "connections".to_owned(),
            region: None,
            index_name: None,
            partition_key: None,
            value: None,
            connection_id_attribute: "connectionId".to_owned(),
            ttl_attribute: None,
            cache_seconds: 0,
        };
        change(&mut connections);
        connections
    }

    #[test]
    fn connections_default_to_the_region_of_the_table() {
        let table = TableArn::parse(TABLE).unwrap();
        let there = |region: Option<&str>| {
            connections_config(&connections(|it| it.region = region.map(str::to_owned)), &table)
        };
        assert_eq!(there(None).unwrap().region, "eu-west-1");
        assert_eq!(there(Some("us-gov-west-1")).unwrap().region, "us-gov-west-1");
        for wrong in ["", "eu-west-1.evil.example/", "EU", "eu west"] {
            assert_eq!(there(Some(wrong)).unwrap_err().field, "connections.region");
        }
    }

    #[test]
    fn requires_key_and_value_together_and_bounds_the_cache() {
        let table = TableArn::parse(TABLE).unwrap();
        let rejected_field = |change: fn(&mut Connections)| {
            connections_config(&connections(change), &table).unwrap_err().field
        };
        let sk = || Some("sk".to_owned());
        assert_eq!(connections_config(&connections(|_| ()), &table).unwrap().partition_key, None);
        let both = connections(|it| (it.partition_key, it.value) = (Some("sk".into()), sk()));
        assert_eq!(connections_config(&both, &table).unwrap().partition_key, sk());
        assert_eq!(
            rejected_field(|it| it.value = Some("keys.SK".into())),
            "connections.partitionKey"
        );
        assert_eq!(
            rejected_field(|it| it.partition_key = Some("sk".into())),
            "connections.partitionKey"
        );
        assert_eq!(rejected_field(|it| it.cache_seconds = -1), "connections.cacheSeconds");
        assert_eq!(rejected_field(|it| it.cache_seconds = 301), "connections.cacheSeconds");
    }

    #[test]
    fn bounds_the_delivery_policy() {
        let of = |change: fn(&mut Delivery)| {
            let mut delivery = Delivery::default();
            change(&mut delivery);
            policy(&delivery).map_err(|error| error.field)
        };
        assert_eq!(of(|_| ()).map(|it| it.max_age), Ok(Duration::from_secs(300)));
        assert_eq!(of(|it| it.max_attempts = Some(7)).map(|it| it.max_attempts), Ok(Some(7)));
        for age in [0, -1, 43_201] {
            let delivery = Delivery { max_record_age_seconds: age, ..Delivery::default() };
            assert_eq!(policy(&delivery).unwrap_err().field, "delivery.maxRecordAgeSeconds");
        }
        let attempts = |it: &mut Delivery| it.max_attempts = Some(0);
        assert_eq!(of(attempts), Err("delivery.maxAttempts".to_owned()));
    }

    #[test]
    fn bounds_the_poll_interval() {
        assert_eq!(poll_interval(50), Ok(Duration::from_millis(50)));
        assert_eq!(poll_interval(30_000), Ok(Duration::from_secs(30)));
        for outside in [-1, 0, 49, 30_001] {
            assert_eq!(poll_interval(outside).unwrap_err().field, "pollIntervalMilliseconds");
        }
    }

    /// The cheap checks come first, and a spec with two faults always has the same message.
    #[test]
    fn names_the_first_invalid_field() {
        let mut spec = json!({
            "tableArn": "orders",
            "startingPosition": "AtTimestamp",
            "connections": {"tableName": "connections", "cacheSeconds": -1},
            "filter": "no_such_variable",
            "pollIntervalMilliseconds": 0,
            "webSocket": {"domain": "example.com/path"},
            "delivery": {"maxAttempts": 0, "deadLetterQueueArn": "queue"},
        });
        let endpoints = Endpoints { allowed: vec!["ws.example.com".to_owned()], template: None };
        for (path, field, valid) in [
            ("/tableArn", "tableArn", json!(TABLE)),
            ("/startingPosition", "startingTimestamp", json!("Latest")),
            ("/connections/cacheSeconds", "connections.cacheSeconds", json!(0)),
            ("/filter", "filter", json!("true")),
            ("/pollIntervalMilliseconds", "pollIntervalMilliseconds", json!(250)),
            ("/webSocket/domain", "webSocket.domain", json!("ws.example.com")),
            ("/delivery/maxAttempts", "delivery.maxAttempts", json!(1)),
            ("/delivery/deadLetterQueueArn", "delivery.deadLetterQueueArn", json!(null)),
        ] {
            let parsed = serde_json::from_value(spec.clone()).unwrap();
            assert_eq!(validate(&parsed, &endpoints).unwrap_err().field, field);
            *spec.pointer_mut(path).unwrap() = valid;
        }
        let parsed = serde_json::from_value(spec).unwrap();
        assert!(validate(&parsed, &endpoints).is_ok());
    }
}
