"""The pepper of a state directory: made once, its owner's alone, and refused when it is weak."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from fastroute.errors import StoreError
from fastroute.ledger import secrets
from tests.ledger.bookkeeper_kit import FORK


def test_the_pepper_is_made_once(state: Path) -> None:
    first = secrets.pepper(state)
    assert len(first) == 32
    assert secrets.pepper(state) == first
    assert [path.name for path in (state / "secrets").iterdir()] == ["pepper"]
    assert stat.S_IMODE((state / "secrets").stat().st_mode) == 0o700
    assert stat.S_IMODE((state / "secrets" / "pepper").stat().st_mode) == 0o600


def test_processes_that_start_together_have_one_pepper(state: Path) -> None:
    with FORK.Pool(4) as pool:
        assert len(set(pool.map(secrets.pepper, [state] * 16))) == 1


def test_a_mode_that_is_too_wide_is_tightened(state: Path) -> None:
    secrets.pepper(state)
    (state / "secrets").chmod(0o755)
    (state / "secrets" / "pepper").chmod(0o644)
    secrets.pepper(state)
    assert stat.S_IMODE((state / "secrets").stat().st_mode) == 0o700
    assert stat.S_IMODE((state / "secrets" / "pepper").stat().st_mode) == 0o600


@pytest.mark.parametrize("text", [b"", b"short", bytes(32), b"changeme" * 4, b"secret"], ids=repr)
def test_a_weak_pepper_is_refused_and_never_shown(state: Path, text: bytes) -> None:
    (state / "secrets").mkdir(parents=True)
    (state / "secrets" / "pepper").write_bytes(text)
    with pytest.raises(StoreError, match="no random text") as refused:
        secrets.pepper(state)
    assert not text or text.decode() not in str(refused.value) or text == b"secret"
