"""T-A14: a shadow is asked what users asked; they do not wait for it, hear of it, or find it on their own bill."""

from __future__ import annotations

import json
import time
from itertools import count
from statistics import median
from typing import Any

import pytest
from acceptance_kit import chat, chat_events, silent, streamed, whole
from click.testing import CliRunner
from money_desk_kit import ADMIN, House, until

from fastroute.cli import main

pytestmark = pytest.mark.usefixtures("clean")

# The user's model and its shadow's share a lane, which two failures would degrade.
CONFIG = """
server: {{drain_ms: 20000}}
health: {{threshold: 2, probe_after_ms: 60000}}
relay: {{whole_ms: {whole_ms}}}
policies_dir: {place}/policies
providers:
  lab: {{dialect: openai, base_url: "{lab}"}}
models:
  - {{id: quick, model: "lab:quick", price: {{input: 1000000, output: 1000000}}, max_output: 4000}}
  - {{id: grader, model: "lab:grader", price: {{input: 1000000, output: 1000000}}, max_output: 4000}}
  - {{id: twin, model: "lab:twin", price: {{input: 10000000, output: 10000000}}, max_output: 4000}}
"""
POLICIES = {
    "shaded": "shadow: {model: twin}\n",
    "plain": "",
    "judged": "shadow: {model: twin}\nquality: {judge: structure}\ncapture: {prompts: true}\n",
    "graded": "shadow: {model: twin}\nquality: {judge: quick}\n",
    "examined": "shadow: {model: twin}\nquality: {judge: grader}\n",
    "noted": "shadow: {model: twin}\ncapture: {prompts: true, answers: true}\n",
    "never": "shadow: {model: twin, share: 0}\n",
}
UNDERWAY_MAX = 8
QUESTION = "What is the capital of France?"
USER, TWIN = 26, 260  # microdollars of the 11 + 15 tokens that the provider tells of
_numbers = count(1)


def opened(serve: Any, lab: Any, place: Any, whole_ms: int = 60_000, more: str = "") -> House:
    (place / "policies").mkdir()
    for name, said in POLICIES.items():
        (place / "policies" / f"{name}.yaml").write_text(
            f"policy: {name}\nobjectives: {{max_tokens: 100}}\nrouting: {{primary: [quick]}}\n{said}"
        )
    return House(
        serve(CONFIG.format(lab=lab.url, place=place, whole_ms=whole_ms) + more, {"FASTROUTE_ADMIN_KEY": ADMIN}, place)
    )


@pytest.fixture(scope="module")
def shop(serve: Any, lab: Any, tmp_path_factory: pytest.TempPathFactory) -> House:
    return opened(serve, lab, tmp_path_factory.mktemp("shadow"), 2000)


@pytest.fixture
def key(shop: House) -> Any:
    return shop.key(f"caller {next(_numbers)}")


def receipts(house: House, key: Any, wanted: int) -> list[Any]:
    """Those of an account, newest first, once there are so many."""

    def found() -> list[Any]:
        told = house.fetch("GET", "/v1/receipts", key.token).json()
        return told if isinstance(told, list) else told["data"]

    until(lambda: len(found()) >= wanted)
    return found()


@pytest.mark.parametrize("stream", [False, True])
def test_t_a14_the_shadows_cost_is_booked_separately(shop: House, lab: Any, key: Any, stream: bool) -> None:
    """Two receipts: the user's is as it was, the shadow's names the request it is of; the headers tell of one."""
    told = shop.ask(key, "shaded", stream=stream)
    assert told.status == 200
    mine, its = sorted(receipts(shop, key, 2), key=lambda paper: paper["cost_microdollars"])
    assert (mine["cost_microdollars"], its["cost_microdollars"]) == (USER, TWIN)
    assert (mine["route_final"], its["route_final"]) == ("quick", "twin")
    assert (its["reason"], its["details"]["shadow_of"]) == ("shadow", mine["request_id"])
    assert "shadow_of" not in mine["details"]
    if not stream:
        assert told.headers["x-router-cost-usd"] == "0.0000260"
    sent = [asked.json for asked in lab.asked()]
    assert [body.pop("model") for body in sent] == ["quick", "twin"]
    assert sent[0] == sent[1]


