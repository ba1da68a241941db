"""Answers told again: the cache asked for a call, and its answer worded for one who reads it for the first time."""

from __future__ import annotations

from typing import Final

from fastroute import _heads
from fastroute.cache import ANSWER_MAX, Answer, Wishes
from fastroute.caching import Question
from fastroute.call import Call, CallerGone, Serve
from fastroute.domain import Entry
from fastroute.gateway import Gateway
from fastroute.routing.rankers import Tiers
from fastroute.web import telling
from fastroute.web.recording import Recorder

_MISS: Final = (b"x-cache", b"miss")


async def serve(gateway: Gateway, wishes: Wishes, asker: str, ordinary: Serve, call: Call) -> None:
    """Answer a call that may be told an answer again; who may not ask for its model learns that first, as ever."""
    cache = gateway.cache
    assert cache is not None
    question = cache.question(call, wishes, gateway.target(call), asker) if call.model else None
    if question is None:
        await ordinary(call)
        return
    left = False
    try:
        found = await cache.find(question, call)
        if found is not None:
            await _tell(gateway, question, call, *found)
            return
        recorder = Recorder(call, ANSWER_MAX, _MISS)
        await ordinary(call)
        await cache.keep(question, call, recorder.body if recorder.done else None)
    except CallerGone:
        left = True
        raise
    finally:
        cache.drop(question, left=left)


async def _tell(gateway: Gateway, question: Question, call: Call, answer: Answer, entry: Entry, age_s: int) -> None:
    call.entry, call.entries, call.reason = entry, [entry], "cache_hit"
    call.decision_id = gateway.ids.decision()
    call.details = {"cache": {"request_id": answer.request, "age_s": age_s}}
    ranker, rules = question.target.route.ranker, question.target.rules
    if isinstance(ranker, Tiers):
        call.words = ranker.words
    if rules is not None:
        call.details |= {"policy": rules.policy.name, "policy_hash": rules.digest}
        rules.retold(call, answer.before + (answer.after or b""))
    call.status = 200
    gateway.metrics.cache_hit(entry.ref.model)
    told = telling.accounts(call)
    headers = telling.head(call, entry)
    headers += told
    headers += ((b"x-cache", b"hit"), (b"age", b"%d" % age_s))
    body = answer.before
    if answer.after is not None:
        body += _heads.comment(told) + answer.after
    headers += telling.STREAM if answer.stream else _heads.content(b"application/json", body)
    await call.send({"type": "http.response.start", "status": 200, "headers": headers})
    await call.send({"type": "http.response.body", "body": body})
