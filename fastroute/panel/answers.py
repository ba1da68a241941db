"""Idempotent answers: one run for one key, told again to whoever asks again, for a day.

A claim is durable before anything is sent upstream. A run whose worker died is run again only when nothing of it had
been sent.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from fastroute.ledger.book import Refused
from fastroute.panel.counter import Counter

KEPT_MS = 86_400_000
BODY_MAX = 4 * 1024 * 1024
# Bytes of answers that are kept for one account at a time; with each below the limit, sixteen of the longest.
ACCOUNT_MAX = 64 * 1024 * 1024


class Claim(Struct, forbid_unknown_fields=True):
    """`name` is the caller's key under its account's secret; `request` is who would run it."""

    account: int
    name: str
    body_hash: str
    request: str
    holder: int


class Look(Struct, forbid_unknown_fields=True):
    account: int
    name: str
    body_hash: str


class Keep(Struct, forbid_unknown_fields=True):
    account: int
    name: str
    request: str
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes | None  # None is longer than is kept


class Drop(Struct, forbid_unknown_fields=True):
    """The run came to nothing that should be told again: nothing was sent, or its caller may try anew."""

    account: int
    name: str
    request: str


class Run(Struct):
    """A claim, and its answer once there is one."""

    body_hash: str
    request: str
    holder: int
    status: int = 0
    headers: list[tuple[bytes, bytes]] = []
    body: bytes | None = None
    done: bool = False
    boot: str = ""  # of the machine that ran it


def claim(counter: Counter, asked: Claim) -> dict[str, Any]:
    """`run` when the asker is to run it, else what `look` says."""
    name = f"{asked.account}:{asked.name}"
    run = counter.document("answer", name, Run)
    if run is not None:
        told = _told(counter, run, asked.body_hash)
        if told["state"] == "running" and (run.request, run.holder) == (asked.request, asked.holder):
            return {"state": "run"}  # asked twice, for the first answer went missing
        if told["state"] != "lost":
            return told
        # What a machine that went down had just journalled may be gone with it, and the request have left nevertheless.
        if counter.sent(run.request) or (run.boot and run.boot != counter.book.boot(asked.holder)):
            message = (
                "the first run of this Idempotency-Key was cut off when its request had left for a provider, or may have, and "
                "what it can have cost is charged; a new request needs a new key"
            )
            raise Refused(409, "idempotency_run_lost", message)
    mine = Run(asked.body_hash, asked.request, asked.holder, boot=counter.book.boot(asked.holder))
    counter.keep("answer", name, asked.account, mine, for_ms=KEPT_MS)
    return {"state": "run"}


def look(counter: Counter, asked: Look) -> dict[str, Any]:
    """`running`, `done` with the answer, `lost`, or `gone`."""
    run = counter.document("answer", f"{asked.account}:{asked.name}", Run)
    return {"state": "gone"} if run is None else _told(counter, run, asked.body_hash)


def keep(counter: Counter, asked: Keep) -> None:
    name = f"{asked.account}:{asked.name}"
    run = counter.document("answer", name, Run)
    if run is None or run.request != asked.request or run.done:
        return
    run.status, run.headers, run.done = asked.status, asked.headers, True
    run.body = asked.body if asked.body is not None and _fits(counter, asked.account, len(asked.body)) else None
    counter.keep("answer", name, asked.account, run, for_ms=KEPT_MS)


def _fits(counter: Counter, account: int, size: int) -> bool:
    """Whether an answer may be kept; counted by days, so that no answer counts for less time than it is there."""
    today = counter.now_ms // KEPT_MS
    kept, before = (counter.document("answers", f"{account}:{day}", int) or 0 for day in (today, today - 1))
    if size > BODY_MAX or kept + before + size > ACCOUNT_MAX:
        return False
    counter.keep("answers", f"{account}:{today}", account, kept + size, for_ms=2 * KEPT_MS)
    return True


def drop(counter: Counter, asked: Drop) -> None:
    name = f"{asked.account}:{asked.name}"
    run = counter.document("answer", name, Run)
    if run is not None and run.request == asked.request and not run.done:
        counter.forget("answer", name)


def _told(counter: Counter, run: Run, body_hash: str) -> dict[str, Any]:
    if run.body_hash != body_hash:
        message = "this Idempotency-Key was used with another body; a new request needs a new key"
        raise Refused(422, "idempotency_key_reused", message)
    if run.done:
        if run.body is None and run.status >= 500:
            message = "the first run came to no answer, and is charged for what it used; a new request needs a new key"
            raise Refused(409, "idempotency_run_failed", message)
        if run.body is None:
            raise Refused(
                409,
                "idempotency_answer_not_kept",
                f"the first answer is charged and was not kept: it is longer than {BODY_MAX} bytes, or all answers that are "
                f"kept for this account are longer than {ACCOUNT_MAX}; a new request needs a new key",
            )
        return {
            "state": "done",
            "request": run.request,
            "status": run.status,
            "headers": run.headers,
            "body": run.body,
        }
    return {"state": "running" if counter.book.lives(run.holder) else "lost", "request": run.request}
