//! What the streams client makes of an answer is what the SDK's own reading of it comes to: random
//! pages of everything that DynamoDB documents, and of much that it does not.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use anyhow::Result;
use aws_sdk_dynamodbstreams::Client;
use aws_sdk_dynamodbstreams::config::retry::RetryConfig;
use aws_sdk_dynamodbstreams::config::{BehaviorVersion, Config, Credentials, Region};
use aws_sdk_dynamodbstreams::operation::get_records::GetRecordsOutput;
use aws_sdk_dynamodbstreams::types::{
    AttributeValue as Sdk, {self},
};
use axum::Router;
use axum::extract::State;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fastrand::Rng;
use stream_notifier::aws::{AwsConfig, DynamoDbStreams};
use stream_notifier::model::{
    AttributeValue, EventName, Item, Record, SequenceNumber, UnixSeconds, UserIdentity,
};
use stream_notifier::streams::{RecordPage, ShardIterator, StreamErrorKind, Streams};
use tokio::net::TcpListener;

const PAGES: u64 = 2_000;

/// A service that gives everybody the same answer, and two clients.
struct Service {
    answer: Arc<Mutex<String>>,
    ours: DynamoDbStreams,
    sdk: Client,
}

impl Service {
    async fn start() -> Result<Self> {
        let answer = Arc::new(Mutex::new(String::new()));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let give = async |State(answer): State<Arc<Mutex<String>>>| answer.lock().unwrap().clone();
        let routes = Router::new().fallback(give).with_state(answer.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let table = "arn:aws:dynamodb:eu-west-1:123456789012:table/t";
        let ours = DynamoDbStreams::new(&AwsConfig::local(&endpoint).await, "eu-west-1", table);
        let config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::from_static("eu-west-1"))
            .endpoint_url(endpoint)
            .credentials_provider(Credentials::new("local", "local", None, None, "test"))
            .retry_config(RetryConfig::disabled())
            .build();
        Ok(Self { answer, ours, sdk: Client::from_conf(config) })
    }

    /// What each client reads.
    async fn read(&self, body: &str) -> [Option<(Vec<Record>, usize, Option<String>)>; 2] {
        body.clone_into(&mut self.answer.lock().unwrap());
        let ours = self.ours.get_records(&ShardIterator("i".to_owned())).await;
        let ours = ours.map(
            |RecordPage {
                 records: changes, malformed: unreadable, next_iterator: next, ..
             }| { (changes, unreadable, next.map(|ShardIterator(next)| next)) },
        );
        let ours = ours.inspect_err(|error| assert_eq!(error.kind, StreamErrorKind::Unavailable));
        let sdk = self.sdk.get_records().shard_iterator("i").send().await;
        // Where there is no list at all, the SDK sees the end of the shard.
        let sdk = sdk.ok().filter(|page| page.records.is_some());
        [ours.ok(), sdk.map(converted)]
    }
}

#[tokio::test]
async fn an_answer_is_read_as_the_sdk_reads_it() -> Result<()> {
    let service = Service::start().await?;
    let (mut changes, mut unreadable, mut refused) = (0, 0, 0);
    for seed in 0..PAGES {
        // Half of the pages have nothing wrong with them, else few records would be left to read.
        let oddity = if seed % 2 == 0 { 0.01 } else { 0.0 };
        let body = Random { rng: Rng::with_seed(seed), oddity }.body();
        let [ours, sdk] = service.read(&body).await;
        assert_eq!(ours, sdk, "seed {seed}: {body}");
        match ours {
            Some(page) => {
                changes += page.0.len();
                unreadable += page.1;
            }
            None => refused += 1,
        }
    }
    let seen = [changes, unreadable, refused];
    assert!(changes > 3_000 && unreadable > 50 && refused > 100, "{seen:?}");
    Ok(())
}

/// An answer that was cut off is never a page, let alone the last one of its shard.
#[tokio::test]
async fn an_answer_that_is_cut_short_is_refused_wherever_that_is() -> Result<()> {
    let service = Service::start().await?;
    let body = Random { rng: Rng::with_seed(7), oddity: 0.0 }.body();
    let ends = body.char_indices().map(|(end, _)| end);
    for end in ends.filter(|end| body[*end..].chars().any(|c| !c.is_whitespace())) {
        service.answer.lock().unwrap().replace_range(.., &body[..end]);
        let read = service.ours.get_records(&ShardIterator("i".to_owned())).await;
        assert_eq!(read.unwrap_err().kind, StreamErrorKind::Unavailable, "{}", &body[..end]);
    }
    assert!(service.read(&body).await[0].is_some());
    Ok(())
}

/// A page as the SDK has it, in our types.
fn converted(page: GetRecordsOutput) -> (Vec<Record>, usize, Option<String>) {
    let records = page.records.unwrap_or_default();
    let all = records.len();
    let changes: Vec<_> = records.into_iter().filter_map(change).collect();
    let unreadable = all - changes.len();
    (changes, unreadable, page.next_shard_iterator)
}

fn change(record: types::Record) -> Option<Record> {
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
        keys: item(stream.keys?),
        old: item(stream.old_image.unwrap_or_default()),
        new: item(stream.new_image.unwrap_or_default()),
        sequence_number: SequenceNumber::parse(&stream.sequence_number?)?,
        approximate_creation_time: UnixSeconds(stream.approximate_creation_date_time?.secs()),
        user_identity,
    })
}

