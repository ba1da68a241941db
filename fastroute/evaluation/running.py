"""Asking: every prompt of both names, a bounded number at a time, each answer recorded as it comes.

Where a server is asked nobody knows beforehand what it will cost, so the run stops asking once what it was told it cost
has reached the limit; what is under way then is waited for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from msgspec import Struct

from fastroute.errors import FastrouteError
from fastroute.evaluation.answers import Answer, Key
from fastroute.evaluation.prompts import Prompt


class Unreachable(FastrouteError):
    """Nobody is there to be asked: no answer of this run would be one."""


class Asker(Protocol):
    """Who asks: a gateway in this process, or a server."""

    async def ask(self, name: str, prompt: Prompt) -> Answer:
        """Whatever came of it; `Unreachable` when there is nobody to ask."""


class Ran(Struct, frozen=True):
    """Every answer by its key, and how many were not asked for because the money was used up."""

    answers: dict[Key, Answer]
    unasked: int


async def run(
    prompts: Sequence[Prompt],
    names: Sequence[str],
    asker: Asker,
    *,
    known: dict[Key, Answer],
    concurrency: int,
    limit_picodollars: int | None,
    keep: Callable[[Answer], None],
    tick: Callable[[int, int], None],
) -> Ran:
    """Ask for what is not known; `tick` is told how many of how many are there after each."""
    answers = {key: answer for key, answer in known.items() if answer.good}
    wanted = [(name, prompt) for prompt in prompts for name in dict.fromkeys(names)]
    missing = list({(name, prompt.digest): (name, prompt) for name, prompt in wanted}.items())
    todo = iter([pair for key, pair in missing if key not in answers])
    left = _Left(todo, limit_picodollars)
    total = len(missing)
    done = sum(key in answers for key, _ in missing)
    tick(done, total)

    async def work() -> None:
        nonlocal done
        for name, prompt in left:
            answer = await asker.ask(name, prompt)
            left.spent += answer.picodollars or 0
            answers[answer.key] = answer
            keep(answer)
            done += 1
            tick(done, total)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(work())
    except ExceptionGroup as several:  # what an `except*` raises is a group again, in some versions
        told, others = several.split(FastrouteError)
        if told is None or others is not None:
            raise
        raise told.exceptions[0] from None
    return Ran(answers, sum(1 for _ in todo))


class _Left(Iterator[tuple[str, Prompt]]):
    """What is still to be asked, until the money is gone."""

    def __init__(self, todo: Iterator[tuple[str, Prompt]], limit: int | None) -> None:
        self._todo = todo
        self._limit = limit
        self.spent = 0

    def __next__(self) -> tuple[str, Prompt]:
        if self._limit is not None and self.spent >= self._limit:
            raise StopIteration
        return next(self._todo)
