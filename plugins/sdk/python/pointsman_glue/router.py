"""The world `router`."""

from pointsman.router import Candidate, Message
from wit_world.exports import routing
from wit_world.imports import symbols

from . import Connected, told, word

NAMES_MAX = 4096
_names = {}


def name(symbol):
    """Returns a symbol's text: the number means the same for as long as the instance lives."""
    if symbol not in _names:
        if len(_names) >= NAMES_MAX:
            _names.clear()
        _names[symbol] = symbols.symbol_name(symbol)
    return _names[symbol]


def names(all_of_them):
    """Returns the texts of symbols."""
    return [name(one) for one in all_of_them]


def part(values, starts, position):
    """Returns what of a shared list belongs to one candidate."""
    return names(values[starts[position] : starts[position + 1]])


def component(plugin):
    """Returns the classes that the world exports."""
    connected = Connected(plugin)

    def candidate(raw, at):
        return Candidate(
            position=at,
            agent=name(raw.agent[at]),
            owner=name(raw.owner[at]),
            satisfies=raw.satisfies[at] != 0,
            load=raw.load[at],
            open_reviews=raw.open_reviews[at],
            idle_ms=raw.idle_ms[at],
            acked=raw.acked[at],
            nacked=raw.nacked[at],
            refused=raw.refused[at] != 0,
            teams=part(raw.teams, raw.team_start, at),
            capabilities=part(raw.capabilities, raw.capability_start, at),
        )

    class Routing:
        def route(self, message, candidates):
            about = Message(
                kind=name(message.kind),
                author=name(message.author),
                provenance=word(message.provenance),
                owner=name(message.owner),
                priority=message.priority,
                size_bytes=message.size_bytes,
                attempt=message.attempt,
                age_ms=message.age_ms,
                paths=names(message.paths),
                tags=names(message.tags),
                capabilities=names(message.capabilities),
            )
            among = [candidate(candidates, at) for at in range(len(candidates.agent))]
            verdict = connected.call("route", about, among)

            def answer():
                decision = getattr(routing, f"Decision_{verdict.decision}")
                return routing.Verdict(decision() if verdict.value is None else decision(verdict.value), verdict.reason)

            return told(answer)

    return connected.setup(), Routing
