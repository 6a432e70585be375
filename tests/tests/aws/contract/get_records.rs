//! GetRecords: `DynamoDbStreams::get_records` and the SDK's client. `../get_records.rs` compares how both
//! parse a page.

use anyhow::{Context as _, Result};
use aws_sdk_dynamodbstreams::Client;
use aws_sdk_dynamodbstreams::config::retry::RetryConfig;
use aws_sdk_dynamodbstreams::config::{BehaviorVersion, Config, Credentials, Region};
use aws_sdk_dynamodbstreams::error::{ProvideErrorMetadata as _, SdkError};
use aws_sdk_dynamodbstreams::operation::get_records::GetRecordsError;
use serde_json::{Value, json};
use stream_notifier::aws::DynamoDbStreams;
use stream_notifier::model::StreamLabel;
use stream_notifier::streams::{
    ShardFilter, ShardIterator, StreamError, StreamErrorKind as Kind, Streams as _,
};
use stream_notifier_tests::recorder::{FixedResponse, Recorder};

use super::requests::assert_same;
use super::{all_credentials, credentials, operator_config};

const TABLE: &str = "arn:aws:dynamodb:eu-west-1:123456789012:table/t";

/// A header that names the error type.
const TYPE: &str = "x-amzn-errortype";

/// The raw path and the SDK's client, for the same endpoint.
struct Clients {
    operator: DynamoDbStreams,
    sdk: Client,
}

impl Clients {
    async fn new(endpoint: &str, region: &str, credentials: &Credentials) -> Self {
        let aws = operator_config(endpoint, credentials).await;
        let config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(region.to_owned()))
            .endpoint_url(endpoint)
            .credentials_provider(credentials.clone())
            .retry_config(RetryConfig::disabled())
            .build();
        let operator = DynamoDbStreams::new(&aws, region, TABLE);
        Self { operator, sdk: Client::from_conf(config) }
    }

    /// The error of the raw path.
    async fn raw_error(&self) -> StreamError {
        let iterator = ShardIterator("i".to_owned());
        self.operator.get_records(&iterator).await.expect_err("an error of the raw path")
    }

    /// The error of the SDK's client.
    async fn sdk_error(&self) -> SdkError<GetRecordsError> {
        let request = self.sdk.get_records().shard_iterator("i");
        request.send().await.expect_err("an error of the SDK's client")
    }

    /// The error of an operation that the operator sends with the SDK's client.
    async fn describe_error(&self) -> StreamError {
        let label = StreamLabel::new("2024-12-03T08:06:15.779");
        let described = self.operator.describe(&label, ShardFilter::All, None).await;
        described.expect_err("an error of DescribeStream")
    }
}

