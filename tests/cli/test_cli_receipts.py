"""`fastroute receipts`: listed, opened, proved; and what is not as it was signed is told (P-A11 to P-A13)."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fastroute.ledger.store import ReceiptRow
from tests.kits import is_gone


@pytest.fixture(scope="module")
def answered(served: Any, lab: Any) -> list[str]:
    """The receipts of five answered requests, the first of them at 165 microdollars."""
    from acceptance_kit import chat, whole
    from money_desk_kit import until

    key = served.run("keys", "create", "--name", "asha", "--budget-usd", "5").stdout.strip()
    lab.say("cheap", whole(chat("well", usage=(300, 200))))
    prompt = [{"role": "user", "content": "x" * 1200}]
    told = [served.gateway.ask("cheap", headers={"authorization": f"Bearer {key}"}, messages=prompt) for _ in range(5)]
    lab.forget()
    ids = [one.headers["x-router-receipt-id"] for one in told]
    until(lambda: len(served.json("receipts", "list")) == 5)
    return ids


def copied(served: Any, place: Path) -> Any:
    """The books as they are, in a place where no server runs."""
    terminal = type(served)(place, None)
    shutil.copy(served.place / "fastroute.yaml", place)
    shutil.copytree(served.state_dir / "secrets", terminal.state_dir / "secrets")
    with (
        contextlib.closing(sqlite3.connect(served.state_dir / "fastroute.db")) as source,
        contextlib.closing(sqlite3.connect(terminal.state_dir / "fastroute.db")) as copy,
    ):
        source.backup(copy)
    return terminal


def altered(terminal: Any, name: str, change: Callable[[bytes], bytes | None]) -> None:
    """Somebody has the database in hand and writes another body where a receipt's was, or takes it out."""
    with contextlib.closing(sqlite3.connect(terminal.state_dir / "fastroute.db")) as db, db:
        for first, leaf in db.execute("SELECT first, receipts FROM receipt_leaves").fetchall():
            rows = []
            for row in msgspec.msgpack.decode(leaf, type=list[ReceiptRow]):
                body = change(row.body) if row.id == name else row.body
                if body is not None:
                    rows.append(msgspec.structs.replace(row, body=body))
            db.execute("UPDATE receipt_leaves SET receipts = ? WHERE first = ?", (msgspec.msgpack.encode(rows), first))


def test_p_a11_a_receipt_says_what_it_cost_exactly(served: Any, answered: list[str]) -> None:
    said = served.run("receipts", "--open", answered[0]).output
    assert "$0.000165" in said
    assert answered[0] in said
    assert "300 in, 200 out" in said
    table = served.run("receipts", "list").output
    assert table.count("$0.000165") == 5
    assert table.splitlines()[1].startswith(answered[-1])


def test_a_receipt_can_be_reckoned_again_from_what_stands_in_it(served: Any, answered: list[str]) -> None:
    """Every attempt says what its usage was priced at, and whose prices these were."""
    [line] = served.json("receipts", "--open", answered[0])["attempts"]
    price, usage = line["price"], line["usage"]
    assert price == {"cache_read": None, "cache_write": None, "input": 150_000, "output": 600_000, "source": "config"}
    assert usage["input"] * price["input"] + usage["output"] * price["output"] == line["picodollars"]
    said = served.run("receipts", "--open", answered[0]).output
    assert "300 in, 200 out; microdollars a million tokens: 150000 in, 600000 out (config)" in said


def test_a_receipt_is_found_by_its_request_too(served: Any, answered: list[str]) -> None:
    body = served.json("receipts", "--open", answered[0])
    assert served.json("receipts", "--open", body["request_id"]) == body
    assert body == served.twin(f"/admin/receipts/{answered[0]}")


def test_the_list_is_the_http_twins(served: Any, answered: list[str]) -> None:
    told = served.json("receipts", "list", "--limit", "3")
    assert told == served.twin("/admin/receipts?limit=3")["data"]
    assert [one["id"] for one in told] == answered[:1:-1]
    assert served.json("receipts") == served.json("receipts", "list")


def test_the_chain_is_proved(served: Any, answered: list[str], tmp_path: Path) -> None:
    assert "all of them true" in served.run("receipts", "verify").output
    assert served.json("receipts", "verify") == {"ok": True, "receipts": len(answered), "faults": []}
    assert copied(served, tmp_path).json("receipts", "verify")["ok"] is True


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"cost_usd":"0.0001650"', '"cost_usd":"0.0001649"'),
        ('"route_final":"cheap"', '"route_final":"dear"'),
        ('"ts":"20', '"ts":"21'),
        ('"account_name":"asha"', '"account_name":"asho"'),
    ],
    ids=["cost", "route", "ts", "account"],
)
def test_p_a12_what_was_altered_has_a_bad_signature(
    served: Any, answered: list[str], tmp_path: Path, old: str, new: str
) -> None:
    terminal = copied(served, tmp_path)

    def change(body: bytes) -> bytes:
        assert old in body.decode()
        return body.decode().replace(old, new).encode()

    altered(terminal, answered[2], change)
    assert "BAD SIGNATURE" in terminal.run("receipts", "--open", answered[2], code=1).output
    report = terminal.json("receipts", "verify", code=1)
    assert report["ok"] is False
    assert len(report["faults"]) == 1
    assert "BROKEN" in terminal.run("receipts", "verify", code=1).output


