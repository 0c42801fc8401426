//! What compiling a component may cost, read from its bytes before the compiler sees them.
//!
//! The engine's makers do not take a component that is dear to compile for a fault of theirs, so what is dear is kept out
//! here, by shape: what a compiler does more than once for each byte is bounded by number. Knows no world.
//!
//! **Invariant:** what passes compiles in time and memory in proportion to its size, which is bounded as well.

use wasmparser::{BinaryReaderError, FunctionBody, Operator, Parser, Payload};

/// Core modules, in all of a component together. A Rust guest has three or four, one linked of many libraries tens.
const MODULES_MAX: u32 = 64;
/// Components within components. Those of an interface with types of its own are one deep.
const NESTING_MAX: u32 = 4;
/// Instances of components that a component makes within. Laid out by the compiler, and each may make as many again: 16 of
/// them come to 360 at the most, 40 to two million.
const INSTANCES_MAX: u32 = 16;
/// Functions in all.
const FUNCTIONS_MAX: u32 = 100_000;
/// Bytes of one function's body.
const BODY_BYTES_MAX: usize = 512 << 10;
/// Locals of one function.
const LOCALS_MAX: u32 = 10_000;
/// Blocks around an instruction. A `switch` of C has one for each of its cases.
const BLOCKS_MAX: u32 = 10_000;
/// Jumps of one function times its locals: a compiler follows each local along each way to where it is read.
const JUMPS_BY_LOCALS_MAX: u64 = 16 << 20;

/// Counts over all of a component.
#[derive(Debug, Default)]
struct Totals {
    modules: u32,
    depth: u32,
    instances: u32,
    functions: u32,
}

/// Checks what compiling a component would cost.
///
/// # Errors
/// Says which bound it goes over.
pub(super) fn check(component: &[u8]) -> Result<(), String> {
    let mut totals = Totals::default();
    for payload in Parser::new(0).parse_all(component) {
        totals.add(payload.map_err(malformed)?)?;
    }
    Ok(())
}

impl Totals {
    fn add(&mut self, payload: Payload<'_>) -> Result<(), String> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "every other section is linear in its bytes")]
        match payload {
            Payload::Version { .. } => {
                self.depth += 1;
                // The component itself, those within, and a module within the innermost.
                within("components within one another", self.depth - 1, NESTING_MAX + 1)
            }
            Payload::End(_) => {
                self.depth = self.depth.saturating_sub(1);
                Ok(())
            }
            Payload::ModuleSection { .. } => {
                self.modules += 1;
                within("core modules", self.modules, MODULES_MAX)
            }
            Payload::ComponentInstanceSection(section) => {
                for instance in section {
                    if let wasmparser::ComponentInstance::Instantiate { .. } = instance.map_err(malformed)? {
                        self.instances += 1;
                        within("instances of components within it", self.instances, INSTANCES_MAX)?;
                    }
                }
                Ok(())
            }
            Payload::CodeSectionEntry(body) => {
                self.functions += 1;
                within("functions", self.functions, FUNCTIONS_MAX)?;
                function(&body).map_err(|why| format!("of its functions the one at byte {}: {why}", body.range().start))
            }
            _ => Ok(()),
        }
    }
}

/// Checks one function.
fn function(body: &FunctionBody<'_>) -> Result<(), String> {
    within("bytes", body.range().len(), BODY_BYTES_MAX)?;
    let mut locals = 0_u32;
    for group in body.get_locals_reader().map_err(malformed)? {
        locals = locals.saturating_add(group.map_err(malformed)?.0);
        within("locals", locals, LOCALS_MAX)?;
    }
    let (mut jumps, mut blocks) = (0_u64, 0_u32);
    let mut operators = body.get_operators_reader().map_err(malformed)?;
    while !operators.eof() {
        #[expect(clippy::wildcard_enum_match_arm, reason = "no other instruction of the engine's set jumps")]
        match operators.read().map_err(malformed)? {
            Operator::Block { .. } | Operator::Loop { .. } | Operator::If { .. } => {
                jumps += 1;
                blocks += 1;
                within("blocks in one another", blocks, BLOCKS_MAX)?;
            }
            Operator::End => blocks = blocks.saturating_sub(1),
            Operator::Br { .. } | Operator::BrIf { .. } | Operator::Else => jumps += 1,
            Operator::BrTable { targets } => jumps += u64::from(targets.len()) + 1,
            _ => {}
        }
    }
    within("jumps times locals", jumps.saturating_mul(u64::from(locals)), JUMPS_BY_LOCALS_MAX)
}

fn within<N: PartialOrd + std::fmt::Display>(what: &str, count: N, max: N) -> Result<(), String> {
    if count <= max { Ok(()) } else { Err(format!("it has {count} {what}; at most {max} are compiled")) }
}

fn malformed(error: BinaryReaderError) -> String {
    format!("it is no component: {error}")
}
