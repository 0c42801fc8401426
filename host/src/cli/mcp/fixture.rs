//! A host for tests of the bridge that answers by a script.

use std::sync::Arc;

use bytes::Bytes;
use pointsman_client::{Client, Era};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::Bridge;
use super::host::Host;
use super::lines::{Output, Writer};
use super::message::{Kind, Message, Request};

/// What a host says to requests without looking closer: an open session.
pub(super) const INITIALIZED: &str = r#"{"jsonrpc":"2.0","id":1,"result":{"protocolVersion":"2025-03-26","capabilities":{}}}"#;

/// Returns a bridge to a host that gives these answers (status and body) to the text of a request; none: it hangs up.
pub(super) async fn bridge(
    out: impl std::io::Write + Send + 'static,
    answer: impl Fn(&str) -> Option<(u16, &'static str)> + Send + Sync + 'static,
) -> (Arc<Bridge>, Writer) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            tokio::spawn(async move {
                let mut text = Vec::new();
                let mut piece = [0; 4096];
                while !is_whole(&text) {
                    match stream.read(&mut piece).await {
                        Ok(bytes @ 1..) => text.extend_from_slice(&piece[..bytes]),
                        Ok(0) | Err(_) => return,
                    }
                }
                let Some((status, body)) = answer(&String::from_utf8_lossy(&text)) else { return };
                let head = format!(
                    "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nmcp-session-id: s\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
                    body.len()
                );
                drop(stream.write_all(format!("{head}{body}").as_bytes()).await);
            });
        }
    });
    let client = Client::new(&url, "token", Era::Modern).expect("a client");
    let (output, writer) = Output::to(out);
    (Arc::new(Bridge::new(Host::new(client, url, true), output, None)), writer)
}

fn is_whole(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text).to_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    body.len() >= length.and_then(|length| length.trim().parse().ok()).unwrap_or(0)
}

/// Returns a message.
pub(super) fn message(text: &str) -> Message {
    Message::read(Bytes::copy_from_slice(text.as_bytes())).expect("a message")
}

/// Opens the client's session.
pub(super) async fn initialize(bridge: &Bridge) {
    let message = message(r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-03-26"}}"#);
    let Kind::Request { id, method } = message.kind.clone() else { panic!("no request") };
    bridge.initialize(&Request { id, method, message }).await.expect("a session");
}
