//! What a component takes of an engine's pools, counted from its bytes before anything is compiled.

use wasmparser::{Encoding, Instance, Parser, Payload};

use super::engine::Needs;

/// What one core module has of its own.
#[derive(Debug, Clone, Copy, Default)]
struct Module {
    memories: usize,
    tables: usize,
    table_elements: u64,
}

/// A module or a component whose end was not reached yet.
#[derive(Debug)]
enum Open {
    Module(Module),
    /// Its modules so far, in the order of their numbers.
    Component(Vec<Module>),
}

/// Counts. Each component nested in another is counted once: `wit-component` nests none.
///
/// # Errors
/// It is no component.
pub(super) fn needs(component: &[u8]) -> Result<Needs, String> {
    let malformed = |error: wasmparser::BinaryReaderError| format!("it is no component: {error}");
    let mut needs = Needs { bytes: component.len(), ..Needs::default() };
    let mut open: Vec<Open> = Vec::new();
    for payload in Parser::new(0).parse_all(component) {
        let payload = payload.map_err(malformed)?;
        if let Payload::Version { encoding, .. } = &payload {
            open.push(match encoding {
                Encoding::Module => Open::Module(Module::default()),
                Encoding::Component => Open::Component(Vec::new()),
            });
        } else if let Payload::End(_) = &payload {
            let ended = open.pop();
            if let (Some(Open::Module(module)), Some(Open::Component(modules))) = (ended, open.last_mut()) {
                modules.push(module);
            }
        } else if let (Payload::MemorySection(section), Some(Open::Module(module))) = (&payload, open.last_mut()) {
            module.memories += usize::try_from(section.count()).unwrap_or(usize::MAX);
        } else if let (Payload::TableSection(section), Some(Open::Module(module))) = (&payload, open.last_mut()) {
            for table in section.clone() {
                module.tables += 1;
                module.table_elements = module.table_elements.saturating_add(table.map_err(malformed)?.ty.initial);
            }
        } else if let (Payload::InstanceSection(section), Some(Open::Component(modules))) = (&payload, open.last()) {
            for instance in section.clone() {
                let Instance::Instantiate { module_index, .. } = instance.map_err(malformed)? else { continue };
                let module = usize::try_from(module_index).ok().and_then(|at| modules.get(at)).copied().unwrap_or_default();
                needs.core_instances += 1;
                needs.memories += module.memories;
                needs.tables += module.tables;
                needs.table_elements = needs.table_elements.saturating_add(module.table_elements);
            }
        }
    }
    Ok(needs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_instantiated_is_counted() {
        let text = r#"(component
            (core module $one (memory 1) (table 10 funcref) (table 5 funcref))
            (core module $other (import "a" "b" (memory 1)) (table 7 funcref))
            (core module $unused (memory 1))
            (core instance (instantiate $one))
            (core instance (instantiate $one)))"#;
        let bytes = wat::parse_str(text).expect("a component");
        let counted = needs(&bytes).expect("it is one");
        assert_eq!(counted, Needs { core_instances: 2, memories: 2, tables: 4, table_elements: 30, bytes: bytes.len() });
        assert!(needs(b"hello").is_err());
    }
}
