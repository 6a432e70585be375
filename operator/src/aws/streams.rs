//! The DynamoDB streams of a table behind the trait `Streams`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_dynamodbstreams::Client;
use aws_sdk_dynamodbstreams::types::{
    ShardFilter as SdkShardFilter, ShardFilterType, ShardIteratorType, StreamViewType, {self},
};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeDeserializationInterceptorContextRef;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::DateTime;
use aws_smithy_types::config_bag::ConfigBag;
use futures::future::BoxFuture;

use super::config::AwsConfig;
use super::error;
use crate::aws::raw::aws_json::AwsJsonOperation;
use crate::aws::raw::clock_skew::date;
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

/// The streams of one table.
#[derive(Debug)]
pub struct DynamoDbStreams {
    client: Client,
    /// GetRecords, which is most of what is called.
    records: AwsJsonOperation,
    /// The table's ARN.
    table: String,
    /// Whether the service knows AT_TIMESTAMP; emulators do not.
    supports_at_timestamp: AtomicBool,
}

impl DynamoDbStreams {
    /// The streams of the table of this ARN, in this region.
    pub fn new(aws: &AwsConfig, region: &str, table: &str) -> Self {
        let config = aws.region(region);
        let records = AwsJsonOperation {
            client: SigV4Client::new(&config, "dynamodb"),
            endpoint: endpoint::dynamodb_streams(&config).unwrap_or_default(),
            target: "DynamoDBStreams_20120810.GetRecords",
        };
        let (client, supports_at_timestamp) = (Client::new(&config), AtomicBool::new(true));
        Self { client, records, table: table.to_owned(), supports_at_timestamp }
    }

    fn arn(&self, stream: &StreamLabel) -> String {
        stream.arn(&self.table)
    }

    async fn iterator_of(
        &self,
        shard: &ShardId,
        kind: ShardIteratorType,
        number: Option<&SequenceNumber>,
        at: Option<UnixSeconds>,
    ) -> Result<ShardIterator, StreamError> {
        let date = CaptureDateHeader::default();
        let answer = self
            .client
            .get_shard_iterator()
            .stream_arn(self.arn(&shard.stream))
            .shard_id(&shard.name)
            .shard_iterator_type(kind)
            .set_sequence_number(number.map(|number| number.as_str().to_owned()))
            .set_timestamp(at.map(|UnixSeconds(seconds)| DateTime::from_secs(seconds)))
            .customize()
            .interceptor(date.clone())
            .send()
            .await
            .map_err(|failure| StreamError {
                service_time: date.get(),
                ..error::stream(GET_ITERATOR, failure)
            })?;
        let iterator =
            answer.shard_iterator.ok_or_else(|| malformed_response(GET_ITERATOR, "no iterator"))?;
        Ok(ShardIterator(iterator))
    }

