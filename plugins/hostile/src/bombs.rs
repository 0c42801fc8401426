//! Components that are dear to compile: good routers with something else inside, of any size. They are made when they are
//! needed, being large.

use wasm_encoder::{BlockType, CodeSection, Function, FunctionSection, Instruction, Module, TypeSection, ValType};

use crate::Text;

/// Ids of a component's sections (component model, `Binary.md`).
const CORE_MODULE: u8 = 1;
const COMPONENT: u8 = 4;
/// First bytes of a component.
const PREAMBLE: &[u8] = b"\0asm\x0d\0\x01\0";

/// Returns a router that has no opinion.
#[must_use]
pub fn router() -> Vec<u8> {
    Text { bodies: &[("route", "(call $clear)")], ..Text::TRAP }.component("router")
}

/// Returns a router with a core module inside, which is compiled and never run.
#[must_use]
pub fn with_module(module: &[u8]) -> Vec<u8> {
    let mut component = router();
    section(&mut component, CORE_MODULE, module);
    component
}

/// Returns a router with so many empty modules inside.
#[must_use]
pub fn many_modules(count: usize) -> Vec<u8> {
    let mut component = router();
    for _ in 0..count {
        section(&mut component, CORE_MODULE, &Module::new().finish());
    }
    component
}

/// Returns a router with so many functions inside, each next to nothing.
#[must_use]
pub fn many_functions(count: u32) -> Vec<u8> {
    with_module(&module(count, &[], |body| {
        body.instruction(&Instruction::Nop);
    }))
}

/// Returns a router with one function inside, of about so many bytes of arithmetic.
#[must_use]
pub fn giant_function(bytes: usize) -> Vec<u8> {
    with_module(&module(1, &[(2, ValType::I64)], |body| {
        for _ in 0..bytes / 8 {
            body.instruction(&Instruction::LocalGet(0));
            body.instruction(&Instruction::LocalGet(1));
            body.instruction(&Instruction::I64Mul);
            body.instruction(&Instruction::LocalTee(0));
            body.instruction(&Instruction::Drop);
        }
    }))
}

/// Returns a router with one function inside, of so many locals.
#[must_use]
pub fn many_locals(count: u32) -> Vec<u8> {
    with_module(&module(1, &[(count, ValType::I64)], |body| {
        for local in 0..count {
            body.instruction(&Instruction::LocalGet(local));
            body.instruction(&Instruction::LocalSet(count - 1 - local));
        }
    }))
}

/// Returns a router with one function inside: so many loops, after which each of so many locals is read. A compiler looks
/// for each local in each loop.
#[must_use]
pub fn loops_and_locals(loops: u32, locals: u32) -> Vec<u8> {
    with_module(&module(1, &[(locals.max(1), ValType::I32)], |body| {
        for turn in 0..loops {
            body.instruction(&Instruction::Loop(BlockType::Empty));
            body.instruction(&Instruction::LocalGet(turn % locals.max(1)));
            body.instruction(&Instruction::BrIf(0));
            body.instruction(&Instruction::End);
        }
        for local in 0..locals {
            body.instruction(&Instruction::LocalGet(local));
            body.instruction(&Instruction::Drop);
        }
    }))
}

/// Returns a router with one function inside: so many jump tables, each of so many targets, all of them one block deep in
/// as many blocks.
#[must_use]
pub fn jump_tables(tables: u32, targets: u32) -> Vec<u8> {
    with_module(&module(1, &[(1, ValType::I32)], |body| {
        let all: Vec<u32> = (0..targets).collect();
        for _ in 0..targets {
            body.instruction(&Instruction::Block(BlockType::Empty));
        }
        for _ in 0..tables {
            body.instruction(&Instruction::Block(BlockType::Empty));
            body.instruction(&Instruction::LocalGet(0));
            body.instruction(&Instruction::BrTable(all.as_slice().into(), 0));
            body.instruction(&Instruction::End);
        }
        for _ in 0..targets {
            body.instruction(&Instruction::End);
        }
    }))
}

/// Returns a router with one function inside: blocks in blocks, so deep.
#[must_use]
pub fn nested_blocks(depth: u32) -> Vec<u8> {
    with_module(&module(1, &[], |body| {
        for _ in 0..depth {
            body.instruction(&Instruction::Block(BlockType::Empty));
        }
        for _ in 0..depth {
            body.instruction(&Instruction::End);
        }
    }))
}

/// Returns a router with components in one another inside, so deep.
#[must_use]
pub fn nested_components(depth: usize) -> Vec<u8> {
    let mut inner = PREAMBLE.to_vec();
    for _ in 0..depth {
        let mut outer = PREAMBLE.to_vec();
        section(&mut outer, COMPONENT, &inner);
        inner = outer;
    }
    let mut component = router();
    section(&mut component, COMPONENT, &inner);
    component
}

/// Returns a router with components inside, each of which makes two of the one before: so many levels, twice as many
/// instances with each. A compiler lays them all out.
#[must_use]
pub fn doubling_components(levels: usize) -> Vec<u8> {
    let mut text = "(component (component $c0 (core module $m) (core instance (instantiate $m)))".to_owned();
    for level in 1..=levels {
        let below = level - 1;
        text.push_str(&format!(
            "(component $c{level} (alias outer 1 {below} (component $c)) (instance (instantiate $c)) (instance (instantiate $c)))"
        ));
    }
    text.push_str(&format!("(instance (instantiate $c{levels})))"));
    let mut component = router();
    section(&mut component, COMPONENT, &wat::parse_str(&text).expect("the text of a component"));
    component
}

/// Returns a router with types inside, each of which has the one before twice.
#[must_use]
pub fn doubling_types(levels: usize) -> Vec<u8> {
    let mut text = "(component (type $t0 (tuple u8 u8))".to_owned();
    for level in 1..=levels {
        let below = level - 1;
        text.push_str(&format!("(type $t{level} (tuple $t{below} $t{below}))"));
    }
    text.push(')');
    let mut component = router();
    section(&mut component, COMPONENT, &wat::parse_str(&text).expect("the text of a component"));
    component
}

/// Returns a module of so many functions with one body.
#[must_use]
pub fn module(count: u32, locals: &[(u32, ValType)], body: impl Fn(&mut Function)) -> Vec<u8> {
    let mut types = TypeSection::new();
    types.ty().function([], []);
    let (mut functions, mut code) = (FunctionSection::new(), CodeSection::new());
    for _ in 0..count {
        functions.function(0);
        let mut function = Function::new(locals.iter().copied());
        body(&mut function);
        function.instruction(&Instruction::End);
        code.function(&function);
    }
    let mut module = Module::new();
    module.section(&types).section(&functions).section(&code);
    module.finish()
}

/// Appends a section: its id, its length (LEB128), its bytes.
fn section(component: &mut Vec<u8>, id: u8, bytes: &[u8]) {
    component.push(id);
    let mut left = bytes.len();
    while left >= 0x80 {
        component.push(u8::try_from(left & 0x7f).expect("seven bits") | 0x80);
        left >>= 7;
    }
    component.push(u8::try_from(left).expect("seven bits"));
    component.extend_from_slice(bytes);
}