def test_p_a12_order_and_blanks_alone_change_nothing(served: Any, answered: list[str], tmp_path: Path) -> None:
    terminal = copied(served, tmp_path)
    altered(
        terminal,
        answered[2],
        lambda body: json.dumps(dict(reversed(json.loads(body).items())), indent=2).encode(),
    )
    said = terminal.run("receipts", "--open", answered[2]).output
    assert "BAD SIGNATURE" not in said


def test_one_that_is_missing_breaks_the_chain(served: Any, answered: list[str], tmp_path: Path) -> None:
    terminal = copied(served, tmp_path)
    altered(terminal, answered[2], lambda body: None)
    assert terminal.json("receipts", "verify", code=1)["ok"] is False


def test_what_a_request_cost_is_put_right(served: Any, answered: list[str]) -> None:
    """Over the terminal and over HTTP; what was signed stays, and what was changed stands beside it."""
    name = answered[3]
    spent = served.json("usage", "-u", "asha")["spent_microdollars"]
    signed = served.run("receipts", "--open", name, "--json").stdout
    words = ("receipts", "correct", name, "--usd", "0.0001", "--reason", "billed twice")
    assert served.run(*words).stdout == f"{name}: $0.000165 -> $0.0001\n"
    assert served.run(*words).stdout == f"{name}: $0.0001 already\n"
    assert served.json("usage", "-u", "asha")["spent_microdollars"] == spent - 65
    said = served.run("receipts", "--open", name).output
    assert "$0.000165 -> $0.0001, billed twice" in said
    assert "BAD SIGNATURE" not in said
    assert served.run("receipts", "--open", name, "--json").stdout == signed
    path = f"/admin/receipts/{name}/corrections"
    assert served.twin(path, method="POST", json={"microdollars": 165, "reason": "it was not"})["changed"] is True
    assert [one["to_microdollars"] for one in served.twin(path)["data"]] == [100, 165]
    assert served.gateway.http.post(path, json={"microdollars": 1, "reason": "r"}).status_code == 404
    assert served.json("usage", "-u", "asha")["spent_microdollars"] == spent
    assert served.json("ledger", "verify")["ok"] is True
    assert served.json("receipts", "verify")["ok"] is True


def test_where_there_are_none_it_says_so(alone: Any) -> None:
    assert "no receipts yet" in alone.run("receipts", "list").output
    assert alone.json("receipts", "list") == []
    assert alone.json("receipts", "verify")["receipts"] == 0


@pytest.mark.parametrize(("words", "code"), [(("--open", "rcpt_none"), 1), (("list", "--limit", "0"), 1)])
def test_what_is_not_there_is_told(terminal: Any, words: tuple[str, ...], code: int) -> None:
    result = terminal.run("receipts", *words, code=code)
    assert result.stderr
    assert result.stdout == ""


def test_p_a13_no_answer_without_its_receipt_whenever_it_is_killed(lab: Any, tmp_path: Path, served: Any) -> None:
    """kill -9 of everything right after the answers; the next look finds every receipt that was promised, whole."""
    from acceptance_kit import start
    from money_desk_kit import until

    promised: list[str] = []
    terminal = type(served)(tmp_path, None)
    config = (served.place / "fastroute.yaml").read_text().replace(str(served.place), str(tmp_path))
    key = ""
    for _ in range(3):
        gateway = start(tmp_path, config, {}, 2)
        terminal.gateway = gateway
        key = key or terminal.run("keys", "create", "--name", "asha", "--budget-usd", "5").stdout.strip()
        promised += [terminal.ask(key, max_tokens=5).headers["x-router-receipt-id"] for _ in range(6)]
        pid = gateway.process.pid
        children = [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        os.kill(pid, signal.SIGKILL)
        gateway.process.wait(10)
        until(lambda children=children: all(map(is_gone, children)))
        gateway.http.close()
        for name in promised:
            assert name in terminal.run("receipts", "--open", name).output
    assert terminal.json("receipts", "verify")["ok"] is True
    assert terminal.json("ledger", "verify")["ok"] is True
    told = terminal.json("usage", "-u", "asha")
    assert told["by_model"][0]["requests"] == len(promised)
