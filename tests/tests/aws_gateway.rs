//! The real API Gateway client on scripted HTTP answers: where it posts, how it signs, and what it
//! makes of what comes back.

use std::future::pending;
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
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

const ID: &str = "L0SM9cOFvHcCIhw=";

fn status(status: u16) -> PostResponse {
    PostResponse::Status { status, names_connection: false }
}

/// Takes one request, answers these bytes and closes; gives the request.
async fn once(answer: &'static str) -> Result<(String, JoinHandle<String>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = format!("http://{}/api", listener.local_addr()?);
    let served = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\"90\"}") {
            assert!(socket.read_buf(&mut request).await.unwrap() > 0, "the request ends early");
        }
        socket.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8_lossy(&request).into_owned()
    });
    Ok((endpoint, served))
}

async fn post(endpoint: &str) -> PostResponse {
    let aws = AwsConfig::local("http://127.0.0.1:9").await;
    let message = Bytes::from_static(br#"{"value":"90"}"#);
    ApiGateway::new(&aws, "ap-northeast-1", endpoint).post(ID, &message).await
}

/// The request that a worker with this `webSocket` sends, whose table is in eu-west-1.
async fn request(web_socket: WebSocket) -> Result<RecordedRequest> {
    let recorder = Recorder::start(FixedResponse::new(200, &[], "")).await?;
    let allowed = vec!["ws.example.com".to_owned()];
    let own = format!("https://{}", web_socket.domain);
    let spec = StreamNotifierSpec { web_socket, ..spec() };
    let prepared = validate(&spec, &Endpoints { allowed, template: None })?;
    let Validated::Active(mut work) = prepared else { panic!("it is not suspended") };
    // The same path, where it can be seen.
    work.delivery.endpoint = work.delivery.endpoint.replace(&own, &recorder.origin);
    let aws = AwsConfig::local("http://127.0.0.1:9").await;
    let gateway = Backends::new(&work, &aws, Arc::new(MemoryStore::default())).gateway;
    let message = Bytes::from_static(br#"{"value":"90"}"#);
    assert_eq!(gateway.post(ID, &message).await, status(200));
    recorder.take_request()
}

#[tokio::test]
async fn a_post_goes_to_the_path_and_is_signed_for_the_region_that_the_spec_means() -> Result<()> {
    let execute_api = "abcdefghij.execute-api.ap-northeast-1.amazonaws.com";
    for (domain, stage, region, path, signed_for) in [
        (execute_api, Some("api"), None, "/api/@connections/", "ap-northeast-1"),
        (execute_api, Some("api"), Some("ap-northeast-1"), "/api/@connections/", "ap-northeast-1"),
        ("ws.example.com", Some("chat"), None, "/chat/@connections/", "eu-west-1"),
        ("ws.example.com", Some("chat"), Some("eu-west-2"), "/chat/@connections/", "eu-west-2"),
        ("ws.example.com", None, Some("us-east-1"), "/@connections/", "us-east-1"),
    ] {
        let [stage, region] = [stage, region].map(|text| text.map(str::to_owned));
        let request = request(WebSocket { domain: domain.to_owned(), stage, region }).await?;
        // The id ends in `=`, which is encoded once.
        assert_eq!(request.target, format!("{path}L0SM9cOFvHcCIhw%3D"));
        let authorization = Authorization::of(&request)?;
        assert_eq!(authorization.region, signed_for, "{request:?}");
        assert_eq!(authorization.service, "execute-api", "{request:?}");
        let expected = signature(&request, &authorization, "local")?;
        assert_eq!(authorization.signature, expected, "{request:?}");
    }
    Ok(())
}

#[tokio::test]
async fn answers_are_told_by_their_status_with_or_without_a_body() -> Result<()> {
    let gone = "HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n";
    let typed =
        "HTTP/1.1 410 Gone\r\nx-amzn-errortype: GoneException\r\ncontent-length: 2\r\n\r\n{}";
    let text = "HTTP/1.1 403 Forbidden\r\ncontent-length: 9\r\n\r\nForbidden";
    let moved = "HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:9/\r\ncontent-length: 0\r\n\r\n";
    let busy = "HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n";
    for (answer, expected) in [(gone, 410), (typed, 410), (text, 403), (moved, 302), (busy, 429)] {
        let (endpoint, _served) = once(answer).await?;
        assert_eq!(post(&endpoint).await, status(expected));
    }
    Ok(())
}

#[tokio::test]
async fn a_malformed_id_is_told_from_another_bad_request() -> Result<()> {
    let malformed = "HTTP/1.1 400 Bad Request\r\ncontent-length: 39\r\n\r\n{\"message\":\"Invalid connectionId: a=\"  }";
    let (endpoint, _served) = once(malformed).await?;
    assert_eq!(post(&endpoint).await, PostResponse::Status { status: 400, names_connection: true });
    let other = "HTTP/1.1 400 Bad Request\r\ncontent-length: 2\r\n\r\n{}";
    let (endpoint, _served) = once(other).await?;
    assert_eq!(post(&endpoint).await, status(400));
    Ok(())
}

#[tokio::test]
async fn no_connection_is_told_from_no_answer() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let refused = format!("http://{}/api", listener.local_addr()?);
    drop(listener);
    assert_eq!(post(&refused).await, PostResponse::Unreachable);
    for answer in ["HTTP/1.1 200 OK\r\ncontent-le", "", "garbage\r\n\r\n"] {
        let (endpoint, _served) = once(answer).await?;
        assert_eq!(post(&endpoint).await, PostResponse::NoResponse, "{answer:?}");
    }
    Ok(())
}

/// A connection that is never answered ends by the client's own limit.
#[tokio::test(start_paused = true)]
async fn an_endpoint_that_hangs_is_given_up() -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = format!("http://{}/api", listener.local_addr()?);
    let answer = tokio::time::timeout(Duration::from_secs(60), post(&endpoint)).await?;
    assert_eq!(answer, PostResponse::NoResponse, "connected, and never answered");
    Ok(())
}

