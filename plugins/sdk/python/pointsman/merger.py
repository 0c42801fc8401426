"""The world `merger`: write `SCOPE = "hunks"` or `"file"`, `PATHS = [...]`, and the function that the scope names,
`def merge_hunk(place, hunk, config)` or `def merge_file(file, config)`, in src/plugin.py."""

from dataclasses import dataclass, field


@dataclass
class Place:
    """Where the question comes from."""

    path: str
    media_type: str = ""


@dataclass
class Hunk:
    """One place that both sides changed: whole lines."""

    base: bytes
    ours: bytes
    theirs: bytes


@dataclass
class File:
    """A whole file; `base` is None where both sides added it."""

    place: Place
    base: bytes | None
    ours: bytes
    theirs: bytes
    so_far: bytes


@dataclass
class Discard:
    """What the result leaves out on purpose; `side` is "ours" or "theirs"."""

    side: str
    text: bytes
    reason: str


@dataclass
class Resolved:
    """Merged."""

    bytes: bytes
    discards: list[Discard] = field(default_factory=list)


@dataclass
class Conflict:
    """Left in conflict; the lines of the base it covers matter for files only."""

    reason: str
    base_line: int = 0
    base_lines: int = 0


@dataclass
class Conflicts:
    """Of a file: in conflict at these places."""

    places: list[Conflict]


@dataclass
class Declined:
    """Not mine: ask the next merger."""

    reason: str = ""
