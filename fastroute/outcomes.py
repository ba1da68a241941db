"""What the relay knows of outcomes: whose fault an error is, what it leaves unpaid, how long to wait, how much is enough.

Tables and pure functions; the relay acts on them.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import orjson

from fastroute.domain import Outcome
from fastroute.upstreams.dialect import parse

# Retries, fallbacks and quality retries together stay below a fifth of first attempts, with a small start.
RETRY_SHARE: Final = 0.2
RETRY_START: Final = 10.0

# It recovers over time as well: a gateway that is asked little would else stay without a second chance for hours.
RETRIES_A_MINUTE: Final = 10.0

# Every kind of fault: what the attempt is counted as, and what it settles as once anything was sent.
FAULTS: Final[dict[str, tuple[Outcome, str]]] = {
    "dns": ("connect", "void"),
    "connect": ("connect", "void"),
    "connect_timeout": ("connect", "void"),
    "tls": ("connect", "void"),
    "pool_timeout": ("connect", "void"),
    "write": ("connect", "presumed"),
    "first_chunk": ("stall", "presumed"),
    "idle": ("stall", "presumed"),
    "total": ("stall", "presumed"),
    "cut": ("cut", "presumed"),
    "protocol": ("protocol", "presumed"),
    "desync": ("protocol", "presumed"),
    "encoding": ("protocol", "presumed"),
    "limit": ("protocol", "presumed"),
    "stopped": ("gone", "presumed"),
    "loading": ("http_4xx", "void"),  # with no status: the lane was never asked, and nothing is learned of it
    "unloadable": ("connect", "void"),
}
# What an upstream says of the request itself is the caller's to read; everything else is ours to bear.
CALLERS_FAULT: Final = frozenset({400, 404, 409, 413, 415, 422})
_STATUS_OF: Final = {
    "invalid_request_error": 400,
    "not_found_error": 404,
    "authentication_error": 401,
    "permission_error": 403,
    "insufficient_quota": 402,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "overloaded_error": 503,
}
# Google answers a bad key with 400, Anthropic an empty account; OpenAI calls a spent budget 429, which no pause mends.
_OURS: Final = frozenset({"authentication_error", "insufficient_quota"})

# A provider that says "too many" without saying until when is left alone for a moment, or every request would ask it.
REST_S: Final = 1
# A key that is refused or has no money left is not better in a second; health asks again after its longest rest.
EJECT_S: Final = 60
# When to ask again for weights that are on their way, or that somebody may be mending.
LOADING_S: Final = 5
_DAY_S: Final = 86_400
_SECONDS: Final = re.compile(rb"([0-9]{1,9})(\.[0-9]{1,9})?")

# Bytes of content that are always let through, and how many a token may have on average: English has four, and the
# longest tokens (runs of blanks) a hundred, but never all of them.
_CONTENT_SPARE: Final = 64 * 1024
_TOKEN_BYTES: Final = 16


class Seen(msgspec.Struct):
    """What a whole answer is looked into for; the rest is not decoded."""

    usage: Any = None
    usageMetadata: Any = None  # noqa: N815  # Google's word
    error: Any = None


SEEN: Final = msgspec.json.Decoder(Seen)


class RetryBudget:
    """A bucket that first attempts fill by a fifth, time by ten a minute, and every further attempt empties by one."""

    def __init__(self) -> None:
        self.tokens = RETRY_START
        self._filled_at: float | None = None

    @property
    def spent(self) -> bool:
        return self.tokens < 1

    def first(self) -> None:
        self.tokens = min(self.tokens + RETRY_SHARE, RETRY_START)

    def recover(self, now: float) -> None:
        """What has passed since the last look; only who is about to retry looks, so that nobody else pays for it."""
        if self._filled_at is not None and now > self._filled_at:
            grown = (now - self._filled_at) * RETRIES_A_MINUTE / 60
            self.tokens = min(self.tokens + grown, RETRY_START)
        self._filled_at = now

    def take(self) -> None:
        self.tokens -= 1


def true_status(status: int, kind: str) -> int:
    """The status an error should have had: told by its kind under a 200, and where a provider's own is misleading."""
    if status == 200:
        return _STATUS_OF.get(kind, 500)
    return _STATUS_OF[kind] if kind in _OURS and status in (400, 429) else status


def content_max(output_cap: int | None, choices: int = 1) -> int | None:
    """Bytes of content beyond which a stream does not honour the cap it was sent with; None without a cap.

    A twentieth above the cap is rounding. Without a cap the total deadline alone ends a stream: what a model may say is
    then the provider's affair, and a guess here would cut somebody's long answer.
    """
    return None if output_cap is None else output_cap * choices * 21 * _TOKEN_BYTES // 20 + _CONTENT_SPARE


def retry_after(told: bytes | None, date: bytes | None, now: datetime) -> int | None:
    """Whole seconds of a `Retry-After`, at most a day: a number, or a date; None for anything else.

    A date is counted from the answer's own `Date`, so that the two clocks need not agree; `now` stands in for it.
    """
    if told is None:
        return None
    number = _SECONDS.fullmatch(told)
    if number is not None:
        return min(int(number[1]) + (number[2] is not None), _DAY_S)
    until = _instant(told)
    if until is None:
        return None
    seconds = (until - (_instant(date) or now)).total_seconds()
    return min(max(math.ceil(seconds), 0), _DAY_S)


def looked_into(body: bytes) -> Seen | None:
    """Usage and error of a whole answer; None when it is no object. Broken UTF-8 passes: only its text is."""
    try:
        return SEEN.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        value = parse(body)
        return msgspec.convert(value, Seen) if isinstance(value, dict) else None


def _instant(told: bytes | None) -> datetime | None:
    if told is None or len(told) > 64:
        return None
    from email.utils import parsedate_to_datetime  # few answers have a date to read, and no start should wait for it

    try:
        instant = parsedate_to_datetime(told.decode("ascii"))
    except (ValueError, OverflowError):
        return None
    return instant if instant.tzinfo is not None else instant.replace(tzinfo=UTC)


def is_poor(chat: dict[str, Any], wants_json: bool) -> bool:
    """No words and no call, or JSON that was asked for and does not parse. Short is not poor: "42" is an answer."""
    choices = chat.get("choices") or []
    for choice in choices:
        message = choice.get("message") or {}
        if message.get("tool_calls") or message.get("refusal"):
            return False
        content = message.get("content")
        if isinstance(content, str) and content.strip():
            return wants_json and not _parses(content)
    return True


def _parses(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
