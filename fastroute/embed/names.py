"""Which provider a model's name means to an embedded router, which has the key of one provider and no catalog.

A name says its provider itself, or it is Claude's, or it is OpenAI's: so OpenAI's own rule goes for every compatible host.
"""

from __future__ import annotations

from typing import Final

from fastroute.domain import Entry, ModelRef, Price
from fastroute.routing.directory import Directory
from fastroute.routing.names import family_of
from fastroute.routing.prices import PriceTable

PROVIDERS: Final = ("openai", "anthropic")


class Names(Directory):
    """Every name there is; `elsewhere` when the provider's models are asked for at an address of the program's choice.

    Such a host may carry models of many makers (`maker/model`), so there a slash is a part of the name.
    """

    def __init__(self, prices: PriceTable, *, elsewhere: bool) -> None:
        self._elsewhere = elsewhere

        def price_of(ref: ModelRef) -> Price | None:
            family = family_of(ref.model)
            maker = ref.provider if family is None else family.provider
            return prices.find(ref.provider, ref.model) or prices.find(maker, ref.model)

        super().__init__(
            (), {}, PROVIDERS, price_of, window_of=lambda ref: prices.context_window(ref.provider, ref.model)
        )

    def entry(self, name: str) -> Entry | None:
        return self._derived(name, self._ref(name))

    def _ref(self, name: str) -> ModelRef:
        for separator in ":" if self._elsewhere else ":/":
            provider, found, model = name.partition(separator)
            if found and model and provider in PROVIDERS:
                return ModelRef(provider, model)
        return ModelRef("anthropic" if name.lower().startswith("claude") else "openai", name)