def test_t_a14_a_users_latency_is_unchanged_within_noise(shop: House, lab: Any, key: Any) -> None:
    """A shadow of a second beside answers that take none."""
    lab.say("twin", whole(chat("late"), after_s=1.0))

    def took(policy: str) -> float:
        began = time.monotonic()
        assert shop.ask(key, policy).status == 200
        return time.monotonic() - began

    took("plain")
    with shop.gateway.counting("fastroute_shadows_total", outcome="answered") as answered:
        alone, shaded = [took("plain") for _ in range(6)], [took("shaded") for _ in range(6)]
        assert median(shaded) < median(alone) + 0.3
        assert max(shaded) < 0.9
        until(lambda: answered() == 6)


def test_t_a14_a_shadows_failure_is_invisible(shop: House, lab: Any, key: Any) -> None:
    """Whatever it meets, users are answered, their lane stays well, and no request is counted as failed."""
    lab.say("twin", whole({"error": {"message": "no"}}, 500))
    before = {name: value for name, value in shop.gateway.metrics().items() if name[0] == "router_requests_total"}
    with shop.gateway.counting("fastroute_shadows_total", outcome="failed") as failed:
        for _ in range(5):
            told = shop.ask(key, "shaded")
            assert (told.status, told.text) == (200, "I am quick")
            assert told.headers["x-router-fallback"] == "false"
        until(lambda: failed() == 5)
    assert shop.fetch("GET", "/health").json()["status"] == "ok"
    after = {name: value for name, value in shop.gateway.metrics().items() if name[0] == "router_requests_total"}
    assert sum(after.values()) - sum(before.values()) == 5
    assert not [name for name in after if dict(name[1])["status_code"] != "200"]


def test_a_provider_that_repeats_the_prompt_does_not_bring_it_into_the_books(
    serve: Any, lab: Any, tmp_path: Any
) -> None:
    """A comparison stands there in clear: it has the code of what went wrong with shadow or judge, and nobody's words."""
    house = opened(serve, lab, tmp_path)
    key, canary = house.key("caller"), "canary-9d2e41"
    lab.say("twin", whole({"error": {"message": f"what is {canary}?", "type": "invalid_request_error"}}, 400))
    lab.say("grader", whole({"error": {"message": f"what is {canary}?", "type": "invalid_request_error"}}, 400))
    said = [{"role": "user", "content": canary}]
    assert house.ask(key, "shaded", messages=said).status == 200
    until(lambda: len(lab.asked("twin")) == 1)
    lab.say("twin", whole(chat("well")))
    assert house.ask(key, "examined", messages=said).status == 200
    until(lambda: len(lab.asked("grader")) == 2)
    house.gateway.end()
    assert house.gateway.ended() == 0
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path.parent.name != "policies"]
    assert [path for path in files if canary.encode() in path.read_bytes()] == []


def test_a_shadows_stream_that_breaks_is_a_failed_shadow_and_is_settled(shop: House, lab: Any, key: Any) -> None:
    lab.say("twin", streamed(chat_events("I am", usage=None, done=False), end="cut"))
    with shop.gateway.counting("fastroute_shadows_total", outcome="failed") as failed:
        assert shop.ask(key, "shaded", stream=True).text == "I am quick"
        until(lambda: failed() == 1)
    [its] = [paper for paper in receipts(shop, key, 2) if paper["reason"] == "shadow"]
    assert its["attempts"][0]["outcome"] == "cut"
    assert its["cost_microdollars"] > 0


def test_a_users_stream_that_breaks_has_no_shadow(shop: House, lab: Any, key: Any) -> None:
    lab.say("quick", streamed(chat_events("I am", usage=None, done=False), end="cut"))
    shop.ask(key, "shaded", stream=True)
    receipts(shop, key, 1)
    assert lab.asked("twin") == []


