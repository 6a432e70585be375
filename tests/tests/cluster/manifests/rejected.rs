//! Manifests that the API server rejects.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use stream_notifier::api::StreamNotifier;

use crate::fixture::{cluster, manifest, repository_root};

const STREAM: &str =
    "arn:aws:dynamodb:eu-west-1:123456789012:table/orders/stream/2024-12-03T08:06:15.779";
const TABLE: &str = "arn:aws:dynamodb:eu-west-1:123456789012:table/orders";
const DOMAIN: &str = "abcdefghij.execute-api.eu-west-1.amazonaws.com";

fn good() -> Value {
    manifest("good", STREAM, DOMAIN, "api")
}

/// A description, the edit that makes a manifest invalid, and a part of the error of the API server.
type Case = (&'static str, fn(&mut Value), &'static str);

const CASES: &[Case] = &[
    (
        "neither a stream nor a table",
        |it| drop(it["spec"].take_field("streamArn")),
        "set exactly one of streamArn and tableArn: streamArn reads one stream, tableArn follows the table to each new stream",
    ),
    (
        "both a stream and a table",
        |it| it["spec"]["tableArn"] = json!(TABLE),
        "set exactly one of streamArn and tableArn",
    ),
    (
        "a table instead of a stream",
        |it| it["spec"]["streamArn"] = json!(TABLE),
        "streamArn must be the ARN of a stream, arn:aws:dynamodb:<region>:<account>:table/<table>/stream/<label>; copy LatestStreamArn from `aws dynamodb describe-table`",
    ),
    (
        "a stream instead of a table",
        |it| table(it, STREAM),
        "tableArn must be the ARN of a table, arn:aws:dynamodb:<region>:<account>:table/<table>; copy TableArn from `aws dynamodb describe-table`, or put the ARN of a stream into streamArn",
    ),
    ("the name of a table", |it| table(it, "orders"), "tableArn must be the ARN of a table"),
    (
        "an unknown position",
        |it| it["spec"]["startingPosition"] = json!("Oldest"),
        "Unsupported value: \"Oldest\": supported values: \"Latest\", \"TrimHorizon\", \"AtTimestamp\"",
    ),
    (
        "a position in time without the time",
        |it| it["spec"]["startingPosition"] = json!("AtTimestamp"),
        "startingPosition AtTimestamp requires startingTimestamp: add one such as 2026-11-22T12:00:00Z, or use Latest or TrimHorizon",
    ),
    (
        "a time with the default position",
        |it| it["spec"]["startingTimestamp"] = json!("2026-11-22T12:00:00Z"),
        "startingTimestamp requires startingPosition AtTimestamp: set that too, or remove startingTimestamp",
    ),
    (
        "a time with another position",
        |it| {
            since(it, "2026-11-22T12:00:00Z");
            it["spec"]["startingPosition"] = json!("TrimHorizon");
        },
        "startingTimestamp requires startingPosition AtTimestamp",
    ),
    ("a date without a time", |it| since(it, "2026-11-22"), NO_TIME),
    ("a time without its zone", |it| since(it, "2026-11-22T12:00:00"), NO_TIME),
    ("an invalid time", |it| since(it, "2026-13-22T12:00:00Z"), NO_TIME),
    ("a relative time", |it| since(it, "-1h"), NO_TIME),
    (
        "an unknown gap policy",
        |it| it["spec"]["onGap"] = json!("Ignore"),
        "Unsupported value: \"Ignore\": supported values: \"Continue\", \"Stop\"",
    ),
    (
        "a poll interval under 50 ms",
        |it| it["spec"]["pollIntervalMilliseconds"] = json!(49),
        "spec.pollIntervalMilliseconds in body should be greater than or equal to 50",
    ),
    (
        "a poll interval over 30 s",
        |it| it["spec"]["pollIntervalMilliseconds"] = json!(30_001),
        "spec.pollIntervalMilliseconds in body should be less than or equal to 30000",
    ),
    (
        "a poll interval with its unit",
        |it| it["spec"]["pollIntervalMilliseconds"] = json!("250ms"),
        "spec.pollIntervalMilliseconds: Invalid value: \"string\"",
    ),
    (
        "a filter without a matcher",
        |it| it["spec"]["keyFilters"] = json!([{"key": "PK"}]),
        "a key filter needs at least one of equals, prefix, suffix, contains, matches",
    ),
    (
        "the same key twice",
        |it| {
            it["spec"]["keyFilters"] =
                json!([{"key": "PK", "prefix": "a"}, {"key": "PK", "suffix": "b"}])
        },
        "spec.keyFilters[1]: Duplicate value: {\"key\":\"PK\"}",
    ),
    (
        "a key to look up without its value",
        |it| drop(it["spec"]["connections"].take_field("value")),
        "set both connections.partitionKey and connections.value, or omit both to send each message to every connection",
    ),
    (
        "a value to look up without its key",
        |it| drop(it["spec"]["connections"].take_field("partitionKey")),
        "set both connections.partitionKey and connections.value",
    ),
    (
        "a host instead of a region",
        |it| it["spec"]["connections"]["region"] = json!("eu-west-1.example.com"),
        "connections.region must be an AWS region such as eu-west-1",
    ),
    (
        "a cache of more than 300 s",
        |it| it["spec"]["connections"]["cacheSeconds"] = json!(301),
        "spec.connections.cacheSeconds in body should be less than or equal to 300",
    ),
    (
        "an empty TTL attribute",
        |it| it["spec"]["connections"]["ttlAttribute"] = json!(""),
        "spec.connections.ttlAttribute in body should be at least 1 chars long",
    ),
    (
        "a negative cache time",
        |it| it["spec"]["connections"]["cacheSeconds"] = json!(-1),
        "spec.connections.cacheSeconds in body should be greater than or equal to 0",
    ),
    (
        "a maximum age of 0 s",
        |it| delivery(it, "maxRecordAgeSeconds", 0),
        "spec.delivery.maxRecordAgeSeconds in body should be greater than or equal to 1",
    ),
    (
        "a maximum age of more than 12 h",
        |it| delivery(it, "maxRecordAgeSeconds", 43_201),
        "spec.delivery.maxRecordAgeSeconds in body should be less than or equal to 43200",
    ),
    (
        "an age with its unit",
        |it| delivery(it, "maxRecordAgeSeconds", "5m"),
        "spec.delivery.maxRecordAgeSeconds: Invalid value: \"string\"",
    ),
    (
        "a maximum of 0 attempts",
        |it| delivery(it, "maxAttempts", 0),
        "spec.delivery.maxAttempts in body should be greater than or equal to 1",
    ),
    (
        "a maximum of more than 1000 attempts",
        |it| delivery(it, "maxAttempts", 1_001),
        "spec.delivery.maxAttempts in body should be less than or equal to 1000",
    ),
    (
        "an unknown policy for slow clients",
        |it| delivery(it, "slowClient", "Block"),
        "Unsupported value: \"Block\": supported values: \"Wait\", \"Drop\", \"Disconnect\"",
    ),
    (
        "an unknown policy for large messages",
        |it| delivery(it, "oversize", "Split"),
        "Unsupported value: \"Split\": supported values: \"Drop\", \"KeysOnly\"",
    ),
    (
        "the URL of a queue",
        |it| {
            delivery(
                it,
                "deadLetterQueueArn",
                "https://sqs.eu-west-1.amazonaws.com/123456789012/lost",
            )
        },
        NO_QUEUE,
    ),
    (
        "a topic instead of a queue",
        |it| delivery(it, "deadLetterQueueArn", "arn:aws:sns:eu-west-1:123456789012:lost"),
        NO_QUEUE,
    ),
    (
        "a queue name with a path",
        |it| delivery(it, "deadLetterQueueArn", "arn:aws:sqs:eu-west-1:123456789012:a/../b"),
        NO_QUEUE,
    ),
    (
        "an unknown delivery field",
        |it| delivery(it, "maxAge", 60),
        "unknown field \"spec.delivery.maxAge\"",
    ),
    (
        "a filter over a thousand characters",
        |it| it["spec"]["filter"] = json!(format!("{}true", "!!".repeat(600))),
        "spec.filter: Too long: may not be more than 1024 bytes",
    ),
    (
        "an empty message",
        |it| it["spec"]["message"] = json!({}),
        "message has no field: add one, or remove message to send the default fields (pk, sk, value)",
    ),
    (
        "an expression over a thousand characters",
        |it| {
            it["spec"]["message"]["value"] =
                json!(format!("{}1{}", "(".repeat(1000), ")".repeat(1000)))
        },
        "spec.message.value: Too long: may not be more than 1024 bytes",
    ),
    (
        "no event",
        |it| it["spec"]["events"] = json!([]),
        "spec.events in body should have at least 1 items",
    ),
    (
        "an unknown event",
        |it| it["spec"]["events"] = json!(["Update"]),
        "Unsupported value: \"Update\": supported values: \"Insert\", \"Modify\", \"Remove\"",
    ),
    (
        "an execute-api domain without a stage",
        |it| drop(it["spec"]["webSocket"].take_field("stage")),
        "webSocket.stage is required with an execute-api domain: copy a StageName from `aws apigatewayv2 get-stages`",
    ),
    ("a domain with a scheme", |it| domain(it, "https://ws.example.com"), NO_DOMAIN),
    ("a domain with a port", |it| domain(it, "ws.example.com:443"), NO_DOMAIN),
    ("a domain with a path", |it| domain(it, "ws.example.com/api"), NO_DOMAIN),
    ("a domain in upper case", |it| domain(it, "WS.example.com"), NO_DOMAIN),
    ("an address instead of a domain", |it| domain(it, "169.254.169.254"), NO_DOMAIN),
    (
        "a stage with a path",
        |it| it["spec"]["webSocket"]["stage"] = json!("../other"),
        "spec.webSocket.stage in body should match",
    ),
    (
        "another region than that in an execute-api domain",
        |it| it["spec"]["webSocket"]["region"] = json!("sa-east-1"),
        "webSocket.region differs from the region in the execute-api domain: remove webSocket.region",
    ),
    (
        "an invalid region",
        |it| it["spec"]["webSocket"]["region"] = json!("Ireland"),
        "spec.webSocket.region in body should match",
    ),
    (
        "an empty filter",
        |it| it["spec"]["filter"] = json!(""),
        "spec.filter in body should be at least 1 chars long",
    ),
    (
        "an unknown field",
        |it| it["spec"]["atribute"] = json!("TargetAttribute"),
        "unknown field \"spec.atribute\"",
    ),
    (
        "a name of 201 characters",
        |it| it["metadata"]["name"] = json!("a".repeat(201)),
        "metadata.name must have at most 200 characters because the operator appends -checkpoint to it",
    ),
];

