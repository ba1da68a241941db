"""Idempotent answers: one run for one `Idempotency-Key`, and the same answer for whoever asks again within a day.

Whoever comes second waits for the first and reads what it read. The run goes on when its caller leaves, because the next
one will ask for the answer.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import MutableMapping
from typing import Any, Final

from fastroute.call import Call, Failed, Serve
from fastroute.gateway import Gateway
from fastroute.ledger.teller import BooksUnreachable, Declined, Teller
from fastroute.panel.answers import BODY_MAX
from fastroute.web.recording import Headers, Recorder

KEY_MAX: Final = 255
# How often whoever waits asks whether the first is done, and for how long in all.
LOOK_S: Final = (0.02, 0.5)
# How often, and after which rest, books that were away are told how a run ended.
AGAIN_TIMES: Final = 60
AGAIN_S: Final = 1.0
_ENDINGS: Final[set[asyncio.Task[None]]] = set()

log = logging.getLogger("fastroute.web")


async def serve(gateway: Gateway, key: bytes, path: str, ordinary: Serve, call: Call) -> None:
    """Run the call, or tell again what its first run was answered."""
    teller = gateway.teller
    assert teller is not None
    if not 0 < len(key) <= KEY_MAX:
        raise Failed(400, "invalid_request_error", "invalid_idempotency_key", f"it has 1 to {KEY_MAX} characters")
    asked = {
        "account": call.account.id,
        "name": hashlib.sha256(key).hexdigest(),
        "body_hash": hashlib.sha256(path.encode() + b"\0" + call.body).hexdigest(),
    }
    until = call.loop.time() + gateway.config.relay.total_ms / 1000
    pause, most = LOOK_S
    try:
        while True:
            told = await teller.ask("answers.claim", request=call.id, holder=teller.life, **asked)
            if told["state"] == "run":
                await _run(gateway, call, ordinary, asked)
                return
            if told["state"] == "done":
                await _tell(call, told)
                return
            if call.loop.time() > until:
                message = "the first request with this Idempotency-Key is still under way"
                raise Failed(409, "invalid_request_error", "idempotency_in_progress", message, retry_after_s=1)
            await asyncio.sleep(pause)
            pause = min(2 * pause, most)
    except Declined as declined:
        raise Failed(declined.status, "invalid_request_error", declined.code, declined.message) from None
    except BooksUnreachable as error:
        raise Failed(503, "server_error", "books_unavailable", str(error), retry_after_s=1) from None


async def _run(gateway: Gateway, call: Call, ordinary: Serve, asked: dict[str, Any]) -> None:
    teller = gateway.teller
    assert teller is not None
    recorder = Recorder(call, BODY_MAX)
    call.receive = _nobody_leaves
    mine = {"account": asked["account"], "name": asked["name"], "request": call.id}
    try:
        await ordinary(call)
    finally:
        if recorder.done and recorder.status == 200:
            kept = [(name, value) for name, value in recorder.headers if not name.startswith(b"x-ratelimit")]
            mine |= {"status": recorder.status, "headers": kept, "body": recorder.body}
        elif any(attempt.settlement.basis != "void" for attempt in call.attempts):
            # Something was billed and no whole answer came of it: it must not be run, and billed, once more.
            mine |= {"status": 502, "headers": [], "body": None}
        operation = "answers.keep" if "status" in mine else "answers.drop"
        if not await _told_to_books(teller, operation, mine):
            # The caller has its answer by now; whoever asks again waits until the books are back and know of it.
            ending = call.loop.create_task(_tell_later(teller, operation, mine))
            _ENDINGS.add(ending)
            ending.add_done_callback(_ENDINGS.discard)


async def _told_to_books(teller: Teller, operation: str, run: dict[str, Any]) -> bool:
    """Whether the desk knows how a run ended; what it declines it knows better."""
    try:
        await teller.ask(operation, **run)
    except BooksUnreachable:
        return False
    except Declined as declined:
        log.warning("the answer of request %s is not kept: %s", run["request"], declined)
    return True


async def _tell_later(teller: Teller, operation: str, run: dict[str, Any]) -> None:
    for _ in range(AGAIN_TIMES):
        await asyncio.sleep(AGAIN_S)
        if await _told_to_books(teller, operation, run):
            return
    log.warning("the answer of request %s is not kept: the books were away for too long", run["request"])


async def _nobody_leaves() -> MutableMapping[str, Any]:
    """A caller whose leaving is not noticed: its answer is kept for the next."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError("unreachable")


async def _tell(call: Call, told: dict[str, Any]) -> None:
    status, body = told["status"], told["body"]
    headers: Headers = [(bytes(name), bytes(value)) for name, value in told["headers"]]
    headers.append((b"idempotent-replayed", b"true"))
    call.status = status
    await call.send({"type": "http.response.start", "status": status, "headers": headers})
    await call.send({"type": "http.response.body", "body": body})