#[tokio::test]
async fn sends_the_request_that_the_sdk_sends() -> Result<()> {
    let recorder = Recorder::start(FixedResponse::new(200, &[], r#"{"Records":[]}"#)).await?;
    let long = "A".repeat(2048);
    for credentials in &all_credentials() {
        for region in ["eu-west-1", "us-gov-west-1"] {
            for path in ["", "/", "/streams", "/streams/"] {
                let endpoint = format!("{}{path}", recorder.origin);
                let clients = Clients::new(&endpoint, region, credentials).await;
                for iterator in ["arn:aws:dynamodb|1|AAA+/=", &long, "\"\\\n\u{7}ü語😀/"] {
                    let shard_iterator = ShardIterator(iterator.to_owned());
                    clients.operator.get_records(&shard_iterator).await?;
                    let raw = recorder.take_request()?;
                    clients.sdk.get_records().shard_iterator(iterator).send().await?;
                    let sdk = recorder.take_request()?;

                    let [raw_body, sdk_body]: [Value; 2] =
                        [serde_json::from_slice(&raw.body)?, serde_json::from_slice(&sdk.body)?];
                    assert_eq!(raw_body, sdk_body);
                    assert_eq!(raw_body, json!({ "ShardIterator": iterator }));
                    assert_same(&raw, &sdk)?;

                    let target = raw.header("x-amz-target");
                    assert_eq!(target, Some("DynamoDBStreams_20120810.GetRecords"));
                    assert_eq!(raw.header("content-type"), Some("application/x-amz-json-1.0"));
                    assert_eq!(raw.header("x-amz-content-sha256"), None);
                    let token = credentials.session_token();
                    assert_eq!(raw.header("x-amz-security-token"), token);
                }
            }
        }
    }
    Ok(())
}

/// An error code with its class, and whether the SDK's client has a type for it.
const CODES: [(&str, Kind, bool); 22] = [
    ("ExpiredIteratorException", Kind::ExpiredIterator, true),
    ("TrimmedDataAccessException", Kind::Trimmed, true),
    ("ResourceNotFoundException", Kind::NotFound, true),
    ("LimitExceededException", Kind::Throttled, true),
    ("InternalServerError", Kind::Unavailable, true),
    ("ProvisionedThroughputExceededException", Kind::Throttled, false),
    ("ThrottlingException", Kind::Throttled, false),
    ("RequestLimitExceeded", Kind::Throttled, false),
    ("AccessDeniedException", Kind::AccessDenied, false),
    ("UnrecognizedClientException", Kind::AccessDenied, false),
    ("InvalidSignatureException", Kind::AccessDenied, false),
    ("IncompleteSignature", Kind::AccessDenied, false),
    ("MissingAuthenticationTokenException", Kind::AccessDenied, false),
    ("ExpiredTokenException", Kind::AccessDenied, false),
    ("NotAuthorized", Kind::AccessDenied, false),
    ("OptInRequired", Kind::AccessDenied, false),
    ("ValidationException", Kind::Invalid, false),
    ("SerializationException", Kind::Invalid, false),
    ("ServiceUnavailable", Kind::Unavailable, false),
    ("InternalFailure", Kind::Unavailable, false),
    ("SomethingNew", Kind::Unavailable, false),
    ("", Kind::Unavailable, false),
];

/// Responses that name this code, in every form that AWS uses.
fn forms(code: &str, status: u16) -> Vec<FixedResponse> {
    let id = ("x-amzn-requestid", "7");
    let namespace = format!("com.amazonaws.dynamodb.v20120810#{code}");
    let long = format!("com.amazonaws.dynamodb#{code}:http://internal.amazon.com/");
    let mut forms = Vec::new();
    for code in [code, &namespace, &long] {
        for body in [
            json!({"__type": code, "message": "because"}),
            json!({"code": code, "Message": "because"}),
            json!({"code": code, "__type": "Other", "errorMessage": "because"}),
            json!({"__type": code, "message": null, "more": {"message": ["no"]}}),
        ] {
            forms.push(FixedResponse::new(status, &[id], &body.to_string()));
        }
        for body in ["", "{}", r#"{"__type":"Other","message":"because"}"#] {
            forms.push(FixedResponse::new(status, &[id, (TYPE, code)], body));
        }
    }
    forms
}

#[tokio::test]
async fn classifies_every_error_code_as_the_sdk_does() -> Result<()> {
    let recorder = Recorder::start(FixedResponse::raw("")).await?;
    let clients = Clients::new(&recorder.origin, "eu-west-1", &credentials()).await;
    for (code, expected, is_modelled) in CODES {
        let other_statuses = [403, 413, 429, 500].map(|status| forms(code, status).remove(0));
        for response in forms(code, 400).into_iter().chain(other_statuses) {
            recorder.set_response(response.clone());
            let raw = clients.raw_error().await;
            let sdk = clients.sdk_error().await;
            assert_eq!(raw.kind, expected, "{response:?}");
            assert_eq!(classify(&sdk), expected, "{response:?}: {sdk:?}");
            assert_eq!(is_typed(&sdk), is_modelled, "{response:?}: {sdk:?}");
            assert_eq!(recorder.take_requests().len(), 2, "no retries");

            // Code, message and request id.
            let text = raw.source.context("no source")?.to_string();
            assert_eq!(text, sdk.meta().to_string(), "{response:?}");

            // The operations that the operator sends with the SDK's client.
            assert_eq!(clients.describe_error().await.kind, expected, "{response:?}");
            recorder.take_requests();
        }
    }
    Ok(())
}

#[tokio::test]
async fn classifies_responses_without_a_usable_code_as_the_sdk_does() -> Result<()> {
    let recorder = Recorder::start(FixedResponse::raw("")).await?;
    let mut responses = vec![
        FixedResponse::raw(""),
        FixedResponse::raw("HTTP/1.1 200 OK\r\ncont"),
        FixedResponse::raw("garbage\r\n\r\n"),
        FixedResponse::cut_off(200, &[], r#"{"Records":[]"#),
        FixedResponse::cut_off(200, &[], r#"{"Records":[]}"#),
        FixedResponse::cut_off(400, &[], r#"{"__type":"ExpiredIteratorExce"#),
        FixedResponse::new(200, &[], r#"{"Records":[]"#),
        FixedResponse::new(200, &[], "<html>"),
        FixedResponse::new(302, &[("location", "http://127.0.0.1:9/")], ""),
    ];
    let bodies =
        ["", "{}", "<html>", "{", r#"{"__type":7}"#, r#"{"__type":"A"} {}"#, "null", "\u{0}"];
    for status in [400, 403, 404, 410, 413, 429, 500, 502, 503, 504] {
        responses.extend(bodies.map(|body| FixedResponse::new(status, &[], body)));
    }
    for response in responses {
        recorder.set_response(response.clone());
        let clients = Clients::new(&recorder.origin, "eu-west-1", &credentials()).await;
        assert_eq!(clients.raw_error().await.kind, Kind::Unavailable, "{response:?}");
        let sdk = clients.sdk_error().await;
        assert_eq!(classify(&sdk), Kind::Unavailable, "{response:?}: {sdk:?}");
        assert_eq!(clients.describe_error().await.kind, Kind::Unavailable, "{response:?}");
        assert_eq!(recorder.take_requests().len(), 3, "{response:?}: no retries");
    }
    Ok(())
}

/// Lists each intended difference. The raw path uses an error code although the rest of the response is
/// malformed, because an expired iterator or a missing permission needs its own action.
#[tokio::test]
async fn differs_from_the_sdk_only_as_listed() -> Result<()> {
    let recorder = Recorder::start(FixedResponse::raw("")).await?;
    let header = [(TYPE, "ExpiredIteratorException")];
    let not_text = r#"{"__type":"ExpiredIteratorException","message":7}"#;
    for (reason, response) in [
        (
            "the SDK rejects a header with a malformed body",
            FixedResponse::new(400, &header, "<html>"),
        ),
        (
            "the SDK rejects a modelled error whose body is not an object",
            FixedResponse::new(400, &header, "[]"),
        ),
        (
            "the SDK drops a response whose body breaks off",
            FixedResponse::cut_off(400, &header, "{"),
        ),
        (
            "the SDK rejects a modelled error whose message is not text",
            FixedResponse::new(400, &[], not_text),
        ),
        (
            "the SDK takes a namespace to end at the first #, the raw path at the last",
            FixedResponse::new(400, &[(TYPE, "a#b#ExpiredIteratorException")], ""),
        ),
    ] {
        recorder.set_response(response);
        let clients = Clients::new(&recorder.origin, "eu-west-1", &credentials()).await;
        assert_eq!(clients.raw_error().await.kind, Kind::ExpiredIterator, "{reason}");
        assert_eq!(classify(&clients.sdk_error().await), Kind::Unavailable, "{reason}");
    }
    Ok(())
}

/// Classifies an error of the SDK's client by its type, else by its code.
fn classify(error: &SdkError<GetRecordsError>) -> Kind {
    match error.as_service_error() {
        Some(GetRecordsError::ExpiredIteratorException(_)) => Kind::ExpiredIterator,
        Some(GetRecordsError::TrimmedDataAccessException(_)) => Kind::Trimmed,
        Some(GetRecordsError::ResourceNotFoundException(_)) => Kind::NotFound,
        Some(GetRecordsError::LimitExceededException(_)) => Kind::Throttled,
        Some(GetRecordsError::InternalServerError(_)) | None => Kind::Unavailable,
        Some(other) => {
            let of_code = CODES.iter().find(|(code, ..)| Some(*code) == other.code());
            of_code.map_or(Kind::Unavailable, |(_, kind, _)| *kind)
        }
    }
}

/// Whether the SDK's client has a type for this error.
fn is_typed(error: &SdkError<GetRecordsError>) -> bool {
    matches!(
        error.as_service_error(),
        Some(
            GetRecordsError::ExpiredIteratorException(_)
                | GetRecordsError::TrimmedDataAccessException(_)
                | GetRecordsError::ResourceNotFoundException(_)
                | GetRecordsError::LimitExceededException(_)
                | GetRecordsError::InternalServerError(_)
        )
    )
}
