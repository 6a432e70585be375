//! A DynamoDB stream behind the trait `Streams`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use aws_sdk_dynamodbstreams::Client;
use aws_sdk_dynamodbstreams::types::{self, ShardIteratorType, StreamViewType};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeDeserializationInterceptorContextRef;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::config_bag::ConfigBag;
use aws_smithy_types::date_time::{DateTime, Format};

use super::attribute::item_from_stream;
use super::{Aws, error};
use crate::record::{
    Change, EventName, KeyNames, SequenceNumber, ShardId, UnixSeconds, UserIdentity,
};
use crate::stream::{
    ReadFrom, RecordPage, Shard, ShardIterator, StreamError, StreamErrorKind, StreamPage, Streams,
    ViewType,
};

const DESCRIBE: &str = "dynamodb:DescribeStream";
const ITERATOR: &str = "dynamodb:GetShardIterator";
const RECORDS: &str = "dynamodb:GetRecords";

/// One stream.
#[derive(Debug)]
pub struct DynamoDbStreams {
    client: Client,
    arn: String,
    /// Whether the service knows AT_TIMESTAMP; emulators do not.
    knows_timestamps: AtomicBool,
}

impl DynamoDbStreams {
    /// The stream of this ARN, in this region.
    pub fn new(aws: &Aws, region: &str, arn: &str) -> Self {
        let client = Client::new(&aws.region(region));
        Self { client, arn: arn.to_owned(), knows_timestamps: AtomicBool::new(true) }
    }

    async fn iterator_of(
        &self,
        shard: &ShardId,
        kind: ShardIteratorType,
        number: Option<&SequenceNumber>,
        at: Option<UnixSeconds>,
    ) -> Result<ShardIterator, StreamError> {
        let answer = self
            .client
            .get_shard_iterator()
            .stream_arn(&self.arn)
            .shard_id(&shard.0)
            .shard_iterator_type(kind)
            .set_sequence_number(number.map(|number| number.as_str().to_owned()))
            .set_timestamp(at.map(|UnixSeconds(seconds)| DateTime::from_secs(seconds)))
            .send()
            .await
            .map_err(|failure| error::stream(ITERATOR, failure))?;
        let iterator = answer.shard_iterator.ok_or_else(|| unusable(ITERATOR, "no iterator"))?;
        Ok(ShardIterator(iterator))
    }

    /// An iterator not later than `at`. A service that does not know timestamps gives one at the
    /// oldest record; what is older than wanted is skipped by whoever reads.
    async fn iterator_at(
        &self,
        shard: &ShardId,
        at: UnixSeconds,
    ) -> Result<ShardIterator, StreamError> {
        if self.knows_timestamps.load(Ordering::Relaxed) {
            match self.iterator_of(shard, ShardIteratorType::AtTimestamp, None, Some(at)).await {
                Err(refused) if refused.kind == StreamErrorKind::Invalid => {
                    self.knows_timestamps.store(false, Ordering::Relaxed);
                }
                answered => return answered,
            }
        }
        self.iterator_of(shard, ShardIteratorType::TrimHorizon, None, None).await
    }
}

impl Streams for DynamoDbStreams {
    async fn describe(&self, after: Option<&ShardId>) -> Result<StreamPage, StreamError> {
        let date = ServiceDate::default();
        let answer = self
            .client
            .describe_stream()
            .stream_arn(&self.arn)
            .set_exclusive_start_shard_id(after.map(|shard| shard.0.clone()))
            .customize()
            .interceptor(date.clone())
            .send()
            .await
            .map_err(|failure| error::stream(DESCRIBE, failure))?;
        let service_time = date.get().ok_or_else(|| unusable(DESCRIBE, "no Date header"))?;
        let stream = answer.stream_description.ok_or_else(|| unusable(DESCRIBE, "no stream"))?;
        let view = view(stream.stream_view_type.as_ref())
            .ok_or_else(|| unusable(DESCRIBE, "an unknown view type"))?;
        let keys = keys(stream.key_schema.unwrap_or_default())
            .ok_or_else(|| unusable(DESCRIBE, "no key schema"))?;
        let shards = stream.shards.unwrap_or_default().into_iter().filter_map(shard).collect();
        let next = stream.last_evaluated_shard_id.map(ShardId);
        Ok(StreamPage { view, keys, shards, next, service_time })
    }

