"""The world `policy`: write `def check(gate, facts, config)` in src/plugin.py. `gate` is "claim", "review", "submit", "land" or
"grant"."""

from dataclasses import dataclass, field


@dataclass
class Actor:
    """Who asks, or who approved."""

    agent: str = ""
    principal: str = ""
    provenance: str = "agent"
    capabilities: list[str] = field(default_factory=list)


@dataclass
class Approval:
    """A review verdict that still stands."""

    by: Actor
    approves: bool = True
    head: str = ""


@dataclass
class CheckResult:
    """A check that ran on the tree in question."""

    name: str
    passed: bool


@dataclass
class Facts:
    """What is known; what a gate does not know is empty or 0."""

    actor: Actor = field(default_factory=Actor)
    owner: str = ""
    task: str = ""
    kind: str = ""
    labels: list[str] = field(default_factory=list)
    priority: int = 4
    held: int = 0
    target: str = ""
    head: str = ""
    paths: list[str] = field(default_factory=list)
    lines_changed: int = 0
    approvals: list[Approval] = field(default_factory=list)
    checks: list[CheckResult] = field(default_factory=list)
    capability: str = ""


@dataclass
class Allow:
    """Go on."""


@dataclass
class Deny:
    """Refused: a short stable name of the rule, why, and what would help."""

    rule: str
    why: str
    advice: str


@dataclass
class Need:
    """Not yet: so many approvals in all, by anyone or by those who satisfy a capability expression."""

    rule: str
    approvals: int
    why: str
    by: str = ""
