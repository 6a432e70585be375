//! PostToConnection: `ApiGateway::post` and the SDK's client.

use anyhow::Result;
use aws_sdk_apigatewaymanagement::Client;
use aws_sdk_apigatewaymanagement::config::retry::RetryConfig;
use aws_sdk_apigatewaymanagement::config::{BehaviorVersion, Config, Credentials, Region};
use aws_sdk_apigatewaymanagement::error::SdkError;
use aws_sdk_apigatewaymanagement::operation::post_to_connection::PostToConnectionError;
use aws_sdk_apigatewaymanagement::primitives::Blob;
use bytes::Bytes;
use stream_notifier::aws::ApiGateway;
use stream_notifier::delivery::{Gateway as _, PostResponse};
use stream_notifier_tests::recorder::{FixedResponse, RecordedRequest, Recorder};

use super::requests::assert_same;
use super::{SESSION_TOKEN, all_credentials, credentials, operator_config};

pub const REGION: &str = "ap-northeast-1";
pub const ID: &str = "L0SM9cOFvHcCIhw=";

/// A header that names the error type.
const TYPE: &str = "x-amzn-errortype";

/// The raw path and the SDK's client, for the same endpoint.
struct Clients {
    raw: ApiGateway,
    sdk: Client,
}

impl Clients {
    async fn new(endpoint: &str, region: &str, credentials: &Credentials) -> Self {
        // Nothing listens there: a post must go to the endpoint of the API.
        let aws = operator_config("http://127.0.0.1:9", credentials).await;
        let config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(region.to_owned()))
            .endpoint_url(endpoint)
            .credentials_provider(credentials.clone())
            .retry_config(RetryConfig::disabled())
            .build();
        Self { raw: ApiGateway::new(&aws, region, endpoint), sdk: Client::from_conf(config) }
    }

    /// The requests of the raw path and of the SDK's client.
    async fn requests(
        &self,
        recorder: &Recorder,
        id: &str,
        message: &[u8],
    ) -> Result<[RecordedRequest; 2]> {
        let response = self.raw.post(id, &Bytes::copy_from_slice(message)).await;
        assert_eq!(response, status(200), "{id}");
        let raw = recorder.take_request()?;
        self.sdk.post_to_connection().connection_id(id).data(Blob::new(message)).send().await?;
        Ok([raw, recorder.take_request()?])
    }
}

pub fn status(status: u16) -> PostResponse {
    PostResponse::Status { status, mentions_connection_id: false }
}

fn status_naming_connection(status: u16) -> PostResponse {
    PostResponse::Status { status, mentions_connection_id: true }
}

pub async fn recorder() -> Result<Recorder> {
    Recorder::start(FixedResponse::new(200, &[], "")).await
}

