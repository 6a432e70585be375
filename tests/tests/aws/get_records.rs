//! The parser of GetRecords responses reads every page as the SDK does.
//!
//! The pages are random. They have everything that DynamoDB documents, and many malformed values.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use anyhow::Result;
use aws_sdk_dynamodbstreams::Client;
use aws_sdk_dynamodbstreams::config::retry::RetryConfig;
use aws_sdk_dynamodbstreams::config::{BehaviorVersion, Config, Credentials, Region};
use aws_sdk_dynamodbstreams::operation::get_records::GetRecordsOutput;
use aws_sdk_dynamodbstreams::types::{self, AttributeValue as Sdk};
use axum::Router;
use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fastrand::Rng;
use stream_notifier::aws::{AwsConfig, DynamoDbStreams};
use stream_notifier::model::{
    AttributeValue, EventName, Item, Record, SequenceNumber, UnixSeconds, UserIdentity,
};
use stream_notifier::streams::{ShardIterator, StreamErrorKind, Streams};
use tokio::net::TcpListener;

const PAGES: u64 = 2_000;

/// Records, the number of malformed ones, and the next iterator.
type Page = (Vec<Record>, usize, Option<String>);

/// A service with one response, and a client of each kind.
struct Service {
    response: Arc<Mutex<String>>,
    raw: DynamoDbStreams,
    sdk: Client,
}

impl Service {
    async fn start() -> Result<Self> {
        let response = Arc::new(Mutex::new(String::new()));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let respond =
            async |State(response): State<Arc<Mutex<String>>>| response.lock().unwrap().clone();
        let routes = Router::new().fallback(respond).with_state(response.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let table = "arn:aws:dynamodb:eu-west-1:123456789012:table/t";
        let raw = DynamoDbStreams::new(&AwsConfig::local(&endpoint).await, "eu-west-1", table);
        let config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::from_static("eu-west-1"))
            .endpoint_url(endpoint)
            .credentials_provider(Credentials::new("local", "local", None, None, "test"))
            .retry_config(RetryConfig::disabled())
            .build();
        Ok(Self { response, raw, sdk: Client::from_conf(config) })
    }

    /// Reads the page with the raw path and with the SDK. An error is `None`.
    async fn read(&self, body: &str) -> [Option<Page>; 2] {
        body.clone_into(&mut self.response.lock().unwrap());
        let raw = self.raw.get_records(&ShardIterator("i".to_owned())).await;
        let raw = raw.map(|page| {
            (page.records, page.malformed, page.next_iterator.map(|ShardIterator(next)| next))
        });
        let raw = raw.inspect_err(|error| assert_eq!(error.kind, StreamErrorKind::Unavailable));
        let sdk = self.sdk.get_records().shard_iterator("i").send().await;
        // The SDK accepts a page without a list of records. The raw path rejects it.
        let sdk = sdk.ok().filter(|page| page.records.is_some());
        [raw.ok(), sdk.map(page_from_sdk)]
    }
}

#[tokio::test]
async fn parses_pages_as_the_sdk_does() -> Result<()> {
    let service = Service::start().await?;
    let (mut records, mut malformed, mut rejected) = (0, 0, 0);
    for seed in 0..PAGES {
        // Half of the pages are valid. Otherwise few records would be readable.
        let fault_rate = if seed % 2 == 0 { 0.01 } else { 0.0 };
        let body = RandomPage { rng: Rng::with_seed(seed), fault_rate }.body();
        let [raw, sdk] = service.read(&body).await;
        assert_eq!(raw, sdk, "seed {seed}: {body}");
        match raw {
            Some(page) => {
                records += page.0.len();
                malformed += page.1;
            }
            None => rejected += 1,
        }
    }
    let counts = [records, malformed, rejected];
    assert!(records > 3_000 && malformed > 50 && rejected > 100, "{counts:?}");
    Ok(())
}

/// A page that is cut off can lack its next iterator. The worker would then take it for the last page of
/// the shard.
#[tokio::test]
async fn rejects_a_page_that_is_cut_off_at_any_byte() -> Result<()> {
    let service = Service::start().await?;
    let body = RandomPage { rng: Rng::with_seed(7), fault_rate: 0.0 }.body();
    let ends = body.char_indices().map(|(end, _)| end);
    for end in ends.filter(|end| body[*end..].chars().any(|c| !c.is_whitespace())) {
        service.response.lock().unwrap().replace_range(.., &body[..end]);
        let read = service.raw.get_records(&ShardIterator("i".to_owned())).await;
        assert_eq!(read.unwrap_err().kind, StreamErrorKind::Unavailable, "{}", &body[..end]);
    }
    assert!(service.read(&body).await[0].is_some());
    Ok(())
}

