//! Server-sent events, as far as one answer needs them (HTML, server-sent events, event stream interpretation).

use serde_json::Value;

/// Returns the JSON-RPC response with this id from a whole event stream.
pub(crate) fn response(stream: &[u8], id: u64) -> Option<Value> {
    let text = std::str::from_utf8(stream).ok()?;
    let mut data = String::new();
    for line in text.lines().chain([""]) {
        if line.is_empty() {
            let message: Option<Value> = serde_json::from_str(&data).ok();
            if let Some(message) = message.filter(|message| message["id"] == id && message["method"].is_null()) {
                return Some(message);
            }
            data.clear();
        } else if let Some(part) = line.strip_prefix("data:") {
            if !data.is_empty() {
                data.push('\n');
            }
            data.push_str(part.strip_prefix(' ').unwrap_or(part));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_is_found_among_notifications_and_comments() {
        let stream = b": keep-alive\n\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\"id\":7}\n\nevent: message\nid: 3\ndata: {\"jsonrpc\":\"2.0\",\ndata: \"id\":7,\"result\":{\"ok\":true}}\n\n";
        assert_eq!(response(stream, 7).expect("the answer")["result"]["ok"], true);
        assert_eq!(response(stream, 8), None);
        assert_eq!(response(b"", 7), None);
        assert_eq!(response(b"data: {\"id\":7,\"result\":1}", 7).expect("an unfinished last event counts")["result"], 1);
    }
}
