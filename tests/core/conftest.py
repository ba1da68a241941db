"""The plain twin of the compiled core, loaded by path so that the tests need no package of their own."""

from types import ModuleType

import pytest

from tests.kits import load


@pytest.fixture(scope="session")
def twin() -> ModuleType:
    return load("core/twin.py", "core_twin")
