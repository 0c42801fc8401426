//! Whether a component fits its world: read from its bytes, before anything is compiled.
//!
//! **Invariant:** what passes here imports nothing its world does not give; types and signatures are then checked by
//! the linker.

use wasmparser::{Encoding, Parser, Payload};

use crate::ports::plugins::Grant;

/// The largest component.
pub(super) const COMPONENT_BYTES_MAX: usize = 32 << 20;

/// What a component imports to read the project; its world gives it, and the operator has to.
pub(super) const LOOKUPS: &str = "pointsman:agent/lookups@0.1.0";
/// What every world gives besides its own.
pub(super) const OF_ALL_WORLDS: [&str; 1] = [super::panics::INTERFACE];

/// What a world gives and asks for, by interface names with versions.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// The world's name.
    pub(super) world: &'static str,
    /// What a component may import.
    pub(super) imports: &'static [&'static str],
    /// What it must export.
    pub(super) exports: &'static [&'static str],
}

/// Checks a component against a world, and what it asks for against what the operator granted.
///
/// # Errors
/// Says what is wrong, naming each foreign import, each missing export and the missing grant.
pub(super) fn admit(component: &[u8], shape: &Shape, lookups: Grant) -> Result<(), String> {
    if component.len() > COMPONENT_BYTES_MAX {
        return Err(format!("the component has {} bytes; at most {COMPONENT_BYTES_MAX} are taken", component.len()));
    }
    let (imports, exports) = names(component)?;
    let given = |name: &str| shape.imports.iter().chain(&OF_ALL_WORLDS).any(|own| same(own, name));
    let foreign: Vec<&str> = imports.iter().copied().filter(|name| !given(name)).collect();
    if !foreign.is_empty() {
        return Err(format!("it imports {}, which the world `{}` does not give", quoted(&foreign), shape.world));
    }
    let missing: Vec<&str> = shape.exports.iter().copied().filter(|own| !exports.iter().any(|name| same(own, name))).collect();
    if !missing.is_empty() {
        return Err(format!("it does not export {}, which the world `{}` asks for", quoted(&missing), shape.world));
    }
    if lookups == Grant::Withheld && imports.iter().any(|name| same(LOOKUPS, name)) {
        return Err(format!(
            "it imports `{LOOKUPS}`, which is not granted: write `capabilities = [\"lookups\"]` into its `[plugins.NAME]`"
        ));
    }
    Ok(())
}

/// Returns whether a component exports an interface that its world leaves open.
///
/// # Errors
/// It is no component.
pub(super) fn exports(component: &[u8], interface: &str) -> Result<bool, String> {
    Ok(names(component)?.1.iter().any(|name| same(interface, name)))
}

/// Returns the names a component imports and exports itself, those of nested ones left out.
fn names(component: &[u8]) -> Result<(Vec<&str>, Vec<&str>), String> {
    let malformed = |error: wasmparser::BinaryReaderError| format!("it is no component: {error}");
    let (mut imports, mut exports) = (Vec::new(), Vec::new());
    let mut depth = 0_u32;
    for payload in Parser::new(0).parse_all(component) {
        let payload = payload.map_err(malformed)?;
        if let Payload::Version { encoding, .. } = &payload {
            if depth == 0 && *encoding != Encoding::Component {
                return Err("it is a core module, not a component; build it with `pointsman plugin build`".to_owned());
            }
            depth += 1;
        } else if let Payload::End(_) = &payload {
            depth = depth.saturating_sub(1);
        } else if depth == 1
            && let Payload::ComponentImportSection(section) = payload
        {
            for import in section {
                imports.push(import.map_err(malformed)?.name.name);
            }
        } else if depth == 1
            && let Payload::ComponentExportSection(section) = payload
        {
            for export in section {
                exports.push(export.map_err(malformed)?.name.name);
            }
        }
    }
    Ok((imports, exports))
}

/// Returns whether two interface names mean the same: equal but for what follows the second number of the version,
/// which is how far the linker goes below 1.0.
pub(super) fn same(own: &str, other: &str) -> bool {
    fn track(name: &str) -> (&str, &str) {
        let Some((interface, version)) = name.split_once('@') else { return (name, "") };
        let end = version.match_indices('.').nth(1).map_or(version.len(), |(at, _)| at);
        (interface, &version[..end])
    }
    track(own) == track(other)
}

fn quoted(names: &[&str]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_match_on_the_same_track() {
        assert!(same("pointsman:types/setup@0.1.0", "pointsman:types/setup@0.1.3"));
        assert!(!same("pointsman:types/setup@0.1.0", "pointsman:types/setup@0.2.0"));
        assert!(!same("pointsman:types/setup@0.1.0", "pointsman:types/setup"));
        assert!(!same("pointsman:types/setup@0.1.0", "pointsman:types/log@0.1.0"));
    }

    #[test]
    fn what_is_no_component_is_refused() {
        let shape = Shape { world: "router", imports: &[], exports: &[] };
        assert!(admit(b"hello", &shape, Grant::Given).expect_err("garbage").starts_with("it is no component"));
        let module = b"\0asm\x01\0\0\0";
        assert!(admit(module, &shape, Grant::Given).expect_err("module").contains("core module"));
        let component = b"\0asm\x0d\0\x01\0";
        assert_eq!(admit(component, &shape, Grant::Withheld), Ok(()));
        let asking = Shape { exports: &["a:b/c@0.1.0"], ..shape };
        assert_eq!(
            admit(component, &asking, Grant::Given).expect_err("empty"),
            "it does not export `a:b/c@0.1.0`, which the world `router` asks for"
        );
    }
}
