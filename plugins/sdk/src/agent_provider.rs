//! The world `agent-provider`: a type that is an [`Agent`](crate::agent::Agent) and a
//! [`Provider`](crate::mcp_provider::Provider) at once. Its manifest says `world = "agent"`.
//!
//! The two halves share the configuration and nothing else: what the agent learns from events reaches the provider
//! through the host, by [`recall`](crate::agent::recall) or by the action `replace-offers`.

use serde::Serialize;

use crate::agent::Action;
use crate::mcp_provider::Offers;

/// The form of offers in the action `replace-offers`.
#[derive(Debug, Serialize)]
struct Replacement<'a> {
    namespace: &'a str,
    tools: &'a [String],
    resources: &'a [String],
    templates: &'a [String],
    prompts: &'a [String],
    #[serde(skip_serializing_if = "<[&str]>::is_empty")]
    updated: &'a [&'a str],
}

/// Returns the action that replaces what is offered. Subscribers of the lists that differ, and of the resources in
/// `updated` (by their URIs), are told.
#[must_use]
pub fn replace_offers(offers: &Offers, updated: &[&str]) -> Action {
    let Offers { namespace, tools, resources, templates, prompts } = offers;
    let replacement = Replacement { namespace, tools, resources, templates, prompts, updated };
    Action::ReplaceOffers(serde_json::to_string(&replacement).expect("texts and lists of texts are JSON"))
}

/// Exports a type that is an [`Agent`](crate::agent::Agent) and a [`Provider`](crate::mcp_provider::Provider) as the
/// world `agent-provider`.
#[macro_export]
macro_rules! export_agent_provider {
    ($plugin:ty) => {
        #[cfg(target_arch = "wasm32")]
        #[allow(unsafe_code, reason = "the export glue of the component")]
        const _: () = {
            $crate::__setup!($plugin);
            $crate::__agent!();
            $crate::__mcp_provider!();
        };
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replacement_names_updated_resources_only_where_there_are_some() {
        let offers = Offers {
            namespace: "ns".to_owned(),
            tools: vec![r#"{"name":"t"}"#.to_owned()],
            resources: Vec::new(),
            templates: Vec::new(),
            prompts: Vec::new(),
        };
        let json = |action| {
            let Action::ReplaceOffers(json) = action else { panic!("{action:?}") };
            json
        };
        let bare = r#"{"namespace":"ns","tools":["{\"name\":\"t\"}"],"resources":[],"templates":[],"prompts":[]"#;
        assert_eq!(json(replace_offers(&offers, &[])), format!("{bare}}}"));
        assert_eq!(json(replace_offers(&offers, &["test://a"])), format!("{bare},\"updated\":[\"test://a\"]}}"));
    }
}
