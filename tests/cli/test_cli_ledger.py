"""`fastroute ledger verify`: every balance computed anew, beside a running server and without one."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any


def test_books_that_add_up_are_told_so(terminal: Any) -> None:
    terminal.json("keys", "create", "--name", "asha", "--budget-usd", "5")
    told = terminal.json("ledger", "verify")
    assert (told["ok"], told["differences"]) == (True, [])
    assert told["counts"]["accounts"] == 1
    assert "the books add up" in terminal.run("ledger", "verify").output


def test_it_looks_while_the_server_spends(served: Any) -> None:
    key = served.run("keys", "create", "--name", "berta", "--budget-usd", "5").stdout.strip()
    for _ in range(5):
        served.ask(key, max_tokens=5)
        assert served.json("ledger", "verify")["ok"] is True


def test_what_does_not_add_up_is_explained(served: Any, tmp_path: Path) -> None:
    from money_desk_kit import until

    key = served.run("keys", "create", "--name", "carla", "--budget-usd", "5").stdout.strip()
    served.ask(key, max_tokens=5)
    until(lambda: served.json("usage", "-u", "carla")["spent_microdollars"])
    terminal = type(served)(tmp_path, None)
    terminal.state_dir.mkdir()
    (tmp_path / "fastroute.yaml").write_text((served.place / "fastroute.yaml").read_text())
    with (
        contextlib.closing(sqlite3.connect(served.state_dir / "fastroute.db")) as source,
        contextlib.closing(sqlite3.connect(terminal.state_dir / "fastroute.db")) as copy,
    ):
        source.backup(copy)
        columns = [row[1] for row in copy.execute("PRAGMA table_info(leases)")]
        assert "spent" in columns
        copy.execute("UPDATE leases SET spent = spent + 7 WHERE spent > 0")
        copy.commit()
    told = terminal.json("ledger", "verify", code=1)
    assert told["ok"] is False
    assert told["differences"]
    assert "DO NOT ADD UP" in terminal.run("ledger", "verify", code=1).output


def test_without_books_it_is_an_input_error(alone: Any, tmp_path: Path) -> None:
    terminal = type(alone)(tmp_path, None)
    (tmp_path / "fastroute.yaml").write_text((alone.place / "fastroute.yaml").read_text())
    assert terminal.run("ledger", "verify", code=74).stderr
