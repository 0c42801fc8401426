//! The host's own offers: its tools, the resources that mirror its nouns, the prompts for hand-offs.

use serde_json::{Map, Value, json};

use super::tools;
use crate::ports::offering::{ListKind, keys_of};
use crate::ports::surface::CallError;

/// What the URIs of the host's own resources start with.
pub(in crate::service) const SCHEME: &str = "pointsman://";

/// URI after the scheme, name, what it is.
const RESOURCES: [(&str, &str, &str); 8] = [
    ("tasks", "Tasks", "All tasks with their state and holder, newest first"),
    ("agents", "Agents", "Who works here, and with which capabilities"),
    ("merges", "Merges", "What was submitted for landing, newest first"),
    ("messages", "Messages", "The newest messages of the project"),
    ("dead_letters", "Dead letters", "Messages that nobody took"),
    ("context", "Shared context", "Keys and versions of the shared documents"),
    ("context_conflicts", "Conflicts of documents", "Writes that nobody settled yet"),
    ("events", "Events", "The project's log from its beginning"),
];

/// Noun, variable, name, what it is.
const TEMPLATES: [(&str, &str, &str, &str); 8] = [
    ("task", "id", "Task", "One task: description, paths, claim, progress, reviews"),
    ("merge", "id", "Merge", "One try to land a branch"),
    ("message", "id", "Message", "One message"),
    ("context", "+key", "Shared document", "One document as it stands now; `@VERSION` after the key for an earlier one"),
    ("context_conflict", "id", "Conflict of a document", "A write that conflicted: where, and what its writer wanted"),
    ("pull_request", "task", "Pull-request text", "What a pull request for a task's branch would say"),
    ("conflict", "task", "Conflict", "The three sides of each file a task's branch conflicts in"),
    ("receipt", "commit", "Receipt", "The signed account of a landing"),
];

/// Returns an argument of a prompt, empty when it is not given.
type Given<'a> = dyn Fn(&str) -> String + 'a;

/// A prompt: name, what it is for, its arguments with what they are and whether they must be given.
struct OwnPrompt {
    name: &'static str,
    title: &'static str,
    description: &'static str,
    arguments: &'static [(&'static str, &'static str, bool)],
    text: fn(&Given<'_>) -> String,
}

const PROMPTS: [OwnPrompt; 4] = [
    OwnPrompt {
        name: "begin_work",
        title: "Begin work",
        description: "Join the project, take a task and work in the loop the host expects",
        arguments: &[("goal", "What you are here to do; else the most urgent free task", false)],
        text: |of| {
            let goal = match of("goal").as_str() {
                "" => "Take the most urgent task that is free and that you can do.".to_owned(),
                goal => format!("Your goal: {goal}. Take the task that fits it, or create it with the paths it will touch."),
            };
            format!(
                "Call `start` with your name and capabilities. {goal} Claim it with `claim_task` and work on the branch it gives you, \
                 with the git commands it prints. Report with `update_task`; submit with `submit_branch`. After each step call \
                 `wait_for_events`: act on what it brings, then ack it in the next call."
            )
        },
    },
    OwnPrompt {
        name: "hand_off",
        title: "Hand a task off",
        description: "Give a task to another agent without losing what you know",
        arguments: &[("task", "The task, such as T-3", true), ("to", "The agent or capability it goes to", false)],
        text: |of| {
            let to = match of("to").as_str() {
                "" => "whoever has the capability it needs".to_owned(),
                to => format!("`{to}`"),
            };
            format!(
                "Hand {task} to {to}. Commit or push what you have. Write what you found, what is left and what you would do next to the \
                 shared document `handoff/{task}` with `write_context`. Give the task back with `update_task` and `release`. Then tell \
                 {to} with `send_message`, kind `request`, naming {task} and that document.",
                task = of("task")
            )
        },
    },
    OwnPrompt {
        name: "review_task",
        title: "Review a branch",
        description: "Read a task's branch and give a verdict on exactly the commit you read",
        arguments: &[("task", "The task, such as T-3", true)],
        text: |of| {
            let task = of("task");
            format!(
                "Review {task}. Read what it is for (`lookup` {task}) and what it changes (`lookup` pull_request/{task}, and the branch itself). \
                 Look for what breaks callers, loses data, or contradicts the shared context. Answer with `review_branch`: the verdict, the \
                 head you read, and for each problem the file, the line and what would mend it."
            )
        },
    },
    OwnPrompt {
        name: "settle_conflict",
        title: "Settle a conflict",
        description: "Resolve what git and the mergers could not, keeping what both sides meant",
        arguments: &[("task", "The task whose branch conflicts, such as T-3", true)],
        text: |of| {
            let task = of("task");
            format!(
                "Settle the conflict of {task}. Read its three sides (`lookup` conflict/{task}): base, ours (the target), theirs (your branch). \
                 For each file say to yourself what each side wanted, then write a whole file that does both; where both cannot be, ask the \
                 author of the other side with `send_message` before you choose. Answer with `resolve_conflict`, every file in one call."
            )
        },
    },
];

/// Returns the host's own part of a list: what names an entry, and its JSON.
pub(super) fn list(kind: ListKind, toolsets: &[String]) -> Vec<(String, String)> {
    match kind {
        ListKind::Tools => tools::list(toolsets),
        ListKind::Resources => RESOURCES
            .iter()
            .map(|(noun, name, description)| {
                let uri = format!("{SCHEME}{noun}");
                let json = json!({"uri": uri, "name": noun, "title": name, "description": description, "mimeType": "application/json"});
                (uri, json.to_string())
            })
            .collect(),
        ListKind::Templates => TEMPLATES
            .iter()
            .map(|(noun, variable, name, description)| {
                let uri = format!("{SCHEME}{noun}/{{{variable}}}");
                let json =
                    json!({"uriTemplate": uri, "name": noun, "title": name, "description": description, "mimeType": "application/json"});
                (uri, json.to_string())
            })
            .collect(),
        ListKind::Prompts => PROMPTS
            .iter()
            .map(|prompt| {
                let arguments = prompt.arguments.iter();
                let arguments: Vec<Value> = arguments
                    .map(|(name, description, required)| json!({"name": name, "description": description, "required": required}))
                    .collect();
                let json = json!({"name": prompt.name, "title": prompt.title, "description": prompt.description, "arguments": arguments});
                (prompt.name.to_owned(), json.to_string())
            })
            .collect(),
    }
}

/// Returns the kind and name of everything that only the host may offer.
pub(in crate::service) fn names() -> Vec<(&'static str, String)> {
    let uris = [("resource", ListKind::Resources), ("template", ListKind::Templates), ("prompt", ListKind::Prompts)];
    let listed = uris.into_iter().flat_map(|(what, kind)| list(kind, &[]).into_iter().map(move |(name, _)| (what, name)));
    tools::TOOLS.iter().map(|tool| ("tool", tool.name.to_owned())).chain(listed).collect()
}

/// Returns whether a prompt is one of the host's own.
pub(super) fn is_prompt(name: &str) -> bool {
    PROMPTS.iter().any(|prompt| prompt.name == name)
}

/// Returns whether a URI is of the form of one of the host's own resources or templates, or means documents by a glob.
pub(super) fn has(uri: &str) -> bool {
    if let Some(keys) = keys_of(uri) {
        return keys.is_ok();
    }
    let path = uri.strip_prefix(SCHEME).unwrap_or_default();
    RESOURCES.iter().any(|(noun, ..)| *noun == path) || noun_of_template(uri).is_some()
}

/// Returns the noun of one of the host's own templates, for completing its variable.
pub(super) fn noun_of_template(uri: &str) -> Option<&'static str> {
    let path = uri.strip_prefix(SCHEME)?;
    TEMPLATES.iter().map(|(noun, ..)| *noun).find(|noun| path.strip_prefix(noun).is_some_and(|rest| rest.starts_with('/')))
}