def test_a_shadow_that_its_account_cannot_pay_is_not_asked(shop: House, lab: Any) -> None:
    """Its reservation is its own, on the same budget: refused, it costs nothing and nobody hears of it."""
    poor = shop.key("poor", budget_microdollars=1000)
    with shop.gateway.counting("fastroute_shadows_total", outcome="unfunded") as unfunded:
        assert shop.ask(poor, "shaded").status == 200
        until(lambda: unfunded() == 1)
    assert lab.asked("twin") == []
    shop.spent(poor, USER)
    assert len(receipts(shop, poor, 1)) == 1


def test_there_are_only_so_many_at_once(shop: House, lab: Any, key: Any) -> None:
    lab.say("twin", silent)
    with shop.gateway.counting("fastroute_shadows_total", outcome="skipped") as skipped:
        for _ in range(UNDERWAY_MAX + 2):
            assert shop.ask(key, "shaded").status == 200
        until(lambda: skipped() == 2)
    assert len(lab.asked("twin")) <= UNDERWAY_MAX
    until(lambda: all(asked.left.is_set() for asked in lab.asked("twin")))


def test_a_key_that_is_put_or_taken_away_counts_from_the_next_capture_on(serve: Any, lab: Any, tmp_path: Any) -> None:
    """A server that went on with a destroyed key would keep what nobody can ever read."""
    house = opened(serve, lab, tmp_path)
    key, secrets = house.key("caller"), house.state_dir / "secrets"
    options = ["--config", str(tmp_path / "fastroute.yaml"), "--state-dir", str(house.state_dir)]

    def shown() -> Any:
        told = house.ask(key, "judged")
        name = told.headers["x-router-receipt-id"]
        opened_ = ["receipts", "--open", name, "--content", "--json", *options]
        until(lambda: CliRunner().invoke(main, opened_).exit_code == 0)
        until(lambda: json.loads(CliRunner().invoke(main, opened_).stdout)["content"] is not None)
        return json.loads(CliRunner().invoke(main, opened_).stdout)["content"]["prompt"]

    assert QUESTION in shown()
    (secrets / "content-2.key").write_text("0123456789abcdef" * 4)
    assert QUESTION in shown()
    (secrets / "content-1.key").unlink()
    assert QUESTION in shown()
    for path in secrets.glob("content-*.key"):
        path.unlink()
    assert QUESTION in shown()


def test_a_share_of_none_is_none(shop: House, lab: Any, key: Any) -> None:
    for _ in range(3):
        assert shop.ask(key, "never").status == 200
    assert lab.asked("twin") == []


def test_the_headers_that_pass_to_a_provider_pass_with_the_shadow(shop: House, lab: Any, key: Any) -> None:
    assert shop.ask(key, "shaded", headers={"openai-organization": "org-1"}).status == 200
    until(lambda: len(lab.asked()) == 2)
    assert [dict(asked.headers)["openai-organization"] for asked in lab.asked()] == ["org-1", "org-1"]


def test_what_would_leave_something_behind_is_asked_once(shop: House, lab: Any, key: Any) -> None:
    """A user would find both answers in a conversation that the provider keeps."""
    with shop.gateway.counting("fastroute_shadows_total", outcome="skipped") as skipped:
        assert shop.ask(key, "shaded", store=True).status == 200
        until(lambda: skipped() == 1)
    assert lab.asked("twin") == []


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_cache_answers_is_kept_like_any_answer_and_has_no_shadow(
    serve: Any, lab: Any, tmp_path: Any, stream: bool
) -> None:
    """A policy has prompts kept, whoever answered them; nobody is asked for the comparison of an answer that took no time."""
    house = opened(serve, lab, tmp_path, more="cache: {ttl_s: 600}\n")
    key = house.key("caller")
    with (
        house.gateway.counting("fastroute_captures_total", outcome="kept") as kept,
        house.gateway.counting("fastroute_shadows_total", outcome="answered") as answered,
    ):
        first, hit = [house.ask(key, "noted", temperature=0, stream=stream) for _ in range(2)]
        assert (first.headers["x-cache"], hit.headers["x-cache"]) == ("miss", "hit")
        until(lambda: (kept(), answered()) == (2, 1))
    assert len(lab.asked("twin")) == 1
    ids = [told.headers["x-router-receipt-id"] for told in (first, hit)]
    options = ["--config", str(tmp_path / "fastroute.yaml"), "--state-dir", str(house.state_dir)]
    run = CliRunner()
    contents = [
        json.loads(run.invoke(main, ["receipts", "--open", id_, "--content", "--json", *options]).stdout) for id_ in ids
    ]
    one, other = [told["content"] for told in contents]
    assert one == other
    assert (other["answer"], other["finish"]) == ("I am quick", "stop")
    told = json.loads(run.invoke(main, ["replay", "-p", "noted", "--alts", "twin", "--json", *options]).stdout)
    assert (told["replayed"], [each["receipt"] for each in told["skipped"]]) == (1, ids[1:])


