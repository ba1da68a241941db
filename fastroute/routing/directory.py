"""Who answers to which name: entries, aliases, tiers, `auto` and the families, as one directory.

A name is an entry's id first, then an alias, then `provider:model`, `provider/model` or a family; anything else is
unknown. What it leads to is a target: a route, and the catalog the route chooses from.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import replace

from fastroute.config import places
from fastroute.domain import CAPABILITIES, Entry, ModelRef, Price, Rates
from fastroute.errors import CatalogError, UnknownModel
from fastroute.routing import names
from fastroute.routing.catalog import Catalog
from fastroute.routing.placement import Route
from fastroute.routing.rankers import Ordered, Pinned, Ranker

FREE = Price(Rates(0, 0, 0, 0), source="free")
OWN_HARDWARE = ("local", "huggingface", "dummy")  # nobody sends a bill for these
AUTO = "auto"

PriceOf = Callable[[ModelRef], Price | None]
WindowOf = Callable[[ModelRef], int | None]

# Names seen once are remembered, but a caller may invent as many as it likes.
_REMEMBERED_MAX = 1024


class Target(Struct, frozen=True):
    """Where a name leads: how to choose, and among whom. `rules` is what else a relay goes by; routing never looks."""

    route: Route
    catalog: Catalog
    rules: Any = None


class Offer(Struct, frozen=True):
    """One agent's offer of a model: the entry to ask it by. `agent` is the registry's word of it; routing never looks."""

    entry: Entry
    agent: Any


class Directory:
    """Every name this gateway answers to, as the configuration and the registry had it when it was made.

    `providers` are the names that may stand before a colon or a slash. `fallback_provider`, when there is one, is sent
    every other name with a slash, whole, and those of the providers in `unconfigured`, which could not be asked.

    `offers` are the models of agents, by name. In the catalog each is one entry, of a lane that stands for all who offer
    it; whoever relays asks one of them. A name that nobody offers any more (its offers are empty) is unknown to callers,
    and in a route a target that cannot be asked: what agents do must not make a configuration wrong.
    """

    def __init__(
        self,
        entries: Iterable[Entry],
        aliases: Mapping[str, tuple[str, ...]],
        providers: Collection[str],
        price_of: PriceOf,
        *,
        window_of: WindowOf | None = None,
        fallback_provider: str | None = None,
        unconfigured: Collection[str] = (),
        allow_unpriced: bool = False,
        offers: Mapping[str, tuple[Offer, ...]] | None = None,
    ) -> None:
        self.offers = dict(offers or {})
        offered = [_standing_for(name, each[0].entry) for name, each in self.offers.items() if each]
        self.catalog = Catalog((*entries, *offered))
        self.aliases = dict(aliases)
        # A placement names its model `provider:model`; who asks for that means the entry that was placed. The first wins.
        self._placed: dict[str, Entry] = {}
        for each in self.catalog.entries:
            self._placed.setdefault(str(each.ref), each)
        self._providers = providers
        self._price_of = price_of
        self._window_of = window_of or (lambda ref: None)
        self._fallback = fallback_provider
        self._unconfigured = unconfigured
        self._allow_unpriced = allow_unpriced
        self._routes: dict[str, Target] = {}
        self._unlisted: dict[str, Target] = {}
        self._remembered: dict[str, Target] = {}
        for name in self.aliases:
            if name in self.catalog:
                raise CatalogError(f"{name!r} is both an alias and an entry ({self.catalog[name].ref})")
            self._routes[name] = self._alias(name)

    def add_route(
        self, name: str, ranker: Ranker, among: tuple[str, ...] = (), *, rules: Any = None, listed: bool = True
    ) -> None:
        """A named route over some names, or over the whole catalog when none are given."""
        catalog = Catalog(self._entries(among)) if among else self.catalog
        routes = self._routes if listed else self._unlisted
        routes[name] = Target(Route(name, ranker, allow_unpriced=self._allow_unpriced), catalog, rules)

    def resolve(self, name: str) -> Target:
        """The target of a name; `UnknownModel` names the nearest one there is."""
        target = self._routes.get(name) or self._remembered.get(name) or self._unlisted.get(name)
        if target is not None:
            return target
        entry = self.entry(name)
        if entry is None:
            raise UnknownModel(name, names.nearest(name, self.names()))
        catalog = self.catalog if entry.id in self.catalog else Catalog((entry,))
        target = Target(Route(name, Pinned(entry.id), allow_unpriced=self._allow_unpriced, names_models=True), catalog)
        if len(self._remembered) >= _REMEMBERED_MAX:
            self._remembered.clear()
        self._remembered[name] = target
        return target

    def entry(self, name: str) -> Entry | None:
        """The one entry a name stands for by itself: its own, or one made up for its provider or family."""
        if name in self.catalog:
            return self.catalog[name]
        if name in self._placed:
            return self._placed[name]
        ref = names.split(name, self._providers)
        # What begins with a policy's name means one of its models, and this is none of them.
        if self._fallback is not None and "/" in name and name.partition(":")[0] not in self._routes:
            maker = name.partition("/")[0]
            if ref is None or (ref.provider == maker and maker in self._unconfigured):
                # Behind one address live as many failure domains as there are makers of models.
                return self._derived(name, ModelRef(self._fallback, name), lane=f"{self._fallback}/{maker}")
        return None if ref is None else self._derived(name, ref)

    def absent(self, name: str) -> Entry | None:
        """What stands in a route for a model that agents have offered, while none does; None for every other name."""
        if self.offers.get(name, True) or self.entry(name) is not None:
            return None
        return _standing_for(name, entry_of_offer(name, "nobody", None))

    def entries(self) -> tuple[Entry, ...]:
        """Every entry a route may choose: the catalog's, and those that only an alias or `auto` leads to."""
        found = {entry.id: entry for entry in self.catalog.entries}
        for target in self._routes.values():
            found.update((entry.id, entry) for entry in target.catalog.entries)
        return tuple(found.values())

    def listed(self) -> tuple[Entry, ...]:
        """What can be asked for by name; a route stands there as an entry that can what all of its targets can."""
        routes = []
        for name, target in self._routes.items():
            entries = target.catalog.entries
            shared = tuple(word for word in CAPABILITIES if entries and all(word in e.capabilities for e in entries))
            routes.append(Entry(id=name, ref=ModelRef("fastroute", name), lane="fastroute", capabilities=shared))
        return (*self.catalog.entries, *routes)

    @property
    def routes(self) -> Collection[str]:
        """The names that choose among several or stand for others, the listed ones and those that are not."""
        return {**self._routes, **self._unlisted}.keys()

    def rules(self) -> Iterator[Any]:
        """Those of every route that has some."""
        return (target.rules for target in self._routes.values() if target.rules is not None)

    def names(self) -> tuple[str, ...]:
        """Everything that is listed: routes and aliases, then entries."""
        return tuple(dict.fromkeys((*self._routes, *self.catalog.position)))

    def _alias(self, name: str) -> Target:
        targets = self._follow(name, ())
        catalog = Catalog(self._entries(targets))
        ids = tuple(entry.id for entry in catalog.entries)
        ranker: Ranker = Pinned(ids[0]) if len(ids) == 1 else Ordered(ids)
        return Target(Route(name, ranker, allow_unpriced=self._allow_unpriced, names_models=True), catalog)

    def _follow(self, name: str, path: tuple[str, ...]) -> tuple[str, ...]:
        """An alias's targets with aliases among them replaced by theirs."""
        if name in path:
            raise CatalogError(f"aliases go in a circle: {' -> '.join((*path, name))}")
        if name not in self.aliases:
            return (name,)
        found: dict[str, None] = {}
        for target in self.aliases[name]:
            found.update(dict.fromkeys(self._follow(target, (*path, name))))
        return tuple(found)

    def _entries(self, wanted: tuple[str, ...]) -> list[Entry]:
        entries: dict[str, Entry] = {}
        for name in wanted:
            for final in self._follow(name, ()):
                entry = self.entry(final) or self.absent(final)
                if entry is None:
                    raise CatalogError(f"{name!r} leads to {final!r}, which no entry, provider or family answers to")
                entries[entry.id] = entry
        return list(entries.values())

    def _derived(self, name: str, ref: ModelRef, lane: str | None = None) -> Entry:
        own = ref.provider in OWN_HARDWARE
        return Entry(
            id=name,
            ref=ref,
            lane=lane or ref.provider,
            runtime="local" if own else "managed",
            capabilities=names.capabilities_of(ref.model),
            price=FREE if own else self._price_of(ref),
            context_window=self._window_of(ref),
        )


