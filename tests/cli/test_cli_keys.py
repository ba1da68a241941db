"""`fastroute keys`: the same through a running server and without one, and the same names as its HTTP twin."""

from __future__ import annotations

import json
import re
from itertools import count
from typing import Any

import pytest

_names = count(1)


@pytest.fixture
def name() -> str:
    return f"person-{next(_names)}"


def made(terminal: Any, name: str, *words: str) -> Any:
    return terminal.json("keys", "create", "--name", name, *words)


def test_a_key_is_printed_once_and_alone(terminal: Any, name: str) -> None:
    result = terminal.run("keys", "create", "--name", name, "--budget-usd", "2.01")
    assert re.fullmatch(r"fr_live_\w{8}_\w{49}\n", result.stdout)
    assert "cannot be shown again" in result.stderr
    key = result.stdout.strip()
    for words in (("keys", "show", name), ("keys", "list"), ("keys", "list", "--json"), ("usage", "-u", name)):
        assert key not in terminal.run(*words).output


def test_what_was_asked_for_is_what_is_shown(terminal: Any, name: str) -> None:
    words = ["--budget-usd", "2.01", "--window", "monthly", "--timezone", "Europe/Berlin", "--rpm", "60", "--tpm", "9"]
    words += ["--concurrency", "3", "--daily-tokens", "1000", "--models", "cheap, dear", "--expires", "2030-01-31"]
    told = made(terminal, name, *words)
    key = told.pop("key")
    assert told == terminal.json("keys", "show", name) == terminal.json("keys", "show", told["id"])
    assert (told["kind"], told["name"], told["state"]) == ("key", name, "live")
    assert (told["rpm"], told["tpm"], told["concurrency"], told["models"]) == (60, 9, 3, ["cheap", "dear"])
    assert told["expires_at"].startswith("2030-01-31T00:00:00")
    money, tokens = told["budgets"]
    assert (money["unit"], money["limit"], money["window"], money["zone"]) == (
        "microdollar",
        2_010_000,
        "monthly",
        "Europe/Berlin",
    )
    assert (tokens["unit"], tokens["limit"], tokens["window"]) == ("token", 1000, "daily")
    assert told["hint"].endswith(key[-4:])
    shown = terminal.run("keys", "show", name).output
    for text in ("$2.01 monthly", "1,000 tokens daily", "cheap, dear", "resets 20"):
        assert text in shown


def test_a_preference_is_set_shown_changed_and_taken_away(terminal: Any, name: str) -> None:
    assert made(terminal, name, "--prefer", "cost")["prefer"] == "cost"
    assert "prefer       cost" in terminal.run("keys", "show", name).stdout
    assert terminal.json("keys", "change", name, "--prefer", "latency")["prefer"] == "latency"
    assert terminal.json("keys", "change", name, "--no-preference")["prefer"] is None
    assert "prefer" not in terminal.run("keys", "show", name).stdout
    terminal.run("keys", "change", name, "--prefer", "speed", code=2)


def test_the_json_is_the_http_twins(served: Any, name: str) -> None:
    told = made(served, name, "--budget-microdollars", "5", "--rpm", "7")
    over_http = served.twin("/admin/keys", method="POST", json={"name": f"{name}-http", "budget_microdollars": 5})
    assert told.keys() == over_http.keys()
    shown = served.json("keys", "show", name)
    assert shown == served.twin(f"/admin/keys/{told['id']}")
    assert shown in served.twin("/admin/keys")["data"]
    assert served.json("keys", "list", "--all") == served.twin("/admin/keys?kinds=key,agent,user")["data"]
    rotated = served.json("keys", "rotate", name)
    assert rotated.keys() == served.twin(f"/admin/keys/{told['id']}/rotate", method="POST", json={}).keys()


def test_a_key_made_at_the_terminal_opens_the_running_server(served: Any, name: str) -> None:
    key = served.run("keys", "create", "--name", name, "--budget-usd", "1").stdout.strip()
    served.ask(key, max_tokens=5)
    assert served.gateway.ask("cheap").status == 401, "and the house is closed to everybody else"
    served.run("keys", "revoke", name)
    told = served.gateway.ask("cheap", headers={"authorization": f"Bearer {key}"})
    assert told.status == 401


def test_the_list_shows_the_living_and_with_all_the_dead(terminal: Any, name: str) -> None:
    made(terminal, name)
    agent = made(terminal, f"{name}-bot", "--kind", "agent", "--provider", "lab", "--budget-usd", "3")
    assert agent["key"].startswith("ic_")
    assert agent["metadata"] == {"provider": "lab"}
    user = terminal.run("keys", "create", "--name", f"{name}-user", "--kind", "user", "--daily-tokens", "20000")
    assert user.stdout.startswith("user_")
    terminal.run("keys", "revoke", name)
    living = {each["name"] for each in terminal.json("keys", "list")}
    assert {f"{name}-bot", f"{name}-user"} <= living
    assert name not in living
    assert name in {each["name"] for each in terminal.json("keys", "list", "--all")}
    assert {each["kind"] for each in terminal.json("keys", "list", "--kind", "agent")} == {"agent"}
    table = terminal.run("keys", "list").output
    assert table.startswith("id")
    assert "$3.00 total" in table