/// Fills one of the host's own prompts.
///
/// # Errors
/// `InvalidParams` naming the argument that is missing, unknown or no text.
pub(super) fn prompt(name: &str, arguments: &str) -> Result<String, CallError> {
    let prompt = PROMPTS.iter().find(|prompt| prompt.name == name).ok_or_else(|| CallError::UnknownPrompt(name.to_owned()))?;
    let given: Map<String, Value> = serde_json::from_str(arguments).map_err(|error| CallError::InvalidParams(error.to_string()))?;
    for (argument, value) in &given {
        if !prompt.arguments.iter().any(|(known, ..)| known == argument) || !value.is_string() {
            return Err(CallError::InvalidParams(format!("`{argument}` is no text argument of the prompt `{name}`")));
        }
    }
    let of = |argument: &str| given.get(argument).and_then(Value::as_str).unwrap_or_default().trim().to_owned();
    if let Some((missing, what, _)) = prompt.arguments.iter().find(|(argument, _, required)| *required && of(argument).is_empty()) {
        return Err(CallError::InvalidParams(format!("the prompt `{name}` needs `{missing}`: {what}")));
    }
    let text = (prompt.text)(&of);
    let messages = json!([{"role": "user", "content": {"type": "text", "text": text}}]);
    Ok(json!({"description": prompt.description, "messages": messages}).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prompts_are_filled_or_say_what_they_lack() {
        let filled = prompt("review_task", r#"{"task":"T-3"}"#).expect("it is filled");
        assert!(filled.contains("pull_request/T-3"), "{filled}");
        for (name, arguments, why) in [
            ("review_task", "{}", "needs `task`"),
            ("review_task", r#"{"task":""}"#, "needs `task`"),
            ("review_task", r#"{"task":"T-3","x":"y"}"#, "`x`"),
            ("review_task", r#"{"task":3}"#, "`task`"),
        ] {
            let refused = prompt(name, arguments).expect_err(arguments).to_string();
            assert!(refused.contains(why), "{arguments}: {refused}");
        }
        assert_eq!(prompt("nothing", "{}"), Err(CallError::UnknownPrompt("nothing".to_owned())));
    }

    #[test]
    fn every_own_entry_is_json_under_its_name() {
        for kind in [ListKind::Tools, ListKind::Resources, ListKind::Templates, ListKind::Prompts] {
            for (name, json) in list(kind, &["files".to_owned()]) {
                let json: Value = serde_json::from_str(&json).expect("JSON");
                assert!([&json["name"], &json["uri"], &json["uriTemplate"]].iter().any(|shown| **shown == name), "{name}");
            }
        }
        assert_eq!(noun_of_template("pointsman://context/{+key}"), Some("context"));
        assert!(has("pointsman://context/plan/**") && !has("pointsman://context/../**"));
        assert!(has("pointsman://dead_letters") && has("pointsman://conflict/T-3"));
        assert!(!has("pointsman://") && !has("pointsman://conflict") && !has("pointsman://weather") && !has("a://tasks"));
    }
}
