//! What the API server refuses.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::fixture::{cluster, manifest};

const STREAM: &str =
    "arn:aws:dynamodb:eu-west-1:123456789012:table/orders/stream/2024-12-03T08:06:15.779";
const DOMAIN: &str = "abcdefghij.execute-api.eu-west-1.amazonaws.com";

fn good() -> Value {
    manifest("good", STREAM, DOMAIN, "api")
}

/// What is wrong, how a manifest comes to be so, and what the API server says then.
type Case = (&'static str, fn(&mut Value), &'static str);

const CASES: &[Case] = &[
    ("no stream", |it| drop(it["spec"].take_field("streamArn")), "spec.streamArn: Required value"),
    (
        "a table instead of a stream",
        |it| {
            it["spec"]["streamArn"] = json!("arn:aws:dynamodb:eu-west-1:123456789012:table/orders")
        },
        "streamArn must be the ARN of a stream, arn:aws:dynamodb:<region>:<account>:table/<table>/stream/<label>; a table shows it as LatestStreamArn",
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
        "an empty message",
        |it| it["spec"]["message"] = json!({}),
        "message has no field: give it one at least, or leave it out for the default (pk, sk, value)",
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
        "no kind of change",
        |it| it["spec"]["events"] = json!([]),
        "spec.events in body should have at least 1 items",
    ),
    (
        "a kind of change that there is not",
        |it| it["spec"]["events"] = json!(["Update"]),
        "Unsupported value: \"Update\": supported values: \"Insert\", \"Modify\", \"Remove\"",
    ),
    (
        "an execute-api domain without a stage",
        |it| drop(it["spec"]["webSocket"].take_field("stage")),
        "webSocket.stage is needed with an execute-api domain; `aws apigatewayv2 get-stages` shows it",
    ),
    ("a domain with a scheme", |it| domain(it, "https://ws.example.com"), NO_DOMAIN),
    ("a domain with a port", |it| domain(it, "ws.example.com:443"), NO_DOMAIN),
    ("a domain with a path", |it| domain(it, "ws.example.com/api"), NO_DOMAIN),
    ("a domain in upper case", |it| domain(it, "WS.example.com"), NO_DOMAIN),
    ("an address instead of a domain", |it| domain(it, "169.254.169.254"), NO_DOMAIN),
    (
        "a stage that leads elsewhere",
        |it| it["spec"]["webSocket"]["stage"] = json!("../other"),
        "spec.webSocket.stage in body should match",
    ),
    (
        "a field that there is not",
        |it| it["spec"]["atribute"] = json!("TargetAttribute"),
        "unknown field \"spec.atribute\"",
    ),
    (
        "a name of 201 characters",
        |it| it["metadata"]["name"] = json!("a".repeat(201)),
        "metadata.name must have at most 200 characters, so that the checkpoint's name fits",
    ),
];

const NO_DOMAIN: &str = "webSocket.domain must be a lower-case domain name without scheme, port or path, such as abcdefghij.execute-api.eu-west-1.amazonaws.com";

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
async fn what_cannot_be_right_is_refused_with_a_sentence() -> Result<()> {
    let namespace = cluster().await?.namespace().await?;
    for (what, spoil, sentence) in CASES {
        let mut bad = good();
        spoil(&mut bad);
        ensure!(bad != good(), "{what}: nothing is wrong with it");
        let said = namespace.refused(&bad.to_string()).await?;
        ensure!(said.contains(sentence), "{what}: kubectl says {said:?}");
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
