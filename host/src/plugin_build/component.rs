//! Core module to component: what it imports and exports is held against its world before it is believed.

use std::collections::BTreeSet;

use wasmparser::{Encoding, Parser, Payload};
use wit_component::{ComponentEncoder, DecodedWasm};
use wit_parser::{Resolve, WorldId};

use super::BuildError;
use super::config_schema::findings;
use super::manifest::{MANIFEST_BYTES_MAX, Manifest, SECTION};
use crate::plugin_cases::golden;
use crate::ports::plugins::World;

/// The packages of `wit/`, those that others use first.
pub(super) const PACKAGES: [(&str, &str); 9] = [
    ("types.wit", include_str!("../../../wit/types/types.wit")),
    ("router.wit", include_str!("../../../wit/router/router.wit")),
    ("merger.wit", include_str!("../../../wit/merger/merger.wit")),
    ("reconciler.wit", include_str!("../../../wit/reconciler/reconciler.wit")),
    ("workflow.wit", include_str!("../../../wit/workflow/workflow.wit")),
    ("policy.wit", include_str!("../../../wit/policy/policy.wit")),
    ("agent.wit", include_str!("../../../wit/agent/agent.wit")),
    ("mcp-provider.wit", include_str!("../../../wit/mcp-provider/mcp-provider.wit")),
    ("agent-provider.wit", include_str!("../../../wit/agent-provider/agent-provider.wit")),
];

/// The custom section that carries the JSON Schema of the configuration.
pub const SCHEMA_SECTION: &str = "pointsman.config-schema";

/// Capabilities that a component asks for by importing an interface, whatever its manifest says: name, and how the interface begins.
pub const ASKED_BY_IMPORT: [(&str, &str); 2] = [("lookups", "pointsman:agent/lookups@"), ("kv", "pointsman:agent/kv@")];

/// The world of an agent that offers MCP as well, which is the name of its WIT package, too.
const AGENT_PROVIDER: &str = "agent-provider";

/// The interface whose export makes an agent an MCP provider, too.
const PROVIDER: &str = "pointsman:mcp-provider/provider@0.1.0";

/// The names of a world's imports and exports.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Shape {
    imports: BTreeSet<String>,
    exports: BTreeSet<String>,
}

impl Shape {
    fn of(resolve: &Resolve, world: WorldId) -> Self {
        let world = &resolve.worlds[world];
        Self {
            imports: world.imports.keys().map(|key| resolve.name_world_key(key)).collect(),
            exports: world.exports.keys().map(|key| resolve.name_world_key(key)).collect(),
        }
    }
}

/// What a component carries besides its code.
#[derive(Debug, Clone, Copy)]
pub(super) struct Papers<'a> {
    /// The manifest.
    pub(super) manifest: &'a Manifest,
    /// Its text.
    pub(super) text: &'a str,
    /// The JSON Schema of the configuration, where there is one.
    pub(super) schema: Option<&'a str>,
    /// The cases that go along, where there are any.
    pub(super) cases: Option<&'a str>,
}

/// Returns the component that a core module makes, with its papers inside, checked against its world.
///
/// # Errors
/// The module or the component does not fit the world; each error says how to mend it.
pub(super) fn componentize(core: &[u8], papers: Papers<'_>) -> Result<Vec<u8>, BuildError> {
    let world = papers.manifest.world;
    let (resolve, id) = target(world, true)?;
    refuse_foreign_imports(core, world, &Shape::of(&resolve, id))?;
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| BuildError::Componentize { world, source: error };
    let encoder = ComponentEncoder::default().module(core).map_err(|error| failed(error.into()))?;
    let component = encoder.validate(true).encode().map_err(|error| failed(error.into()))?;
    finish(component, papers)
}

/// Returns a component with its papers inside, checked against its world.
///
/// # Errors
/// It does not fit the world, or the configuration of its manifest does not fit its schema.
pub(super) fn finish(mut component: Vec<u8>, papers: Papers<'_>) -> Result<Vec<u8>, BuildError> {
    append_section(&mut component, SECTION, papers.text.as_bytes());
    if let Some(schema) = papers.schema {
        refuse_misfit(papers.manifest, schema)?;
        append_section(&mut component, SCHEMA_SECTION, schema.as_bytes());
    }
    if let Some(cases) = papers.cases {
        append_section(&mut component, golden::SECTION, cases.as_bytes());
    }
    check(&component, papers.manifest.world)?;
    Ok(component)
}

/// Refuses a manifest whose own configuration its plugin would not take.
fn refuse_misfit(manifest: &Manifest, schema: &str) -> Result<(), BuildError> {
    let config = serde_json::Value::Object(manifest.config.clone());
    let findings = findings(schema, &config).map_err(|why| BuildError::Schema { why })?;
    if findings.is_empty() { Ok(()) } else { Err(BuildError::ManifestConfig { findings }) }
}