def test_a_change_holds_and_no_budget_takes_the_limit_away(terminal: Any, name: str) -> None:
    made(terminal, name, "--budget-usd", "1")
    assert (
        terminal.json("keys", "change", name, "--budget-usd", "10", "--rpm", "5")["budgets"][0]["limit"] == 10_000_000
    )
    assert terminal.json("keys", "show", name)["rpm"] == 5
    assert terminal.json("keys", "change", name, "--budget-microdollars", "0")["budgets"][0]["limit"] == 0
    assert terminal.json("keys", "change", name, "--no-budget")["budgets"] == []
    assert "none: not limited" in terminal.run("keys", "show", name).output


def test_a_child_names_its_parent(terminal: Any, name: str) -> None:
    parent = made(terminal, name, "--budget-usd", "1")
    child = made(terminal, f"{name}-child", "--parent", name)
    assert child["parent"] == parent["id"]
    assert child["budgets"][0]["owner"] == parent["id"]
    assert f"of {parent['id']}" in terminal.run("keys", "show", f"{name}-child").output
    terminal.run("keys", "revoke", name)
    assert terminal.json("keys", "show", f"{name}-child")["state"] == "revoked"


def test_a_rotated_key_keeps_its_account(terminal: Any, name: str) -> None:
    before = made(terminal, name)
    after = terminal.json("keys", "rotate", name, "--grace", "24h")
    assert after["id"] == before["id"]
    assert after["key"] != before["key"]
    assert re.fullmatch(r"fr_live_\S+\n", terminal.run("keys", "rotate", name).stdout)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("keys", "create"), 2, "--name"),
        (("keys", "create", "--name", "a", "--budget-usd", "ten"), 1, "ten"),
        (("keys", "create", "--name", "a", "--budget-usd", "-1"), 1, "-1"),
        (("keys", "create", "--name", "a", "--budget-usd", "1", "--budget-microdollars", "1"), 1, "not both"),
        (("keys", "create", "--name", "a", "--budget-microdollars", "99999999999999999999"), 1, "64 bits"),
        (("keys", "create", "--name", "a", "--budget-microdollars", "-5"), 1, "-5"),
        (("keys", "create", "--name", "a", "--timezone", "Mars/Olympus"), 1, "Mars/Olympus"),
        (("keys", "create", "--name", "a", "--expires", "soon"), 1, "soon"),
        (("keys", "create", "--name", "a", "--kind", "grant"), 2, "grant"),
        (("keys", "create", "--name", "a", "--parent", "nobody"), 1, "nobody"),
        (("keys", "create", "--name", " "), 1, "printable"),
        (("keys", "show", "nobody"), 1, "nobody"),
        (("keys", "change", "nobody", "--rpm", "1"), 1, "nobody"),
        (("keys", "revoke", "nobody"), 1, "nobody"),
        (("keys", "rotate", "nobody"), 1, "nobody"),
        (("keys", "nothing"), 2, "nothing"),
    ],
)
def test_what_is_refused_is_one_sentence_and_an_exit_code(
    terminal: Any, words: tuple[str, ...], code: int, said: str
) -> None:
    result = terminal.run(*words, code=code)
    assert said in result.stderr
    assert result.stdout == ""
    assert code == 2 or result.stderr.count("\n") == 1
    assert "a" not in {each["name"] for each in terminal.json("keys", "list", "--all")}


@pytest.mark.parametrize("grace", ["8d", "soon", "2001-01-01", "-1h"])
def test_a_grace_is_a_duration_of_a_week_at_most(terminal: Any, name: str, grace: str) -> None:
    made(terminal, name)
    terminal.run("keys", "rotate", name, "--grace", grace, code=1)


def test_a_name_that_is_taken_is_refused(terminal: Any, name: str) -> None:
    made(terminal, name)
    assert "already called" in terminal.run("keys", "create", "--name", name, code=1).stderr
    terminal.run("keys", "revoke", name)
    made(terminal, name)


def test_a_configuration_that_cannot_be_is_78(alone: Any, tmp_path: Any) -> None:
    (tmp_path / "fastroute.yaml").write_text("server: {port: many}\n")
    assert "server.port" in type(alone)(tmp_path, None).run("keys", "list", code=78).stderr


def test_as_a_process_of_its_own(served: Any, name: str) -> None:
    done = served.process("keys", "create", "--name", name, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert served.json("keys", "show", name)["id"] == told["id"]
    refused = served.process("keys", "show", "nobody")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "nobody" in refused.stderr
