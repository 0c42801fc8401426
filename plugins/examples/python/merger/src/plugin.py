"""A merger: files whose lines are a sorted set, such as lists of words.

The host asks where both sides of a merge changed the same place. What either side added is in the result, what either side
removed is not. The host checks each answer: a line that a side added and the result lacks must be named as discarded.
"""

from pointsman.merger import Conflict, Hunk, Place, Resolved

SCOPE = "hunks"
PATHS = ["*.words", "CODEOWNERS"]


def merge_hunk(place: Place, hunk: Hunk, config: dict) -> Resolved | Conflict:
    base, ours, theirs = (side.splitlines() for side in (hunk.base, hunk.ours, hunk.theirs))
    if any(side != sorted(set(side)) for side in (base, ours, theirs)):
        return Conflict("the lines of a side are not sorted, or one stands twice")
    merged = {line for line in {*ours, *theirs} if line not in base or (line in ours and line in theirs)}
    return Resolved(b"".join(line + b"\n" for line in sorted(merged)))
