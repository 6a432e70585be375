//! Middleware that protects the local servers from web pages of other sites.
//!
//! A browser lets every page send requests to 127.0.0.1. With DNS rebinding, a page can even read the
//! responses. The middleware accepts only requests whose `Host` names a loopback address or the listen
//! address, and whose `Origin`, if any, is a page of such a host.

use std::net::IpAddr;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, Response, StatusCode};
use axum::middleware::Next;

/// Responds with 403 to a request for another host, or from another origin.
pub async fn require_local_host(
    State(listen_address): State<IpAddr>,
    request: Request,
    next: Next,
) -> Response<Body> {
    match find_violation(request.headers(), listen_address) {
        None => next.run(request).await,
        Some(reason) => {
            let mut response = Response::new(Body::from(format!("{reason}\n")));
            *response.status_mut() = StatusCode::FORBIDDEN;
            response
        }
    }
}

/// Returns the reason to reject a request, with the action.
fn find_violation(headers: &HeaderMap, listen_address: IpAddr) -> Option<&'static str> {
    let is_local = |authority: &str| is_local(authority, listen_address);
    let host = headers.get(HOST).map(|value| value.to_str().is_ok_and(is_local));
    if host == Some(false) {
        return Some(
            "this server accepts requests only for 127.0.0.1, localhost or its --listen-address; \
             use one of them",
        );
    }
    let is_local_origin =
        |origin: &str| origin.split_once("://").is_some_and(|(_, authority)| is_local(authority));
    let origin = headers.get(ORIGIN).map(|value| value.to_str().is_ok_and(is_local_origin));
    if origin == Some(false) {
        return Some(
            "this server accepts requests only from pages of this machine; \
             serve the page from http://localhost or http://127.0.0.1, on any port",
        );
    }
    None
}

/// Whether `host[:port]` names this machine without a DNS lookup.
fn is_local(authority: &str, listen_address: IpAddr) -> bool {
    let host = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => authority.split(':').next().unwrap_or_default(),
    };
    host.eq_ignore_ascii_case("localhost")
        || host.to_ascii_lowercase().ends_with(".localhost")
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback() || address == listen_address)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTEN_ADDRESS: &str = "192.168.0.7";

    fn is_accepted(host: &str, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().unwrap());
        }
        find_violation(&headers, LISTEN_ADDRESS.parse().unwrap()).is_none()
    }

    #[test]
    fn accepts_requests_from_this_machine() {
        for host in ["127.0.0.1:8080", "localhost:8080", "LOCALHOST", "[::1]:80", "a.localhost"] {
            assert!(is_accepted(host, None), "{host}");
        }
        assert!(is_accepted("127.0.0.1:8080", Some("http://localhost:5173")));
    }

    #[test]
    fn accepts_requests_for_the_listen_address() {
        let host = format!("{LISTEN_ADDRESS}:8080");
        assert!(is_accepted(&host, Some(&format!("http://{host}"))));
        assert!(!is_accepted(&host, Some("http://192.168.0.8:8080")));
    }

    #[test]
    fn rejects_other_hosts_and_origins() {
        for host in
            ["example.com", "127.0.0.1.example.com", "192.168.0.1:8080", "", "localhost.evil"]
        {
            assert!(!is_accepted(host, None), "{host}");
        }
        for origin in ["https://example.com", "null", "http://127.0.0.1.example.com:80", ""] {
            assert!(!is_accepted("127.0.0.1", Some(origin)), "{origin}");
        }
    }
}