/// Converts a page of the SDK to the operator's types.
fn page_from_sdk(page: GetRecordsOutput) -> Page {
    let from_sdk = page.records.unwrap_or_default();
    let count = from_sdk.len();
    let records: Vec<_> = from_sdk.into_iter().filter_map(record_from_sdk).collect();
    let malformed = count - records.len();
    (records, malformed, page.next_shard_iterator)
}

fn record_from_sdk(record: types::Record) -> Option<Record> {
    let stream = record.dynamodb?;
    let event = match record.event_name? {
        types::OperationType::Insert => EventName::Insert,
        types::OperationType::Modify => EventName::Modify,
        types::OperationType::Remove => EventName::Remove,
        _ => return None,
    };
    let user_identity = record.user_identity.map(|identity| UserIdentity {
        identity_type: identity.r#type.unwrap_or_default(),
        principal_id: identity.principal_id.unwrap_or_default(),
    });
    Some(Record {
        event_id: record.event_id.unwrap_or_default(),
        event,
        keys: item_from_sdk(stream.keys?),
        old: item_from_sdk(stream.old_image.unwrap_or_default()),
        new: item_from_sdk(stream.new_image.unwrap_or_default()),
        sequence_number: SequenceNumber::parse(&stream.sequence_number?)?,
        approximate_creation_time: UnixSeconds(stream.approximate_creation_date_time?.secs()),
        user_identity,
    })
}

fn item_from_sdk(item: HashMap<String, Sdk>) -> Item {
    item.into_iter().map(|(name, value)| (name, value_from_sdk(value))).collect()
}

fn value_from_sdk(sdk: Sdk) -> AttributeValue {
    match sdk {
        Sdk::S(text) => AttributeValue::S(text),
        Sdk::N(number) => AttributeValue::N(number),
        Sdk::B(blob) => AttributeValue::B(blob.into_inner().into()),
        Sdk::Bool(value) => AttributeValue::Bool(value),
        Sdk::Ss(texts) => AttributeValue::Ss(texts.into_iter().collect()),
        Sdk::Ns(numbers) => AttributeValue::Ns(numbers.into_iter().collect()),
        Sdk::Bs(blobs) => {
            AttributeValue::Bs(blobs.into_iter().map(|blob| blob.into_inner().into()).collect())
        }
        Sdk::L(values) => AttributeValue::L(values.into_iter().map(value_from_sdk).collect()),
        Sdk::M(values) => AttributeValue::M(item_from_sdk(values)),
        _ => AttributeValue::Null,
    }
}

/// A generator of random pages as text, which can be malformed in every way.
struct RandomPage {
    rng: Rng,
    /// The probability of a fault, for each value.
    fault_rate: f64,
}

impl RandomPage {
    fn body(&mut self) -> String {
        let records: Vec<_> = (0..self.rng.usize(..6)).map(|_| self.record()).collect();
        let records = self.list(records);
        let next = self.text();
        self.object([("Records", records), ("NextShardIterator", next)])
    }

    fn record(&mut self) -> String {
        let event = match self.is_faulty() {
            false => self.pick(&["INSERT", "MODIFY", "REMOVE"]),
            true => self.pick(&["insert", "", "SOMETHING_NEW"]),
        };
        let number = match self.is_faulty() {
            false => format!("{:024}", self.rng.u64(..)),
            true => self.pick(&["", "-1", "LATEST", "1.5"]).to_owned(),
        };
        let moments = &["1790000000", "1790000000.0", "1.79e9", "1790000000.999", "0", "1.5E0"];
        let faulty = &["-0.5", "-7", "1e-400", "1e300", "1e400", "true", "\"NaN\"", "\"1\"", "[1]"];
        let created = if self.is_faulty() { self.pick(faulty) } else { self.pick(moments) };
        let [keys, old, new] = std::array::from_fn(|_| self.attributes(0));
        let stream = self.object([
            ("ApproximateCreationDateTime", created.to_owned()),
            ("Keys", keys),
            ("OldImage", old),
            ("NewImage", new),
            ("SequenceNumber", quoted(&number)),
        ]);
        let (kind, principal, id) = (self.text(), self.text(), self.text());
        let identity = self.object([("Type", kind), ("PrincipalId", principal)]);
        self.object([
            ("eventID", id),
            ("eventName", quoted(event)),
            ("dynamodb", stream),
            ("userIdentity", identity),
        ])
    }

    fn attributes(&mut self, depth: usize) -> String {
        let mut fields = Vec::new();
        for _ in 0..self.rng.usize(..5) {
            // Some names occur twice.
            let name =
                if self.rng.bool() { self.text() } else { quoted(self.pick(&["a", "b", "c"])) };
            fields.push((name, self.value(depth)));
        }
        self.fields(fields)
    }

