//! Gates: the policies of a project asked in their order.
//!
//! **Invariant:** the first that does not allow decides; one that fails keeps the gate shut, unless the operator said otherwise.

use pointsman_core::ids::ProjectId;

use super::failure::Failure;
use super::kit::Kit;
use crate::ports::plugins::{Gate, GateFacts, GateVerdict};
use crate::ports::registry::OnFailure;

/// Asks the policies of a project at a gate, until one does not allow. At `submit` a want of approvals is none yet: a branch is
/// submitted to get them, so that a later policy's refusal counts before it.
///
/// # Errors
/// [`Failure`]: a policy failed.
pub(super) async fn ask(kit: &Kit, project: ProjectId, gate: Gate, facts: GateFacts) -> Result<GateVerdict, Failure> {
    let slug = kit.slug(project).await?;
    let bindings = kit.settings.bindings.now();
    for policy in bindings.policies(&slug, gate, &facts.kind) {
        if let Some(why) = bindings.rule(policy).quarantine {
            return Ok(GateVerdict::Deny {
                rule: "policy_quarantined".to_owned(),
                why: format!("the policy `{policy}` is in quarantine: {why}"),
                advice: format!("An operator lifts it by `pointsman plugin enable {policy}`, or takes it out of the policies."),
            });
        }
        let verdict = match kit.plugins.check(policy, gate, facts.clone()).await {
            Ok(verdict) => verdict,
            Err(failure) => match kit.plugins.on_failure(policy) {
                OnFailure::Refuse => {
                    tracing::warn!(policy, %failure, "a policy failed; the gate stays shut");
                    return Err(Failure::refused(
                        "policy_failed",
                        format!("the policy `{policy}`, which has to agree, failed: {failure}"),
                        "Try again later; if it stays so, an operator has to mend the policy or take it out of use.",
                    ));
                }
                OnFailure::Defer => {
                    tracing::warn!(policy, %failure, "a policy failed; what was asked waits");
                    return Err(Failure::later());
                }
                OnFailure::FallBack => {
                    tracing::warn!(policy, %failure, "a policy failed; the others decide");
                    continue;
                }
            },
        };
        match verdict {
            GateVerdict::Allow => {}
            GateVerdict::Need { .. } if gate == Gate::Submit => {}
            verdict @ (GateVerdict::Deny { .. } | GateVerdict::Need { .. }) => return Ok(verdict),
        }
    }
    Ok(GateVerdict::Allow)
}
