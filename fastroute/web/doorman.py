"""Who is at the door: a caller's credential becomes the account that pays, and its limits say whether it may come in.

What is known in this worker is answered at once; only a token that was not seen of late is asked for.
"""

from __future__ import annotations

import hmac
import platform
from collections.abc import Mapping
from typing import Any, Final

from fastroute.call import Call, Failed
from fastroute.config import Config
from fastroute.config.findings import is_loopback
from fastroute.domain import TOKENS_MAX
from fastroute.ledger.accounts import Account
from fastroute.ledger.teller import BooksUnreachable, Teller, Unknown
from fastroute.ledger.tokens import PREFIXES, well_formed
from fastroute.ledger.unlimited import Unlimited
from fastroute.limits import Addresses, Exceeded, Limiter
from fastroute.metrics import Metrics
from fastroute.web import reading, visitors
from fastroute.web._door import DoorCore

# What an answer without a cap counts for until its usage is known: a rate is no budget, and is put right afterwards.
OUTPUT_USUAL: Final = 1024
# Wrong keys that one address may try in a window.
WRONG_MAX: Final = 60
# Accounts' ids are below this, and addresses' keys above it: here an agent's events are counted.
_EVENTS: Final = 1 << 60
_QUESTIONS: Final = 1 << 59
# Questions to the desk that one account may ask in a minute.
QUESTIONS_MAX: Final = 6000
_OURS: Final = tuple(PREFIXES.values())


