//! From a few instructions to a component: the exports of a world, each with the body it is given or none but a trap.

use std::fmt::Write as _;
use std::path::Path;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::abi::WasmType;
use wit_parser::{LiftLowerAbi, ManglingAndAbi, Resolve, WasmExport, WasmExportKind, WorldItem};

/// Where guests write their results. Their constants lie below, from 64 on; their heap above, from [`HEAP`] on.
const RESULT: u32 = 1_024;
/// Where what `cabi_realloc` gives out begins.
const HEAP: u32 = 65_536;

/// What a host's values are put with: one after another, from [`HEAP`] on.
const REALLOC: &str = "
    (local $at i32)
    (local.set $at (i32.and
        (i32.sub (i32.add (global.get $next) (local.get $align)) (i32.const 1))
        (i32.sub (i32.const 0) (local.get $align))))
    (global.set $next (i32.add (local.get $at) (local.get $bytes)))
    (local.get $at)";

/// A guest in WebAssembly text: lists of instructions, and of fields.
#[derive(Debug, Clone, Copy)]
pub struct Text {
    /// Further fields of the module: imports first, then tables, data, functions.
    pub fields: &'static str,
    /// Bodies by the WIT names of the functions; `post NAME` is what follows the host's reading of an answer. `configure`
    /// takes anything when it has none; every other function traps.
    pub bodies: &'static [(&'static str, &'static str)],
    /// Body of `cabi_realloc`; empty for one that does as it should. `$configured` says whether `configure` has run.
    pub realloc: &'static str,
    /// Pages of memory at the start.
    pub pages: u32,
    /// Further items of the world.
    pub world: &'static str,
}

impl Text {
    /// A guest that takes any configuration and traps in everything else.
    pub const TRAP: Self = Self { fields: "", bodies: &[], realloc: "", pages: 4, world: "" };

    /// Returns the component for a world.
    #[must_use]
    pub fn component(&self, world: &str) -> Vec<u8> {
        let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit");
        let mut resolve = Resolve::default();
        for package in ["types", "agent", "mcp-provider", "router", "merger", "reconciler", "workflow", "policy"] {
            resolve.push_dir(wit.join(package)).expect("the WIT resolves");
        }
        let own = format!("package test:guest; world guest {{ include pointsman:{world}/{world}@0.1.0; {} }}", self.world);
        let package = resolve.push_str("guest.wit", &own).expect("the guest's world resolves");
        let id = resolve.select_world(&[package], None).expect("there is one world");
        let mut module = wat::parse_str(self.module(&resolve, id)).expect("the text of a module");
        embed_component_metadata(&mut module, &resolve, id, StringEncoding::UTF8).expect("metadata fits");
        let mut encoder = ComponentEncoder::default().module(&module).expect("the module has what its world needs");
        encoder.encode().expect("a component comes of it")
    }

    fn module(&self, resolve: &Resolve, world: wit_parser::WorldId) -> String {
        let realloc = if self.realloc.is_empty() { REALLOC } else { self.realloc };
        let mut text = format!(
            r#"(module
            {fields}
            (memory (export "memory") {pages})
            (global $next (mut i32) (i32.const {HEAP}))
            (global $configured (mut i32) (i32.const 0))
            (func (export "cabi_realloc") (param $old i32) (param $old_bytes i32) (param $align i32) (param $bytes i32) (result i32)
                {realloc})
            (func $fine (result i32)
                (global.set $configured (i32.const 1))
                (i32.store8 (i32.const {RESULT}) (i32.const 0))
                (i32.const {RESULT}))
            (func $clear (result i32)
                (global.set $next (i32.const {HEAP}))
                (memory.fill (i32.const {RESULT}) (i32.const 0) (i32.const 64))
                (i32.const {RESULT}))
            "#,
            fields = self.fields,
            pages = self.pages,
        );
        let mangling = ManglingAndAbi::Legacy(LiftLowerAbi::Sync);
        let body = |name: &str| self.bodies.iter().find(|(known, _)| *known == name).map(|(_, body)| *body);
        for (key, item) in &resolve.worlds[world].exports {
            let WorldItem::Interface { id, .. } = item else { continue };
            for (name, func) in &resolve.interfaces[*id].functions {
                let export = |kind| resolve.wasm_export_name(mangling, WasmExport::Func { interface: Some(key), func, kind });
                let core = resolve.wasm_signature(mangling.export_variant(), func);
                let own = body(name).unwrap_or(if name == "configure" { "(call $fine)" } else { "(unreachable)" });
                let (params, results) = (types("param", &core.params), types("result", &core.results));
                let _ = writeln!(text, r#"(func (export "{}"){params}{results} {own})"#, export(WasmExportKind::Normal));
                if let Some(own) = body(&format!("post {name}")) {
                    let params = types("param", &core.results);
                    let _ = writeln!(text, r#"(func (export "{}"){params} {own})"#, export(WasmExportKind::PostReturn));
                }
            }
        }
        text.push(')');
        text
    }
}

fn types(what: &str, types: &[WasmType]) -> String {
    let names = types.iter().map(|one| match one {
        WasmType::I32 | WasmType::Pointer | WasmType::Length => " i32",
        WasmType::I64 | WasmType::PointerOrI64 => " i64",
        WasmType::F32 => " f32",
        WasmType::F64 => " f64",
    });
    if types.is_empty() { String::new() } else { format!(" ({what}{})", names.collect::<String>()) }
}