    async fn iterator(
        &self,
        shard: &ShardId,
        from: &ReadFrom,
    ) -> Result<ShardIterator, StreamError> {
        match from {
            ReadFrom::Start => {
                self.iterator_of(shard, ShardIteratorType::TrimHorizon, None, None).await
            }
            ReadFrom::After(number) => {
                let kind = ShardIteratorType::AfterSequenceNumber;
                self.iterator_of(shard, kind, Some(number), None).await
            }
            ReadFrom::At(at) => self.iterator_at(shard, *at).await,
        }
    }

    async fn records(&self, iterator: &ShardIterator) -> Result<RecordPage, StreamError> {
        let answer = self
            .client
            .get_records()
            .shard_iterator(&iterator.0)
            .send()
            .await
            .map_err(|failure| error::stream(RECORDS, failure))?;
        let records = answer.records.unwrap_or_default().into_iter();
        let changes = records
            .map(|record| change(record).ok_or_else(|| unusable(RECORDS, "an incomplete record")))
            .collect::<Result<_, _>>()?;
        Ok(RecordPage { changes, next: answer.next_shard_iterator.map(ShardIterator) })
    }
}

/// An answer that lacks what AWS documents to be in it: better asked again than guessed.
fn unusable(action: &'static str, what: &'static str) -> StreamError {
    let kind = StreamErrorKind::Unavailable;
    StreamError { action, kind, source: Some(format!("the answer has {what}").into()) }
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

fn keys(schema: Vec<types::KeySchemaElement>) -> Option<KeyNames> {
    let mut names = schema.into_iter().map(|element| element.attribute_name);
    // The partition key comes first, always.
    Some(KeyNames { partition: names.next()?, sort: names.next() })
}

fn shard(shard: types::Shard) -> Option<Shard> {
    Some(Shard { id: ShardId(shard.shard_id?), parent: shard.parent_shard_id.map(ShardId) })
}

fn change(record: types::Record) -> Option<Change> {
    let stream = record.dynamodb?;
    let event = match record.event_name? {
        types::OperationType::Insert => EventName::Insert,
        types::OperationType::Modify => EventName::Modify,
        types::OperationType::Remove => EventName::Remove,
        _ => return None,
    };
    let user_identity = record.user_identity.map(|identity| UserIdentity {
        kind: identity.r#type.unwrap_or_default(),
        principal_id: identity.principal_id.unwrap_or_default(),
    });
    Some(Change {
        event_id: record.event_id.unwrap_or_default(),
        event,
        keys: item_from_stream(stream.keys?),
        old: item_from_stream(stream.old_image.unwrap_or_default()),
        new: item_from_stream(stream.new_image.unwrap_or_default()),
        sequence_number: SequenceNumber::parse(&stream.sequence_number?)?,
        created: UnixSeconds(stream.approximate_creation_date_time?.secs()),
        user_identity,
    })
}

/// Notes the `Date` of an answer: the service's clock, which the SDK does not hand out.
#[derive(Clone, Debug, Default)]
struct ServiceDate(Arc<Mutex<Option<UnixSeconds>>>);

impl ServiceDate {
    fn get(&self) -> Option<UnixSeconds> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[aws_smithy_runtime_api::client::interceptors::dyn_dispatch_hint]
impl Intercept for ServiceDate {
    fn name(&self) -> &'static str {
        "ServiceDate"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context
            .response()
            .headers()
            .get("date")
            .and_then(|date| DateTime::from_str(date, Format::HttpDate).ok())
            .map(|date| UnixSeconds(date.secs()));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = date;
        Ok(())
    }
}
