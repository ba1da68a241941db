"""The file the workers of a host share: made once, refused by nobody, replaced only when it must be."""

import errno
import os
import stat

import pytest

from fastroute import mapped
from fastroute.limits import Limiter, LimitsError, Pass
from fastroute.limits._table import HEADER, SLOT

LIMITS = [(7, 2, None, 2)]


@pytest.fixture
def opened(tmp_path):
    made: list[Limiter] = []

    def make(worker=0, **shape):
        made.append(Limiter.open(tmp_path / "limits", worker, **{"slots": 16, **shape}))
        return made[-1]

    yield make
    for each in made:
        each.close()


def test_it_is_the_owners_alone_and_all_there(opened, tmp_path):
    """A page the disk had no room for would be a signal in the middle of a request."""
    opened(slots=100)
    told = (tmp_path / "limits").stat()
    assert stat.S_IMODE(told.st_mode) == 0o600
    assert told.st_size == HEADER + 128 * SLOT
    assert told.st_blocks * 512 >= told.st_size
    assert sorted(path.name for path in tmp_path.iterdir()) == ["limits", "limits.lock"]


def test_all_who_open_it_share_windows_and_secret(opened):
    one, two = opened(0), opened(1)
    kept = one.admit(LIMITS, 0, 0)
    assert isinstance(kept, Pass)
    assert two.admit(LIMITS, 0, 0).requests_left[:2] == (2, 0)
    assert one.secret == two.secret
    assert one.secret != bytes(16)


def test_who_comes_back_alone_finds_the_windows_but_nothing_in_progress(opened):
    one = opened(3)
    kept = [one.admit(LIMITS, 0, 0) for _ in range(2)]
    one.close()
    again = opened(0)
    assert again.table.in_use(7) == 0
    assert again.admit(LIMITS, 0, 0).kind == "rpm"
    assert len(kept) == 2


@pytest.mark.parametrize("shape", [{"slots": 32}, {"window_s": 30}])
def test_other_settings_are_another_table(opened, shape):
    """Workers of the old settings keep theirs, on their way out."""
    old = opened(0)
    kept = old.admit(LIMITS, 0, 0)
    new = opened(1, **shape)
    assert new.table.in_use(7) == 0
    assert old.table.in_use(7) == 1
    assert isinstance(kept, Pass)


def test_a_command_beside_a_server_counts_in_its_table_and_its_window(opened, tmp_path):
    """Or a key had its limits twice while the command runs, and from the next worker on for ever."""
    server = opened(0, window_s=30)
    guest = Limiter.visit(tmp_path / "limits", 63, window_s=60)
    try:
        assert guest.window_s == 30
        assert isinstance(guest.admit(LIMITS, 0, 0), Pass)
        assert server.admit(LIMITS, 0, 0).requests_left[0] == 2
        assert opened(1, window_s=30).admit(LIMITS, 0, 0).kind == "rpm"
    finally:
        guest.close()


def test_a_command_alone_has_the_window_it_was_told(opened, tmp_path):
    opened(0, window_s=30).close()
    guest = Limiter.visit(tmp_path / "limits", 63, window_s=90)
    assert guest.window_s == 90
    guest.close()


def test_another_boot_is_another_table(opened, monkeypatch):
    """Its clock began anew: what was counted by the one before would be in the future."""
    one = opened()
    one.admit(LIMITS, 0, 0)
    one.close()
    monkeypatch.setattr(mapped, "boot", lambda: "00000000-0000-0000-0000-000000000001")
    assert opened().table.identities == 0


def test_where_boots_are_not_told_a_table_nobody_uses_is_made_anew(opened, monkeypatch, tmp_path):
    monkeypatch.setattr(mapped, "BOOT_ID", tmp_path / "none")
    one = opened()
    one.admit(LIMITS, 0, 0)
    assert opened(1).table.identities == 1
    for each in (one, opened(2)):
        each.close()


@pytest.mark.parametrize("content", [b"", b"x" * 100, b"\0" * (HEADER + 16 * SLOT)])
def test_what_is_not_ours_is_replaced(opened, tmp_path, content):
    (tmp_path / "limits").write_bytes(content)
    assert isinstance(opened().admit(LIMITS, 0, 0), Pass)


def test_what_was_left_half_made_is_in_nobodys_way(opened, tmp_path):
    (tmp_path / "limits.new").write_bytes(b"half")
    assert isinstance(opened().admit(LIMITS, 0, 0), Pass)
    assert not (tmp_path / "limits.new").exists()


def test_a_link_is_not_followed(opened, tmp_path):
    (tmp_path / "limits").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(LimitsError, match="limits cannot be kept"):
        opened()


def test_a_full_disk_is_told_at_once_and_leaves_nothing(opened, tmp_path, monkeypatch):
    def full(fd, offset, size):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(LimitsError, match=r"No space left.*1 MiB"):
        opened()
    assert [path.name for path in tmp_path.iterdir()] == ["limits.lock"]


def test_a_directory_that_is_not_there_is_told(tmp_path):
    with pytest.raises(LimitsError, match="must be writable"):
        Limiter.open(tmp_path / "none" / "limits", 0)


@pytest.mark.parametrize(
    "shape", [{"slots": 8}, {"slots": 1 << 23}, {"window_s": 0}, {"window_s": 86_401}, {"worker": 64}]
)
def test_sizes_out_of_range_are_refused(opened, shape):
    with pytest.raises(ValueError):
        opened(**shape)
