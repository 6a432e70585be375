//! Runs MiniStack, an emulator of AWS with DynamoDB Streams, SQS and real WebSockets. It starts
//! within a second, so each test can have its own.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, Projection,
    ProjectionType, ScalarAttributeType, StreamSpecification, StreamViewType,
};
use axum::http::{Request, header};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE;
use bytes::Bytes;
use serde_json::{Value, json};

use crate::http;
use crate::port::free_port;
use crate::process::{Process, Spec};
use crate::scratch::Scratch;
use crate::tools::tool;
use crate::wait::eventually;

pub const REGION: &str = "ap-northeast-1";
/// MiniStack's account, if the access key id is not an account number.
pub const ACCOUNT: &str = "000000000000";
const KEY: &str = "test";

const START_TIMEOUT: Duration = Duration::from_secs(60);

pub struct MiniStack {
    endpoint: String,
    process: Process,
    _scratch: Scratch,
}

impl MiniStack {
    /// Starts it on 127.0.0.1.
    pub async fn start() -> Result<Self> {
        Self::start_on(IpAddr::V4(Ipv4Addr::LOCALHOST)).await
    }

    /// Starts it on an address of this machine.
    pub async fn start_on(address: IpAddr) -> Result<Self> {
        let scratch = Scratch::new("ministack")?;
        // Its Lambda functions always use 127.0.0.1.
        let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let bind = if address == loopback { loopback } else { Ipv4Addr::UNSPECIFIED.into() };
        let port = free_port()?;
        let folder = scratch.path().display().to_string();
        let spec = Spec::new(tool("ministack").await?, scratch.path().join("ministack.log"))
            .arguments(["-m", "ministack"])
            .environment([
                ("BIND_HOST", bind.to_string().as_str()),
                ("GATEWAY_PORT", &port.to_string()),
                // These services open more ports.
                ("IOT_MTLS_ENABLED", "0"),
                ("SFTP_ENABLED", "0"),
                // Without these, it writes into folders of the developer.
                ("HOME", &folder),
                ("TMPDIR", &folder),
                ("STATE_DIR", &folder),
                ("S3_DATA_DIR", &folder),
                ("PYTHONDONTWRITEBYTECODE", "1"),
                ("PYTHONUNBUFFERED", "1"),
            ]);
        let process = Process::start("MiniStack", spec)?;
        let endpoint = format!("http://{address}:{port}");
        let health = format!("{endpoint}/_ministack/health");
        eventually(START_TIMEOUT, "MiniStack to be healthy", async || {
            process.ensure_running()?;
            http::get(&health).await?.success()
        })
        .await?;
        Ok(Self { endpoint, process, _scratch: scratch })
    }

    /// `http://<address>:<port>`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    /// The environment with which a process uses MiniStack as AWS.
    pub fn environment(&self) -> Vec<(String, String)> {
        environment(&self.endpoint)
    }

    /// Deletes all resources.
    pub async fn reset(&self) -> Result<()> {
        let url = format!("{}/_ministack/reset", self.endpoint);
        http::post(&url, "").await?.success().map(drop)
    }

    pub fn dynamodb(&self) -> Client {
        dynamodb(&self.endpoint)
    }

    /// Creates a table with the keys `PK` and `SK` and returns the ARN of its stream.
    pub async fn create_table_with_stream(
        &self,
        name: &str,
        view: StreamViewType,
    ) -> Result<String> {
        let output = self
            .dynamodb()
            .create_table()
            .table_name(name)
            .attribute_definitions(text("PK")?)
            .attribute_definitions(text("SK")?)
            .key_schema(key("PK", KeyType::Hash)?)
            .key_schema(key("SK", KeyType::Range)?)
            .billing_mode(BillingMode::PayPerRequest)
            .stream_specification(
                StreamSpecification::builder()
                    .stream_enabled(true)
                    .stream_view_type(view)
                    .build()?,
            )
            .send()
            .await?;
        output
            .table_description
            .and_then(|table| table.latest_stream_arn)
            .with_context(|| format!("{name} has no stream"))
    }