fn item(item: HashMap<String, Sdk>) -> Item {
    item.into_iter().map(|(name, it)| (name, value(it))).collect()
}

fn value(sdk: Sdk) -> AttributeValue {
    match sdk {
        Sdk::S(text) => AttributeValue::S(text),
        Sdk::N(number) => AttributeValue::N(number),
        Sdk::B(blob) => AttributeValue::B(blob.into_inner().into()),
        Sdk::Bool(truth) => AttributeValue::Bool(truth),
        Sdk::Ss(texts) => AttributeValue::Ss(texts.into_iter().collect()),
        Sdk::Ns(numbers) => AttributeValue::Ns(numbers.into_iter().collect()),
        Sdk::Bs(blobs) => {
            AttributeValue::Bs(blobs.into_iter().map(|it| it.into_inner().into()).collect())
        }
        Sdk::L(values) => AttributeValue::L(values.into_iter().map(value).collect()),
        Sdk::M(values) => AttributeValue::M(item(values)),
        _ => AttributeValue::Null,
    }
}

/// Answers at random, written out here so that they may be wrong in every way.
struct Random {
    rng: Rng,
    /// How likely something is wrong, at each place where that can be.
    oddity: f64,
}

impl Random {
    fn body(&mut self) -> String {
        let records: Vec<_> = (0..self.rng.usize(..6)).map(|_| self.record()).collect();
        let records = self.list(records);
        let next = self.text();
        self.object([("Records", records), ("NextShardIterator", next)])
    }

    fn record(&mut self) -> String {
        let event = match self.is_odd() {
            false => self.pick(&["INSERT", "MODIFY", "REMOVE"]),
            true => self.pick(&["insert", "", "SOMETHING_NEW"]),
        };
        let number = match self.is_odd() {
            false => format!("{:024}", self.rng.u64(..)),
            true => self.pick(&["", "-1", "LATEST", "1.5"]).to_owned(),
        };
        let moments = &["1790000000", "1790000000.0", "1.79e9", "1790000000.999", "0", "1.5E0"];
        let odd = &["-0.5", "-7", "1e-400", "1e300", "1e400", "true", "\"NaN\"", "\"1\"", "[1]"];
        let created = if self.is_odd() { self.pick(odd) } else { self.pick(moments) };
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
            // The same name comes twice now and then.
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
            6 => ("NS", self.list_of(|it| quoted(it.pick(&numbers)))),
            7 => ("BS", self.list_of(Self::blob)),
            8 => ("L", self.list_of(|it| it.value(depth + 1))),
            _ => ("M", self.attributes(depth + 1)),
        };
        let (kind, value) = (quoted(kind), self.wrong(value));
        let also = match self.is_odd() {
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

    /// This value, or what must not stand in its place.
    fn wrong(&mut self, value: String) -> String {
        let odd = &["null", "1", "\"a\"", "[]", "{}", "true", "[null]", "{\"a\": null}", "\"a=\""];
        if self.is_odd() { self.pick(odd).to_owned() } else { value }
    }

    fn blob(&mut self) -> String {
        let bytes: Vec<_> = (0..self.rng.usize(..9)).map(|_| self.rng.u8(..)).collect();
        quoted(&STANDARD.encode(bytes))
    }

    /// A text, some of it escaped, whether it has to be or not.
    fn text(&mut self) -> String {
        let parts = &["a", "Z", "ß", "語", "😀", " ", r"\\", r#"\""#, r"\/", r"\n", r"\u0000"];
        let escaped = &[r"\u00e9", r"\uD83D\uDE00", r"\b", r"\f", r"\t", r"\r", r"\uffff"];
        let odd = &[r"\ud83d", r"\ude00", r"\x", "\n", r"\uD83D\u0041"];
        let text: String = (0..self.rng.usize(..6))
            .map(|_| match self.rng.usize(..20) {
                0 if self.is_odd() => self.pick(odd),
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
        let values: Vec<_> = values.into_iter().map(|value| self.wrong(value)).collect();
        format!("[{}]", values.join(&self.comma()))
    }

    /// An object of these fields in any order, some of them missing, null, there twice, or something
    /// else, and some more that nobody knows.
    fn object<const COUNT: usize>(&mut self, fields: [(&str, String); COUNT]) -> String {
        let mut all = Vec::new();
        for (name, value) in fields {
            let value = self.wrong(value);
            if self.is_odd() {
                all.push((quoted(name), self.wrong(value.clone())));
            }
            if !self.is_odd() {
                all.push((quoted(name), value));
            }
        }
        if self.rng.u8(..4) == 0 {
            let unknown = r#"{"a": [1, -2.5e3, "\ud83d", null, {"b": true}]}"#.to_owned();
            all.push((quoted(self.pick(&["awsRegion2", "", "Etwas\\n"])), unknown));
        }
        self.rng.shuffle(&mut all);
        self.fields(all)
    }

    fn fields(&mut self, fields: Vec<(String, String)>) -> String {
        let colon = self.pick(&[":", ": ", " :\n"]);
        let all: Vec<_> = fields.iter().map(|(name, it)| format!("{name}{colon}{it}")).collect();
        format!("{{{}}}", all.join(&self.comma()))
    }

    fn comma(&mut self) -> String {
        self.pick(&[",", ", ", "\t,\r\n"]).to_owned()
    }

    fn is_odd(&mut self) -> bool {
        self.rng.f64() < self.oddity
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.rng.usize(..of.len())]
    }
}

fn quoted(text: &str) -> String {
    format!("\"{text}\"")
}
