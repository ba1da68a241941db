"""P-A13: a receipt's file is there whole or not at all, whenever its writer is killed."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from fastroute.receipts import Mirror, load_keys, open_keys, receipt_id, verify

ROOT = Path(__file__).parents[2]
KILLS = 2000 if os.environ.get("FASTROUTE_TORTURE") == "1" else 200
ID = receipt_id("req_abcdefgh1")

# Interpreters start slowly and forks do not: one process forks the writers, kills each within a few milliseconds, and
# says how many receipts there were when it was done.
WRITERS = """
import os, signal, sys, time
from pathlib import Path
from fastroute.receipts import Mirror, Particulars, Sealer, load_keys

directory, keys, kills = Path(sys.argv[1]), load_keys(Path(sys.argv[2])), int(sys.argv[3])


def write(life):
    sealer, mirror, count = Sealer(keys.key, keys.kid), Mirror(directory), 0
    while True:
        count += 1
        told = Particulars(
            f"req_abcdefgh{life:x}{count % 7 + 1:x}", "rd_x", 0, "key_a", "n", "chat", "auto", None, "r", 200, False, 1,
            None, (), {"pad": "x" * 20_000},
        )
        sealed = sealer.seal(told)
        mirror.put(sealed.id, sealed.body)


for life in range(1, kills + 1):
    pid = os.fork()
    if pid == 0:
        try:
            write(life)
        finally:
            os._exit(1)
    time.sleep(0.001 + life % 23 * 0.0004)
    os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), status
"""


def test_p_a13_no_receipt_is_unreadable_after_200_kills_of_its_writer(tmp_path):
    """P-A13: kill -9 in the middle of writing, over and over: every name that is there is a receipt that verifies."""
    keys = open_keys(tmp_path / "secrets")
    subprocess.run(
        [sys.executable, "-c", WRITERS, tmp_path / "receipts", tmp_path / "secrets", str(KILLS)],
        check=True,
        timeout=30 + KILLS / 10,
        cwd=ROOT,
    )
    mirror = Mirror(tmp_path / "receipts")
    ids = mirror.ids()
    assert len(ids) >= KILLS / 4
    for name in ids:
        proof = verify(mirror.read(name), keys)
        assert proof.ok, proof
        assert proof.id == name
    assert set(keys) == set(load_keys(tmp_path / "secrets"))


def test_what_killed_writers_leave_is_removed_by_the_next(tmp_path):
    (tmp_path / ".12345.tmp").write_bytes(b"half a rec")
    (tmp_path / "notes.txt").write_text("somebody's own")
    Mirror(tmp_path).put(ID, b"{}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes.txt", f"{ID}.json"]


@pytest.mark.parametrize("durable", [False, True])
def test_what_is_put_is_read_by_anybody_with_the_right(tmp_path, durable, sealer, particulars):
    sealed = sealer.seal(particulars())
    mirror = Mirror(tmp_path / "receipts", durable=durable)
    mirror.put(sealed.id, sealed.body)
    assert Mirror(tmp_path / "receipts").read(sealed.id) == sealed.body
    assert stat.S_IMODE((tmp_path / "receipts" / f"{sealed.id}.json").stat().st_mode) == 0o600
    assert mirror.ids() == [sealed.id]


def test_writing_one_again_changes_nothing(tmp_path):
    mirror = Mirror(tmp_path)
    mirror.put(ID, b"{}")
    mirror.put(ID, b"{}")
    assert mirror.read(ID) == b"{}"


def test_a_receipt_that_is_not_there_is_none(tmp_path):
    assert Mirror(tmp_path / "nowhere").read(ID) is None
    assert Mirror(tmp_path / "nowhere").ids() == []


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../../etc/passwd",
        f"../{ID}",
        f"{ID}/..",
        f"{ID}\n",
        f"{ID}\0",
        ID.upper(),
        ID[:-1],
        f"{ID}a",
        f"/{ID}",
        "rcpt_" + "é" * 26,
        "rcpt_" + "\u0662" * 26,
        "rcpt_" + "a" * 25 + "/",
    ],
    ids=repr,
)
def test_no_path_can_be_made_of_an_id(tmp_path, name):
    mirror = Mirror(tmp_path)
    with pytest.raises(ValueError, match="not the id of a receipt"):
        mirror.read(name)
    with pytest.raises(ValueError, match="not the id of a receipt"):
        mirror.put(name, b"{}")
    assert not list(tmp_path.iterdir())


def test_a_link_in_the_place_of_the_scratch_file_is_not_followed(tmp_path):
    mirror = Mirror(tmp_path / "receipts")
    mirror.put(ID, b"{}")
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "receipts" / f".{os.getpid()}.tmp").symlink_to(victim)
    with pytest.raises(OSError, match=r"symbolic|Too many"):
        mirror.put(ID, b"{}")
    assert victim.read_text() == "mine"


def test_a_full_or_forbidden_disk_is_told_and_spoils_nothing(tmp_path, monkeypatch):
    mirror = Mirror(tmp_path)
    mirror.put(ID, b'{"whole":1}')

    def full(fd, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("fastroute.receipts.mirror.os.write", full)
    with pytest.raises(OSError, match="No space"):
        mirror.put(ID, b'{"whole":2}')
    assert mirror.read(ID) == b'{"whole":1}'


def test_a_write_that_takes_only_a_part_goes_on(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr("fastroute.receipts.mirror.os.write", lambda fd, data: write(fd, data[:3]))
    Mirror(tmp_path).put(ID, b'{"whole":1}')
    assert Mirror(tmp_path).read(ID) == b'{"whole":1}'