#[tokio::test]
async fn sends_the_request_that_the_sdk_sends() -> Result<()> {
    let recorder = recorder().await?;
    let long = "a".repeat(128 * 1024);
    for credentials in &all_credentials() {
        for (stage, region) in [("/api", REGION), ("", "eu-west-1"), ("/a/b", REGION)] {
            let endpoint = format!("{}{stage}", recorder.origin);
            let clients = Clients::new(&endpoint, region, credentials).await;
            for message in [br#"{"value":"90"}"#, long.as_bytes(), "語\r\n".as_bytes(), b"\0\xff"]
            {
                let [raw, sdk] = clients.requests(&recorder, ID, message).await?;
                assert_eq!(raw.target, format!("{stage}/@connections/L0SM9cOFvHcCIhw%3D"));
                assert_same(&raw, &sdk)?;
                assert_eq!(raw.body, sdk.body);
                assert_eq!(raw.header("content-type"), Some("application/octet-stream"));
                assert_eq!(raw.header("x-amz-content-sha256"), None);
                let token = credentials.session_token();
                assert_eq!(raw.header("x-amz-security-token"), token);
            }
        }
    }
    assert_eq!(all_credentials()[1].session_token(), Some(SESSION_TOKEN));
    Ok(())
}

#[tokio::test]
async fn encodes_every_connection_id_as_the_sdk_does() -> Result<()> {
    let recorder = recorder().await?;
    let clients = Clients::new(&format!("{}/api", recorder.origin), REGION, &credentials()).await;
    let ascii = (1..=127u8).map(|byte| format!("a{}=", char::from(byte)));
    let others = ["ü語😀", "a%3D", "a//b", "?a=b&c#d", "a/../b="].map(str::to_owned);
    for id in ascii.chain(others) {
        let [raw, sdk] = clients.requests(&recorder, &id, b"{}").await?;
        assert_same(&raw, &sdk)?;
    }
    Ok(())
}

/// Covers endpoints that end in a slash or hold an encoded character.
#[tokio::test]
async fn joins_endpoint_and_path_as_the_sdk_does() -> Result<()> {
    let recorder = recorder().await?;
    for stage in ["/", "/api/", "/a%20b"] {
        let endpoint = format!("{}{stage}", recorder.origin);
        let clients = Clients::new(&endpoint, REGION, &credentials()).await;
        let [raw, sdk] = clients.requests(&recorder, ID, b"{}").await?;
        assert_same(&raw, &sdk)?;
    }
    Ok(())
}

/// Responses with the classification that every client must return.
pub fn responses() -> Vec<(&'static str, FixedResponse, PostResponse)> {
    let ok = FixedResponse::new;
    let naming = r#"{"message":"Invalid connectionId: a=","connectionId":"a="}"#;
    let long_gone =
        "com.amazonaws.apigatewaymanagementapi#GoneException:http://internal.amazon.com/";
    let by_type = r#"{"__type":"GoneException","message":null}"#;
    let by_namespace = r#"{"__type":"a.b#GoneException"}"#;
    let by_code = r#"{"code":"GoneException"}"#;
    let bad = "BadRequestException";
    vec![
        ("success", ok(200, &[], ""), status(200)),
        ("success with a body", ok(200, &[], "{}"), status(200)),
        ("400 that names the id", ok(400, &[(TYPE, bad)], naming), status_naming_connection(400)),
        (
            "400 without a type that names the id",
            ok(400, &[], naming),
            status_naming_connection(400),
        ),
        ("400, malformed, names the id", ok(400, &[], &naming[1..]), status_naming_connection(400)),
        ("400 that names nothing", ok(400, &[(TYPE, bad)], r#"{"message":"no"}"#), status(400)),
        ("400 without a body", ok(400, &[], ""), status(400)),
        ("401", ok(401, &[], r#"{"message":"Unauthorized"}"#), status(401)),
        ("Forbidden", ok(403, &[(TYPE, "ForbiddenException")], r#"{"message":"no"}"#), status(403)),
        ("Forbidden without a type", ok(403, &[], r#"{"message":"Forbidden"}"#), status(403)),
        ("Forbidden, not JSON", ok(403, &[], "Forbidden"), status(403)),
        ("AccessDenied", ok(403, &[(TYPE, "AccessDeniedException")], "{}"), status(403)),
        ("UnrecognizedClient", ok(403, &[(TYPE, "UnrecognizedClientException")], ""), status(403)),
        ("ExpiredToken", ok(403, &[(TYPE, "ExpiredTokenException")], ""), status(403)),
        ("InvalidSignature", ok(403, &[(TYPE, "InvalidSignatureException")], ""), status(403)),
        ("404", ok(404, &[], "<html>"), status(404)),
        ("408", ok(408, &[], ""), status(408)),
        ("Gone", ok(410, &[(TYPE, "GoneException")], "{}"), status(410)),
        ("Gone, long form", ok(410, &[(TYPE, long_gone)], ""), status(410)),
        ("Gone by the body's __type", ok(410, &[], by_type), status(410)),
        ("Gone by the body's namespaced __type", ok(410, &[], by_namespace), status(410)),
        ("Gone by the body's code", ok(410, &[], by_code), status(410)),
        ("410 without type and body", ok(410, &[], ""), status(410)),
        ("410, not JSON", ok(410, &[], "<html>Gone"), status(410)),
        ("Gone with a malformed body", ok(410, &[(TYPE, "GoneException")], "{"), status(410)),
        ("PayloadTooLarge", ok(413, &[(TYPE, "PayloadTooLargeException")], "{}"), status(413)),
        ("413 without type and body", ok(413, &[], ""), status(413)),
        ("LimitExceeded", ok(429, &[(TYPE, "LimitExceededException")], "{}"), status(429)),
        ("Throttling", ok(429, &[(TYPE, "ThrottlingException")], "{}"), status(429)),
        ("429 without type and body", ok(429, &[], ""), status(429)),
        ("InternalServerError", ok(500, &[(TYPE, "InternalServerError")], "{}"), status(500)),
        ("502", ok(502, &[], r#"{"message": "Internal server error"}"#), status(502)),
        ("503", ok(503, &[], "<html>"), status(503)),
        ("504", ok(504, &[], ""), status(504)),
        ("redirect", ok(302, &[("location", "http://127.0.0.1:9/")], ""), status(302)),
        ("success, cut off", FixedResponse::cut_off(200, &[], "{"), status(200)),
        ("410, cut off", FixedResponse::cut_off(410, &[], "{"), status(410)),
        ("503, cut off", FixedResponse::cut_off(503, &[], ""), status(503)),
        ("closed without a response", FixedResponse::raw(""), PostResponse::NoResponse),
        (
            "closed in the head",
            FixedResponse::raw("HTTP/1.1 410 Gone\r\ncont"),
            PostResponse::NoResponse,
        ),
        ("not HTTP", FixedResponse::raw("garbage\r\n\r\n"), PostResponse::NoResponse),
    ]
}

#[tokio::test]
async fn classifies_every_response_as_the_sdk_does() -> Result<()> {
    let recorder = recorder().await?;
    let endpoint = format!("{}/api", recorder.origin);
    for (name, response, expected) in responses() {
        recorder.set_response(response);
        // A new pool of connections for each response.
        let clients = Clients::new(&endpoint, REGION, &credentials()).await;
        assert_eq!(clients.raw.post(ID, &Bytes::from_static(b"{}")).await, expected, "{name}");
        assert_eq!(recorder.take_requests().len(), 1, "{name}: no retries");
        let post = clients.sdk.post_to_connection().connection_id(ID).data(Blob::new("{}"));
        match post.send().await {
            Ok(_) => assert_eq!(expected, status(200), "{name}"),
            Err(error) => assert_eq!(classify(&error), expected, "{name}: {error:?}"),
        }
        assert_eq!(recorder.take_requests().len(), 1, "{name}: no retries of the SDK");
    }
    Ok(())
}

/// Classifies an error of PostToConnection by its type, and only without one by its status.
fn classify(error: &SdkError<PostToConnectionError>) -> PostResponse {
    let Some(response) = error.raw_response() else {
        return PostResponse::NoResponse;
    };
    let body = response.body().bytes().unwrap_or_default();
    let mentions_connection_id = String::from_utf8_lossy(body).contains("connectionId");
    let status = match error.as_service_error() {
        Some(PostToConnectionError::GoneException(_)) => 410,
        Some(PostToConnectionError::ForbiddenException(_)) => 403,
        Some(PostToConnectionError::LimitExceededException(_)) => 429,
        Some(PostToConnectionError::PayloadTooLargeException(_)) => 413,
        _ => response.status().as_u16(),
    };
    PostResponse::Status { status, mentions_connection_id }
}

/// Lists each intended difference with its reason.
#[tokio::test]
async fn differs_from_the_sdk_only_as_listed() -> Result<()> {
    let recorder = recorder().await?;
    let endpoint = format!("{}/api", recorder.origin);
    let names_it = r#"{"connectionId":"a="}"#;
    let far_behind = format!("{}{names_it}", " ".repeat(64 * 1024));
    for (reason, response, raw_expected, sdk_expected) in [
        (
            // Types and bodies are missing or wrong more often than the status.
            "the raw path classifies by status alone, the SDK by type first",
            FixedResponse::new(400, &[(TYPE, "GoneException")], "{}"),
            status(400),
            status(410),
        ),
        (
            "the SDK drops a body that breaks off, the raw path reads what arrived",
            FixedResponse::cut_off(400, &[], names_it),
            status_naming_connection(400),
            status(400),
        ),
        (
            "the raw path reads at most 16 KiB of a body, the SDK all of it",
            FixedResponse::new(400, &[], &far_behind),
            status(400),
            status_naming_connection(400),
        ),
    ] {
        recorder.set_response(response);
        let clients = Clients::new(&endpoint, REGION, &credentials()).await;
        let raw = clients.raw.post(ID, &Bytes::from_static(b"{}")).await;
        assert_eq!(raw, raw_expected, "{reason}");
        let post = clients.sdk.post_to_connection().connection_id(ID).data(Blob::new("{}"));
        assert_eq!(classify(&post.send().await.unwrap_err()), sdk_expected, "{reason}");
        // DeleteConnection uses the SDK's errors.
        assert_eq!(clients.raw.disconnect(ID).await, sdk_expected, "{reason}");
    }

    // The SDK sends no request for an empty id. The raw path does, and gets 403 or 404 for it.
    recorder.set_response(FixedResponse::new(404, &[], ""));
    recorder.take_requests();
    let clients = Clients::new(&endpoint, REGION, &credentials()).await;
    assert_eq!(clients.raw.post("", &Bytes::from_static(b"{}")).await, status(404));
    assert_eq!(recorder.take_request()?.target, "/api/@connections/");
    let post = clients.sdk.post_to_connection().connection_id("").data(Blob::new("{}"));
    assert!(matches!(post.send().await, Err(SdkError::ConstructionFailure(_))));
    assert_eq!(recorder.take_requests().len(), 0);
    Ok(())
}
