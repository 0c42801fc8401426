//! The pure parts of the server; the rest is tested over sockets.

use std::net::SocketAddr;

use hyper::header::{HOST, HeaderMap, HeaderValue, ORIGIN};
use hyper::{StatusCode, Version};

use super::git;
use super::guard::{Guard, let_read, preflight};
use super::plain::{Refusal, too_many_connections};

fn guard(address: &str) -> Guard {
    let address: SocketAddr = address.parse().expect("an address");
    let origins = ["https://dash.example.org", "https://plain.example.org:443", "http://[2001:db8::1]:80"].map(str::to_owned);
    Guard::new(address, &origins, &["pointsman.test".to_owned(), "2001:db8::1".to_owned()])
}

fn head(host: Option<&str>, origin: Option<&str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Some(host) = host {
        headers.insert(HOST, HeaderValue::from_str(host).expect("a header"));
    }
    if let Some(origin) = origin {
        headers.insert(ORIGIN, HeaderValue::from_str(origin).expect("a header"));
    }
    headers
}

#[test]
fn only_own_names_reach_a_loopback_listener() {
    let guard = guard("127.0.0.1:7420");
    for good in [
        "localhost",
        "LOCALHOST:7420",
        "127.0.0.1:1",
        "127.9.9.9",
        "[::1]",
        "[::1]:7420",
        "pointsman.test:80",
        "[2001:db8::1]:7420",
        "[2001:DB8:0::1]",
    ] {
        assert_eq!(guard.check(&head(Some(good), None), Version::HTTP_11), Ok(()), "{good}");
    }
    for foreign in ["evil.example.com", "localhost.evil.com", "127.0.0.1.evil.com", "10.0.0.1", "localhost:x", "", "[::2]", "::1:80:"] {
        assert!(matches!(guard.check(&head(Some(foreign), None), Version::HTTP_11), Err(Refusal::ForeignHost { .. })), "{foreign}");
    }
    assert!(guard.check(&head(None, None), Version::HTTP_11).is_err());
    let open = self::guard("0.0.0.0:7420");
    assert_eq!(open.check(&head(Some("anything.example.com"), None), Version::HTTP_11), Ok(()));
}

#[test]
fn foreign_origins_are_turned_away_on_every_listener() {
    for address in ["127.0.0.1:7420", "0.0.0.0:7420"] {
        let guard = guard(address);
        let check = |origin: &str| guard.check(&head(Some("localhost"), Some(origin)), Version::HTTP_11);
        for good in ["http://localhost:3000", "http://127.0.0.1", "https://[::1]:8443", "https://dash.example.org"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for named in ["https://dash.example.org:443", "https://plain.example.org", "http://[2001:db8::1]"] {
            assert_eq!(check(named), Ok(()), "{named}");
            assert!(guard.page(&head(None, Some(named))).is_some(), "{named}");
        }
        assert!(guard.page(&head(None, Some("http://localhost:3000"))).is_none(), "let in, and told nothing: nobody named it");
        for foreign in [
            "https://evil.example.com",
            "null",
            "http://localhost.evil.com",
            "http://dash.example.org",
            "http://plain.example.org:443",
            "file://",
            "localhost",
        ] {
            assert!(matches!(check(foreign), Err(Refusal::ForeignOrigin { .. })), "{foreign}");
        }
    }
}

#[test]
fn a_browser_is_told_what_a_named_page_may_send_and_read() {
    let request = |method: &str, asks: bool| {
        let request = hyper::Request::builder().method(method).header("access-control-request-headers", "authorization, mcp-param-x");
        if asks { request.header("access-control-request-method", "POST") } else { request }.body(()).expect("a request")
    };
    assert!(preflight(&request("OPTIONS", false)).is_none() && preflight(&request("POST", true)).is_none());
    let mut answer = preflight(&request("OPTIONS", true)).expect("an answer");
    let_read(&mut answer, HeaderValue::from_static("https://dash.example.org"));
    assert_eq!(answer.status(), StatusCode::NO_CONTENT);
    for (name, value) in [
        ("access-control-allow-origin", "https://dash.example.org"),
        ("access-control-allow-methods", "GET, POST, DELETE"),
        ("access-control-allow-headers", "authorization, mcp-param-x"),
        ("access-control-expose-headers", "Mcp-Session-Id, WWW-Authenticate"),
        ("vary", "Origin"),
    ] {
        assert_eq!(answer.headers().get(name).map(HeaderValue::as_bytes), Some(value.as_bytes()), "{name}");
    }
}

#[test]
fn git_paths_name_a_project_and_a_service() {
    assert!(git::path("demo.git/info/refs").is_some());
    assert!(git::path("demo.git/git-upload-pack").is_some());
    assert!(git::path("demo.git/git-receive-pack").is_some());
    for wrong in ["demo.git", "demo/info/refs", ".git/info/refs", "a/b.git/info/refs", "demo.git/HEAD", "demo.git/objects/info/packs"] {
        assert!(git::path(wrong).is_none(), "{wrong}");
    }
}

#[test]
fn the_refusal_that_is_written_by_hand_is_whole() {
    let text = too_many_connections();
    let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.contains(&format!("content-length: {}", body.len())), "{} bytes", body.len());
    let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(body["code"], "too_many_connections");
    assert_eq!(Refusal::DumbGit.response().status(), StatusCode::FORBIDDEN);
}
