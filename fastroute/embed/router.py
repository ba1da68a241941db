"""`LlmRouter`: a program starts it, points its client at `base_url`, and cannot spend more than it was given."""

from __future__ import annotations

import re
import weakref
from decimal import Decimal
from types import TracebackType
from typing import ClassVar, Self

from fastroute.config import Secret
from fastroute.config.providers import base_url as read_address
from fastroute.config.values import Given, in_flag
from fastroute.embed.engine import Engine, Terms
from fastroute.embed.funding import Pace
from fastroute.embed.proxy import Target, provider_of
from fastroute.embed.purse import Purse, dollars, microdollars_of
from fastroute.errors import FastrouteError

# What a client sends for a key where no panel gave one.
DIRECT = "direct"

_KEY = re.compile(r"[!-~]{1,2000}")


class RouterStopped(FastrouteError, RuntimeError):
    """A router that was stopped has no address and no key any more."""


class LlmRouter:
    """A local endpoint for OpenAI's and Anthropic's clients, with a budget.

    Either `api_key` (an agent's token) and `server_url` (its panel) are given, and key and money come from there; or
    `provider_key` is, and `budget` in dollars if there is to be one: None is no limit, 0 is closed. With a panel a
    `budget` given here stands in the place of a lease. `provider_base_url` is another host that speaks the provider's
    words. The router answers when the constructor returns; a panel that cannot be reached is asked again in the
    background, unless `strict` is set, which raises instead. `stop` (or leaving the `with`, or the program) answers what
    is under way, and returns what was not spent.
    """

    _pace: ClassVar[Pace] = Pace()

    def __init__(
        self,
        api_key: str | None = None,
        server_url: str | None = None,
        cache_ttl_seconds: float = 300,
        budget: float | int | str | Decimal | None = None,
        provider_key: str | None = None,
        provider_base_url: str | None = None,
        strict: bool = False,
    ) -> None:
        if not provider_key and not (api_key and server_url):
            raise ValueError("give provider_key, or both api_key and server_url")
        for name, key in (("api_key", api_key), ("provider_key", provider_key)):
            if key is not None and not _KEY.fullmatch(key):
                raise ValueError(f"{name} has characters that no key has")
        if not 0 < cache_ttl_seconds < float("inf"):
            raise ValueError(f"cache_ttl_seconds is more than 0, not {cache_ttl_seconds!r}")
        if provider_base_url is not None and not provider_key:
            raise ValueError("provider_base_url goes with provider_key; a panel says itself where its key is good")
        target = None
        if provider_key:
            address = None if provider_base_url is None else _address("provider_base_url", provider_base_url)
            target = Target(provider_of(provider_key), Secret(provider_key), address)
        with_panel = bool(api_key and server_url)
        cap = None if budget is None else microdollars_of(budget)
        self._purse = Purse(cap)
        self._api_key = api_key if with_panel and api_key else DIRECT
        self._engine = Engine(
            Terms(
                Secret(self._api_key),
                _address("server_url", server_url).removesuffix("/api") if with_panel and server_url else None,
                target,
                with_panel and cap is None,
                float(cache_ttl_seconds),
                strict,
            ),
            self._purse,
            self._pace,
        )
        self._engine.start()
        self._end = weakref.finalize(self, self._engine.stop)

    def __repr__(self) -> str:
        at = self._engine
        return f"<LlmRouter {at.provider} on port {at.port}>" if at.running else "<LlmRouter stopped>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def base_url(self) -> str:
        """What OpenAI's client is given."""
        return f"http://127.0.0.1:{self._alive().port}/v1"

    @property
    def api_key(self) -> str:
        """The only key that is let in."""
        self._alive()
        return self._api_key

    @property
    def port(self) -> int:
        return self._alive().port

    @property
    def provider(self) -> str:
        """openai, anthropic, or unknown while nobody has told."""
        return self._alive().provider

    @property
    def is_running(self) -> bool:
        return self._engine.running

    @property
    def budget(self) -> float | None:
        """Dollars that may be spent in all; None is no limit, or no lease yet."""
        limit = self.budget_microdollars
        return None if limit is None else dollars(limit)

    @property
    def budget_microdollars(self) -> int | None:
        """The same, exact."""
        return self._purse.limit if self._engine.funded or not self._purse.leases else None

    @property
    def budget_status(self) -> tuple[float, float | None]:
        """Dollars spent, and the limit at that instant."""
        spent, limit = self._purse.status()
        funded = self._engine.funded or not self._purse.leases
        return dollars(spent), dollars(limit) if limit is not None and funded else None

    @property
    def spent_microdollars(self) -> int:
        """What was spent, exact."""
        return self._purse.spent

    def total_spent(self) -> float:
        """Dollars spent since the start."""
        return dollars(self._purse.spent)

    def set_budget(self, usd: float | int | str | Decimal) -> None:
        """Another budget in dollars; what is spent counts against it, and a lease still holds."""
        self._purse.set_cap(microdollars_of(usd))

    def stop(self) -> None:
        """Answer what is under way, return the rest of the lease, and close; a second time does nothing."""
        self._engine.stop()
        self._end.detach()

    def get_base_url(self) -> str:
        return self.base_url

    def get_api_key(self) -> str:
        return self.api_key

    def get_port(self) -> int:
        return self.port

    def get_provider(self) -> str:
        return self.provider

    def get_budget(self) -> float | None:
        return self.budget

    def get_budget_status(self) -> tuple[float, float | None]:
        return self.budget_status

    def shutdown(self) -> None:
        self.stop()

    def _alive(self) -> Engine:
        if not self._engine.running:
            raise RouterStopped("Router is stopped")
        return self._engine


def _address(name: str, text: str) -> str:
    """An http(s) address without a trailing slash or `/v1`."""
    return read_address(Given(text, in_flag(name), text))
