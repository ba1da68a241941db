"""A provider of the bench, up and answering."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from fastroute.bench.machine import Cores
from fastroute.bench.subjects import Subject, provider


@pytest.fixture(scope="module")
def upstream() -> Iterator[Subject]:
    with provider(Cores.here()) as subject:
        yield subject
