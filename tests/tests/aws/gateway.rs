//! The API Gateway client: where it posts, how it signs, and how it classifies responses.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use stream_notifier::api::{StreamNotifierSpec, WebSocket};
use stream_notifier::aws::{ApiGateway, AwsConfig};
use stream_notifier::delivery::{Gateway, PostResponse};
use stream_notifier::worker::{Backends, Endpoints, Validated, validate};
use stream_notifier_tests::fakes::{MemoryStore, spec};
use stream_notifier_tests::recorder::{FixedResponse, RecordedRequest, Recorder};
use stream_notifier_tests::sigv4::{Authorization, signature};
use tokio::net::TcpListener;
use tokio::time::timeout;

const ID: &str = "L0SM9cOFvHcCIhw=";

fn status(status: u16) -> PostResponse {
    PostResponse::Status { status, mentions_connection_id: false }
}

async fn gateway(origin: &str) -> ApiGateway {
    // Nothing listens there: a post must go to the endpoint of the API.
    let aws = AwsConfig::local("http://127.0.0.1:9").await;
    ApiGateway::new(&aws, "ap-northeast-1", &format!("{origin}/api"))
}

async fn post(gateway: &impl Gateway) -> PostResponse {
    gateway.post(ID, &Bytes::from_static(br#"{"value":"90"}"#)).await
}

/// Posts to an endpoint with this response, on a new connection.
async fn post_to(response: FixedResponse) -> Result<PostResponse> {
    let recorder = Recorder::start(response).await?;
    Ok(post(&gateway(&recorder.origin).await).await)
}

/// The request of a worker with this `webSocket`, whose table is in eu-west-1.
async fn request_of_worker(web_socket: WebSocket) -> Result<RecordedRequest> {
    let recorder = Recorder::start(FixedResponse::new(200, &[], "")).await?;
    let allowed = vec!["ws.example.com".to_owned()];
    let origin = format!("https://{}", web_socket.domain);
    let spec = StreamNotifierSpec { web_socket, ..spec() };
    let validated = validate(&spec, &Endpoints { allowed, template: None })?;
    let Validated::Active(mut spec) = validated else { panic!("the spec must not be suspended") };
    // The same path on the recorder.
    spec.delivery.endpoint = spec.delivery.endpoint.replace(&origin, &recorder.origin);
    let aws = AwsConfig::local("http://127.0.0.1:9").await;
    let backends = Backends::new(&spec, &aws, Arc::new(MemoryStore::default()));
    let message = Bytes::from_static(br#"{"value":"90"}"#);
    assert_eq!(backends.gateway.post(ID, &message).await, status(200));
    recorder.take_request()
}

#[tokio::test]
async fn posts_to_the_path_and_signs_for_the_region_of_the_spec() -> Result<()> {
    let execute_api = "abcdefghij.execute-api.ap-northeast-1.amazonaws.com";
    for (domain, stage, region, path, signing_region) in [
        (execute_api, Some("api"), None, "/api/@connections/", "ap-northeast-1"),
        (execute_api, Some("api"), Some("ap-northeast-1"), "/api/@connections/", "ap-northeast-1"),
        ("ws.example.com", Some("chat"), None, "/chat/@connections/", "eu-west-1"),
        ("ws.example.com", Some("chat"), Some("eu-west-2"), "/chat/@connections/", "eu-west-2"),
        ("ws.example.com", None, Some("us-east-1"), "/@connections/", "us-east-1"),
    ] {
        let [stage, region] = [stage, region].map(|text| text.map(str::to_owned));
        let web_socket = WebSocket { domain: domain.to_owned(), stage, region };
        let request = request_of_worker(web_socket).await?;
        // The id ends in `=`, which is encoded once.
        assert_eq!(request.target, format!("{path}L0SM9cOFvHcCIhw%3D"));
        let authorization = Authorization::of(&request)?;
        assert_eq!(authorization.region, signing_region, "{request:?}");
        assert_eq!(authorization.service, "execute-api", "{request:?}");
        let expected = signature(&request, &authorization, "local")?;
        assert_eq!(authorization.signature, expected, "{request:?}");
    }
    Ok(())
}

#[tokio::test]
async fn classifies_responses_by_status_with_or_without_a_body() -> Result<()> {
    let gone_type = [("x-amzn-errortype", "GoneException")];
    let location = [("location", "http://127.0.0.1:9/")];
    for (expected, response) in [
        (410, FixedResponse::new(410, &[], "")),
        (410, FixedResponse::new(410, &gone_type, "{}")),
        (410, FixedResponse::cut_off(410, &[], "G")),
        (403, FixedResponse::new(403, &[], "Forbidden")),
        (302, FixedResponse::new(302, &location, "")),
        (429, FixedResponse::new(429, &[], "")),
    ] {
        assert_eq!(post_to(response.clone()).await?, status(expected), "{response:?}");
    }
    Ok(())
}

#[tokio::test]
async fn distinguishes_an_invalid_connection_id_from_another_bad_request() -> Result<()> {
    let body = r#"{"message":"Invalid connectionId: a="}"#;
    let invalid_id = PostResponse::Status { status: 400, mentions_connection_id: true };
    assert_eq!(post_to(FixedResponse::new(400, &[], body)).await?, invalid_id);
    assert_eq!(post_to(FixedResponse::new(400, &[], "{}")).await?, status(400));
    Ok(())
}

#[tokio::test]
async fn distinguishes_a_refused_connection_from_a_missing_response() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let origin = format!("http://{}", listener.local_addr()?);
    drop(listener);
    assert_eq!(post(&gateway(&origin).await).await, PostResponse::Unreachable);
    for bytes in ["HTTP/1.1 200 OK\r\ncontent-le", "", "garbage\r\n\r\n"] {
        let response = post_to(FixedResponse::raw(bytes)).await?;
        assert_eq!(response, PostResponse::NoResponse, "{bytes:?}");
    }
    Ok(())
}

/// The endpoint accepts connections, because the kernel does, but never responds.
#[tokio::test(start_paused = true)]
async fn times_out_if_the_endpoint_hangs() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let gateway = gateway(&format!("http://{}", listener.local_addr()?)).await;
    let response = timeout(Duration::from_secs(60), post(&gateway)).await?;
    assert_eq!(response, PostResponse::NoResponse);
    Ok(())
}

#[tokio::test]
async fn replaces_a_connection_after_a_server_error() -> Result<()> {
    let recorder = Recorder::start(FixedResponse::new(200, &[], "")).await?;
    let gateway = gateway(&recorder.origin).await;
    for (code, connection) in [(200, 0), (429, 0), (503, 0), (200, 1)] {
        recorder.set_response(FixedResponse::new(code, &[], ""));
        assert_eq!(post(&gateway).await, status(code));
        assert_eq!(recorder.take_request()?.connection, connection, "{code}");
    }
    Ok(())
}

#[tokio::test]
async fn corrects_a_wrong_clock_after_the_first_rejection() -> Result<()> {
    let date = [("date", "Sun, 22 Nov 2037 12:00:00 GMT")];
    let recorder = Recorder::start(FixedResponse::new(403, &date, "")).await?;
    let gateway = gateway(&recorder.origin).await;
    for is_corrected in [false, true] {
        assert_eq!(post(&gateway).await, status(403));
        let request = recorder.take_request()?;
        let time = request.header("x-amz-date").unwrap_or_default();
        assert_eq!(time.starts_with("20371122T1"), is_corrected, "{time}");
    }
    Ok(())
}
