//! Keeps the pages of other sites away from servers on this machine: a browser lets any page send
//! requests to 127.0.0.1, and by DNS rebinding even read the answers. Only requests that name a
//! loopback host, and come from no page or from one of this machine, pass.

use std::net::IpAddr;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, Response, StatusCode};
use axum::middleware::Next;

/// The middleware.
pub async fn local_only(request: Request, next: Next) -> Response<Body> {
    match refusal(request.headers()) {
        None => next.run(request).await,
        Some(reason) => {
            let mut response = Response::new(Body::from(format!("{reason}\n")));
            *response.status_mut() = StatusCode::FORBIDDEN;
            response
        }
    }
}

fn refusal(headers: &HeaderMap) -> Option<&'static str> {
    let host = headers.get(HOST).map(|value| value.to_str().is_ok_and(is_loopback));
    if host == Some(false) {
        return Some("this server answers under 127.0.0.1 and localhost only; use one of them");
    }
    let of_this_machine = |origin: &str| {
        origin.split_once("://").is_some_and(|(_, authority)| is_loopback(authority))
    };
    let origin = headers.get(ORIGIN).map(|value| value.to_str().is_ok_and(of_this_machine));
    if origin == Some(false) {
        return Some(
            "this server answers pages of this machine only; \
             serve the page from http://localhost or http://127.0.0.1, at any port",
        );
    }
    None
}

/// Whether `host[:port]` is this machine by name, whatever DNS says.
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

    fn passes(host: &str, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().unwrap());
        }
        refusal(&headers).is_none()
    }

    #[test]
    fn this_machine_passes() {
        for host in ["127.0.0.1:8080", "localhost:8080", "LOCALHOST", "[::1]:80", "a.localhost"] {
            assert!(passes(host, None), "{host}");
        }
        assert!(passes("127.0.0.1:8080", Some("http://localhost:5173")));
    }

    #[test]
    fn other_hosts_and_the_pages_of_others_do_not() {
        for host in
            ["example.com", "127.0.0.1.example.com", "192.168.0.1:8080", "", "localhost.evil"]
        {
            assert!(!passes(host, None), "{host}");
        }
        for origin in ["https://example.com", "null", "http://127.0.0.1.example.com:80", ""] {
            assert!(!passes("127.0.0.1", Some(origin)), "{origin}");
        }
    }
}