    /// An iterator not later than `at`. A service that does not know timestamps gives one at the
    /// oldest record; what is older than wanted is skipped by whoever reads.
    async fn iterator_at(
        &self,
        shard: &ShardId,
        at: UnixSeconds,
    ) -> Result<ShardIterator, StreamError> {
        if self.supports_at_timestamp.load(Ordering::Relaxed) {
            match self.iterator_of(shard, ShardIteratorType::AtTimestamp, None, Some(at)).await {
                Err(refused) if refused.kind == StreamErrorKind::Invalid => {}
                answered => return answered,
            }
        }
        let oldest = self.iterator_of(shard, ShardIteratorType::TrimHorizon, None, None).await?;
        // It was the timestamp that was refused, nothing else.
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
                let answer = self
                    .client
                    .list_streams()
                    .table_name(name)
                    .set_exclusive_start_stream_arn(after)
                    .send()
                    .await
                    .map_err(|failure| error::stream(LIST, failure))?;
                let found = answer.streams.unwrap_or_default().into_iter();
                // A table of the same name may be somebody else's: the name alone means the caller's.
                let ours = found.filter_map(|it| {
                    let arn = it.stream_arn?;
                    let label = arn.strip_prefix(&self.table)?.strip_prefix("/stream/")?;
                    Some(StreamLabel::new(label))
                });
                labels.extend(ours);
                after = answer.last_evaluated_stream_arn;
                if after.is_none() {
                    return Ok(labels);
                }
            }
        })
    }

    fn describe<'a>(
        &'a self,
        stream: &'a StreamLabel,
        listed: ShardFilter<'a>,
        after: Option<&'a ShardId>,
    ) -> BoxFuture<'a, Result<StreamPage, StreamError>> {
        Box::pin(async move {
            let filter = match listed {
                ShardFilter::All => None,
                ShardFilter::ChildrenOf(parent) => Some(
                    SdkShardFilter::builder()
                        .r#type(ShardFilterType::ChildShards)
                        .shard_id(&parent.name)
                        .build(),
                ),
            };
            let date = CaptureDateHeader::default();
            let answer = self
                .client
                .describe_stream()
                .stream_arn(self.arn(stream))
                .set_shard_filter(filter)
                .set_exclusive_start_shard_id(after.map(|shard| shard.name.clone()))
                .customize()
                .interceptor(date.clone())
                .send()
                .await
                .map_err(|failure| StreamError {
                    service_time: date.get(),
                    ..error::stream(DESCRIBE, failure)
                })?;
            let service_time =
                date.get().ok_or_else(|| malformed_response(DESCRIBE, "no Date header"))?;
            let page = answer
                .stream_description
                .ok_or_else(|| malformed_response(DESCRIBE, "no stream"))?;
            let view = view(page.stream_view_type.as_ref())
                .ok_or_else(|| malformed_response(DESCRIBE, "an unknown view type"))?;
            let keys = keys(page.key_schema.unwrap_or_default())
                .ok_or_else(|| malformed_response(DESCRIBE, "no key schema"))?;
            let shards = page.shards.unwrap_or_default().into_iter();
            Ok(StreamPage {
                status: status(page.stream_status.as_ref()),
                view_type: view,
                keys,
                shards: shards.filter_map(|it| shard(stream, it)).collect(),
                next_page: page.last_evaluated_shard_id.map(|name| ShardId::new(stream, name)),
                service_time,
            })
        })
    }

    fn get_iterator<'a>(
        &'a self,
        shard: &'a ShardId,
        from: &'a IteratorStart,
    ) -> BoxFuture<'a, Result<ShardIterator, StreamError>> {
        Box::pin(async move {
            match from {
                IteratorStart::Start => {
                    self.iterator_of(shard, ShardIteratorType::TrimHorizon, None, None).await
                }
                IteratorStart::After(number) => {
                    let kind = ShardIteratorType::AfterSequenceNumber;
                    self.iterator_of(shard, kind, Some(number), None).await
                }
                IteratorStart::At(at) => self.iterator_at(shard, *at).await,
            }
        })
    }

    fn get_records<'a>(
        &'a self,
        iterator: &'a ShardIterator,
    ) -> BoxFuture<'a, Result<RecordPage, StreamError>> {
        Box::pin(async move {
            let asked = serde_json::json!({ "ShardIterator": iterator.0 }).to_string();
            let answer = self.records.send(&asked.into()).await;
            let answer = answer.map_err(|failure| error::stream_call(GET_RECORDS, failure))?;
            let service_time = answer.date.map(|date| UnixSeconds(date.secs()));
            match parse_get_records(&answer.body) {
                Ok(page) => Ok(RecordPage { service_time, ..page }),
                Err(failure) => Err(StreamError {
                    action: GET_RECORDS,
                    kind: StreamErrorKind::Unavailable,
                    service_time,
                    source: Some(failure.into()),
                }),
            }
        })
    }
}

/// An answer that lacks what AWS documents to be in it: better asked again than guessed.
fn malformed_response(action: &'static str, what: &'static str) -> StreamError {
    let kind = StreamErrorKind::Unavailable;
    let source = Some(format!("the answer has {what}").into());
    StreamError { action, kind, service_time: None, source }
}

fn view(view: Option<&StreamViewType>) -> Option<ViewType> {
    match view? {
        StreamViewType::KeysOnly => Some(ViewType::KeysOnly),
        StreamViewType::NewImage => Some(ViewType::NewImage),
        StreamViewType::OldImage => Some(ViewType::OldImage),
        StreamViewType::NewAndOldImages => Some(ViewType::NewAndOldImages),
        _ => None,
    }
}

fn keys(schema: Vec<types::KeySchemaElement>) -> Option<KeySchema> {
    let mut names = schema.into_iter().map(|element| element.attribute_name);
    // The partition key comes first, always.
    Some(KeySchema { partition: names.next()?, sort: names.next() })
}

/// One that is not known counts as enabled: a stream is taken to be at its end only if it says so.
fn status(status: Option<&types::StreamStatus>) -> StreamStatus {
    match status {
        Some(types::StreamStatus::Disabled) => StreamStatus::Disabled,
        Some(types::StreamStatus::Disabling) => StreamStatus::Disabling,
        Some(types::StreamStatus::Enabling) => StreamStatus::Enabling,
        _ => StreamStatus::Enabled,
    }
}

fn shard(stream: &StreamLabel, shard: types::Shard) -> Option<Shard> {
    let parent = shard.parent_shard_id.map(|name| ShardId::new(stream, name));
    Some(Shard { id: ShardId::new(stream, shard.shard_id?), parent })
}

/// Notes the `Date` of an answer: the service's clock, which the SDK does not hand out.
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
        "ServiceDate"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = date(context.response().headers()).map(|date| UnixSeconds(date.secs()));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = date;
        Ok(())
    }
}