const NO_DOMAIN: &str = "webSocket.domain must be a lower-case domain name without scheme, port or path, such as abcdefghij.execute-api.eu-west-1.amazonaws.com";

const NO_QUEUE: &str =
    "deadLetterQueueArn must be the ARN of an SQS queue, arn:aws:sqs:<region>:<account>:<queue>";

const NO_TIME: &str = "spec.startingTimestamp in body must be of type date-time";

fn table(manifest: &mut Value, arn: &str) {
    manifest["spec"].take_field("streamArn");
    manifest["spec"]["tableArn"] = json!(arn);
}

fn since(manifest: &mut Value, time: &str) {
    manifest["spec"]["startingPosition"] = json!("AtTimestamp");
    manifest["spec"]["startingTimestamp"] = json!(time);
}

fn delivery(manifest: &mut Value, field: &str, value: impl Into<Value>) {
    manifest["spec"]["delivery"][field] = value.into();
}

fn domain(manifest: &mut Value, domain: &str) {
    manifest["spec"]["webSocket"]["domain"] = json!(domain);
}

trait TakeField {
    fn take_field(&mut self, name: &str) -> Option<Value>;
}

impl TakeField for Value {
    fn take_field(&mut self, name: &str) -> Option<Value> {
        self.as_object_mut()?.remove(name)
    }
}

