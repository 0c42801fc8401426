//! The JSON Schema of a plugin's configuration, asked of a core module that was built to hand it over.

use wasmtime::{Config, Engine, Instance, Linker, Module, Store};

/// The function by which a module hands its schema over, as address and length in one number.
const EXPORT: &str = "pointsman-config-schema";
/// The longest schema.
const SCHEMA_BYTES_MAX: usize = 256 << 10;
/// Instructions that making a schema may take.
const FUEL: u64 = 2_000_000_000;

/// Returns the schema that a core module, built for that, hands over; none when it has none.
///
/// # Errors
/// It does not run, or what it hands over is no text.
pub fn config_schema(module: &[u8]) -> Result<Option<String>, String> {
    run(module).map_err(|error| format!("{error:#}"))?.transpose()
}

type Text = Option<Result<String, String>>;

fn run(module: &[u8]) -> wasmtime::Result<Text> {
    let mut config = Config::new();
    config.consume_fuel(true);
    let engine = Engine::new(&config)?;
    let module = Module::new(&engine, module)?;
    let mut store = Store::new(&engine, ());
    store.set_fuel(FUEL)?;
    let mut linker = Linker::new(&engine);
    linker.define_unknown_imports_as_traps(&module)?;
    let instance = linker.instantiate(&mut store, &module)?;
    let Ok(hand_over) = instance.get_typed_func::<(), u64>(&mut store, EXPORT) else { return Ok(None) };
    let place = hand_over.call(&mut store, ())?;
    Ok((place != 0).then(|| text(&instance, &mut store, place)))
}

/// Reads what lies at an address, which is above the length in `place`.
fn text(instance: &Instance, store: &mut Store<()>, place: u64) -> Result<String, String> {
    let part = |bits: u64| usize::try_from(bits & u64::from(u32::MAX)).unwrap_or(usize::MAX);
    let (start, len) = (part(place >> 32), part(place));
    if len > SCHEMA_BYTES_MAX {
        return Err(format!("the schema has {len} bytes; at most {SCHEMA_BYTES_MAX} are taken"));
    }
    let memory = instance.get_memory(&mut *store, "memory").ok_or("the module exports no memory")?;
    let bytes = start.checked_add(len).and_then(|end| memory.data(&*store).get(start..end)).ok_or("the schema lies beyond the memory")?;
    String::from_utf8(bytes.to_vec()).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(fields: &str) -> Result<Option<String>, String> {
        config_schema(&wat::parse_str(format!("(module {fields})")).expect("a module"))
    }

    #[test]
    fn a_module_hands_its_schema_over() {
        let export = |place: u64| {
            format!(
                r#"(import "pointsman:types/panics@0.1.0" "report" (func (param i32 i32 i32 i32)))
                   (memory (export "memory") 1) (data (i32.const 8) "{{}}")
                   (func (export "{EXPORT}") (result i64) (i64.const {place}))"#
            )
        };
        assert_eq!(asked(&export((8 << 32) | 2)), Ok(Some("{}".to_owned())));
        assert_eq!(asked(&export(0)), Ok(None));
        assert_eq!(asked(""), Ok(None));
        assert!(asked(&export((0xffff_ffff << 32) | 2)).expect_err("beyond").contains("beyond the memory"));
        let endless = format!(r#"(memory (export "memory") 1) (func (export "{EXPORT}") (result i64) (loop $on (br $on)) (unreachable))"#);
        assert!(asked(&endless).expect_err("endless").contains("fuel"));
        assert!(config_schema(b"no wasm").is_err());
    }
}
