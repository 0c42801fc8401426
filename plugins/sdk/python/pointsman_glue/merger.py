"""The world `merger`."""

from pointsman.merger import Conflict, Conflicts, Declined, File, Hunk, Place, Resolved
from wit_world.exports import merging

from . import Connected, told


def resolution(answer):
    """Returns a result as the world wants it."""
    discards = [merging.Discard(merging.Side[one.side.upper()], one.text, one.reason) for one in answer.discards]
    return merging.Resolution(answer.bytes, discards)


def of_hunk(answer):
    """Returns the answer for a hunk as the world wants it."""
    match answer:
        case Resolved():
            return merging.HunkOutcome_Resolved(resolution(answer))
        case Conflict():
            return merging.HunkOutcome_Conflict(answer.reason)
        case Declined():
            return merging.HunkOutcome_Declined()
    raise TypeError(f"{answer!r} is no answer for a hunk")


def of_file(answer):
    """Returns the answer for a file as the world wants it."""
    match answer:
        case Resolved():
            return merging.FileOutcome_Resolved(resolution(answer))
        case Conflicts():
            return merging.FileOutcome_Conflicts([merging.Conflict(one.base_line, one.base_lines, one.reason) for one in answer.places])
        case Declined():
            return merging.FileOutcome_Declined(answer.reason)
    raise TypeError(f"{answer!r} is no answer for a file")


def component(plugin):
    """Returns the classes that the world exports."""
    connected = Connected(plugin)
    declined = lambda *_: Declined("this merger works on something else")  # noqa: E731

    class Merging:
        def describe(self):
            return merging.Description(merging.Scope[plugin.SCOPE.upper()], list(getattr(plugin, "PATHS", [])))

        def merge_hunks(self, place, hunks):
            where = Place(place.path, place.media_type)
            ask = lambda hunk: connected.call("merge_hunk", where, Hunk(hunk.base, hunk.ours, hunk.theirs), otherwise=declined)  # noqa: E731
            return [told(of_hunk, ask(hunk)) for hunk in hunks]

        def merge_file(self, place, base, ours, theirs, so_far):
            file = File(Place(place.path, place.media_type), base, ours, theirs, so_far)
            return told(of_file, connected.call("merge_file", file, otherwise=declined))

    return connected.setup(), Merging