#[tokio::test]
async fn rejects_invalid_manifests_with_a_helpful_message() -> Result<()> {
    let namespace = cluster().await?.namespace().await?;
    for (case, edit, expected) in CASES {
        let mut invalid = good();
        edit(&mut invalid);
        ensure!(invalid != good(), "{case}: the edit must change the manifest");
        let message = namespace.apply_rejected(&invalid.to_string()).await?;
        ensure!(message.contains(expected), "{case}: kubectl printed {message:?}");
    }
    let mut longest = good();
    longest["metadata"]["name"] = json!("a".repeat(200));
    let mut custom = good();
    custom["metadata"]["name"] = json!("custom");
    domain(&mut custom, "ws.example.com");
    custom["spec"]["webSocket"].take_field("stage");
    for accepted in [good(), longest, custom] {
        namespace.apply(&accepted.to_string()).await?;
    }
    namespace.passed();
    Ok(())
}

#[tokio::test]
async fn accepts_every_example() -> Result<()> {
    let namespace = cluster().await?.namespace().await?;
    let mut examples = 0;
    for file in std::fs::read_dir(repository_root()?.join("examples"))? {
        let path = file?.path();
        let mut manifest: Value = serde_saphyr::from_str(&std::fs::read_to_string(&path)?)?;
        manifest["metadata"]["namespace"] = json!(namespace.name());
        let applied = namespace.apply(&manifest.to_string()).await;
        applied.with_context(|| path.display().to_string())?;
        examples += 1;
    }
    ensure!(examples >= 6, "{examples} examples");
    namespace.passed();
    Ok(())
}

