"""A workflow: branches carry the kind of their task, and what is urgent lands first.

What is not written here has the plain answer of `pointsman.workflow`. The host checks each name against git's rules and keeps
dependencies whatever the order says.
"""

from pointsman import workflow as plain


def branch_name(task: plain.Task, attempt: int, config: dict) -> str:
    prefixes = config.get("prefixes", {"fix": "fix", "feature": "feat"})
    return f"{prefixes.get(task.kind, 'task')}/{plain.branch_name(task, attempt)}"


def merge_order(queue: list[plain.Waiting], config: dict) -> list[int]:
    return sorted(range(len(queue)), key=lambda at: (-queue[at].priority, -queue[at].waited_ms))
