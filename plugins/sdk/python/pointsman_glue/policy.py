"""The world `policy`."""

from pointsman.policy import Actor, Allow, Approval, CheckResult, Deny, Facts, Need
from wit_world.exports import gates

from . import Connected, told, word


def actor(raw):
    """Returns who asks or approved."""
    return Actor(raw.agent, raw.principal, word(raw.provenance), raw.capabilities)


def facts_of(raw):
    """Returns the facts with texts for cases."""
    known = {**vars(raw), "actor": actor(raw.actor)}
    known["approvals"] = [Approval(actor(one.by), one.approves, one.head) for one in raw.approvals]
    known["checks"] = [CheckResult(one.name, one.passed) for one in raw.checks]
    return Facts(**known)


def verdict(answer):
    """Returns an answer as the world wants it."""
    match answer:
        case Allow():
            return gates.Verdict_Allow()
        case Deny():
            return gates.Verdict_Deny(gates.Denial(answer.rule, answer.why, answer.advice))
        case Need():
            return gates.Verdict_Need(gates.Requirement(answer.rule, answer.approvals, answer.by, answer.why))
    raise TypeError(f"{answer!r} is no answer of a policy")


def component(plugin):
    """Returns the classes that the world exports."""
    connected = Connected(plugin)

    class Gates:
        def check(self, gate, facts):
            return told(verdict, connected.call("check", word(gate), facts_of(facts)))

    return connected.setup(), Gates