class Doorman(DoorCore):
    """One worker's doorman. Without a teller there are no books: then only the configured key is known, or nobody asks."""

    def __init__(self, config: Config, teller: Teller | None, limiter: Limiter | None, metrics: Metrics) -> None:
        key = config.auth.router_key
        self._static = None if key is None else key.reveal().encode()
        self._teller = teller
        self._limiter = limiter
        self._metrics = metrics
        self._nobody: Account | Unlimited = Unlimited() if teller is None else teller.anonymous
        secret = b"" if limiter is None else limiter.secret
        self._addresses = Addresses(config.limits.trusted_proxies, secret=secret)
        self._strangers = Addresses(config.limits.trusted_proxies, secret=secret[:32] + b"wrong keys")
        self._anonymous = config.limits.anonymous_requests
        # An open house is for this machine alone, whatever became of the keys that were there when it began to serve.
        self._open = is_loopback(config.server.host)
        self._own_name = platform.node().lower()
        self.guards = self._static is not None or teller is not None
        self._plain = self._static is None and teller is not None

    def meet_otherwise(self, found: dict[bytes, bytes], query: bytes) -> Account | Unlimited | None:
        """The same as `meet` for a caller without a key of ours, or where the configuration has one."""
        given = reading.credential(found, query)
        teller = self._teller
        if self._static is not None:
            if given is not None and hmac.compare_digest(given.encode("latin-1"), self._static):
                return self._nobody
            if teller is None:
                raise _missing() if given is None else _wrong()
        if teller is None:
            return self._nobody
        if given is None or not given.startswith(_OURS):
            return self._visitor(found) if self._open and self._static is None and teller.open_house else None
        account = teller.known(given.encode("latin-1"))
        return account if isinstance(account, Account) and account.state == "live" else None

    def _visitor(self, found: dict[bytes, bytes]) -> Account | Unlimited:
        """Whoever comes to an open house; `Failed` 403 where a page of somebody else's sends its reader's browser."""
        if not visitors.at_home(found, self._own_name):
            raise Failed(403, "permission_error", "browser_refused", visitors.refusal(found))
        return self._nobody

    async def find(self, found: dict[bytes, bytes], query: bytes, scope: Mapping[str, Any]) -> Account | Unlimited:
        """The same, asking whoever keeps the books."""
        given = reading.credential(found, query)
        teller = self._teller
        assert teller is not None
        if given is not None and given.startswith(_OURS):
            return await self.holder(given.encode("latin-1"), scope)
        try:
            if self._open and self._static is None and await teller.house():
                return self._visitor(found)
        except BooksUnreachable as error:
            raise _unreachable(error) from None
        if given is None:
            raise _missing()
        self.mind(scope)
        raise _wrong()

    async def holder(self, token: bytes, scope: Mapping[str, Any]) -> Account:
        """Who has this token; `Failed` 401 when nobody does, and then the guess is counted."""
        if self._teller is None:
            raise Failed(
                503, "server_error", "books_unavailable", "this gateway keeps no books: it serves without a state"
            )
        try:
            account = await self.account_of(token)
        except BooksUnreachable as error:
            raise _unreachable(error) from None
        if account is None:
            self.mind(scope)
            raise _wrong()
        return account

    async def account_of(self, token: bytes) -> Account | None:
        """Who has this token, if anybody does."""
        assert self._teller is not None
        if not well_formed(token.decode("latin-1")):
            return None
        known = self._teller.known(token) or await self._teller.find(token)
        return None if isinstance(known, Unknown) or known.state != "live" else known

    def ration(self, call: Call, scope: Mapping[str, Any]) -> None:
        """What `admit` is where there are limits."""
        limiter, teller, account = self._limiter, self._teller, call.account
        assert limiter is not None
        assert teller is not None
        if isinstance(account, Account) and account.id:
            limits = account.facts.limits
        else:
            limits = ((self._addresses.key(scope), self._anonymous, None, None),)
        tokens = call.input_bound // 4 + (OUTPUT_USUAL if call.output_cap is None else call.output_cap) * call.choices
        tokens = min(tokens, TOKENS_MAX)
        passed = limiter.admit(limits, tokens, teller.clock.monotonic_ms())
        if isinstance(passed, Exceeded):
            self._metrics.refusal(passed.kind)
            raise _limited(passed)
        call.permit = passed

    def admit_event(self, account: Account, per_minute: int) -> None:
        """Count one event of an agent, apart from its requests; `Failed` 429 when it sent enough of them."""
        self._count(account.id | _EVENTS, per_minute)

    def admit_asker(self, account: Account) -> None:
        """Count one question to the desk, which everybody shares; `Failed` 429 when an account asked enough of them."""
        self._count(account.id | _QUESTIONS, QUESTIONS_MAX)

    def _count(self, key: int, per_minute: int) -> None:
        limiter, teller = self._limiter, self._teller
        if limiter is None or teller is None:
            return
        most = per_minute * limiter.window_s // 60
        passed = limiter.admit(((key, most, None, None),), 0, teller.clock.monotonic_ms())
        if isinstance(passed, Exceeded):
            self._metrics.refusal(passed.kind)
            raise _limited(passed)
        passed.leave()

    def mind(self, scope: Mapping[str, Any]) -> None:
        """Count a wrong key; an address with too many reads 429 for a while, right keys apart."""
        if self._limiter is None or self._teller is None:
            return
        key = self._strangers.key(scope)
        passed = self._limiter.admit(((key, WRONG_MAX, None, None),), 0, self._teller.clock.monotonic_ms())
        if isinstance(passed, Exceeded):
            self._metrics.refusal("wrong_keys")
            raise _limited(passed)
        passed.leave()


def _missing() -> Failed:
    return Failed(401, "authentication_error", "missing_api_key", "send your key as a bearer token or x-api-key")


def _wrong() -> Failed:
    # The same words for one that never was, was mistyped, was revoked or is over: nobody learns which.
    return Failed(401, "authentication_error", "invalid_api_key", "this key is not known here, or no longer")


def _unreachable(error: BooksUnreachable) -> Failed:
    return Failed(503, "server_error", "books_unavailable", str(error), retry_after_s=1)


def _limited(exceeded: Exceeded) -> Failed:
    return Failed(
        429,
        "rate_limit_error",
        f"{exceeded.kind}_limit_exceeded" if exceeded.kind != "rpm" else "rate_limit_exceeded",
        exceeded.message,
        headers=tuple(exceeded.headers()),
    )
