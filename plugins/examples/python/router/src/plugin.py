"""A router: of the agents that are able, whoever has the least to do comes first.

The host asks once for each message. The same question must have the same answer: there is no clock and no chance here.
"""

from pointsman.router import Candidate, Message, Verdict, broadcast, ranked


def configure(config: dict) -> set[str]:
    """Checks what the operator set under `[plugins.NAME.config]`; what it raises is shown to the operator."""
    kinds = config.get("broadcast_kinds", [])
    if not isinstance(kinds, list):
        raise ValueError("`broadcast_kinds` is a list of kinds")
    return set(kinds)


def route(message: Message, candidates: list[Candidate], broadcast_kinds: set[str]) -> Verdict:
    able = [one for one in candidates if one.satisfies and not one.refused and one.agent != message.author]
    if message.kind in broadcast_kinds:
        return broadcast(able, "a kind for everyone")
    # The reason is what `pointsman why` shows; nobody ranked means "no opinion".
    return ranked(sorted(able, key=lambda one: one.load + 2 * one.open_reviews)[:8], "the least busy first")
