//! `plugin.toml`: what a component says of itself. The text is embedded word for word as a custom section.

use std::fmt;

use figment::providers::{Format, Toml};
use serde::Deserialize;

use crate::ports::plugins::{PluginLimits, World};

/// The custom section that carries the manifest.
pub const SECTION: &str = "pointsman.manifest";
/// The version of the manifest's own form.
pub const MANIFEST_VERSION: u32 = 1;
/// The longest plugin name.
pub const NAME_BYTES_MAX: usize = 40;
/// The longest manifest text.
pub const MANIFEST_BYTES_MAX: usize = 64 << 10;

/// A plugin's name: small letters, digits and dashes, beginning with a letter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(try_from = "String")]
pub struct PluginName(String);

impl PluginName {
    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PluginName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for PluginName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let fits = (1..=NAME_BYTES_MAX).contains(&text.len())
            && text.starts_with(|first: char| first.is_ascii_lowercase())
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if fits {
            return Ok(Self(text));
        }
        Err(format!("the name {text:?} must be 1 to {NAME_BYTES_MAX} small letters, digits and dashes, beginning with a letter"))
    }
}

/// What a component says it needs at most. The operator's limits hold where they are lower.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitHints {
    /// Milliseconds for one call.
    pub deadline_ms: Option<u32>,
    /// Bytes of all memories of an instance.
    pub memory_bytes: Option<u64>,
    /// Bytes of one answer.
    pub result_bytes: Option<u64>,
    /// Calls at once.
    pub concurrency: Option<u32>,
}

impl From<LimitHints> for PluginLimits {
    fn from(hints: LimitHints) -> Self {
        let count = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        Self {
            memory_bytes_max: hints.memory_bytes.map(count),
            deadline_ms: hints.deadline_ms.map(u64::from),
            result_bytes_max: hints.result_bytes.map(count),
            concurrency_max: hints.concurrency.map(|number| count(number.into())),
        }
    }
}

/// What a plugin is written in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lang {
    /// Compiled by cargo.
    #[default]
    Rust,
    /// JavaScript, by `componentize-js`.
    Js,
    /// Python, by `componentize-py`.
    Python,
}

impl Lang {
    /// Returns its name in a manifest and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Js => "js",
            Self::Python => "python",
        }
    }
}

impl fmt::Display for Lang {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A manifest.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The version of this form: 1.
    pub manifest_version: u32,
    /// The plugin's name, and that of its file.
    pub name: PluginName,
    /// The plugin's version.
    pub version: semver::Version,
    /// The world it targets.
    pub world: World,
    /// What it is written in.
    #[serde(default)]
    pub lang: Lang,
    /// One line for the operator.
    pub description: String,
    /// Capabilities it asks for, by name; what is not granted is refused at load.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// What it needs at most.
    #[serde(default)]
    pub limits: LimitHints,
    /// The configuration of a binding that gives none.
    #[serde(default)]
    pub config: serde_json::Map<String, serde_json::Value>,
}

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// What is wrong, with line and column where it is a matter of form.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MANIFEST_BYTES_MAX {
            return Err(format!("a manifest has at most {MANIFEST_BYTES_MAX} bytes, not {}", text.len()));
        }
        let manifest: Self = Toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
        if manifest.manifest_version != MANIFEST_VERSION {
            return Err(format!("`manifest_version` is {MANIFEST_VERSION} here, not {}", manifest.manifest_version));
        }
        if manifest.description.trim().is_empty() || manifest.description.contains('\n') {
            return Err("`description` must be one line that says what the plugin does".to_owned());
        }
        if let Some(blank) = manifest.capabilities.iter().find(|name| name.trim() != name.as_str() || name.is_empty()) {
            return Err(format!("{blank:?} is not the name of a capability"));
        }
        Ok(manifest)
    }

    /// Returns the default configuration as the JSON object that `configure` takes.
    #[must_use]
    pub fn config_json(&self) -> String {
        serde_json::Value::Object(self.config.clone()).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str =
        "manifest_version = 1\nname = \"least-loaded\"\nversion = \"1.2.0\"\nworld = \"router\"\ndescription = \"one line\"\n";

    #[test]
    fn a_manifest_is_read_whole() {
        let text =
            format!("{SMALL}capabilities = [\"kv\"]\n[limits]\ndeadline_ms = 2\n[config]\nranked_max = 3\n[config.weights]\nload = 1\n");
        let manifest = Manifest::parse(&text).expect("fits");
        assert_eq!((manifest.name.as_str(), manifest.world), ("least-loaded", World::Router));
        assert_eq!(manifest.limits, LimitHints { deadline_ms: Some(2), ..LimitHints::default() });
        assert_eq!(manifest.capabilities, ["kv"]);
        assert_eq!(manifest.config_json(), r#"{"ranked_max":3,"weights":{"load":1}}"#);
        let small = Manifest::parse(SMALL).expect("fits");
        assert_eq!((small.config_json().as_str(), small.lang), ("{}", Lang::Rust));
        let python = Manifest::parse(&format!("lang = \"python\"\n{SMALL}")).expect("fits");
        assert_eq!(python.lang.to_string(), "python");
    }

    #[test]
    fn errors_name_the_key_and_the_line() {
        let cases = [
            ("world = \"router\"", "world = \"ruter\"", "unknown variant `ruter`"),
            ("world = \"router\"", "wrld = \"router\"", "line 4"),
            ("description", "lang = \"perl\"\ndescription", "unknown variant `perl`"),
            ("version = \"1.2.0\"", "version = \"1.2\"", "unexpected end of input while parsing minor version"),
            ("least-loaded", "Least", "small letters"),
            ("name = \"least-loaded\"\n", "", "missing field `name`"),
            ("manifest_version = 1", "manifest_version = 2", "`manifest_version` is 1 here, not 2"),
            ("\"one line\"", "\" \"", "one line"),
            ("description", "capabilities = [\"\"]\ndescription", "not the name of a capability"),
            ("description", "config = 1\ndescription", "line 5"),
        ];
        for (from, to, what) in cases {
            let error = Manifest::parse(&SMALL.replacen(from, to, 1)).expect_err(to);
            assert!(error.contains(what), "{to}: {error}");
        }
    }

    #[test]
    fn world_names_go_both_ways() {
        for world in World::ALL {
            assert_eq!(world.name().parse(), Ok(world));
            assert_eq!(serde_json::to_value(world).expect("it is a name"), world.name());
        }
        assert!("nope".parse::<World>().is_err());
    }
}