/// Times as written, and as the operator parses them. The operator must parse each time that the API
/// server accepts, because the notifier would otherwise be stored and never work.
const VALID_TIMES: &[(&str, &str)] = &[
    ("2026-11-22T12:00:00Z", "2026-11-22T12:00:00Z"),
    ("2026-11-22T12:00:00.123456789Z", "2026-11-22T12:00:00.123456789Z"),
    ("2026-11-22T12:00:00,5Z", "2026-11-22T12:00:00.5Z"),
    ("2026-11-22T14:30:00+02:30", "2026-11-22T12:00:00Z"),
    ("2026-11-22T12:00:00-00:00", "2026-11-22T12:00:00Z"),
    ("2026-11-23T12:00:00+24:00", "2026-11-22T12:00:00Z"),
    ("2012-01-01T00:00:00Z", "2012-01-01T00:00:00Z"),
    ("2199-12-31T23:59:59Z", "2199-12-31T23:59:59Z"),
];

/// Times outside the supported range, and texts that only the API server accepts as a time.
const REJECTED_TIMES: &[&str] = &[
    "0000-01-01T00:00:00Z",
    "2011-12-31T23:59:59Z",
    "2206-11-22T12:00:00Z",
    "9999-12-31T00:00:00Z",
    "2026-11-22T12:00:00+99:99",
    "2026-11-22T12:00:00x5Z",
];

#[tokio::test]
async fn accepts_valid_fields_and_stores_the_defaults() -> Result<()> {
    let namespace = cluster().await?.namespace().await?;
    for (n, (written, parsed)) in VALID_TIMES.iter().enumerate() {
        let name = format!("since-{n}");
        let mut manifest = good();
        manifest["metadata"]["name"] = json!(name);
        table(&mut manifest, TABLE);
        since(&mut manifest, written);
        manifest["spec"]["onGap"] = json!("Stop");
        manifest["spec"]["pollIntervalMilliseconds"] = json!(30_000);
        namespace.apply(&manifest.to_string()).await?;
        let stored: StreamNotifier =
            serde_json::from_value(namespace.get(&["streamnotifier", &name]).await?)?;
        let since = stored.spec.starting_timestamp.context("no time")?;
        ensure!(since.to_string() == *parsed, "{written} became {since}");
        ensure!(stored.spec.table_arn.as_deref() == Some(TABLE), "{stored:?}");
    }
    for written in REJECTED_TIMES {
        let mut manifest = good();
        manifest["metadata"]["name"] = json!("never");
        since(&mut manifest, written);
        let rejected = namespace.apply(&manifest.to_string()).await;
        ensure!(rejected.is_err(), "{written} was accepted");
        ensure!(format!("{:#}", rejected.unwrap_err()).contains("startingTimestamp"), "{written}");
    }
    // The API server stores the defaults, so that a user sees them.
    namespace.apply(&good().to_string()).await?;
    let stored = namespace.get(&["streamnotifier", "good"]).await?;
    let defaults = ["startingPosition", "onGap", "pollIntervalMilliseconds", "suspend"];
    let defaults = defaults.map(|field| &stored["spec"][field]);
    ensure!(defaults == [&json!("Latest"), &json!("Continue"), &json!(250), &json!(false)]);
    namespace.passed();
    Ok(())
}
