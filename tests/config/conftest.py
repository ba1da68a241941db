"""Configurations for tests: text in, the frozen structs or the mistakes out; no test sees the real environment."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from fastroute.config import Config, load
from fastroute.errors import ConfigError

Loaded = Callable[..., Config]
Refusals = Callable[..., list[str]]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test works in an empty directory of its own, so that no file of the checkout is read."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def loaded(elsewhere: Path) -> Loaded:
    """The configuration that a text, an environment and flags add up to."""

    def _load(
        text: str | bytes = "", environ: Mapping[str, str] | None = None, flags: Mapping[str, object] | None = None
    ) -> Config:
        data = text if isinstance(text, bytes) else text.encode()
        Path("fastroute.yaml").write_bytes(data)
        return load(None, environ or {}, flags or {})

    return _load


@pytest.fixture
def refusals(loaded: Loaded) -> Refusals:
    """The mistakes in a configuration that cannot be used, as lines."""

    def _refuse(
        text: str | bytes = "", environ: Mapping[str, str] | None = None, flags: Mapping[str, object] | None = None
    ) -> list[str]:
        with pytest.raises(ConfigError) as fault:
            loaded(text, environ, flags)
        return [str(problem) for problem in fault.value.problems]

    return _refuse
