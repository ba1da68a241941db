"""S7: secrets of their own with an id, rotation without a restart, and no secret that anybody knows."""

import stat

import pytest

from fastroute.config.secret import Secret
from fastroute.errors import ConfigError
from fastroute.receipts import Sealer, add_key, load_keys, open_keys, verify

GOOD = "0f3c9a5b7d1e8642aa55cc33ee11779b"


def test_the_first_start_makes_a_secret_only_its_owner_reads(tmp_path):
    keys = open_keys(tmp_path / "secrets")
    path = tmp_path / "secrets" / "receipts-1.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert keys.kid == "1"
    assert len(keys.key) == 64
    assert [entry.name for entry in path.parent.iterdir()] == ["receipts-1.key"]
    assert dict(open_keys(tmp_path / "secrets")) == dict(keys)


def test_two_houses_have_two_secrets(tmp_path):
    assert open_keys(tmp_path / "a").key != open_keys(tmp_path / "b").key


def test_whoever_only_verifies_makes_no_key(tmp_path):
    with pytest.raises(ConfigError, match="no key for receipts"):
        load_keys(tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_newest_signs_and_all_verify(tmp_path, particulars):
    """Rotation needs no restart: the ring tells that it was renewed, and the chain goes on."""
    ring = open_keys(tmp_path)
    sealer = Sealer(ring.key, ring.kid)
    old = sealer.seal(particulars(1)).body
    assert ring.renewed() is None
    for _ in range(9):
        add_key(tmp_path)
    ring = ring.renewed()
    assert ring is not None
    assert ring.kid == "10"
    sealer.use(ring.key, ring.kid)
    new = sealer.seal(particulars(2)).body
    assert verify(old, ring).kid == "1"
    assert verify(new, ring).kid == "10"
    assert ring.renewed() is None


def test_a_key_is_never_written_over(tmp_path):
    (tmp_path / "receipts-1.key").write_text(GOOD)
    assert add_key(tmp_path) == "2"
    assert (tmp_path / "receipts-1.key").read_text() == GOOD


def test_a_retired_key_no_longer_verifies(tmp_path, particulars):
    ring = open_keys(tmp_path)
    body = Sealer(ring.key, ring.kid).seal(particulars()).body
    add_key(tmp_path)
    (tmp_path / "receipts-1.key").unlink()
    ring = ring.renewed()
    assert verify(body, ring).state == "unknown_key"


def test_a_text_from_the_environment_signs_before_any_file(tmp_path, particulars):
    """The seed's JWT_SECRET; another text is another key id, so nothing is mistaken for the old one."""
    open_keys(tmp_path)
    ring = load_keys(tmp_path, Secret(GOOD))
    assert ring.key == GOOD.encode()
    assert ring.kid.startswith("env-")
    assert set(ring) == {"1", ring.kid}
    assert load_keys(tmp_path, Secret(GOOD[::-1])).kid != ring.kid
    assert verify(Sealer(ring.key, ring.kid).seal(particulars()).body, ring).ok


def test_with_a_text_from_the_environment_no_file_is_needed(tmp_path):
    assert open_keys(tmp_path / "none", Secret(GOOD)).key == GOOD.encode()
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "empty"),
        ("   \n", "empty"),
        ("dev-secret", "stands in examples"),
        ("changeme", "stands in examples"),
        ("ChangeMe", "stands in examples"),
        ("sk-1234", "stands in examples"),
        (GOOD[:31], "shorter than 32 bytes"),
        ("a" * 64, "repeats itself"),
        ("dev-secret" * 4, "repeats itself"),
        ("0" * 60 + "1234", "repeats itself"),
    ],
)
def test_a_secret_that_is_none_is_refused_and_not_shown(tmp_path, text, why):
    """S7: the boot matrix, for a file and for the environment; the message names the place and never the value."""
    with pytest.raises(ConfigError, match=why) as told:
        load_keys(tmp_path, Secret(text))
    assert "JWT_SECRET" in str(told.value)
    (tmp_path / "receipts-1.key").write_text(text)
    with pytest.raises(ConfigError, match=why) as told:
        open_keys(tmp_path)
    assert "receipts-1.key" in str(told.value)
    assert len(text) < 30 or text not in str(told.value)


def test_every_bad_key_is_told_at_once(tmp_path):
    (tmp_path / "receipts-1.key").write_text("short")
    (tmp_path / "receipts-2.key").write_bytes(b"\xff" * 40)
    (tmp_path / "receipts-3.key").mkdir()
    with pytest.raises(ConfigError) as told:
        load_keys(tmp_path)
    assert len(told.value.problems) == 3


def test_a_bad_new_key_leaves_the_ring_as_it_was(tmp_path):
    """A rotation that went wrong changes nothing for those who sign."""
    ring = open_keys(tmp_path)
    (tmp_path / "receipts-2.key").write_text("changeme")
    with pytest.raises(ConfigError):
        ring.renewed()
    assert ring.kid == "1"


@pytest.mark.parametrize(
    "name", ["receipts-0.key", "receipts-1.key.bak", "receipts-x.key", "grants-1.key", ".receipts-1.key"]
)
def test_other_files_in_the_directory_are_nobodys_key(tmp_path, name):
    (tmp_path / name).write_text(GOOD)
    with pytest.raises(ConfigError, match="no key"):
        load_keys(tmp_path)


def test_a_ring_shows_no_key(tmp_path):
    ring = open_keys(tmp_path)
    assert repr(ring) == str(ring) == "<Keyring 1; 1 signs>"
