//! The tools as agents see them: names, one or two sentences, flat schemas.
//!
//! **Invariants:** the whole list stays within [`LIST_BYTES_MAX`]; no schema has `oneOf`, `anyOf` or `allOf` at its root
//! (clients reject the whole list for one such tool).

use serde_json::{Value, json};

/// Bytes of `tools/list`.
pub const LIST_BYTES_MAX: usize = 8192;

/// What a client tells its model about this server.
pub const INSTRUCTIONS: &str = "Pointsman keeps many agents on one repository from undoing each other's work. \
Call `start` first, and again after you lose context: it gives your tasks, unread messages and the next step. \
Then loop: `claim_task` gives you a branch of your own and the paths you may change; commit there, by `git push` with the commands it returns or by `commit_files`; \
`update_task` as you go (it renews your lease); `submit_branch` when done; then `wait_for_events`. \
The host merges in order, runs the checks on the merged tree and lands it; a conflict comes back to you as base/ours/theirs: call `resolve_conflict`. \
Ack every message you acted on in your next `wait_for_events(ack)`; nack what is not for you. \
Write shared decisions with `write_context`, giving the version you read. \
Every result has `next`: one sentence saying what to do now. \
Where one connection serves several agents, give the `handle` from `start` as `agent` in each call.";

/// A tool and the toolset it belongs to.
pub struct Tool {
    /// Its name.
    pub name: &'static str,
    /// None: in every list.
    pub toolset: Option<&'static str>,
    description: &'static str,
    schema: fn() -> Value,
    read_only: bool,
}

fn text(description: &str) -> Value {
    json!({"type": "string", "description": description})
}

fn texts(description: &str) -> Value {
    json!({"type": "array", "items": {"type": "string"}, "description": description})
}

fn array() -> Value {
    json!({"type": "array", "items": {"type": "string"}})
}

fn task() -> Value {
    json!({"type": "string", "description": "Task id, `T-3`"})
}