    /// Disables the stream of a table. Its records stay readable.
    pub async fn disable_stream(&self, table: &str) -> Result<()> {
        let disabled = StreamSpecification::builder().stream_enabled(false).build()?;
        let update = self.dynamodb().update_table().table_name(table);
        update.stream_specification(disabled).send().await?;
        Ok(())
    }

    /// Enables a new stream of a table and returns its ARN.
    pub async fn enable_stream(&self, table: &str) -> Result<String> {
        let enabled = StreamSpecification::builder()
            .stream_enabled(true)
            .stream_view_type(StreamViewType::NewAndOldImages)
            .build()?;
        let update = self.dynamodb().update_table().table_name(table);
        let output = update.stream_specification(enabled).send().await?;
        output
            .table_description
            .and_then(|table| table.latest_stream_arn)
            .with_context(|| format!("{table} has no stream"))
    }

    /// The records of a stream, in order and as GetRecords returns them.
    pub async fn records(&self, stream: &str) -> Result<Vec<Value>> {
        let described = self.streams("DescribeStream", &json!({"StreamArn": stream})).await?;
        let body = json!({
            "StreamArn": stream,
            "ShardId": described["StreamDescription"]["Shards"][0]["ShardId"],
            "ShardIteratorType": "TRIM_HORIZON",
        });
        let mut iterator = self.streams("GetShardIterator", &body).await?["ShardIterator"].take();
        let mut records = Vec::new();
        loop {
            let body = json!({"ShardIterator": iterator});
            let mut page = self.streams("GetRecords", &body).await?;
            let Value::Array(found) = page["Records"].take() else {
                bail!("no records in {page}");
            };
            // The only shard of MiniStack stays open while the stream is enabled, so an empty page
            // is the last one for now.
            let is_last = found.is_empty();
            records.extend(found);
            iterator = page["NextShardIterator"].take();
            if is_last || iterator.is_null() {
                return Ok(records);
            }
        }
    }

    async fn streams(&self, operation: &str, body: &Value) -> Result<Value> {
        self.call("dynamodb", &format!("DynamoDBStreams_20120810.{operation}"), body).await
    }

    /// Puts an item in DynamoDB JSON.
    pub async fn put_item(&self, table: &str, item: &Value) -> Result<()> {
        let body = json!({"TableName": table, "Item": item});
        self.call("dynamodb", "DynamoDB_20120810.PutItem", &body).await.map(drop)
    }

    /// Creates an SQS queue and returns its ARN.
    pub async fn create_queue(&self, name: &str, attributes: &Value) -> Result<String> {
        self.sqs("CreateQueue", &json!({"QueueName": name, "Attributes": attributes})).await?;
        Ok(queue_arn(name))
    }

    /// Receives and deletes all messages of a queue and returns their bodies.
    pub async fn take_messages(&self, queue: &str) -> Result<Vec<String>> {
        let url = self.sqs("GetQueueUrl", &json!({"QueueName": queue})).await?["QueueUrl"].take();
        let mut bodies = Vec::new();
        loop {
            let receive = json!({"QueueUrl": url, "MaxNumberOfMessages": 10});
            let received = self.sqs("ReceiveMessage", &receive).await?;
            let messages = received["Messages"].as_array().cloned().unwrap_or_default();
            if messages.is_empty() {
                return Ok(bodies);
            }
            for message in messages {
                let handle = &message["ReceiptHandle"];
                let delete = json!({"QueueUrl": url, "ReceiptHandle": handle});
                self.sqs("DeleteMessage", &delete).await?;
                bodies.push(message["Body"].as_str().context("no body")?.to_owned());
            }
        }
    }

    async fn sqs(&self, operation: &str, body: &Value) -> Result<Value> {
        self.call("sqs", &format!("AmazonSQS.{operation}"), body).await
    }

