"""`fastroute usage`: used, held, remaining and when it begins anew, for a key or user (P-A15)."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(autouse=True)
def _clean(lab: Any) -> None:
    lab.forget()


def test_p_a15_a_users_day_is_told_with_the_instant_it_turns(served: Any, lab: Any) -> None:
    from acceptance_kit import chat, whole
    from money_desk_kit import until

    words = ("--daily-tokens", "20000", "--timezone", "Asia/Kolkata", "--budget-usd", "5")
    key = served.run("keys", "create", "--name", "asha", *words).stdout.strip()
    lab.say("cheap", whole(chat("well", usage=(20, 1480))))
    served.ask(key, max_tokens=1500)
    until(lambda: served.json("usage", "-u", "asha")["tokens"]["used"] == 1500)
    told = served.json("usage", "-u", "asha")
    assert told["tokens"]["remaining"] + told["tokens"]["held"] == 18_500
    assert told["tokens"]["resets_at"].endswith("T00:00:00+05:30")
    assert told["spent_microdollars"] == 891
    said = served.run("usage", "-u", "asha").output
    assert "used       1,500" in said
    assert "T00:00:00+05:30" in said
    assert "$0.000891" in said
    assert [each["model"] for each in told["by_model"]] == ["cheap"]


def test_what_no_provider_was_asked_for_has_a_name_of_its_own(served: Any) -> None:
    """A request that its budget does not cover, or that the cache answers, is a request of no model."""
    from money_desk_kit import until

    key = served.run("keys", "create", "--name", "emil", "--budget-usd", "0").stdout.strip()
    told = served.gateway.ask("cheap", headers={"authorization": f"Bearer {key}"})
    assert told.status == 402
    until(lambda: served.json("usage", "-u", "emil")["by_model"])
    assert [each["model"] for each in served.json("usage", "-u", "emil")["by_model"]] == [""]
    assert "\n(nobody asked)  1 " in served.run("usage", "-u", "emil").output


def test_the_json_is_the_http_twins(served: Any) -> None:
    made = served.json("keys", "create", "--name", "berta", "--budget-usd", "5")
    assert served.json("usage", "-u", "berta") == served.twin(f"/admin/usage/{made['id']}")
    own = served.gateway.http.get("/v1/usage", headers={"authorization": f"Bearer {made['key']}"}).json()
    assert own == served.json("usage", "-u", made["id"])


def test_without_a_limit_it_says_so(terminal: Any) -> None:
    terminal.json("keys", "create", "--name", "carla")
    said = terminal.run("usage", "-u", "carla").output
    assert "not limited" in said
    assert terminal.json("usage", "-u", "carla")["limit_microdollars"] is None


def test_a_budget_nobody_used_is_whole(terminal: Any) -> None:
    terminal.json("keys", "create", "--name", "dora", "--budget-usd", "2.50", "--window", "daily")
    told = terminal.json("usage", "-u", "dora")
    assert (told["spent_microdollars"], told["held_microdollars"], told["remaining_microdollars"]) == (0, 0, 2_500_000)
    assert "remaining  $2.50" in terminal.run("usage", "-u", "dora").output


@pytest.mark.parametrize(("words", "code"), [((), 2), (("-u", "nobody"), 1), (("-u", "carla", "--days", "many"), 2)])
def test_what_cannot_be_asked_is_told(terminal: Any, words: tuple[str, ...], code: int) -> None:
    assert terminal.run("usage", *words, code=code).stderr
