//! Guests written by hand, for what no compiler would produce.

use std::path::Path;
use std::sync::Arc;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// Where a guest writes its results. Its text constants lie below, its heap above.
pub(super) const RESULT: u32 = 1_024;

/// A router in WebAssembly text. Each part is a list of instructions, or of fields.
#[derive(Debug, Clone, Copy)]
pub(super) struct RouterText {
    /// Further fields of the module: imports first, then data, tables, functions.
    pub(super) fields: &'static str,
    /// Body of `configure`: the text is at `$text` with `$bytes`; must leave the address of the result.
    pub(super) configure: &'static str,
    /// Body of `route`: must leave the address of the verdict.
    pub(super) route: &'static str,
    /// Pages of memory at the start.
    pub(super) pages: u32,
    /// Further items of the world.
    pub(super) world: &'static str,
}

/// A router that takes any configuration and has no opinion.
pub(super) const PASS: RouterText =
    RouterText { fields: "", configure: "(call $fine)", route: "(global.set $next (i32.const 65536)) (call $pass)", pages: 4, world: "" };

impl RouterText {
    /// Returns the component.
    pub(super) fn component(&self) -> Arc<[u8]> {
        let module = self.module();
        component(&module, &format!("package test:guest; world guest {{ {ROUTER} {} }}", self.world))
    }

    fn module(&self) -> Vec<u8> {
        let Self { fields, configure, route, pages, .. } = self;
        let text = format!(
            r#"(module
                {fields}
                (memory (export "memory") {pages})
                (global $next (mut i32) (i32.const 65536))
                (func (export "cabi_realloc") (param i32 i32) (param $align i32) (param $bytes i32) (result i32)
                    (local $at i32)
                    (local.set $at (i32.and
                        (i32.sub (i32.add (global.get $next) (local.get $align)) (i32.const 1))
                        (i32.sub (i32.const 0) (local.get $align))))
                    (global.set $next (i32.add (local.get $at) (local.get $bytes)))
                    (local.get $at))
                (func $fine (result i32) (i32.store8 (i32.const {RESULT}) (i32.const 0)) (i32.const {RESULT}))
                (func $pass (result i32)
                    (i64.store (i32.const {RESULT}) (i64.const 0))
                    (i64.store offset=8 (i32.const {RESULT}) (i64.const 0))
                    (i64.store offset=16 (i32.const {RESULT}) (i64.const 0))
                    (i32.const {RESULT}))
                (func $ranked (param $list i32) (param $len i32) (result i32)
                    (drop (call $pass))
                    (i32.store8 (i32.const {RESULT}) (i32.const 1))
                    (i32.store offset=4 (i32.const {RESULT}) (local.get $list))
                    (i32.store offset=8 (i32.const {RESULT}) (local.get $len))
                    (i32.const {RESULT}))
                (func $reason (param $text i32) (param $bytes i32) (result i32)
                    (drop (call $pass))
                    (i32.store offset=12 (i32.const {RESULT}) (local.get $text))
                    (i32.store offset=16 (i32.const {RESULT}) (local.get $bytes))
                    (i32.const {RESULT}))
                (func $refuse (param $text i32) (param $bytes i32) (result i32)
                    (i32.store8 (i32.const {RESULT}) (i32.const 1))
                    (i32.store offset=4 (i32.const {RESULT}) (local.get $text))
                    (i32.store offset=8 (i32.const {RESULT}) (local.get $bytes))
                    (i32.const {RESULT}))
                (func (export "pointsman:types/setup@0.1.0#configure") (param $text i32) (param $bytes i32) (result i32)
                    {configure})
                (func (export "pointsman:router/routing@0.1.0#route") (param $question i32) (result i32)
                    {route}))"#
        );
        wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}"))
    }
}

const ROUTER: &str = "
    import pointsman:types/symbols@0.1.0;
    export pointsman:types/setup@0.1.0;
    export pointsman:router/routing@0.1.0;
";

/// Returns a component made of a core module and a world.
pub(super) fn component(module: &[u8], world: &str) -> Arc<[u8]> {
    let wit = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit");
    let mut resolve = Resolve::default();
    for package in ["types", "router", "agent", "mcp-provider"] {
        resolve.push_dir(wit.join(package)).expect("the WIT resolves");
    }
    let package = resolve.push_str("guest.wit", world).expect("the test's world resolves");
    let world = resolve.select_world(&[package], None).expect("there is one world");
    let mut module = module.to_vec();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8).expect("metadata fits");
    let mut encoder = ComponentEncoder::default().module(&module).expect("the module has what its world needs");
    encoder.encode().expect("a component comes of it").into()
}
