//! The resources and the template, with their contents.

use pointsman_sdk::mcp_provider::Outcome;
use serde_json::{Value, json};

use crate::lists::Changes;
use crate::round::{done, invalid};
use crate::tools::PIXEL;

/// The resource whose updates are told.
pub(crate) const WATCHED: &str = "test://watched-resource";

const TEXT: &str = "test://static-text";
const BINARY: &str = "test://static-binary";
const TEMPLATE: &str = "test://template/{id}/data";

/// Returns the `Resource` objects.
pub(crate) fn list() -> Vec<Value> {
    let resource = |uri: &str, name: &str, description: &str, mime_type: &str| json!({ "uri": uri, "name": name, "description": description, "mimeType": mime_type });
    vec![
        resource(TEXT, "static-text", "A text that never changes", "text/plain"),
        resource(BINARY, "static-binary", "An image that never changes", "image/png"),
        resource(WATCHED, "watched-resource", "A text that a tool updates", "text/plain"),
    ]
}

/// Returns the `ResourceTemplate` objects.
pub(crate) fn templates() -> Vec<Value> {
    vec![json!({
        "uriTemplate": TEMPLATE,
        "name": "template",
        "description": "A document made for the id in its URI",
        "mimeType": "application/json",
    })]
}

/// Reads a resource.
pub(crate) fn read(uri: &str) -> Outcome {
    let content = match uri {
        TEXT => json!({ "uri": uri, "mimeType": "text/plain", "text": "This is the content of the static text resource." }),
        BINARY => json!({ "uri": uri, "mimeType": "image/png", "blob": PIXEL }),
        WATCHED => {
            let text = format!("Updated {} times.", Changes::recalled().updates);
            json!({ "uri": uri, "mimeType": "text/plain", "text": text })
        }
        _ => match template_id(uri) {
            Some(id) => {
                let data = json!({ "id": id, "templateTest": true, "data": format!("Data for ID: {id}") });
                json!({ "uri": uri, "mimeType": "application/json", "text": data.to_string() })
            }
            None => return invalid(&format!("there is no resource {uri:?}")),
        },
    };
    // Nobody may keep a copy: whoever tests updates reads again.
    done(&json!({ "contents": [content], "ttlMs": 0, "cacheScope": "private" }))
}

/// Returns the id of a URI that the template makes.
fn template_id(uri: &str) -> Option<&str> {
    let (before, after) = TEMPLATE.split_once("{id}")?;
    uri.strip_prefix(before)?.strip_suffix(after).filter(|id| !id.is_empty() && !id.contains('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::round::tests::result;

    #[test]
    fn each_listed_resource_can_be_read() {
        for resource in list() {
            let uri = resource["uri"].as_str().expect("a text");
            let content = result(&read(uri))["contents"][0].clone();
            assert_eq!((&content["uri"], &content["mimeType"]), (&resource["uri"], &resource["mimeType"]));
            assert!(content["text"].is_string() != content["blob"].is_string(), "{content}");
        }
    }

    #[test]
    fn the_template_puts_the_id_into_the_document() {
        let text = result(&read("test://template/123/data"))["contents"][0]["text"].clone();
        let data: Value = serde_json::from_str(text.as_str().expect("a text")).expect("JSON");
        assert_eq!(data, json!({ "id": "123", "templateTest": true, "data": "Data for ID: 123" }));
    }

    #[test]
    fn what_is_not_there_is_refused_by_name() {
        for uri in ["test://nonexistent", "test://template//data", "test://template/1/2/data", ""] {
            assert!(matches!(read(uri), Outcome::ProtocolError(refusal) if refusal.code == -32602), "{uri}");
        }
    }
}