    fn value(&mut self, depth: usize) -> String {
        let numbers = ["0", "-1.5", "1E+2", "12345678901234567890123456789012345678"];
        let (kind, value) = match self.rng.usize(..if depth < 4 { 10 } else { 5 }) {
            0 => ("S", self.text()),
            1 => ("N", quoted(self.pick(&numbers))),
            2 => ("B", self.blob()),
            3 => ("BOOL", self.pick(&["true", "false"]).to_owned()),
            4 => ("NULL", self.pick(&["true", "false"]).to_owned()),
            5 => ("SS", self.list_of(Self::text)),
            6 => ("NS", self.list_of(|page| quoted(page.pick(&numbers)))),
            7 => ("BS", self.list_of(Self::blob)),
            8 => ("L", self.list_of(|page| page.value(depth + 1))),
            _ => ("M", self.attributes(depth + 1)),
        };
        let (kind, value) = (quoted(kind), self.value_or_fault(value));
        let also = match self.is_faulty() {
            false => return self.fields(vec![(kind, value)]),
            true => self.pick(&[
                r#""S": null"#,
                r#""__type": {"S": "a"}"#,
                r#""__type": null"#,
                r#""X": null"#,
                r#""X": {"S": "a"}"#,
                r#""S": "a""#,
            ]),
        };
        match self.rng.usize(..3) {
            0 => format!("{{{also}, {kind}: {value}}}"),
            1 => format!("{{{kind}: {value}, {also}}}"),
            _ => format!("{{{also}}}"),
        }
    }

    /// This value, or an invalid one.
    fn value_or_fault(&mut self, value: String) -> String {
        let faulty =
            &["null", "1", "\"a\"", "[]", "{}", "true", "[null]", "{\"a\": null}", "\"a=\""];
        if self.is_faulty() { self.pick(faulty).to_owned() } else { value }
    }

    fn blob(&mut self) -> String {
        let bytes: Vec<_> = (0..self.rng.usize(..9)).map(|_| self.rng.u8(..)).collect();
        quoted(&STANDARD.encode(bytes))
    }

    /// A text in which some characters are escaped.
    fn text(&mut self) -> String {
        let parts = &["a", "Z", "ß", "語", "😀", " ", r"\\", r#"\""#, r"\/", r"\n", r"\u0000"];
        let escaped = &[r"\u00e9", r"\uD83D\uDE00", r"\b", r"\f", r"\t", r"\r", r"\uffff"];
        let faulty = &[r"\ud83d", r"\ude00", r"\x", "\n", r"\uD83D\u0041"];
        let text: String = (0..self.rng.usize(..6))
            .map(|_| match self.rng.usize(..20) {
                0 if self.is_faulty() => self.pick(faulty),
                0..10 => self.pick(parts),
                _ => self.pick(escaped),
            })
            .collect();
        quoted(&text)
    }

    fn list_of(&mut self, make: impl Fn(&mut Self) -> String) -> String {
        let values = (0..self.rng.usize(..4)).map(|_| make(self)).collect();
        self.list(values)
    }

    fn list(&mut self, values: Vec<String>) -> String {
        let values: Vec<_> = values.into_iter().map(|value| self.value_or_fault(value)).collect();
        format!("[{}]", values.join(&self.comma()))
    }

    /// An object of these fields in any order. Some are missing, repeated or invalid, and some unknown fields
    /// are added.
    fn object<const COUNT: usize>(&mut self, fields: [(&str, String); COUNT]) -> String {
        let mut all = Vec::new();
        for (name, value) in fields {
            let value = self.value_or_fault(value);
            if self.is_faulty() {
                all.push((quoted(name), self.value_or_fault(value.clone())));
            }
            if !self.is_faulty() {
                all.push((quoted(name), value));
            }
        }
        if self.rng.u8(..4) == 0 {
            let unknown = r#"{"a": [1, -2.5e3, "\ud83d", null, {"b": true}]}"#.to_owned();
            all.push((quoted(self.pick(&["awsRegion2", "", "unknown\\n"])), unknown));
        }
        self.rng.shuffle(&mut all);
        self.fields(all)
    }

    fn fields(&mut self, fields: Vec<(String, String)>) -> String {
        let colon = self.pick(&[":", ": ", " :\n"]);
        let all: Vec<_> =
            fields.iter().map(|(name, value)| format!("{name}{colon}{value}")).collect();
        format!("{{{}}}", all.join(&self.comma()))
    }

    fn comma(&mut self) -> String {
        self.pick(&[",", ", ", "\t,\r\n"]).to_owned()
    }

    fn is_faulty(&mut self) -> bool {
        self.rng.f64() < self.fault_rate
    }

    fn pick<'a>(&mut self, values: &[&'a str]) -> &'a str {
        values[self.rng.usize(..values.len())]
    }
}

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}
