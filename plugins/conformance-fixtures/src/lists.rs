//! What is offered, and how it changes: each change adds something with a new name, so that the list differs from any
//! list before it, across restarts, too.

use pointsman_sdk::agent::{Action, recall};
use pointsman_sdk::agent_provider::replace_offers;
use pointsman_sdk::mcp_provider::Offers;
use serde::{Deserialize, Serialize};

use crate::{prompts, resources, tools};

/// Where the count is kept.
const KEY: &str = "changes";

/// How often each list has changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Changes {
    /// Of the tools.
    pub(crate) tools: u32,
    /// Of the prompts.
    pub(crate) prompts: u32,
    /// Of the watched resource's content.
    pub(crate) updates: u32,
}

impl Changes {
    /// Returns the count that was kept; zero when none was, or one that cannot be read.
    pub(crate) fn recalled() -> Self {
        recall(KEY).and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
    }

    /// Counts what a finished call changes; returns the URIs it updates, or none when it changes nothing.
    pub(crate) fn after(&mut self, verb: &str, name: &str) -> Option<Vec<&'static str>> {
        match (verb, name) {
            ("tool", tools::CHANGES_TOOLS) => self.tools = self.tools.wrapping_add(1),
            ("tool", tools::CHANGES_PROMPTS) => self.prompts = self.prompts.wrapping_add(1),
            ("tool", tools::UPDATES_RESOURCE) => {
                self.updates = self.updates.wrapping_add(1);
                return Some(vec![resources::WATCHED]);
            }
            _ => return None,
        }
        Some(Vec::new())
    }

    /// Returns what makes a change known: the count and the lists, in one answer, so that they stay together.
    pub(crate) fn actions(&self, updated: &[&str]) -> Vec<Action> {
        let count = serde_json::to_vec(self).expect("numbers are JSON");
        vec![Action::Put((KEY.to_owned(), count)), replace_offers(&self.offers(), updated)]
    }

    /// Returns the lists.
    pub(crate) fn offers(&self) -> Offers {
        let texts = |list: Vec<serde_json::Value>| list.iter().map(ToString::to_string).collect();
        Offers {
            namespace: String::new(),
            tools: texts(tools::list(self.tools)),
            resources: texts(resources::list()),
            templates: texts(resources::templates()),
            prompts: texts(prompts::list(self.prompts)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    fn names(entries: &[String], member: &str) -> Vec<String> {
        let name = |entry: &String| {
            let entry: Value = serde_json::from_str(entry).expect("JSON");
            assert!(entry["description"].as_str().is_some_and(|text| !text.is_empty()), "{entry}");
            entry[member].as_str().expect("a text").to_owned()
        };
        entries.iter().map(name).collect()
    }

    #[test]
    fn everything_offered_has_a_name_of_its_own_and_a_description() {
        let offers = Changes { tools: 3, prompts: 2, updates: 1 }.offers();
        assert_eq!(offers.namespace, "");
        let lists = [(&offers.tools, "name"), (&offers.resources, "uri"), (&offers.templates, "uriTemplate"), (&offers.prompts, "name")];
        for (list, member) in lists {
            let all = names(list, member);
            assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len(), "{all:?}");
            assert!(!all.is_empty(), "{member}");
        }
        // What runs without arguments comes first: a scenario calls the first tool it finds, with none.
        assert_eq!(names(&offers.tools, "name")[0], "test_simple_text");
    }

    #[test]
    fn tools_have_schemas_of_objects_and_names_that_clients_accept() {
        for entry in Changes::default().offers().tools {
            let tool: Value = serde_json::from_str(&entry).expect("JSON");
            assert_eq!(tool["inputSchema"]["type"], "object", "{entry}");
            let name = tool["name"].as_str().expect("a text");
            let is_plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
            assert!(is_plain && name.len() <= 64, "{name}");
        }
    }

    #[test]
    fn each_change_gives_lists_that_differ_from_those_before() {
        let mut changes = Changes::default();
        let before = changes.offers();
        assert_eq!(changes.after("tool", "test_trigger_prompt_change"), Some(Vec::new()));
        let after = changes.offers();
        assert!(before.tools == after.tools && before.prompts != after.prompts);
        assert_eq!(changes.after("tool", "test_trigger_prompt_change"), Some(Vec::new()));
        assert!(changes.offers().prompts != after.prompts && changes.offers().prompts != before.prompts);
        assert_eq!(changes.after("resource", "test_trigger_prompt_change"), None);
    }
}
