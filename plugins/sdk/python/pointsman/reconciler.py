"""The world `reconciler`: write `def reconcile(edits, config)` in src/plugin.py."""

from dataclasses import dataclass


@dataclass
class Edits:
    """Two edits of one document that started from the same version."""

    media_type: str
    base: bytes
    ours: bytes
    theirs: bytes


@dataclass
class Merged:
    """Both edits in one document."""

    bytes: bytes


@dataclass
class Conflict:
    """A place where both edits disagree: a JSON pointer, or `lines A-B` of the base."""

    pointer: str
    reason: str
    base: bytes | None = None
    ours: bytes | None = None
    theirs: bytes | None = None


@dataclass
class Conflicts:
    """Nothing is written."""

    places: list[Conflict]


@dataclass
class Declined:
    """Not mine: ask the next reconciler."""

    reason: str
