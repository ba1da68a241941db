"""Policies for tests: text in, the frozen structs or the mistakes out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fastroute.policies import Policy, PolicyError, read_policy

Read = Callable[[str | bytes], Policy]
Refusals = Callable[[str | bytes], list[str]]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """The policy that a text is."""

    def _read(text: str | bytes) -> Policy:
        path = tmp_path / "p.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_policy(path)

    return _read


@pytest.fixture
def refusals(read: Read, tmp_path: Path) -> Refusals:
    """What is wrong with a text, line by line, without the directory it lies in."""

    def _refusals(text: str | bytes) -> list[str]:
        with pytest.raises(PolicyError) as caught:
            read(text)
        return [str(problem).removeprefix(f"{tmp_path}/") for problem in caught.value.problems]

    return _refusals
