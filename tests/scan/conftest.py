"""What the stream tests share: ways to cut bytes into pieces."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest


@pytest.fixture
def cuttings() -> Callable[[bytes], Iterator[list[bytes]]]:
    """Whole, byte by byte, in two at every place (or some places, when long), and at random."""

    def cut(stream: bytes) -> Iterator[list[bytes]]:
        rng = random.Random(len(stream))
        yield [stream]
        yield [stream[i : i + 1] for i in range(len(stream))]
        places = range(len(stream) + 1) if len(stream) < 100 else rng.sample(range(len(stream)), 20)
        for at in places:
            yield [stream[:at], stream[at:]]
        for _ in range(4):
            edges = sorted(rng.randrange(len(stream) + 1) for _ in range(rng.randrange(1, 8)))
            yield [stream[a:b] for a, b in zip([0, *edges], [*edges, len(stream)], strict=True)]

    return cut
