//! Routers that would take more than they are given, that answer nonsense, that fail wherever they can.
//!
//! A verdict lies at 1024: the decision's tag, at 4 and 8 its list, at 12 and 16 the reason.

use super::{Guest, Outcome, Source, Text, When};

const SPIN: &str = "(loop $on (br $on)) (unreachable)";
const PASS: &str = "(call $clear)";

const fn called(name: &'static str, outcome: Outcome, text: Text) -> Guest {
    Guest { name, world: "router", when: When::Called, outcome, source: Source::Module(text) }
}

const fn loaded(name: &'static str, outcome: Outcome, text: Text) -> Guest {
    Guest { name, world: "router", when: When::Loaded, outcome, source: Source::Module(text) }
}

/// A router whose `route` has this body.
const fn route(bodies: &'static [(&'static str, &'static str)]) -> Text {
    Text { bodies, ..Text::TRAP }
}

/// A router that has no opinion, and gives out memory in its own way once it is configured.
const fn realloc(realloc: &'static str) -> Text {
    Text { realloc, bodies: &[("route", PASS)], ..Text::TRAP }
}

const TIME: Outcome = Outcome::Limit("time");
const MEMORY: Outcome = Outcome::Limit("memory");

/// Every one.
pub(super) const GUESTS: &[Guest] = &[
    // Time.
    called("endless-loop", TIME, route(&[("route", SPIN)])),
    called(
        "endless-imports",
        TIME,
        Text {
            fields: r#"(import "pointsman:types/symbols@0.1.0" "symbol-name" (func $name (param i32 i32)))"#,
            ..route(&[(
                "route",
                "(loop $on
                    (call $name (i32.const 7) (i32.const 64))
                    (global.set $next (i32.const 65536))
                    (br $on))
                (unreachable)",
            )])
        },
    ),
    called(
        "endless-symbols",
        TIME,
        Text {
            // A text of four letters that is another one each time.
            fields: r#"
                (import "pointsman:types/symbols@0.1.0" "symbol-of" (func $of (param i32 i32) (result i32)))
                (global $n (mut i32) (i32.const 0))"#,
            ..route(&[(
                "route",
                "(loop $on
                    (global.set $n (i32.add (global.get $n) (i32.const 0x01030507)))
                    (i32.store (i32.const 64)
                        (i32.add (i32.and (global.get $n) (i32.const 0x3f3f3f3f)) (i32.const 0x20202020)))
                    (drop (call $of (i32.const 64) (i32.const 4)))
                    (br $on))
                (unreachable)",
            )])
        },
    ),
    called("endless-after-the-answer", TIME, route(&[("route", PASS), ("post route", "(loop $on (br $on))")])),
    // As many turns as its configuration has digits for: what takes most of a deadline is for the host to find out.
    called(
        "slow-drip",
        Outcome::Answer,
        Text {
            fields: "(global $turns (mut i64) (i64.const 0))",
            ..route(&[
                (
                    "configure",
                    "(local $at i32) (local $digit i64)
                    (local.set $at (local.get 0))
                    (block $done (loop $on
                        (br_if $done (i32.ge_u (local.get $at) (i32.add (local.get 0) (local.get 1))))
                        (local.set $digit (i64.sub (i64.load8_u (local.get $at)) (i64.const 48)))
                        (if (i64.lt_u (local.get $digit) (i64.const 10))
                            (then (global.set $turns
                                (i64.add (i64.mul (global.get $turns) (i64.const 10)) (local.get $digit)))))
                        (local.set $at (i32.add (local.get $at) (i32.const 1)))
                        (br $on)))
                    (call $fine)",
                ),
                (
                    "route",
                    "(local $left i64)
                    (local.set $left (global.get $turns))
                    (block $done (loop $on
                        (br_if $done (i64.eqz (local.get $left)))
                        (local.set $left (i64.sub (local.get $left) (i64.const 1)))
                        (br $on)))
                    (call $clear)",
                ),
            ])
        },
    ),
    // Memory, tables, stack.
    called(
        "memory-bomb",
        MEMORY,
        route(&[("route", "(loop $on (br_if $on (i32.ge_s (memory.grow (i32.const 16)) (i32.const 0)))) (unreachable)")]),
    ),
    called(
        "memory-touched",
        MEMORY,
        route(&[(
            "route",
            "(local $page i32)
            (loop $on
                (local.set $page (memory.grow (i32.const 16)))
                (if (i32.ge_s (local.get $page) (i32.const 0))
                    (then (i64.store (i32.shl (local.get $page) (i32.const 16)) (i64.const -1)) (br $on))))
            (unreachable)",
        )]),
    ),
    called(
        "table-bomb",
        Outcome::Limit("tables"),
        Text {
            fields: "(table $t 1 funcref)",
            ..route(&[(
                "route",
                "(loop $on (br_if $on (i32.ge_s (table.grow $t (ref.null func) (i32.const 1000)) (i32.const 0)))) (unreachable)",
            )])
        },
    ),
    called(
        "deep-recursion",
        Outcome::Limit("stack"),
        Text {
            fields: "(func $deep (param i64) (result i64)
                (i64.add (local.get 0) (call $deep (i64.add (local.get 0) (i64.const 1)))))",
            ..route(&[("route", "(drop (call $deep (i64.const 0))) (unreachable)")])
        },
    ),
    // Answers that are too big, or none.
    called("giant-reason", Outcome::Limit("result size"), Text { pages: 32, ..route(&[("route", GIANT_REASON)]) }),
    called("giant-list", Outcome::Limit("result size"), Text { pages: 32, ..route(&[("route", GIANT_LIST)]) }),
    called("list-beyond-memory", Outcome::Invalid("out of bounds"), route(&[("route", LIST_BEYOND)])),
    called("list-misaligned", Outcome::Invalid("not aligned"), route(&[("route", LIST_MISALIGNED)])),
    called("reason-beyond-memory", Outcome::Invalid("out of bounds"), route(&[("route", REASON_BEYOND)])),
    called(
        "reason-not-utf8",
        Outcome::Invalid("utf-8"),
        Text { fields: r#"(data (i32.const 64) "\c3\28\ff")"#, ..route(&[("route", REASON_64)]) },
    ),
    called("answer-beyond-memory", Outcome::Invalid("out of bounds"), route(&[("route", "(i32.const -16)")])),
    called("answer-misaligned", Outcome::Invalid("not aligned"), route(&[("route", "(drop (call $clear)) (i32.const 1025)")])),
    called(
        "unknown-decision",
        Outcome::Invalid("discriminant"),
        route(&[("route", "(drop (call $clear)) (i32.store8 (i32.const 1024) (i32.const 9)) (i32.const 1024)")]),
    ),
    // Answers that lie.
    called(
        "position-beyond",
        Outcome::Invalid("position 1000000"),
        Text { fields: r#"(data (i32.const 64) "\40\42\0f\00")"#, ..route(&[("route", LIST_OF_ONE)]) },
    ),
    called("position-twice", Outcome::Invalid("position 0 twice"), route(&[("route", LIST_OF_TWO)])),
    called("nobody-ranked", Outcome::Invalid("names nobody"), route(&[("route", LIST_OF_NONE)])),
    // Memory for the host's values that is none. In the null page lies nothing of a guest: it harms itself.
    called("realloc-null", Outcome::Answer, realloc("(if (global.get $configured) (then (return (i32.const 0)))) (i32.const 65536)")),
    called(
        "realloc-beyond-memory",
        Outcome::Invalid("realloc"),
        realloc("(if (global.get $configured) (then (return (i32.const -65536)))) (i32.const 65536)"),
    ),
    called(
        "realloc-misaligned",
        Outcome::Invalid("realloc"),
        realloc("(if (global.get $configured) (then (return (i32.const 65537)))) (i32.const 65536)"),
    ),
    called(
        "realloc-grows",
        MEMORY,
        realloc(
            "(if (global.get $configured)
                (then (loop $on (br_if $on (i32.ge_s (memory.grow (i32.const 16)) (i32.const 0)))) (unreachable)))
            (i32.const 65536)",
        ),
    ),
    called("realloc-loops", TIME, realloc("(loop $on (br_if $on (global.get $configured))) (i32.const 65536)")),
    called("realloc-traps", Outcome::Trap, realloc("(if (global.get $configured) (then (unreachable))) (i32.const 65536)")),
    called(
        "realloc-re-enters",
        Outcome::Trap,
        Text {
            fields: r#"(import "pointsman:types/symbols@0.1.0" "symbol-name" (func $name (param i32 i32)))"#,
            ..realloc("(if (global.get $configured) (then (call $name (i32.const 7) (i32.const 64)))) (i32.const 65536)")
        },
    ),
    // Traps.
    called("trap-in-route", Outcome::Trap, Text::TRAP),
    called("trap-after-the-answer", Outcome::Trap, route(&[("route", PASS), ("post route", "(unreachable)")])),
    loaded("trap-in-configure", Outcome::Trap, route(&[("configure", "(unreachable)")])),
    loaded("trap-after-configure", Outcome::Trap, route(&[("post configure", "(unreachable)")])),
    loaded("trap-at-start", Outcome::Trap, Text { fields: "(func $first (unreachable)) (start $first)", ..Text::TRAP }),
    loaded("data-beyond-memory", Outcome::Trap, Text { fields: r#"(data (i32.const 0xfffffff0) "x")"#, ..Text::TRAP }),
    loaded(
        "elements-beyond-table",
        Outcome::Trap,
        Text { fields: "(func $f) (table 1 funcref) (elem (i32.const 7) func $f)", ..Text::TRAP },
    ),
    // What never gets as far as a call.
    loaded("endless-start", TIME, Text { fields: "(func $first (loop $on (br $on))) (start $first)", ..Text::TRAP }),
    loaded("endless-configure", TIME, route(&[("configure", SPIN)])),
    loaded("memory-at-start", MEMORY, Text { pages: 1_000, ..Text::TRAP }),
    loaded("realloc-beyond-memory-at-once", Outcome::Invalid("realloc"), Text { realloc: "(i32.const -65536)", ..Text::TRAP }),
    loaded(
        "unknown-refusal",
        Outcome::Invalid("discriminant"),
        route(&[("configure", "(i32.store8 (i32.const 1024) (i32.const 7)) (i32.const 1024)")]),
    ),
    loaded(
        "giant-refusal",
        Outcome::Limit("result size"),
        Text {
            pages: 32,
            ..route(&[(
                "configure",
                "(i32.store (i32.const 1024) (i32.const 1)) (i32.store (i32.const 1028) (i32.const 0))
                (i32.store (i32.const 1032) (i32.const 1048576)) (i32.const 1024)",
            )])
        },
    ),
    // Outside what its world gives.
    loaded(
        "import-of-another-world",
        Outcome::Invalid("`pointsman:types/log@0.1.0`, which the world `router` does not give"),
        Text {
            fields: r#"(import "pointsman:types/log@0.1.0" "write" (func $write (param i32 i32 i32)))"#,
            world: "import pointsman:types/log@0.1.0;",
            ..Text::TRAP
        },
    ),
    loaded(
        "import-of-nobody",
        Outcome::Invalid("`files`, which the world `router` does not give"),
        Text {
            fields: r#"(import "$root" "files" (func $open (param i32 i32) (result i32)))"#,
            world: "import files: func(path: string) -> u32;",
            ..Text::TRAP
        },
    ),
    Guest {
        name: "other-signature",
        world: "router",
        when: When::Loaded,
        outcome: Outcome::Invalid("expected `string` found `u32`"),
        source: Source::Component(OTHER_SIGNATURE),
    },
    Guest {
        name: "too-many-memories",
        world: "router",
        when: When::Loaded,
        outcome: Outcome::Invalid("memories"),
        source: Source::Component(TOO_MANY_MEMORIES),
    },
];

const GIANT_REASON: &str = "(drop (call $clear)) (i32.store (i32.const 1040) (i32.const 1048576)) (i32.const 1024)";
const GIANT_LIST: &str = "(drop (call $clear)) (i32.store8 (i32.const 1024) (i32.const 1))
    (i32.store (i32.const 1032) (i32.const 262144)) (i32.const 1024)";
const LIST_BEYOND: &str = "(drop (call $clear)) (i32.store8 (i32.const 1024) (i32.const 1))
    (i32.store (i32.const 1028) (i32.const -8)) (i32.store (i32.const 1032) (i32.const 7)) (i32.const 1024)";
const LIST_MISALIGNED: &str = "(drop (call $clear)) (i32.store8 (i32.const 1024) (i32.const 1))
    (i32.store (i32.const 1028) (i32.const 65)) (i32.store (i32.const 1032) (i32.const 1)) (i32.const 1024)";
const REASON_BEYOND: &str = "(drop (call $clear)) (i32.store (i32.const 1036) (i32.const -8))
    (i32.store (i32.const 1040) (i32.const 7)) (i32.const 1024)";
const REASON_64: &str = "(drop (call $clear)) (i32.store (i32.const 1036) (i32.const 64))
    (i32.store (i32.const 1040) (i32.const 3)) (i32.const 1024)";
const LIST_OF_ONE: &str = "(drop (call $clear)) (i32.store8 (i32.const 1024) (i32.const 1))
    (i32.store (i32.const 1028) (i32.const 64)) (i32.store (i32.const 1032) (i32.const 1)) (i32.const 1024)";
const LIST_OF_TWO: &str = "(drop (call $clear)) (i32.store8 (i32.const 1024) (i32.const 2))
    (i32.store (i32.const 1028) (i32.const 64)) (i32.store (i32.const 1032) (i32.const 2)) (i32.const 1024)";
const LIST_OF_NONE: &str = "(drop (call $clear)) (i32.store8 (i32.const 1024) (i32.const 1)) (i32.const 1024)";

/// `configure` takes a number, and `route` nothing.
const OTHER_SIGNATURE: &str = r#"(component
    (core module $m (func (export "configure") (param i32)) (func (export "route")))
    (core instance $i (instantiate $m))
    (func $configure (param "json" u32) (canon lift (core func $i "configure")))
    (func $route (canon lift (core func $i "route")))
    (instance $setup (export "configure" (func $configure)))
    (instance $routing (export "route" (func $route)))
    (export "pointsman:types/setup@0.1.0" (instance $setup))
    (export "pointsman:router/routing@0.1.0" (instance $routing)))"#;

macro_rules! eight_instances {
    () => {
        "(core instance (instantiate $m)) (core instance (instantiate $m)) (core instance (instantiate $m)) (core instance (instantiate $m))
         (core instance (instantiate $m)) (core instance (instantiate $m)) (core instance (instantiate $m)) (core instance (instantiate $m))"
    };
}

/// More memories than the roomiest of engines gives to one component: they would take others' places.
const TOO_MANY_MEMORIES: &str = concat!(
    r#"(component
    (core module $m (memory 1) (func (export "configure") (param i32)))
    (core instance $a (instantiate $m))"#,
    eight_instances!(),
    eight_instances!(),
    eight_instances!(),
    eight_instances!(),
    r#"(func $configure (param "json" u32) (canon lift (core func $a "configure")))
    (instance $setup (export "configure" (func $configure)))
    (export "pointsman:types/setup@0.1.0" (instance $setup))
    (export "pointsman:router/routing@0.1.0" (instance $setup)))"#
);
