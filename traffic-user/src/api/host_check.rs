//! Refuses requests that a browser sends under a foreign host name (DNS rebinding).
//!
//! A web page can make its own name resolve to 127.0.0.1, and the browser then lets it read what a local
//! server answers. The `Host` header still carries the page's name. A Unix socket needs no check: a browser
//! cannot connect to it.

use std::net::IpAddr;

use axum::{
    extract::Request,
    http::{StatusCode, header, uri::Authority},
    middleware::Next,
    response::Response,
};

use crate::api::answers::error_answer;

/// Answers only requests for `localhost`, a loopback address, or no host at all.
pub(super) async fn refuse_foreign_hosts(request: Request, next: Next) -> Response {
    if names_this_host(&request) {
        return next.run(request).await;
    }
    error_answer(
        StatusCode::MISDIRECTED_REQUEST,
        "the request names another host; use localhost or a loopback address",
    )
}

fn names_this_host(request: &Request) -> bool {
    let by_uri = request.uri().authority().is_none_or(is_this_host);
    let mut by_header = request.headers().get_all(header::HOST).iter();
    by_uri
        && by_header.all(|value| {
            let authority = value.to_str().ok().and_then(|text| text.parse::<Authority>().ok());
            authority.is_some_and(|authority| is_this_host(&authority))
        })
}

fn is_this_host(authority: &Authority) -> bool {
    // A user's name before the host is not valid here, and no client sends one.
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn passes(uri: &str, hosts: &[&str]) -> bool {
        let builder = hosts
            .iter()
            .fold(Request::builder().uri(uri), |builder, host| builder.header(header::HOST, *host));
        names_this_host(&builder.body(Body::empty()).unwrap())
    }

    #[test]
    fn only_loopback_and_localhost_pass() {
        for host in
            ["localhost", "LocalHost:9177", "127.0.0.1", "127.0.0.1:9177", "127.9.9.9", "[::1]:9177", "[::1]"]
        {
            assert!(passes("/metrics", &[host]), "{host}");
        }
        for host in [
            "attacker.example",
            "attacker.example:9177",
            "localhost.attacker.example",
            "127.0.0.1.attacker.example",
            "10.0.0.1",
            "0.0.0.0",
            "[2001:db8::1]",
            "[::ffff:10.0.0.1]",
            "[fe80::1%25lo]",
            "attacker.example.",
            "localhost.attacker.example.:9177",
            "localhost@attacker.example",
            "attacker.example@localhost",
            "attacker.example:80@127.0.0.1",
            "127.0.0.1, attacker.example",
            "localhost/attacker.example",
            "127.1",
            "2130706433",
            "0x7f000001",
            "localhos\u{74}\u{301}",
            "",
            "a b",
        ] {
            assert!(!passes("/metrics", &[host]), "{host:?}");
        }
        assert!(passes("/metrics", &[]), "HTTP/1.0 has no such header");
        assert!(!passes("/metrics", &["localhost", "attacker.example"]));
        assert!(!passes("/metrics", &["attacker.example", "localhost"]));
        assert!(!passes("http://attacker.example/metrics", &["localhost"]));
        assert!(!passes("http://attacker.example/metrics", &[]));
        assert!(!passes("http://localhost/metrics", &["attacker.example"]));
        assert!(passes("http://localhost:9177/metrics", &["localhost:9177"]));
    }
}