/// Checks that a component targets its world: the exports are there, the imports are no others, the types fit.
///
/// # Errors
/// What does not fit, and how to mend it.
pub fn check(component: &[u8], world: World) -> Result<(), BuildError> {
    let undecodable = |error: Box<dyn std::error::Error + Send + Sync>| BuildError::Componentize { world, source: error };
    // The reader takes some malformed components for impossible ones.
    let decoded = std::panic::catch_unwind(|| wit_component::decode(component));
    let decoded = decoded.map_err(|_| undecodable("it is malformed".into()))?.map_err(|error| undecodable(error.into()))?;
    let DecodedWasm::Component(found, found_id) = decoded else {
        return Err(BuildError::NotAComponent { world });
    };
    let has = Shape::of(&found, found_id);
    let (resolve, id) = target(world, has.exports.contains(PROVIDER))?;
    let wants = Shape::of(&resolve, id);
    let difference = |a: &BTreeSet<String>, b: &BTreeSet<String>| -> Vec<String> { a.difference(b).cloned().collect() };
    let missing = difference(&wants.exports, &has.exports);
    // A plain name is a toolchain's own: componentize-py leaves one, and nobody asks for it.
    let extra: Vec<String> = difference(&has.exports, &wants.exports).into_iter().filter(|name| name.contains(':')).collect();
    let foreign = difference(&has.imports, &wants.imports);
    if !missing.is_empty() || !extra.is_empty() || !foreign.is_empty() {
        return Err(BuildError::WorldMismatch { world, missing, extra, foreign });
    }
    wit_component::targets(&resolve, id, component).map_err(|error| BuildError::WorldTypes { world, source: error.into() })
}

/// Returns the world a component is held against.
pub(super) fn target(world: World, offers_mcp: bool) -> Result<(Resolve, WorldId), BuildError> {
    let broken = |error: Box<dyn std::error::Error + Send + Sync>| BuildError::BrokenWit { source: error };
    let name = if world == World::Agent && offers_mcp { AGENT_PROVIDER } else { world.name() };
    let mut resolve = Resolve::default();
    let mut package = None;
    for (path, text) in PACKAGES {
        let id = resolve.push_source(path, text).map_err(|error| broken(error.into()))?;
        if path.strip_suffix(".wit") == Some(name) {
            package = Some(id);
        }
    }
    let package = package.expect("each world has a package of its own name");
    let id = resolve.select_world(&[package], Some(name)).map_err(|error| broken(error.into()))?;
    Ok((resolve, id))
}

/// Refuses a module that wants something its world does not give: mostly a crate that expects an operating system.
fn refuse_foreign_imports(core: &[u8], world: World, shape: &Shape) -> Result<(), BuildError> {
    let unreadable = |error: wasmparser::BinaryReaderError| BuildError::Componentize { world, source: error.into() };
    let mut foreign = BTreeSet::new();
    for payload in Parser::new(0).parse_all(core) {
        if let Payload::ImportSection(section) = payload.map_err(unreadable)? {
            for import in section.into_imports() {
                let import = import.map_err(unreadable)?;
                if !shape.imports.contains(import.module) {
                    foreign.insert(format!("{}::{}", import.module, import.name));
                }
            }
        }
    }
    if foreign.is_empty() {
        return Ok(());
    }
    Err(BuildError::ForeignImports { world, imports: foreign.into_iter().collect() })
}

/// Appends a custom section (binary format of WebAssembly, 5.5.3; the same in components).
pub(super) fn append_section(component: &mut Vec<u8>, name: &str, data: &[u8]) {
    let mut content = Vec::with_capacity(name.len() + data.len() + 5);
    write_leb(&mut content, name.len());
    content.extend_from_slice(name.as_bytes());
    content.extend_from_slice(data);
    component.push(0);
    write_leb(component, content.len());
    component.extend_from_slice(&content);
}

/// Writes a number in LEB128.
fn write_leb(out: &mut Vec<u8>, mut number: usize) {
    loop {
        let low = u8::try_from(number & 0x7F).expect("seven bits");
        number >>= 7;
        if number == 0 {
            out.push(low);
            return;
        }
        out.push(low | 0x80);
    }
}

/// What a component is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Anatomy {
    /// Interfaces it imports.
    pub imports: Vec<String>,
    /// Interfaces it exports.
    pub exports: Vec<String>,
    /// Its custom sections, with their sizes.
    pub sections: Vec<String>,
    /// Core modules in it.
    pub modules: u32,
}

