//! The world `policy`.
//!
//! **Invariant:** a refusal carries a rule, by which it can be found again.

use pointsman_core::event::Provenance;
use wasmtime::component::HasSelf;

use self::bindings::exports::pointsman::policy::gates as wit;
use self::bindings::pointsman::types::origin;
use super::admission::Shape;
use super::pool::{Pool, guest};
use super::store::State;
use crate::ports::plugins::{Gate, GateActor, GateFacts, GateVerdict, PluginFailure};

pub(super) mod bindings {
    wasmtime::component::bindgen!({
        path: ["../wit/types", "../wit/policy"],
        world: "pointsman:policy/policy",
        ownership: Borrowing { duplicate_if_necessary: false },
    });
}

guest!(
    bindings::Policy,
    PolicyPre,
    Policy,
    Shape {
        world: "policy",
        imports: &["pointsman:types/origin@0.1.0"],
        exports: &["pointsman:types/setup@0.1.0", "pointsman:policy/gates@0.1.0"],
    },
    |linker| origin::add_to_linker::<_, HasSelf<State>>(linker, |state| state)
);

impl origin::Host for State {}

/// Asks at a gate.
pub(super) fn check(pool: &Pool<bindings::Policy>, gate: Gate, facts: &GateFacts) -> Result<GateVerdict, PluginFailure> {
    let actor = Actor::new(&facts.actor);
    let approvers: Vec<Actor<'_>> = facts.approvals.iter().map(|one| Actor::new(&one.by)).collect();
    let approvals: Vec<wit::Approval<'_>> = facts
        .approvals
        .iter()
        .zip(&approvers)
        .map(|(one, by)| wit::Approval { by: by.wit(), approves: one.approves, head: &one.head })
        .collect();
    let checks: Vec<wit::CheckResult<'_>> = facts.checks.iter().map(|(name, passed)| wit::CheckResult { name, passed: *passed }).collect();
    let (labels, paths) = (super::texts(&facts.labels), super::texts(&facts.paths));
    pool.ask(|guest, store| {
        let known = wit::Facts {
            actor: actor.wit(),
            owner: &facts.owner,
            task: &facts.task,
            kind: &facts.kind,
            labels: &labels,
            priority: facts.priority,
            held: facts.held,
            target: &facts.target,
            head: &facts.head,
            paths: &paths,
            lines_changed: facts.lines_changed,
            approvals: &approvals,
            checks: &checks,
            capability: &facts.capability,
        };
        Ok(verdict(guest.pointsman_policy_gates().call_check(store, wit_gate(gate), known)?))
    })
}

/// An actor with its list as the boundary wants it.
struct Actor<'a> {
    of: &'a GateActor,
    capabilities: Vec<&'a str>,
}

impl<'a> Actor<'a> {
    fn new(of: &'a GateActor) -> Self {
        Self { of, capabilities: super::texts(&of.capabilities) }
    }

    fn wit(&self) -> wit::Actor<'_> {
        wit::Actor {
            agent: &self.of.agent,
            principal: &self.of.principal,
            provenance: match self.of.provenance {
                Provenance::Human => origin::Provenance::Human,
                Provenance::Agent => origin::Provenance::Agent,
                Provenance::Plugin => origin::Provenance::Plugin,
                Provenance::Host => origin::Provenance::Host,
            },
            capabilities: &self.capabilities,
        }
    }
}

const fn wit_gate(gate: Gate) -> wit::Gate {
    match gate {
        Gate::Claim => wit::Gate::Claim,
        Gate::Review => wit::Gate::Review,
        Gate::Submit => wit::Gate::Submit,
        Gate::Land => wit::Gate::Land,
        Gate::Grant => wit::Gate::Grant,
    }
}

fn verdict(answer: wit::Verdict) -> Result<GateVerdict, String> {
    let verdict = match answer {
        wit::Verdict::Allow => return Ok(GateVerdict::Allow),
        wit::Verdict::Deny(denial) => GateVerdict::Deny { rule: denial.rule, why: denial.why, advice: denial.advice },
        wit::Verdict::Need(need) => GateVerdict::Need { rule: need.rule, approvals: need.approvals, by: need.by, why: need.why },
    };
    match &verdict {
        GateVerdict::Deny { rule, .. } | GateVerdict::Need { rule, .. } if rule.is_empty() => {
            Err("it refuses without naming a rule".to_owned())
        }
        GateVerdict::Allow | GateVerdict::Deny { .. } | GateVerdict::Need { .. } => Ok(verdict),
    }
}