def test_no_verdict_is_asked_for_once_the_worker_ends(serve: Any, lab: Any, tmp_path: Any) -> None:
    house = opened(serve, lab, tmp_path)
    key = house.key("caller", budget_microdollars=1_000_000)
    lab.say("grader", silent)
    assert house.ask(key, "examined").status == 200
    until(lambda: len(lab.asked("grader")) == 1)
    house.gateway.end()
    assert house.gateway.ended() == 0
    assert len(lab.asked("grader")) == 1
    options = ["--config", str(tmp_path / "fastroute.yaml"), "--state-dir", str(house.state_dir)]
    shown = json.loads(CliRunner().invoke(main, ["usage", "-u", "caller", "--json", *options]).stdout)
    assert shown["held_microdollars"] == 0


def test_shadows_end_with_their_worker(serve: Any, lab: Any, tmp_path: Any) -> None:
    """At drain they are cancelled and settled: nothing waits for them, nothing stays held, and what was kept is there."""
    house = opened(serve, lab, tmp_path)
    key = house.key("caller", budget_microdollars=1_000_000)
    assert house.ask(key, "judged").status == 200
    until(lambda: len(lab.asked("twin")) == 1)
    lab.say("twin", silent)
    for _ in range(3):
        assert house.ask(key, "judged").status == 200
    until(lambda: len(lab.asked("twin")) == 4)
    began = time.monotonic()
    house.gateway.end()
    assert house.gateway.ended() == 0
    assert time.monotonic() - began < 10
    options = ["--config", str(tmp_path / "fastroute.yaml"), "--state-dir", str(house.state_dir)]
    run = CliRunner()
    papers = json.loads(run.invoke(main, ["receipts", "--json", *options]).stdout)
    shadows = [paper for paper in papers if paper["reason"] == "shadow"]
    assert sorted(paper["attempts"][0]["outcome"] for paper in shadows) == ["gone", "gone", "gone", "ok"]
    shown = json.loads(run.invoke(main, ["usage", "-u", "caller", "--json", *options]).stdout)
    assert shown["held_microdollars"] == 0
    assert run.invoke(main, ["ledger", "verify", *options]).exit_code == 0
    mine = next(paper for paper in papers if paper["request_id"] == shadows[-1]["details"]["shadow_of"])
    opened_ = run.invoke(main, ["receipts", "--open", mine["id"], "--content", *options]).stdout
    assert "shadow    twin: ok" in opened_
    assert "score 1.000 beside 1.000" in opened_
    assert '"content":"What is the capital of France?"' in opened_


def test_a_model_judges_under_a_reservation_of_its_own(shop: House, lab: Any, key: Any) -> None:
    """Both answers are graded, each verdict has a receipt, and what is no grade is none."""
    lab.say("quick", whole(chat("Oslo.")), whole(chat('{"score": 9}')), whole(chat("ten out of ten")))
    assert shop.ask(key, "graded").status == 200
    papers = receipts(shop, key, 4)
    judged = [paper for paper in papers if paper["reason"] == "judge"]
    [mine] = [paper for paper in papers if paper["model"] == "graded"]
    assert [paper["details"]["judge_of"] for paper in judged] == [mine["request_id"]] * 2
    asked = [one.json for one in lab.asked("quick")[1:]]
    assert json.loads(asked[0]["messages"][1]["content"]) == {"question": QUESTION, "answer": "Oslo."}
    assert json.loads(asked[1]["messages"][1]["content"])["answer"] == "I am twin"
