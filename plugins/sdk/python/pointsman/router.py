"""The world `router`: write `def route(message, candidates, config)` in src/plugin.py."""

from dataclasses import dataclass, field


@dataclass
class Message:
    """The message in question. Names are texts."""

    kind: str = "question"
    author: str = ""
    provenance: str = "agent"
    owner: str = ""
    priority: int = 4
    size_bytes: int = 0
    attempt: int = 0
    age_ms: int = 0
    paths: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    capabilities: list[str] = field(default_factory=list)


@dataclass
class Candidate:
    """One who could get it."""

    position: int = 0
    agent: str = ""
    owner: str = ""
    satisfies: bool = True
    load: int = 0
    open_reviews: int = 0
    idle_ms: int = 0
    acked: int = 0
    nacked: int = 0
    refused: bool = False
    teams: list[str] = field(default_factory=list)
    capabilities: list[str] = field(default_factory=list)


@dataclass
class Verdict:
    """What becomes of the message, and why."""

    decision: str
    value: object
    reason: str


def no_opinion(reason: str = "") -> Verdict:
    """The next router decides."""
    return Verdict("Pass", None, reason)


def ranked(candidates: list[Candidate], reason: str = "") -> Verdict:
    """To the first of these that takes it; who gives it back sends it to the next."""
    return Verdict("Ranked", [one.position for one in candidates], reason) if candidates else no_opinion(reason)


def broadcast(candidates: list[Candidate], reason: str = "") -> Verdict:
    """To every one of these."""
    return Verdict("Broadcast", [one.position for one in candidates], reason) if candidates else no_opinion(reason)


def drop(reason: str) -> Verdict:
    """To nobody; told to the sender."""
    return Verdict("Drop", None, reason)


def defer(delay_ms: int, reason: str) -> Verdict:
    """Ask again after so many milliseconds."""
    return Verdict("Defer", delay_ms, reason)
