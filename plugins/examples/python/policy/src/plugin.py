"""A policy: a large change needs more approvals than a small one.

The host asks at each gate, with everything that may be judged by. What is refused names a rule and what would help: both are told
to the agent.
"""

from pointsman.policy import Allow, Deny, Facts, Need


def check(gate: str, facts: Facts, config: dict) -> Allow | Deny | Need:
    if gate != "land":
        return Allow()
    needed = config.get("approvals", 2) if facts.lines_changed > config.get("lines_max", 400) else 1
    given = sum(1 for one in facts.approvals if one.approves and one.by.agent != facts.owner)
    if given >= needed:
        return Allow()
    why = f"{facts.lines_changed} lines are changed, which asks for {needed} approvals; there are {given}"
    return Need("approvals", needed, why)