def entry_of_offer(model: str, agent: str, endpoint: str | None) -> Entry:
    """One agent's offer of a model as an entry; every agent is a lane of its own."""
    return Entry(
        id=model,
        ref=ModelRef("local", model),
        lane=f"local@{agent}",
        runtime="local",
        kind="weight",
        capabilities=names.capabilities_of(model),
        price=FREE,
        endpoint=endpoint,
    )


def _standing_for(model: str, entry: Entry) -> Entry:
    return replace(entry, lane=lane_of_offers(model))


def lane_of_offers(model: str) -> str:
    """The lane that stands for all agents who offer a model."""
    return f"local:{model}"


def entry_of_row(
    name: str, kind_of_provider: str, endpoint: str, weights: bool, price_of: PriceOf, base_url: str | None
) -> Entry:
    """A registry row as an entry; one at another address than its provider's is a lane of its own."""
    ref = ModelRef(kind_of_provider, name)
    elsewhere = endpoint.rstrip("/").removesuffix("/v1") != (base_url or "")
    own = kind_of_provider in OWN_HARDWARE or weights
    place = places.place_of_row(kind_of_provider, name, endpoint, "weight" if weights else "api")
    if place is not None:
        return Entry(
            id=name,
            ref=ref,
            lane=lane_of_weights(kind_of_provider, place),
            runtime="local",
            kind="weight",
            capabilities=names.capabilities_of(name),
            price=FREE,
            endpoint=place,
        )
    return Entry(
        id=name,
        ref=ref,
        lane=f"{kind_of_provider}@{urlsplit(endpoint).netloc}" if elsewhere and endpoint else kind_of_provider,
        runtime="local" if own else "managed",
        kind="weight" if weights else "api",
        capabilities=names.capabilities_of(name),
        price=FREE if own else price_of(ref),
        endpoint=endpoint if elsewhere and endpoint else None,
    )


def lane_of_weights(engine: str, place: str) -> str:
    """The lane of weights that this machine runs itself, by the name of their file; `build` tells equal names apart."""
    return f"{engine}@{place.rpartition('/')[2]}"
