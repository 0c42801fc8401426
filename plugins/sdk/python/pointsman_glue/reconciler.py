"""The world `reconciler`."""

from pointsman.reconciler import Conflicts, Declined, Edits, Merged
from wit_world.exports import reconciling

from . import Connected, told


def outcome(answer):
    """Returns an answer as the world wants it."""
    match answer:
        case Merged():
            return reconciling.Outcome_Merged(answer.bytes)
        case Conflicts():
            places = [reconciling.Conflict(one.pointer, one.reason, one.base, one.ours, one.theirs) for one in answer.places]
            return reconciling.Outcome_Conflicts(places)
        case Declined():
            return reconciling.Outcome_Declined(answer.reason)
    raise TypeError(f"{answer!r} is no answer of a reconciler")


def component(plugin):
    """Returns the classes that the world exports."""
    connected = Connected(plugin)

    class Reconciling:
        def reconcile(self, media_type, base, ours, theirs):
            return told(outcome, connected.call("reconcile", Edits(media_type, base, ours, theirs)))

    return connected.setup(), Reconciling
