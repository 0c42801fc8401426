"""The world `workflow`: write in src/plugin.py what you want to decide, `def branch_name(task, attempt, config)`,
`def commit_message(facts, config)`, `def merge_message(facts, config)`, `def pull_request(facts, config)` (title and body) and
`def merge_order(queue, config)` (positions). What is not written has the plain answer of this module."""

import re
from dataclasses import dataclass, field


@dataclass
class Task:
    """A task, as far as its words matter."""

    id: str
    title: str = ""
    description: str = ""
    kind: str = ""
    labels: list[str] = field(default_factory=list)
    priority: int = 4
    depends_on: list[str] = field(default_factory=list)


@dataclass
class Waiting:
    """A branch that waits to land."""

    task: str
    priority: int = 4
    kind: str = ""
    waited_ms: int = 0
    files: int = 0
    after: list[int] = field(default_factory=list)
    overlaps: list[int] = field(default_factory=list)


def branch_name(task, attempt: int = 0, config=None) -> str:
    """Returns `t-12-what-it-is-about`, with the attempt behind it from the second on."""
    slug = re.sub(r"[^a-z0-9]+", "-", f"{task.id}-{task.title}".lower())[: len(task.id) + 40].strip("-")
    return slug if attempt == 0 else f"{slug}-{attempt + 1}"


def commit_message(facts, config=None) -> str:
    """Returns the task's title, the note and a trailer."""
    note = f"\n{facts.note}\n" if facts.note else ""
    return f"{facts.task.title}\n{note}\nTask: {facts.task.id}\n"


def merge_message(facts, config=None) -> str:
    """Returns the branch, the task's title and a trailer."""
    return f"Merge {facts.branch}: {facts.task.title}\n\nTask: {facts.task.id}\n"


def pull_request(facts, config=None) -> tuple[str, str]:
    """Returns the title and the description of the task."""
    return facts.task.title, facts.task.description


def merge_order(queue, config=None) -> list[int]:
    """Returns the order in which they came."""
    return list(range(len(queue)))
