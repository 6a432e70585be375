//! Middleware that protects the local servers from web pages of other sites.
//!
//! A browser lets every page send requests to 127.0.0.1. With DNS rebinding, a page can even read the
//! responses. The middleware accepts only requests whose `Host` names a loopback address, and whose
//! `Origin`, if any, is a page of this machine.

use std::net::IpAddr;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, Response, StatusCode};
use axum::middleware::Next;

/// Responds with 403 to a request from another host or origin.
pub async fn require_loopback(request: Request, next: Next) -> Response<Body> {
    match find_violation(request.headers()) {
        None => next.run(request).await,
        Some(reason) => {
            let mut response = Response::new(Body::from(format!("{reason}\n")));
            *response.status_mut() = StatusCode::FORBIDDEN;
            response
        }
    }
}

/// Returns the reason to reject a request, with the action.
fn find_violation(headers: &HeaderMap) -> Option<&'static str> {
    let host = headers.get(HOST).map(|value| value.to_str().is_ok_and(is_loopback));
    if host == Some(false) {
        return Some(
            "this server accepts requests only for 127.0.0.1 or localhost; use one of them",
        );
    }
    let is_local_origin = |origin: &str| {
        origin.split_once("://").is_some_and(|(_, authority)| is_loopback(authority))
    };
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
fn is_loopback(authority: &str) -> bool {
    let host = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => authority.split(':').next().unwrap_or_default(),
    };
    host.eq_ignore_ascii_case("localhost")
        || host.to_ascii_lowercase().ends_with(".localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_accepted(host: &str, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().unwrap());
        }
        find_violation(&headers).is_none()
    }

    #[test]
    fn accepts_requests_from_this_machine() {
        for host in ["127.0.0.1:8080", "localhost:8080", "LOCALHOST", "[::1]:80", "a.localhost"] {
            assert!(is_accepted(host, None), "{host}");
        }
        assert!(is_accepted("127.0.0.1:8080", Some("http://localhost:5173")));
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
