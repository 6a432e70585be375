//! Implements the trait `Streams` with DynamoDB Streams.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_dynamodbstreams::Client;
use aws_sdk_dynamodbstreams::types::{
    self, ShardFilter as SdkShardFilter, ShardFilterType, ShardIteratorType, StreamViewType,
};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeDeserializationInterceptorContextRef;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::DateTime;
use aws_smithy_types::config_bag::ConfigBag;
use futures::future::BoxFuture;

use super::config::AwsConfig;
use super::error::{raw_stream_error, stream_error};
use crate::aws::raw::aws_json::AwsJsonOperation;
use crate::aws::raw::clock_skew::date_header;
use crate::aws::raw::endpoint;
use crate::aws::raw::get_records::parse_get_records;
use crate::aws::raw::sigv4_client::SigV4Client;
use crate::model::{KeySchema, SequenceNumber, ShardId, StreamLabel, UnixSeconds, ViewType};
use crate::streams::{
    IteratorStart, RecordPage, Shard, ShardFilter, ShardIterator, StreamError, StreamErrorKind,
    StreamPage, StreamStatus, Streams,
};

const LIST: &str = "dynamodb:ListStreams";
const DESCRIBE: &str = "dynamodb:DescribeStream";
const GET_ITERATOR: &str = "dynamodb:GetShardIterator";
const GET_RECORDS: &str = "dynamodb:GetRecords";

/// A client of the streams of one table.
#[derive(Debug)]
pub struct DynamoDbStreams {
    client: Client,
    /// Sends GetRecords, which is by far the most frequent request.
    get_records: AwsJsonOperation,
    /// The ARN of the table.
    table: String,
    /// Whether the service supports AT_TIMESTAMP. Emulators do not.
    supports_at_timestamp: AtomicBool,
}

impl DynamoDbStreams {
    /// A client of the streams of the table with this ARN.
    pub fn new(aws: &AwsConfig, region: &str, table: &str) -> Self {
        let config = aws.in_region(region);
        let get_records = AwsJsonOperation {
            client: SigV4Client::new(&config, "dynamodb"),
            endpoint: endpoint::dynamodb_streams(&config).unwrap_or_default(),
            target: "DynamoDBStreams_20120810.GetRecords",
        };
        let (client, supports_at_timestamp) = (Client::new(&config), AtomicBool::new(true));
        Self { client, get_records, table: table.to_owned(), supports_at_timestamp }
    }

    fn arn(&self, stream: &StreamLabel) -> String {
        stream.arn(&self.table)
    }

    async fn request_iterator(
        &self,
        shard: &ShardId,
        kind: ShardIteratorType,
        number: Option<&SequenceNumber>,
        at: Option<UnixSeconds>,
    ) -> Result<ShardIterator, StreamError> {
        let date_header = CaptureDateHeader::default();
        let response = self
            .client
            .get_shard_iterator()
            .stream_arn(self.arn(&shard.stream))
            .shard_id(&shard.name)
            .shard_iterator_type(kind)
            .set_sequence_number(number.map(|number| number.as_str().to_owned()))
            .set_timestamp(at.map(|UnixSeconds(seconds)| DateTime::from_secs(seconds)))
            .customize()
            .interceptor(date_header.clone())
            .send()
            .await
            .map_err(|error| StreamError {
                service_time: date_header.get(),
                ..stream_error(GET_ITERATOR, error)
            })?;
        let iterator = response
            .shard_iterator
            .ok_or_else(|| malformed_response(GET_ITERATOR, "no iterator"))?;
        Ok(ShardIterator(iterator))
    }

    /// Requests an iterator that is not later than `at`. If the service does not support
    /// timestamps, it begins at the oldest record, and the reader skips older records.
    async fn request_iterator_at(
        &self,
        shard: &ShardId,
        at: UnixSeconds,
    ) -> Result<ShardIterator, StreamError> {
        if self.supports_at_timestamp.load(Ordering::Relaxed) {
            match self.request_iterator(shard, ShardIteratorType::AtTimestamp, None, Some(at)).await
            {
                Err(error) if error.kind == StreamErrorKind::Invalid => {}
                result => return result,
            }
        }
        let oldest =
            self.request_iterator(shard, ShardIteratorType::TrimHorizon, None, None).await?;
        // The request succeeds without the timestamp, so the service rejected only the timestamp.
        self.supports_at_timestamp.store(false, Ordering::Relaxed);
        Ok(oldest)
    }
}