/// Returns what a component is made of.
///
/// # Errors
/// It is no component.
#[expect(clippy::wildcard_enum_match_arm, reason = "only a few of the many kinds of section matter here")]
pub fn anatomy(component: &[u8]) -> Result<Anatomy, String> {
    let mut found = Anatomy::default();
    let mut depth = 0_usize;
    let text = |error: wasmparser::BinaryReaderError| error.to_string();
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(text)? {
            Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => {
                return Err("this is a core module, not a component".to_owned());
            }
            Payload::ModuleSection { .. } => {
                depth += 1;
                found.modules += 1;
            }
            Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::CustomSection(section) if depth == 0 => {
                found.sections.push(format!("{} ({} bytes)", section.name(), section.data().len()));
            }
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    found.imports.push(import.map_err(text)?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    found.exports.push(export.map_err(text)?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok(found)
}

/// Returns the text of the manifest that a component carries; none when it carries none.
///
/// # Errors
/// The bytes are no component, or the section is too large, no text, or there twice.
pub fn embedded_manifest(component: &[u8]) -> Result<Option<String>, String> {
    embedded_section(component, SECTION, MANIFEST_BYTES_MAX)
}

/// Returns the golden calls that a component carries, as they stand in it; none when it carries none.
///
/// # Errors
/// As [`embedded_section`].
pub fn embedded_cases(component: &[u8]) -> Result<Option<String>, String> {
    embedded_section(component, golden::SECTION, golden::BYTES_MAX)
}

/// Returns the text of a custom section that a component carries; none when it carries none.
///
/// # Errors
/// The bytes are no component, or the section is too large, no text, or there twice.
#[expect(clippy::wildcard_enum_match_arm, reason = "only four of the many kinds of section matter here")]
pub fn embedded_section(component: &[u8], name: &str, bytes_max: usize) -> Result<Option<String>, String> {
    let mut found: Option<String> = None;
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(component) {
        match payload.map_err(|error| error.to_string())? {
            Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => {
                return Err("this is a core module, not a component".to_owned());
            }
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::CustomSection(section) if depth == 0 && section.name() == name => {
                if found.is_some() || section.data().len() > bytes_max {
                    return Err(format!("the section `{name}` is too large or there twice"));
                }
                let text = std::str::from_utf8(section.data()).map_err(|error| error.to_string())?;
                found = Some(text.to_owned());
            }
            _ => {}
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `(module (import "env" "now" (func)))`.
    const WANTS_A_CLOCK: [u8; 27] = *b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x02\x0b\x01\x03env\x03now\0\0";
    const EMPTY: [u8; 8] = *b"\0asm\x01\0\0\0";

    fn made(core: &[u8], world: World, schema: Option<&str>) -> Result<Vec<u8>, BuildError> {
        let text = format!(
            "manifest_version = 1\nname = \"x\"\nversion = \"0.1.0\"\nworld = \"{world}\"\ndescription = \"d\"\n[config]\nmax = 0\n"
        );
        let manifest = Manifest::parse(&text).expect("it fits");
        match schema {
            None => componentize(core, Papers { manifest: &manifest, text: &text, schema, cases: None }),
            Some(_) => finish(core.to_vec(), Papers { manifest: &manifest, text: &text, schema, cases: None }),
        }
    }

    #[test]
    fn a_manifest_whose_configuration_does_not_fit_is_refused() {
        let schema = r#"{"properties": {"max": {"minimum": 1}}}"#;
        let error = made(b"\0asm\x0d\0\x01\0", World::Router, Some(schema)).expect_err("0 is too little");
        assert!(error.to_string().contains("at `/max`: 0 is less than the minimum of 1"), "{error}");
    }

    #[test]
    fn all_worlds_resolve() {
        for world in World::ALL {
            for offers_mcp in [false, true] {
                let (resolve, id) = target(world, offers_mcp).expect("wit/ resolves");
                let shape = Shape::of(&resolve, id);
                assert!(shape.exports.contains("pointsman:types/setup@0.1.0"), "{world}: {shape:?}");
            }
        }
    }

    #[test]
    fn an_agent_may_export_what_a_provider_exports() {
        let shape = |offers_mcp| target(World::Agent, offers_mcp).map(|(resolve, id)| Shape::of(&resolve, id)).expect("wit/ resolves");
        let (agent, both) = (shape(false), shape(true));
        assert!(agent.exports.is_subset(&both.exports) && agent.imports.is_subset(&both.imports), "{both:?}");
        assert!(!agent.exports.contains(PROVIDER) && both.exports.contains(PROVIDER), "{both:?}");
        assert!(both.imports.contains("pointsman:mcp-provider/calls@0.1.0"), "{both:?}");
    }

    #[test]
    fn foreign_imports_are_named_with_the_way_out() {
        let error = made(&WANTS_A_CLOCK, World::Router, None).expect_err("env is no world");
        assert_eq!(
            error.to_string(),
            "the guest imports env::now, which the world `router` does not give; \
             find the dependency that expects an operating system (`cargo tree`) and turn that feature off"
        );
    }

    #[test]
    fn a_module_without_exports_is_told_what_is_missing() {
        let error = made(&EMPTY, World::Merger, None).expect_err("exports nothing");
        assert!(error.to_string().contains("does not export pointsman:merger/merging@0.1.0"), "{error}");
        assert!(error.to_string().contains("`#[pointsman_sdk::merger]`"), "{error}");
    }

    #[test]
    fn sections_are_read_back() {
        let long = "x".repeat(300);
        let mut component = b"\0asm\x0d\0\x01\0".to_vec();
        assert_eq!(embedded_manifest(&component), Ok(None));
        append_section(&mut component, SECTION, long.as_bytes());
        assert_eq!(embedded_manifest(&component), Ok(Some(long.clone())));
        append_section(&mut component, SECTION, b"again");
        assert!(embedded_manifest(&component).is_err());
        assert!(embedded_manifest(&EMPTY).is_err());
        assert!(embedded_manifest(b"no wasm").is_err());
    }
}
