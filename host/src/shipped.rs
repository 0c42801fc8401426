//! The components that come with the binary, as they were built into `plugins/dist`.

macro_rules! shipped {
    ($($name:literal),+ $(,)?) => {
        /// The shipped components: name and bytes.
        const COMPONENTS: &[(&str, &[u8])] = &[$(($name, include_bytes!(concat!("../../plugins/dist/", $name, ".wasm")))),+];
    };
}

shipped!(
    "context-json",
    "context-text",
    "merge-imports",
    "merge-json",
    "merge-text",
    "merge-union",
    "policy-default",
    "routing-capability",
    "routing-rules",
    "workflow-default",
);

/// Returns a shipped component.
#[must_use]
pub fn component(name: &str) -> Option<&'static [u8]> {
    COMPONENTS.iter().find(|(shipped, _)| *shipped == name).map(|(_, bytes)| *bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_configuration_calls_shipped_is_shipped() {
        let mut embedded: Vec<&str> = COMPONENTS.iter().map(|(name, _)| *name).collect();
        let mut named: Vec<&str> = crate::config::SHIPPED.iter().map(|(name, _)| *name).collect();
        embedded.sort_unstable();
        named.sort_unstable();
        assert_eq!(embedded, named);
    }
}