impl Streams for DynamoDbStreams {
    fn list(&self) -> BoxFuture<'_, Result<Vec<StreamLabel>, StreamError>> {
        Box::pin(async move {
            let name = self.table.rsplit('/').next().unwrap_or_default();
            let mut labels = Vec::new();
            let mut after = None;
            loop {
                let response = self
                    .client
                    .list_streams()
                    .table_name(name)
                    .set_exclusive_start_stream_arn(after)
                    .send()
                    .await
                    .map_err(|error| stream_error(LIST, error))?;
                let streams = response.streams.unwrap_or_default().into_iter();
                // The request names a table of the caller's account. The ARN can name a table of
                // another account with the same name.
                let of_table = streams.filter_map(|it| {
                    let arn = it.stream_arn?;
                    let label = arn.strip_prefix(&self.table)?.strip_prefix("/stream/")?;
                    Some(StreamLabel::new(label))
                });
                labels.extend(of_table);
                after = response.last_evaluated_stream_arn;
                if after.is_none() {
                    return Ok(labels);
                }
            }
        })
    }

    fn describe<'a>(
        &'a self,
        stream: &'a StreamLabel,
        filter: ShardFilter<'a>,
        after: Option<&'a ShardId>,
    ) -> BoxFuture<'a, Result<StreamPage, StreamError>> {
        Box::pin(async move {
            let filter = match filter {
                ShardFilter::All => None,
                ShardFilter::ChildrenOf(parent) => Some(
                    SdkShardFilter::builder()
                        .r#type(ShardFilterType::ChildShards)
                        .shard_id(&parent.name)
                        .build(),
                ),
            };
            let date_header = CaptureDateHeader::default();
            let response = self
                .client
                .describe_stream()
                .stream_arn(self.arn(stream))
                .set_shard_filter(filter)
                .set_exclusive_start_shard_id(after.map(|shard| shard.name.clone()))
                .customize()
                .interceptor(date_header.clone())
                .send()
                .await
                .map_err(|error| StreamError {
                    service_time: date_header.get(),
                    ..stream_error(DESCRIBE, error)
                })?;
            let service_time =
                date_header.get().ok_or_else(|| malformed_response(DESCRIBE, "no Date header"))?;
            let description = response
                .stream_description
                .ok_or_else(|| malformed_response(DESCRIBE, "no stream"))?;
            let view_type = view_type(description.stream_view_type.as_ref())
                .ok_or_else(|| malformed_response(DESCRIBE, "an unknown view type"))?;
            let keys = key_schema(description.key_schema.unwrap_or_default())
                .ok_or_else(|| malformed_response(DESCRIBE, "no key schema"))?;
            let shards = description.shards.unwrap_or_default().into_iter();
            Ok(StreamPage {
                status: stream_status(description.stream_status.as_ref()),
                view_type,
                keys,
                shards: shards.filter_map(|it| to_shard(stream, it)).collect(),
                next_page: description
                    .last_evaluated_shard_id
                    .map(|name| ShardId::new(stream, name)),
                service_time,
            })
        })
    }

    fn get_iterator<'a>(
        &'a self,
        shard: &'a ShardId,
        start: &'a IteratorStart,
    ) -> BoxFuture<'a, Result<ShardIterator, StreamError>> {
        Box::pin(async move {
            match start {
                IteratorStart::TrimHorizon => {
                    self.request_iterator(shard, ShardIteratorType::TrimHorizon, None, None).await
                }
                IteratorStart::After(number) => {
                    let kind = ShardIteratorType::AfterSequenceNumber;
                    self.request_iterator(shard, kind, Some(number), None).await
                }
                IteratorStart::At(at) => self.request_iterator_at(shard, *at).await,
            }
        })
    }

    fn get_records<'a>(
        &'a self,
        iterator: &'a ShardIterator,
    ) -> BoxFuture<'a, Result<RecordPage, StreamError>> {
        Box::pin(async move {
            let request = serde_json::json!({ "ShardIterator": iterator.0 }).to_string();
            let response = self.get_records.send(&request.into()).await;
            let response = response.map_err(|error| raw_stream_error(GET_RECORDS, error))?;
            let service_time = response.date.map(|date| UnixSeconds(date.secs()));
            match parse_get_records(&response.body) {
                Ok(page) => Ok(RecordPage { service_time, ..page }),
                Err(error) => Err(StreamError {
                    action: GET_RECORDS,
                    kind: StreamErrorKind::Unavailable,
                    service_time,
                    source: Some(error.into()),
                }),
            }
        })
    }
}

/// The error of a response that does not match AWS's documentation. The request can be retried.
fn malformed_response(action: &'static str, what: &'static str) -> StreamError {
    let kind = StreamErrorKind::Unavailable;
    let source = Some(format!("the response has {what}").into());
    StreamError { action, kind, service_time: None, source }
}

fn view_type(view_type: Option<&StreamViewType>) -> Option<ViewType> {
    match view_type? {
        StreamViewType::KeysOnly => Some(ViewType::KeysOnly),
        StreamViewType::NewImage => Some(ViewType::NewImage),
        StreamViewType::OldImage => Some(ViewType::OldImage),
        StreamViewType::NewAndOldImages => Some(ViewType::NewAndOldImages),
        _ => None,
    }
}

fn key_schema(schema: Vec<types::KeySchemaElement>) -> Option<KeySchema> {
    let mut names = schema.into_iter().map(|element| element.attribute_name);
    // DynamoDB always lists the partition key first.
    Some(KeySchema { partition: names.next()?, sort: names.next() })
}

/// Converts the status of a stream. An unknown status counts as enabled, because a stream must end
/// only if it is explicitly disabled.
fn stream_status(status: Option<&types::StreamStatus>) -> StreamStatus {
    match status {
        Some(types::StreamStatus::Disabled) => StreamStatus::Disabled,
        Some(types::StreamStatus::Disabling) => StreamStatus::Disabling,
        Some(types::StreamStatus::Enabling) => StreamStatus::Enabling,
        _ => StreamStatus::Enabled,
    }
}

fn to_shard(stream: &StreamLabel, shard: types::Shard) -> Option<Shard> {
    let parent = shard.parent_shard_id.map(|name| ShardId::new(stream, name));
    Some(Shard { id: ShardId::new(stream, shard.shard_id?), parent })
}

/// Captures the `Date` header of a response, which the SDK does not return. It is the service's
/// clock.
#[derive(Clone, Debug, Default)]
struct CaptureDateHeader(Arc<Mutex<Option<UnixSeconds>>>);

impl CaptureDateHeader {
    fn get(&self) -> Option<UnixSeconds> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint]
impl Intercept for CaptureDateHeader {
    fn name(&self) -> &'static str {
        "CaptureDateHeader"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = date_header(context.response().headers()).map(|date| UnixSeconds(date.secs()));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = date;
        Ok(())
    }
}
