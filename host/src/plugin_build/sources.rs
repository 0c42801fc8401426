//! What a new plugin begins with, as it stands in this repository: the SDKs, the WIT, and the examples, which are tested here.

/// A file: its path below a folder, and its text.
pub(super) type Source = (&'static str, &'static str);

macro_rules! embedded {
    ($(#[$doc:meta])* $name:ident = $base:literal: $($path:literal),+ $(,)?) => {
        $(#[$doc])*
        pub(super) const $name: &[Source] = &[$(($path, include_str!(concat!("../../../", $base, "/", $path)))),+];
    };
}

/// The workspace's manifest, for the versions of dependencies.
pub(super) const WORKSPACE: &str = include_str!("../../../Cargo.toml");
/// The workspace's lock, for the versions that are known to work.
pub(super) const LOCK: &str = include_str!("../../../Cargo.lock");

embedded! {
    /// The Rust SDK. Its tests stay here.
    RUST_SDK = "plugins/sdk":
    "Cargo.toml",
    "src/agent.rs",
    "src/agent_provider.rs",
    "src/bindings.rs",
    "src/glob.rs",
    "src/json.rs",
    "src/json/merge.rs",
    "src/json/print.rs",
    "src/lib.rs",
    "src/lines.rs",
    "src/mcp_provider.rs",
    "src/mcp_provider/emit.rs",
    "src/merger.rs",
    "src/policy.rs",
    "src/reconciler.rs",
    "src/router.rs",
    "src/router/facts.rs",
    "src/schema.rs",
    "src/setup.rs",
    "src/symbols.rs",
    "src/text.rs",
    "src/text/difference.rs",
    "src/text/numbered.rs",
    "src/text/three_way.rs",
    "src/words.rs",
    "src/workflow.rs",
}

embedded! {
    /// Its attributes.
    RUST_SDK_MACROS = "plugins/sdk-macros":
    "Cargo.toml",
    "src/arguments.rs",
    "src/block.rs",
    "src/config.rs",
    "src/function.rs",
    "src/lib.rs",
}

embedded! {
    /// What an author in JavaScript imports.
    JS_SDK = "plugins/sdk/js":
    "merger.js",
    "policy.js",
    "reconciler.js",
    "router.js",
    "text.js",
    "workflow.js",
}

embedded! {
    /// What connects a plugin in JavaScript to its world.
    JS_GLUE = "plugins/sdk/js/glue":
    "component.js",
    "merger.js",
    "policy.js",
    "reconciler.js",
    "router.js",
    "workflow.js",
}

embedded! {
    /// What an author in Python imports.
    PYTHON_SDK = "plugins/sdk/python/pointsman":
    "__init__.py",
    "merger.py",
    "policy.py",
    "reconciler.py",
    "router.py",
    "workflow.py",
}

embedded! {
    /// What connects a plugin in Python to its world.
    PYTHON_GLUE = "plugins/sdk/python/pointsman_glue":
    "__init__.py",
    "merger.py",
    "policy.py",
    "reconciler.py",
    "router.py",
    "workflow.py",
}

embedded! {
    /// The examples, by language and world.
    EXAMPLES = "plugins/examples":
    "js/merger/plugin.toml",
    "js/merger/src/plugin.js",
    "js/merger/tests/plugin.test.js",
    "js/policy/plugin.toml",
    "js/policy/src/plugin.js",
    "js/policy/tests/plugin.test.js",
    "js/reconciler/plugin.toml",
    "js/reconciler/src/plugin.js",
    "js/reconciler/tests/plugin.test.js",
    "js/router/plugin.toml",
    "js/router/src/plugin.js",
    "js/router/tests/plugin.test.js",
    "js/workflow/plugin.toml",
    "js/workflow/src/plugin.js",
    "js/workflow/tests/plugin.test.js",
    "python/merger/plugin.toml",
    "python/merger/src/plugin.py",
    "python/merger/tests/test_plugin.py",
    "python/policy/plugin.toml",
    "python/policy/src/plugin.py",
    "python/policy/tests/test_plugin.py",
    "python/reconciler/plugin.toml",
    "python/reconciler/src/plugin.py",
    "python/reconciler/tests/test_plugin.py",
    "python/router/plugin.toml",
    "python/router/src/plugin.py",
    "python/router/tests/test_plugin.py",
    "python/workflow/plugin.toml",
    "python/workflow/src/plugin.py",
    "python/workflow/tests/test_plugin.py",
    "rust/agent/Cargo.toml",
    "rust/agent/cases/answer.toml",
    "rust/agent/plugin.toml",
    "rust/agent/src/lib.rs",
    "rust/mcp-provider/Cargo.toml",
    "rust/mcp-provider/plugin.toml",
    "rust/mcp-provider/src/lib.rs",
    "rust/merger/Cargo.toml",
    "rust/merger/cases/both-sides.toml",
    "rust/merger/plugin.toml",
    "rust/merger/src/lib.rs",
    "rust/policy/Cargo.toml",
    "rust/policy/cases/large.toml",
    "rust/policy/plugin.toml",
    "rust/policy/src/lib.rs",
    "rust/reconciler/Cargo.toml",
    "rust/reconciler/cases/both-edits.toml",
    "rust/reconciler/plugin.toml",
    "rust/reconciler/src/lib.rs",
    "rust/router/Cargo.toml",
    "rust/router/cases/everyone.toml",
    "rust/router/cases/least-busy.toml",
    "rust/router/plugin.toml",
    "rust/router/src/lib.rs",
    "rust/workflow/Cargo.toml",
    "rust/workflow/cases/branch.toml",
    "rust/workflow/plugin.toml",
    "rust/workflow/src/lib.rs",
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// Returns the paths of all files below a folder, tests of the SDK and what an interpreter leaves behind left out.
    fn files(base: &str) -> BTreeSet<String> {
        fn collect(folder: &Path, below: &str, found: &mut BTreeSet<String>) {
            for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
                let path = format!("{below}{}", entry.file_name().to_string_lossy());
                if entry.path().is_dir() {
                    collect(&entry.path(), &format!("{path}/"), found);
                } else {
                    found.insert(path);
                }
            }
        }
        let mut found = BTreeSet::new();
        collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(base), "", &mut found);
        found.retain(|path| !path.contains("__pycache__") && !path.ends_with("/tests.rs"));
        found
    }

    #[test]
    fn every_file_of_the_sdks_and_the_examples_comes_along() {
        let listed = |sources: &[Source]| -> BTreeSet<String> { sources.iter().map(|(path, _)| (*path).to_owned()).collect() };
        let mut sdk = files("plugins/sdk");
        sdk.retain(|path| !path.starts_with("js/") && !path.starts_with("python/"));
        assert_eq!(listed(RUST_SDK), sdk);
        assert_eq!(listed(RUST_SDK_MACROS), files("plugins/sdk-macros"));
        let mut js = files("plugins/sdk/js");
        js.retain(|path| !path.starts_with("glue/"));
        assert_eq!(listed(JS_SDK), js);
        assert_eq!(listed(JS_GLUE), files("plugins/sdk/js/glue"));
        assert_eq!(listed(PYTHON_SDK), files("plugins/sdk/python/pointsman"));
        assert_eq!(listed(PYTHON_GLUE), files("plugins/sdk/python/pointsman_glue"));
        assert_eq!(listed(EXAMPLES), files("plugins/examples"));
    }
}
