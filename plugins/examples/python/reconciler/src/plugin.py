"""A reconciler: documents that are lists, one entry a line, in no order.

The host asks when a document was written from a version that is no longer the newest. What either side added is in the result,
what either side removed is not.
"""

from pointsman.reconciler import Declined, Edits, Merged


def reconcile(edits: Edits, config: dict) -> Merged | Declined:
    media_type = config.get("media_type", "text/x-list")
    if edits.media_type != media_type:
        return Declined(f"{edits.media_type} is not {media_type}")
    base, ours, theirs = (list(filter(None, side.splitlines())) for side in (edits.base, edits.ours, edits.theirs))
    kept = [entry for entry in ours if entry in theirs or entry not in base]
    added = [entry for entry in theirs if entry not in ours and entry not in base]
    return Merged(b"".join(entry + b"\n" for entry in kept + added))
