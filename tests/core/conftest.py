"""The plain twin of the compiled core, loaded by path so that the tests need no package of their own."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="session")
def twin() -> ModuleType:
    spec = importlib.util.spec_from_file_location("core_twin", Path(__file__).with_name("twin.py"))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their own module up
    spec.loader.exec_module(module)
    return module