    async fn call(&self, service: &str, target: &str, body: &Value) -> Result<Value> {
        let request = Request::post(&self.endpoint)
            .header("x-amz-target", target)
            .header(header::AUTHORIZATION, authorization(service))
            .header(header::CONTENT_TYPE, "application/x-amz-json-1.0")
            .body(Bytes::from(body.to_string()))?;
        let response = http::send(request, START_TIMEOUT).await?.success()?;
        if response.body.is_empty() { Ok(Value::Null) } else { response.json() }
    }

    /// Creates a connections table with the key `connection_id` and the index `sk-index` on `sk`.
    pub async fn create_connections_table(&self, name: &str) -> Result<()> {
        let index = GlobalSecondaryIndex::builder()
            .index_name("sk-index")
            .key_schema(key("sk", KeyType::Hash)?)
            .projection(Projection::builder().projection_type(ProjectionType::All).build())
            .build()?;
        self.dynamodb()
            .create_table()
            .table_name(name)
            .attribute_definitions(text("connection_id")?)
            .attribute_definitions(text("sk")?)
            .key_schema(key("connection_id", KeyType::Hash)?)
            .global_secondary_indexes(index)
            .billing_mode(BillingMode::PayPerRequest)
            .send()
            .await?;
        Ok(())
    }
}

/// The ARN of the queue with this name.
pub fn queue_arn(name: &str) -> String {
    format!("arn:aws:sqs:{REGION}:{ACCOUNT}:{name}")
}

/// Returns a GetRecords request with an iterator that is 16 minutes old, and has therefore expired.
pub fn expired(get_records: &[u8]) -> Result<Bytes> {
    with_iterator(get_records, |iterator| {
        let given_out = iterator["i"].as_f64().context("no time in the iterator")?;
        iterator["i"] = json!(given_out - 16.0 * 60.0);
        Ok(())
    })
}

/// Returns a GetRecords request with an iterator before the oldest record, whose data is trimmed.
pub fn trimmed(get_records: &[u8]) -> Result<Bytes> {
    with_iterator(get_records, |iterator| {
        iterator["p"] = json!(-1);
        Ok(())
    })
}

/// MiniStack's iterators are JSON in base64, so a test can change them.
fn with_iterator(get_records: &[u8], edit: impl Fn(&mut Value) -> Result<()>) -> Result<Bytes> {
    let mut body: Value = serde_json::from_slice(get_records)?;
    let iterator = body["ShardIterator"].as_str().context("no iterator")?;
    let mut iterator: Value = serde_json::from_slice(&URL_SAFE.decode(iterator)?)?;
    edit(&mut iterator)?;
    body["ShardIterator"] = json!(URL_SAFE.encode(iterator.to_string()));
    Ok(body.to_string().into())
}

fn text(name: &str) -> Result<AttributeDefinition> {
    let definition =
        AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S);
    Ok(definition.build()?)
}

fn key(name: &str, kind: KeyType) -> Result<KeySchemaElement> {
    Ok(KeySchemaElement::builder().attribute_name(name).key_type(kind).build()?)
}

/// Creates a client of the DynamoDB at this endpoint.
pub fn dynamodb(endpoint: &str) -> Client {
    let config = aws_sdk_dynamodb::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .endpoint_url(endpoint)
        .region(Region::new(REGION))
        .credentials_provider(Credentials::new(KEY, KEY, None, None, "tests"))
        .build();
    Client::from_conf(config)
}

/// The environment with which a process uses this endpoint, of MiniStack or of a proxy, as AWS.
pub fn environment(endpoint: &str) -> Vec<(String, String)> {
    [
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_REGION", REGION),
        ("AWS_ACCESS_KEY_ID", KEY),
        ("AWS_SECRET_ACCESS_KEY", KEY),
        // No configuration of the developer, and no requests to the metadata service of a cloud.
        ("AWS_CONFIG_FILE", "/dev/null"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// The header from which MiniStack reads service and region of an unsigned request.
pub(crate) fn authorization(service: &str) -> String {
    format!(
        "AWS4-HMAC-SHA256 Credential={KEY}/20260101/{REGION}/{service}/aws4_request, \
         SignedHeaders=host, Signature=none"
    )
}