/// Gives these answers, each to the next request of whatever connection, which stays open; and the
/// requests, with the number of their connections.
async fn in_turn(
    answers: &'static [&'static str],
) -> Result<(String, JoinHandle<Vec<(usize, String)>>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = format!("http://{}/api", listener.local_addr()?);
    let served = tokio::spawn(async move {
        let (mut sockets, mut requests) = (Vec::new(), Vec::new());
        for answer in answers {
            let mut request = Vec::new();
            while !request.ends_with(b"\"90\"}") {
                let known = sockets.last_mut();
                let read = async {
                    match known {
                        Some(socket) => {
                            TcpStream::read_buf(socket, &mut request).await.unwrap_or(0)
                        }
                        None => pending().await,
                    }
                };
                tokio::select! {
                    biased;
                    // A connection that was closed gives nothing: the next one will.
                    read = read => if read == 0 { sockets.push(listener.accept().await.unwrap().0) },
                    accepted = listener.accept() => sockets.push(accepted.unwrap().0),
                }
            }
            sockets.last_mut().unwrap().write_all(answer.as_bytes()).await.unwrap();
            requests.push((sockets.len(), String::from_utf8_lossy(&request).into_owned()));
        }
        requests
    });
    Ok((endpoint, served))
}

async fn post_in_turn(
    answers: &'static [&'static str],
) -> Result<(Vec<PostResponse>, Vec<(usize, String)>)> {
    let (endpoint, served) = in_turn(answers).await?;
    let aws = AwsConfig::local("http://127.0.0.1:9").await;
    let gateway = ApiGateway::new(&aws, "ap-northeast-1", &endpoint);
    let mut got = Vec::new();
    for _ in answers {
        got.push(gateway.post(ID, &Bytes::from_static(br#"{"value":"90"}"#)).await);
    }
    Ok((got, served.await?))
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";

#[tokio::test]
async fn a_connection_whose_other_end_is_unwell_is_left() -> Result<()> {
    const UNWELL: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
    const BUSY: &str = "HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n";
    let (got, requests) = post_in_turn(&[OK, BUSY, UNWELL, OK]).await?;
    assert_eq!(got, [200, 429, 503, 200].map(status));
    let connections: Vec<_> = requests.iter().map(|(connection, _)| *connection).collect();
    assert_eq!(connections, [1, 1, 1, 2]);
    Ok(())
}

#[tokio::test]
async fn a_clock_that_is_off_is_corrected_by_the_first_refusal() -> Result<()> {
    const REFUSED: &str = "HTTP/1.1 403 Forbidden\r\ndate: Sun, 22 Nov 2037 12:00:00 GMT\r\ncontent-length: 0\r\n\r\n";
    let (got, requests) = post_in_turn(&[REFUSED, OK]).await?;
    assert_eq!(got, [403, 200].map(status));
    let is_then = |request: &str| request.contains("x-amz-date: 20371122T1");
    let then: Vec<_> = requests.iter().map(|(_, request)| is_then(request)).collect();
    assert_eq!(then, [false, true]);
    Ok(())
}

#[tokio::test]
async fn a_status_counts_although_the_answer_breaks_off() -> Result<()> {
    let broken = "HTTP/1.1 410 Gone\r\ncontent-length: 9\r\n\r\nG";
    let (endpoint, _served) = once(broken).await?;
    assert_eq!(post(&endpoint).await, status(410));
    Ok(())
}
