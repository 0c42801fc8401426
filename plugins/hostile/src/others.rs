//! Guests of the other worlds.

use super::{Guest, Outcome, Source, Text, When};

const SPIN: &str = "(loop $on (br $on)) (unreachable)";

const fn called(name: &'static str, world: &'static str, outcome: Outcome, text: Text) -> Guest {
    Guest { name, world, when: When::Called, outcome, source: Source::Module(text) }
}

const fn of(bodies: &'static [(&'static str, &'static str)]) -> Text {
    Text { bodies, ..Text::TRAP }
}

/// A merger of hunks, of every path.
const DESCRIBE: (&str, &str) = ("describe", "(call $clear)");
/// An agent of the name at 64, without capabilities, that is woken by messages only.
const AGENT: (&str, &str) = (
    "describe",
    "(drop (call $clear)) (i32.store (i32.const 1024) (i32.const 64)) (i32.store (i32.const 1028) (i32.const 5)) (i32.const 1024)",
);
/// Two numbers, both of them 0.
const TWO_NULLS: &str =
    "(drop (call $clear)) (i32.store (i32.const 1024) (i32.const 2048)) (i32.store (i32.const 1028) (i32.const 2)) (i32.const 1024)";

/// Every one.
pub(super) const GUESTS: &[Guest] = &[
    // A trap in every export but those that are asked at the load.
    called("merger-traps", "merger", Outcome::Trap, of(&[DESCRIBE])),
    called("reconciler-traps", "reconciler", Outcome::Trap, Text::TRAP),
    called("workflow-traps", "workflow", Outcome::Trap, Text::TRAP),
    called("policy-traps", "policy", Outcome::Trap, Text::TRAP),
    called("agent-traps", "agent", Outcome::Trap, Text { fields: r#"(data (i32.const 64) "traps")"#, ..of(&[AGENT]) }),
    called("provider-traps", "mcp-provider", Outcome::Trap, Text::TRAP),
    Guest { name: "trap-in-describe", world: "merger", when: When::Loaded, outcome: Outcome::Trap, source: Source::Module(Text::TRAP) },
    // Time.
    called("merger-loops", "merger", Outcome::Limit("time"), of(&[DESCRIBE, ("merge-hunks", SPIN), ("merge-file", SPIN)])),
    called("reconciler-loops", "reconciler", Outcome::Limit("time"), of(&[("reconcile", SPIN)])),
    called("policy-loops", "policy", Outcome::Limit("time"), of(&[("check", SPIN)])),
    called(
        "agent-loops",
        "agent",
        Outcome::Limit("time"),
        Text { fields: r#"(data (i32.const 64) "loops")"#, ..of(&[AGENT, ("handle", SPIN)]) },
    ),
    // Results far over what is taken.
    called(
        "giant-merge",
        "merger",
        Outcome::Limit("result size"),
        Text { pages: 1_024, ..of(&[DESCRIBE, ("merge-hunks", GIANT_LIST), ("merge-file", GIANT_FILE)]) },
    ),
    // Answers that lie.
    called(
        "answers-missing",
        "merger",
        Outcome::Invalid("0 answers for"),
        of(&[DESCRIBE, ("merge-hunks", "(call $clear)"), ("merge-file", NO_CONFLICTS)]),
    ),
    called("conflicts-of-none", "reconciler", Outcome::Invalid("names none"), of(&[("reconcile", NO_CONFLICTS)])),
    called("order-twice", "workflow", Outcome::Invalid("position 0 twice"), of(&[("merge-order", TWO_NULLS)])),
    called(
        "rule-of-none",
        "policy",
        Outcome::Invalid("without naming a rule"),
        of(&[("check", "(drop (call $clear)) (i32.store8 (i32.const 1024) (i32.const 1)) (i32.const 1024)")]),
    ),
    // 50,000 lines at each event, then an answer without actions.
    called(
        "log-flood",
        "agent",
        Outcome::Limit("log lines"),
        Text {
            fields: r#"
                (import "pointsman:types/log@0.1.0" "write" (func $write (param i32 i32 i32)))
                (data (i32.const 64) "flood of lines")"#,
            ..of(&[
                AGENT,
                (
                    "handle",
                    "(local $left i32)
                    (local.set $left (i32.const 50000))
                    (loop $on
                        (call $write (i32.const 1) (i32.const 64) (i32.const 14))
                        (local.set $left (i32.sub (local.get $left) (i32.const 1)))
                        (br_if $on (local.get $left)))
                    (call $clear)",
                ),
            ])
        },
    ),
];

/// Three million answers for hunks, each of nothing.
const GIANT_LIST: &str = "(drop (call $clear)) (i32.store (i32.const 1028) (i32.const 3000000)) (i32.const 1024)";
/// A file made of the whole memory.
const GIANT_FILE: &str = "(drop (call $clear)) (i32.store (i32.const 1032) (i32.const 67108864)) (i32.const 1024)";
/// Conflicts, of which there are none.
const NO_CONFLICTS: &str = "(drop (call $clear)) (i32.store8 (i32.const 1024) (i32.const 1)) (i32.const 1024)";