fn object(properties: Value, required: &[&str]) -> Value {
    let mut properties = properties;
    if let Some(map) = properties.as_object_mut() {
        map.insert("agent".to_owned(), json!({"type": "string"}));
    }
    let mut schema = json!({"type": "object", "properties": properties});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

const KEY: &str = "The same key acts once";

/// All tools, in the order of the list.
pub const TOOLS: &[Tool] = &[
    Tool {
        name: "start",
        toolset: None,
        description: "Introduce yourself, or find your way back after losing context: your tasks, unread messages, open tasks, the next step.",
        schema: || {
            object(
                json!({
                    "name": text("Your name; the same one finds your tasks again"),
                    "capabilities": texts("What you can do: `rust`, `review`, `python@3.12.0`"),
                    "teams": texts("Teams you belong to"),
                    "topics": texts("Topics whose messages you want"),
                    "model": text("The model behind you")
                }),
                &["name"],
            )
        },
        read_only: false,
    },
    Tool {
        name: "wait_for_events",
        toolset: None,
        description: "Ack or nack messages, then wait for new ones and for events of your tasks. Unacked messages come again.",
        schema: || {
            object(
                json!({
                    "ack": texts("Ids of messages you acted on"),
                    "nack": {"type": "array", "description": "Messages to give back", "items": {"type": "object", "properties": {
                        "message": {"type": "string"}, "reason": {"type": "string"}, "delay_s": {"type": "integer", "minimum": 0}}, "required": ["message"]}},
                    "max_s": {"type": "integer", "minimum": 0, "maximum": 50, "description": "45 unless given"},
                    "after": text("`cursor` of your last answer; without it you hear only of what comes from now on"),
                    "watch": texts("Context keys to hear of: `plan/**`")
                }),
                &[],
            )
        },
        read_only: false,
    },
    Tool {
        name: "send_message",
        toolset: None,
        description: "Send to agents, to whoever has a capability, to a topic or to all; or up to 20 such `messages`, all or none.",
        schema: || {
            object(
                json!({
                    "to": texts("`agent:NAME`, `topic:NAME`, `all`, or a capability expression: `rust`, `all(rust, review)`"),
                    "kind": text("`question`, `answer`, `notice`, …"),
                    "subject": text("One line"),
                    "body": {"description": "Text or JSON"},
                    "paths": texts("Repository paths"),
                    "tags": array(),
                    "priority": {"type": "integer", "minimum": 0, "maximum": 9},
                    "thread": {"type": "string"},
                    "reply_to": text("Message it answers"),
                    "correlation": {"type": "string"},
                    "attachments": {"type": "array", "items": {"type": "object"}, "description": "{sha256|blake3, name, media_type, bytes}"},
                    "headers": {"type": "object"},
                    "ack_required": {"type": "boolean"},
                    "expires_in_s": {"type": "integer", "minimum": 1},
                    "messages": {"type": "array", "items": {"type": "object"}},
                    "idempotency_key": text(KEY)
                }),
                &[],
            )
        },
        read_only: false,
    },
    Tool {
        name: "lookup",
        toolset: None,
        description: "Read anything: `tasks`, `agents`, `merges`, `messages`, `dead_letters`, `context`, `T-3`, `M-2`, `msg_…`, `context/KEY[@VERSION][?lines=1-20|pointer=/a|since=2|history]`, `context_conflict/ID`, `pull_request/T-3`, `conflict/T-3`, `receipt/COMMIT`, `events[/AFTER]`.",
        schema: || object(json!({"uri": text("One of these")}), &["uri"]),
        read_only: true,
    },
    Tool {
        name: "create_task",
        toolset: None,
        description: "Add a task. Name its paths, so that no two agents change the same files at once.",
        schema: || {
            object(
                json!({
                    "title": text("One line"),
                    "description": text("Markdown"),
                    "kind": text("`feature`, `fix`, `hotfix`, `docs`, …"),
                    "priority": {"type": "integer", "minimum": 0, "maximum": 9},
                    "labels": array(),
                    "acceptance": texts("What must hold when it is done"),
                    "depends_on": texts("Tasks that land before it"),
                    "paths": texts("Globs it alone will change: `src/parser/**`"),
                    "shared_paths": texts("Files it changes beside others: `CHANGELOG.md`"),
                    "idempotency_key": text(KEY)
                }),
                &["title"],
            )
        },
        read_only: false,
    },
    Tool {
        name: "claim_task",
        toolset: None,
        description: "Take a task: leases its paths and gives you its branch, with the exact git commands. Claiming yours again renews it.",
        schema: || object(json!({"task": task(), "paths": texts("More globs to lease")}), &["task"]),
        read_only: false,
    },
    Tool {
        name: "update_task",
        toolset: None,
        description: "Report progress (renews your lease), or give the task back.",
        schema: || {
            object(
                json!({
                    "task": task(),
                    "progress": {"type": "integer", "minimum": 0, "maximum": 100},
                    "note": text("What you did or found"),
                    "release": {"type": "boolean", "description": "Give it back; the branch is kept"}
                }),
                &["task"],
            )
        },
        read_only: false,
    },
    Tool {
        name: "submit_branch",
        toolset: None,
        description: "Offer your branch for landing. It is merged, checked and landed in order; the outcome comes as a message.",
        schema: || object(json!({"task": task(), "head": text("The commit you mean, 40 hex digits; else the branch's head")}), &["task"]),
        read_only: false,
    },
    Tool {
        name: "review_branch",
        toolset: None,
        description: "Give a verdict on a task's branch.",
        schema: || {
            object(
                json!({
                    "task": task(),
                    "verdict": {"type": "string", "enum": ["approve", "request_changes"]},
                    "head": text("The commit you read"),
                    "comment": {"type": "string"}
                }),
                &["task", "verdict"],
            )
        },
        read_only: false,
    },
    Tool {
        name: "resolve_conflict",
        toolset: None,
        description: "Resolve every conflicted file of your task in one call; it is committed on your branch and submitted again.",
        schema: || {
            object(
                json!({
                    "task": task(),
                    "files": {"type": "array", "items": {"type": "object", "properties": {
                        "path": {"type": "string"},
                        "content": {"type": "string", "description": "The whole file"},
                        "take": {"type": "string", "enum": ["ours", "theirs", "base"], "description": "ours is the target, theirs your branch"},
                        "delete": {"type": "boolean"}}, "required": ["path"]}}
                }),
                &["task", "files"],
            )
        },
        read_only: false,
    },
    Tool {
        name: "write_context",
        toolset: None,
        description: "Write a shared document from the version you read. A stale write is merged; a conflict changes nothing and says where. Also: `media_type`, `base64`, `restore`, `rename_to`, `label`, `expires_in_s`, `expects`, `hand_to`.",
        schema: || {
            object(
                json!({
                    "key": text("`plan/api`, `decisions/db`"),
                    "base_version": {"type": "integer", "minimum": 0, "description": "The version you read; 0: new"},
                    "value": {"description": "JSON document"},
                    "text": text("Or a text document"),
                    "patch": {"description": "RFC 6902, or unified diff"},
                    "delete": {"type": "boolean"},
                    "resolves": text("The conflict it settles"),
                    "take": {"type": "string", "enum": ["ours", "theirs"]},
                    "documents": {"type": "array", "items": {"type": "object"}, "description": "All or none"},
                    "idempotency_key": text(KEY)
                }),
                &[],
            )
        },
        read_only: false,
    },
    Tool {
        name: "commit_files",
        toolset: Some("files"),
        description: "Commit on your task's branch without a clone.",
        schema: || {
            object(
                json!({
                    "task": task(),
                    "files": {"type": "array", "items": {"type": "object", "properties": {
                        "path": {"type": "string"},
                        "content": {"type": "string"},
                        "content_base64": {"type": "string"},
                        "delete": {"type": "boolean"},
                        "rename_from": {"type": "string"},
                        "executable": {"type": "boolean"}}, "required": ["path"]}},
                    "note": text("For the commit message"),
                    "parent": text("The head you worked from; refused when it moved"),
                    "idempotency_key": text(KEY)
                }),
                &["task", "files"],
            )
        },
        read_only: false,
    },
];

/// Returns the tools that these toolsets open: the name and the `Tool` object of each.
#[must_use]
pub fn list(toolsets: &[String]) -> Vec<(String, String)> {
    let shown = TOOLS.iter().filter(|tool| tool.toolset.is_none_or(|set| toolsets.iter().any(|granted| granted == set)));
    shown
        .map(|tool| {
            let mut shown = json!({"name": tool.name, "description": tool.description, "inputSchema": (tool.schema)()});
            // None has `idempotentHint`: `wait_for_events` may be repeated at no harm, but hands out more each time.
            if tool.read_only {
                shown["annotations"] = json!({"readOnlyHint": true});
            }
            (tool.name.to_owned(), shown.to_string())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_small_and_its_schemas_are_flat() {
        let everything = list(&["files".to_owned()]);
        let bytes: usize = everything.iter().map(|(_, json)| json.len() + 1).sum();
        assert!(bytes < LIST_BYTES_MAX, "{bytes} bytes");
        assert!(INSTRUCTIONS.len() <= 1280, "{} bytes", INSTRUCTIONS.len());
        for (_, json) in everything {
            let tool: Value = serde_json::from_str(&json).expect("JSON");
            let name = tool["name"].as_str().expect("a name");
            assert!(name.len() <= 40 && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'), "{name}");
            let schema = tool["inputSchema"].as_object().expect("a schema");
            assert!(!["oneOf", "anyOf", "allOf"].iter().any(|word| schema.contains_key(*word)), "{name}");
            assert_eq!(schema["type"], "object", "{name}");
        }
    }
}
