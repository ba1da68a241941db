"""What test folders share: a file that several import by its name alone, either loop to run on, and the end of a process."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop


def load(path: str, name: str = "") -> Any:
    """The file at a path below the tests, from then on importable by its own name or the one that is given."""
    place = Path(__file__).parent / path
    name = name or place.stem
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, place)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


LOOPS = ("uvloop", "asyncio")


def run_on(loop: str, test: Callable[[], Awaitable[Any]], within: float) -> Any:
    """Run an async test on one of these loops, bounded in time, and fail it on anything the loop had to report."""
    reports: list[dict[str, Any]] = []

    async def bounded() -> Any:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
        async with asyncio.timeout(within):
            return await test()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop if loop == "uvloop" else None) as runner:
        result = runner.run(bounded())
    assert reports == []
    return result


async def until(condition: Callable[[], Any]) -> None:
    """Wait for what another thread or another turn of the loop brings about; the test's own bound ends it."""
    while not condition():  # noqa: ASYNC110 (what others bring about has no event here)
        await asyncio.sleep(0.002)


def is_gone(pid: int) -> bool:
    """Whether all threads of a process have ended, reaped or not: until the last has, what they held is held."""
    tasks = Path(f"/proc/{pid}/task")
    try:
        stats = [(task / "stat").read_text() for task in tasks.iterdir()]
    except (FileNotFoundError, ProcessLookupError):
        return not tasks.exists()  # one of them may have ended as it was looked at
    return all(stat.rpartition(")")[2].split()[0] in "ZX" for stat in stats)
