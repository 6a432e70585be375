//! Chooses the proxy between the operator and the API server, as kubectl does.
//!
//! kube compares `NO_PROXY` with the address of the proxy, so this module compares it with the server's.

use std::net::IpAddr;

use axum::http::Uri;
use hyper_util::client::proxy::matcher::Matcher;

/// Returns the proxy that the environment sets for a server. `variable` returns the value of a variable.
pub fn proxy_for(server: &Uri, variable: impl Fn(&str) -> Option<String>) -> Option<String> {
    let read = |names: [&str; 2]| {
        names.into_iter().find_map(|name| variable(name).filter(|value| !value.is_empty()))
    };
    let proxy = match server.scheme_str() {
        Some("http") => read(["HTTP_PROXY", "http_proxy"]),
        _ => read(["HTTPS_PROXY", "https_proxy"]),
    }?;
    let no_proxy = read(["NO_PROXY", "no_proxy"]).unwrap_or_default();
    (!is_excluded(server, &no_proxy)).then_some(proxy)
}

/// Parses the URL of a proxy. Without a scheme, the proxy speaks HTTP.
pub fn parse_proxy(url: &str) -> Result<Uri, axum::http::uri::InvalidUri> {
    match url.contains("://") {
        true => url.parse(),
        false => format!("http://{url}").parse(),
    }
}

/// Whether requests to a server do not use the proxy. As in Go, this includes every server on this
/// machine.
fn is_excluded(server: &Uri, no_proxy: &str) -> bool {
    let host = without_brackets(server.host().unwrap_or_default());
    let is_loopback = host.eq_ignore_ascii_case("localhost")
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    let default_port = if server.scheme_str() == Some("http") { 80 } else { 443 };
    let port = server.port_u16().unwrap_or(default_port);
    let rules: Vec<&str> =
        no_proxy.split(',').filter_map(|rule| without_port(rule.trim(), port)).collect();
    is_loopback || rules.contains(&"*") || matches_any(server, &rules)
}

/// Whether a server matches a host, a domain, an IP address or a CIDR block.
fn matches_any(server: &Uri, rules: &[&str]) -> bool {
    // The matcher knows `.example.com`, but not `*.example.com`.
    let rules: Vec<&str> =
        rules.iter().map(|rule| rule.strip_prefix('*').unwrap_or(without_brackets(rule))).collect();
    let matcher = Matcher::builder().all("http://proxy").no(rules.join(",")).build();
    matcher.intercept(server).is_none()
}

/// Removes the port of a rule. Returns `None` if the rule is for another port.
fn without_port(rule: &str, port: u16) -> Option<&str> {
    match rule.rsplit_once(':') {
        // Not an IPv6 address.
        Some((host, number)) if !host.contains(':') || host.ends_with(']') => {
            (number.parse() == Ok(port)).then_some(host)
        }
        _ => Some(rule),
    }
}

fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(server: &str, variables: &[(&str, &str)]) -> Option<String> {
        let value = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        proxy_for(&server.parse().unwrap(), value)
    }

    #[test]
    fn reads_the_variable_of_the_scheme_in_either_case() {
        let (https, http) = ("https://api.example.com", "http://api.example.com");
        for (server, variables, expected) in [
            (https, [("HTTPS_PROXY", "a"), ("https_proxy", "b")], Some("a")),
            (https, [("HTTPS_PROXY", ""), ("https_proxy", "b")], Some("b")),
            (https, [("HTTP_PROXY", "a"), ("http_proxy", "b")], None),
            (http, [("HTTP_PROXY", "a"), ("http_proxy", "b")], Some("a")),
            (https, [("https_proxy", "b"), ("no_proxy", "api.example.com")], None),
        ] {
            assert_eq!(proxy(server, &variables).as_deref(), expected, "{server} {variables:?}");
        }
    }

    #[test]
    fn excludes_the_servers_of_no_proxy_and_of_this_machine() {
        for (no_proxy, server, is_direct) in [
            ("", "https://api.example.com", false),
            ("", "https://localhost:6443", true),
            ("", "https://127.0.0.1:6443", true),
            ("", "https://[::1]:6443", true),
            ("*", "https://10.0.0.1", true),
            ("other, API.example.com,", "https://api.example.com:6443", true),
            ("example.com", "https://api.example.com", true),
            (".example.com", "https://api.example.com", true),
            ("*.example.com", "https://api.example.com", true),
            ("*.example.com", "https://example.org", false),
            ("ple.com", "https://api.example.com", false),
            ("10.0.0.0/8", "https://10.1.2.3:6443", true),
            ("10.0.0.0/8,169.254/16", "https://11.1.2.3:6443", false),
            ("10.1.2.3", "https://10.1.2.3:6443", true),
            ("fd00::/8", "https://[fd00::1]:6443", true),
            ("[fd00::1]", "https://[fd00::1]:6443", true),
            ("[fd00::1]:6443", "https://[fd00::1]:6443", true),
            ("api.example.com:6443", "https://api.example.com:6443", true),
            ("api.example.com:443", "https://api.example.com", true),
            ("api.example.com:8443", "https://api.example.com:6443", false),
        ] {
            let variables = [("HTTPS_PROXY", "proxy:3128"), ("NO_PROXY", no_proxy)];
            assert_eq!(proxy(server, &variables).is_none(), is_direct, "{no_proxy} {server}");
        }
    }

    #[test]
    fn assumes_http_for_a_proxy_without_a_scheme() {
        assert_eq!(parse_proxy("proxy:3128").unwrap().scheme_str(), Some("http"));
        assert_eq!(parse_proxy("socks5://proxy:1080").unwrap().scheme_str(), Some("socks5"));
        assert!(parse_proxy("http://a b").is_err());
    }
}
