"""One timer for everything that waits equally long: the first bytes of bodies, the watch over callers."""

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

Waiting = TypeVar("Waiting")

class Sweep(Generic[Waiting]):
    """Acts on whatever was added `seconds` ago and not dropped since; it is dropped before the act."""

    def __init__(self, seconds: float, act: Callable[[Waiting], object]) -> None: ...
    def __len__(self) -> int: ...
    def add(self, waiting: Waiting, loop: asyncio.AbstractEventLoop) -> None: ...
    def drop(self, waiting: Waiting) -> bool:
        """Whether it was still waiting."""
