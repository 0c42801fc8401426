//! The pure parts of the server; the rest is tested over sockets.

use std::net::SocketAddr;

use hyper::header::{HOST, HeaderMap, HeaderValue, ORIGIN};
use hyper::{StatusCode, Version};

use super::git;
use super::guard::Guard;
use super::plain::{Refusal, too_many_connections};

fn guard(address: &str) -> Guard {
    let address: SocketAddr = address.parse().expect("an address");
    Guard::new(address, &["https://dash.example.org".to_owned()], &["pointsman.test".to_owned()])
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
    for good in ["localhost", "LOCALHOST:7420", "127.0.0.1:1", "127.9.9.9", "[::1]", "[::1]:7420", "pointsman.test:80"] {
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
        for foreign in ["https://evil.example.com", "null", "http://localhost.evil.com", "http://dash.example.org", "file://", "localhost"]
        {
            assert!(matches!(check(foreign), Err(Refusal::ForeignOrigin { .. })), "{foreign}");
        }
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
