"""Houses to hurt."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Test folders are no packages, so the kit is loaded by its path.
_spec = importlib.util.spec_from_file_location("money_kit", Path(__file__).with_name("money_kit.py"))
assert _spec is not None
assert _spec.loader is not None
kit = importlib.util.module_from_spec(_spec)
sys.modules[_spec.name] = kit
_spec.loader.exec_module(kit)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[kit.Houses]:
    with kit.houses(tmp_path) as houses:
        yield houses
