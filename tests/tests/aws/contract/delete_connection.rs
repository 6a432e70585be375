//! DeleteConnection: `ApiGateway::disconnect` uses the SDK's client and must behave like a post.

use std::time::Duration;

use anyhow::Result;
use bytes::Bytes;
use stream_notifier::aws::ApiGateway;
use stream_notifier::delivery::{Gateway as _, PostResponse};
use stream_notifier_tests::recorder::{FixedResponse, RecordedRequest, Recorder};
use tokio::net::TcpListener;

use super::post_to_connection::{ID, REGION, recorder, responses, status};
use super::requests::assert_signed;
use super::{all_credentials, credentials, operator_config};

async fn gateway(endpoint: &str) -> ApiGateway {
    let aws = operator_config("http://127.0.0.1:9", &credentials()).await;
    ApiGateway::new(&aws, REGION, endpoint)
}

async fn post(gateway: &ApiGateway, id: &str) -> PostResponse {
    gateway.post(id, &Bytes::from_static(b"{}")).await
}

/// A post and a disconnection, as they were received.
async fn requests(
    gateway: &ApiGateway,
    recorder: &Recorder,
    id: &str,
) -> Result<[RecordedRequest; 2]> {
    assert_eq!(post(gateway, id).await, status(200));
    let posted = recorder.take_request()?;
    assert_eq!(gateway.disconnect(id).await, status(200));
    Ok([posted, recorder.take_request()?])
}

#[tokio::test]
async fn deletes_at_the_path_and_with_the_scope_of_a_post() -> Result<()> {
    let recorder = recorder().await?;
    for credentials in &all_credentials() {
        for (stage, region) in
            [("/api", REGION), ("", "eu-west-1"), ("/a/b", REGION), ("/", REGION)]
        {
            let aws = operator_config("http://127.0.0.1:9", credentials).await;
            let endpoint = format!("{}{stage}", recorder.origin);
            let gateway = ApiGateway::new(&aws, region, &endpoint);
            for id in [ID, "a+/ %3D:ü=", "plain"] {
                let [posted, deleted] = requests(&gateway, &recorder, id).await?;
                assert_eq!((posted.method.as_str(), deleted.method.as_str()), ("POST", "DELETE"));
                assert_eq!(posted.target, deleted.target);
                assert_eq!(deleted.body.len(), 0);
                for header in ["host", "x-amz-security-token"] {
                    assert_eq!(posted.header(header), deleted.header(header), "{header}");
                }
                let [posted, deleted] = [assert_signed(&posted)?, assert_signed(&deleted)?];
                assert_eq!((posted.region, posted.service), (deleted.region, deleted.service));
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn shares_the_connection_pool_with_posts() -> Result<()> {
    let recorder = recorder().await?;
    let gateway = gateway(&format!("{}/api", recorder.origin)).await;
    let [posted, deleted] = requests(&gateway, &recorder, ID).await?;
    assert_eq!((posted.connection, deleted.connection), (0, 0));
    // Neither reuses a connection after a server error.
    recorder.set_response(FixedResponse::new(503, &[], ""));
    assert_eq!(gateway.disconnect(ID).await, status(503));
    assert_eq!(post(&gateway, ID).await, status(503));
    assert_eq!(gateway.disconnect(ID).await, status(503));
    let connections: Vec<_> =
        recorder.take_requests().iter().map(|request| request.connection).collect();
    assert_eq!(connections, [0, 1, 2]);
    Ok(())
}

#[tokio::test]
async fn classifies_every_response_as_a_post_does() -> Result<()> {
    let recorder = recorder().await?;
    let endpoint = format!("{}/api", recorder.origin);
    for (name, response, expected) in responses() {
        recorder.set_response(response);
        let gateway = gateway(&endpoint).await;
        assert_eq!(gateway.disconnect(ID).await, expected, "{name}");
        assert_eq!(recorder.take_requests().len(), 1, "{name}: no retries");
    }
    Ok(())
}

#[tokio::test]
async fn reports_an_endpoint_that_refuses_connections() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = format!("http://{}/api", listener.local_addr()?);
    drop(listener);
    let gateway = gateway(&endpoint).await;
    assert_eq!(post(&gateway, ID).await, PostResponse::Unreachable);
    assert_eq!(gateway.disconnect(ID).await, PostResponse::Unreachable);
    Ok(())
}

#[tokio::test]
async fn reports_an_endpoint_that_is_not_a_url() {
    for endpoint in ["/api", "a", "http:///api", "::"] {
        let gateway = gateway(endpoint).await;
        assert_eq!(post(&gateway, ID).await, PostResponse::NoResponse, "{endpoint}");
        assert_eq!(gateway.disconnect(ID).await, PostResponse::NoResponse, "{endpoint}");
    }
}

/// The timeout covers the head and the body of a response.
#[tokio::test(start_paused = true)]
async fn times_out_as_a_post_does() -> Result<()> {
    let recorder = Recorder::start(FixedResponse::stalled(200, &[], "")).await?;
    let gateway = gateway(&format!("{}/api", recorder.origin)).await;
    let start = tokio::time::Instant::now();
    assert_eq!(post(&gateway, ID).await, PostResponse::NoResponse);
    let post_duration = start.elapsed();
    assert_eq!(gateway.disconnect(ID).await, PostResponse::NoResponse);
    let delete_duration = start.elapsed() - post_duration;
    assert_eq!(post_duration.as_secs(), delete_duration.as_secs());
    assert!(post_duration < Duration::from_secs(60));
    Ok(())
}

#[tokio::test]
async fn corrects_a_wrong_clock_by_the_responses_to_posts() -> Result<()> {
    let date = [("date", "Sun, 22 Nov 2037 12:00:00 GMT")];
    let recorder = Recorder::start(FixedResponse::new(403, &date, "")).await?;
    let gateway = gateway(&format!("{}/api", recorder.origin)).await;
    assert_eq!(post(&gateway, ID).await, status(403));
    recorder.take_request()?;
    // The first disconnect is corrected already, and its response corrects nothing twice.
    for _ in 0..2 {
        assert_eq!(gateway.disconnect(ID).await, status(403));
        let request = recorder.take_request()?;
        let time = request.header("x-amz-date").unwrap_or_default();
        assert!(time.starts_with("20371122T1"), "{time}");
    }
    Ok(())
}
