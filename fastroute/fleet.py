"""The agents behind one worker's models: who was heard of lately, who has least to do, who is left out.

A decision weighs a model that agents offer as one candidate; here it becomes the agents to ask, best first. What is asked
of nobody's agent never comes here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from fastroute.beats import Beats
from fastroute.clock import Clock
from fastroute.domain import Entry, LaneState
from fastroute.ledger.agents import AgentRow
from fastroute.routing.catalog import Catalog
from fastroute.routing.directory import Offer, lane_of_offers


class Fleet:
    """What one directory's agents are worth at this moment; `busy` tells how much this worker has with one of them."""

    def __init__(
        self,
        offers: Mapping[str, tuple[Offer, ...]],
        beats: Beats,
        clock: Clock,
        stale_ms: int,
        busy: Callable[[Entry], int],
    ) -> None:
        self.beats = beats
        self.stale_ms = stale_ms
        self.offers = offers
        self.agents: dict[str, AgentRow] = {offer.agent.name: offer.agent for each in offers.values() for offer in each}
        self._clock = clock
        self._busy = busy
        self._turn = 0
        self._of: dict[int, tuple[Catalog, tuple[str, ...]]] = {}

    @property
    def lanes(self) -> set[str]:
        """The lanes of all agents, for whoever counts by them."""
        return {offer.entry.lane for each in self.offers.values() for offer in each}

    def ranked(self, model: str) -> list[Entry]:
        """The agents that may be asked for a model: the shortest queue first, and equals in turn; none when all are silent.

        A queue is what the agent has told with its last beat, or what this worker alone has with it if that is more: what
        was sent since the beat counts too.
        """
        found = [(max(queue, self._busy(entry)), entry) for queue, entry in self._heard(model)]
        if len(found) > 1:
            turn = self._turn % len(found)
            self._turn += 1
            found = found[turn:] + found[:turn]
            found.sort(key=_queue)
        return [entry for _, entry in found]

    def spread(self, entries: Iterable[Entry]) -> list[Entry]:
        """The same order with the agents of each model in its place; a model nobody can be asked for is left out."""
        spread: list[Entry] = []
        for entry in entries:
            if entry.id in self.offers:
                spread += self.ranked(entry.id)
            else:
                spread.append(entry)
        return spread

    def states(self, catalog: Catalog, troubled: Mapping[str, LaneState]) -> dict[str, LaneState]:
        """The lanes of this catalog that stand for agents, where none of these is well: `stale` when all are silent."""
        states: dict[str, LaneState] = {}
        for model in self._models(catalog):
            heard = self._heard(model)
            if not heard:
                states[lane_of_offers(model)] = "stale"
            elif all(entry.lane in troubled for _, entry in heard):
                states[lane_of_offers(model)] = "degraded"
        return states

    def _heard(self, model: str) -> list[tuple[int, Entry]]:
        """Who offers a model and was heard of lately, with the queue it told."""
        now_ms = self._clock.monotonic_ms()
        found = []
        for offer in self.offers[model]:
            beat = self.beats.last(offer.agent.id)
            if beat is not None and beat.fresh(now_ms, self.stale_ms):
                found.append((beat.queue, offer.entry))
        return found

    def _models(self, catalog: Catalog) -> tuple[str, ...]:
        """The offered models of a catalog, looked for once: routes and their catalogs live as long as the directory."""
        known = self._of.get(id(catalog))
        if known is None:
            known = self._of[id(catalog)] = catalog, tuple(name for name in self.offers if name in catalog)
        return known[1]


def _queue(ranked: tuple[int, Entry]) -> int:
    return ranked[0]
