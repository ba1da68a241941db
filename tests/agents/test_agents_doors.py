"""`/register` and `/heartbeat` of a running router: whose names are whose, where agents may be, and whom a model reaches."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from acceptance_kit import provider

from fastroute.cli.agents import told
from fastroute.config import load

CONFIG = """
server: {{drain_ms: 2000}}
health: {{threshold: 1000}}
providers:
  openai: {{base_url: "{openai}", api_key: "sk-canary-openai"}}
  lab: {{dialect: openai, base_url: "{openai}"}}
models:
  - {{id: configured, model: "lab:configured", price: free}}
aliases:
  backed: [local_backed, configured]
  only-agents: [local_backed]
"""


openai = provider()


@pytest.fixture(scope="module")
def house(serve: Any, openai: Any) -> Any:
    """Two workers, no key anywhere: an open house on loopback."""
    house = serve(CONFIG.format(openai=openai.url), workers=2)
    added = house.run("models", "add", "by-row", "anthropic", "https://api.anthropic.com")
    assert added.exit_code == 0, added.stderr
    return house


@pytest.fixture(autouse=True)
def _clean(openai: Any, a: Any, b: Any) -> None:
    for stub in (openai, a, b):
        stub.forget()


def code_of(told: Any) -> tuple[int, str]:
    return told.status_code, told.json()["error"]["code"]


def test_i_a6_each_model_reaches_the_agent_that_announced_it(house: Any, a: Any, b: Any) -> None:
    """I-A6, I-B2, I-B13: endpoints of agents used to be ignored, and what was announced to one worker unknown to others."""
    house.offered("A", a.url, "local_a")
    house.offered("B", f"{b.url}/v1", "local_b")
    for model, own, other in (("local_a", a, b), ("local_b", b, a)):
        for stream in (False, True):
            told = house.ask(model, stream=stream)
            assert (told.status, told.text) == (200, f"I am {model}")
        assert [asked.path for asked in own.asked(model)] == ["/infer"] * 2
        assert not other.asked(model)
        assert {asked.header("authorization") for asked in own.asked()} == {None}


def test_the_answer_is_what_agents_have_always_read(house: Any, a: Any) -> None:
    assert house.register("plain", a.url, "local_plain").json() == {"status": "ok"}
    assert house.post("/heartbeat", name="plain").json() == {"status": "ok"}


def test_i_a7_a_silent_agent_is_not_asked_and_is_back_with_its_next_beat(house: Any, a: Any) -> None:
    """I-A7, I-B4: agents never went stale, and a heartbeat of nobody was welcome."""
    house.offered("silent", a.url, "local_silent")
    assert house.ask("local_silent").status == 200
    house.silence("silent")
    told = house.ask("local_silent")
    assert (told.status, told.error["code"]) == (503, "agent_stale")
    assert int(told.headers["retry-after"]) == 30
    assert house.ask("local_silent", stream=True).status == 503
    assert len(a.asked("local_silent")) == 1
    assert house.beat("silent").status_code == 200
    assert {house.ask("local_silent").status for _ in range(4)} == {200}
    assert code_of(house.beat("nobody")) == (404, "agent_not_found")


def test_i_a7_an_alias_goes_on_to_its_other_targets(house: Any, a: Any, openai: Any) -> None:
    house.offered("backed", a.url, "local_backed")
    assert house.ask("backed").text == "I am local_backed"
    house.silence("backed")
    told = house.ask("backed")
    assert (told.text, told.headers["x-router-reason"]) == ("I am configured", "route_backup")
    assert (house.ask("only-agents").status, len(a.asked())) == (503, 1)
    house.beat("backed")
    assert house.ask("backed").text == "I am local_backed"


def test_an_alias_of_a_model_that_nobody_offers_any_more_is_no_mistake(
    serve: Any, a: Any, openai: Any, wait: Callable[..., None]
) -> None:
    """A configuration stays sound whatever agents do: without this a worker that starts anew could not."""
    house = serve("")
    house.offered("short", a.url, "tiny")
    names = "aliases: {either: [tiny, configured], only: tiny}\nauto: {small: tiny, medium: configured}\n"
    policy = "policy: desk\nobjectives: {max_tokens: 50}\nrouting: {primary: [tiny], backups: [configured]}\n"
    (house.place / "policies/desk.yaml").write_text(policy)
    more = f"{CONFIG.split('aliases:')[0].format(openai=openai.url)}{names}policies_dir: {house.place / 'policies'}\n"
    (house.place / "fastroute.yaml").write_text(f"{more}log: {{path: {house.place / 'router.log'}}}\n")
    house.gateway.process.send_signal(signal.SIGHUP)
    for name in ("either", "auto", "desk"):
        wait(lambda name=name: house.ask(name).status == 200 and house.ask(name).text == "I am tiny", name)
    assert house.run("agents", "remove", "short").exit_code == 0
    wait(lambda: house.ask("tiny").status == 404, "that it is gone")
    for name in ("either", "desk"):
        assert house.ask(name).text == "I am configured"
    assert house.ask("only").error["code"] == "agent_stale"
    assert "cannot be served" not in house.gateway.log.read_text()
    house.offered("short", a.url, "tiny")
    assert house.ask("only").text == "I am tiny"


def test_i_a8_registering_again_replaces_what_was_offered(house: Any, a: Any, wait: Callable[..., None]) -> None:
    house.offered("again", a.url, "local_first", "local_second")
    house.offered("again", a.url, "local_third", "local_second")
    wait(lambda: not any(house.knows("local_first") for _ in range(6)), "that it is gone")
    assert house.ask("local_second").status == 200
    assert sorted(list(row["models"]) for row in house.listed() if row["name"] == "again") == [
        ["local_second", "local_third"]
    ]


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("gpt-4o", "openai"),  # of a family that is configured
        ("claude-3", "anthropic"),  # of one that is not
        ("configured", "lab"),
        ("by-row", "anthropic"),
        ("backed", "route or an alias"),
        ("small", "route or an alias"),
        ("auto", "route or an alias"),
        ("dummy", "dummy"),
        ("balanced-helpdesk", "route or an alias"),  # a policy
        ("openai:gpt-4o", "openai"),
        ("google/gemma", "google"),
        ("local:x", "local"),
    ],
)
def test_i_a8_a_name_that_leads_elsewhere_is_nobodys_to_take(house: Any, a: Any, name: str, owner: str) -> None:
    """I-A8, I-B3: whoever reached the port could have answered for gpt-4."""
    told = house.register("thief", a.url, "local_fine", name)
    assert code_of(told) == (409, "model_name_taken")
    assert owner in told.json()["error"]["message"]
    assert "thief" not in [row["name"] for row in house.listed()]


@pytest.mark.parametrize(
    ("endpoint", "status"),
    [
        ("http://169.254.169.254/latest", 403),
        ("http://[::ffff:169.254.169.254]", 403),
        ("http://[fd00:ec2::254]", 403),
        ("http://100.100.100.200", 403),
        ("http://2852039166", 403),  # a metadata address as one number
        ("http://0.0.0.0:5000", 403),
        ("http://[::]:5000", 403),
        ("http://10.0.0.1:5000", 403),
        ("http://192.168.1.1", 403),
        ("http://8.8.8.8", 403),
        ("http://[fe80::1]:5000", 403),
        ("https://no-such-host.invalid", 403),
        ("http://user:secret@127.0.0.1:5000", 400),
        ("file:///etc/passwd", 400),
        ("gopher://127.0.0.1:70", 400),
        ("http://127.0.0.1:5000/?x=y", 400),
        ("http://127.0.0.1:5000#x", 400),
        ("http://127.0.0.1:0", 400),
        ("127.0.0.1:5000", 400),
        ("", 400),
    ],
)
def test_i_b3_an_agent_is_where_it_speaks_from_and_nowhere_else(house: Any, endpoint: str, status: int) -> None:
    """I-B3, S13: an endpoint is where a gateway may be made to connect to."""
    told = house.register("prober", endpoint, "local_probe")
    assert told.status_code == status, told.text
    assert "secret" not in told.text
    assert "prober" not in [row["name"] for row in house.listed()]


def test_the_router_is_no_agent_of_its_own(house: Any) -> None:
    assert "this gateway itself" in house.register("mirror", house.gateway.url, "local_mirror").text


def test_behind_a_proxy_nobody_is_taken_for_a_neighbour(house: Any, a: Any) -> None:
    told = house.post(
        "/register", headers={"x-forwarded-for": "203.0.113.9"}, name="far", endpoint=a.url, models=["local_far"]
    )
    assert code_of(told) == (403, "endpoint_not_allowed")


def test_a_page_in_a_browser_announces_nothing(house: Any, a: Any) -> None:
    told = house.post(
        "/register", headers={"origin": "https://evil.example"}, name="page", endpoint=a.url, models=["local_page"]
    )
    assert code_of(told) == (403, "browser_refused")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": "x"},
        {"name": "x", "endpoint": "http://127.0.0.1:1", "models": "local_a"},
        {"name": "x", "endpoint": "http://127.0.0.1:1", "models": []},
        {"name": "", "endpoint": "http://127.0.0.1:1", "models": ["local_x"]},
        {"name": "x", "endpoint": "http://127.0.0.1:1", "models": [""]},
        {"name": "x", "endpoint": 5, "models": ["local_x"]},
    ],
)
def test_what_is_no_announcement_is_400(house: Any, body: dict[str, Any]) -> None:
    assert house.post("/register", **body).status_code == 400


@pytest.mark.parametrize("queue", [-1, 1 << 40, "5", 1.5])
def test_a_queue_is_a_count(house: Any, queue: Any) -> None:
    assert house.post("/heartbeat", name="A", queue_length=queue).status_code == 400


def test_several_agents_of_one_model_take_turns(house: Any, a: Any, b: Any) -> None:
    house.offered("turn-a", a.url, "local_turns")
    house.offered("turn-b", b.url, "local_turns")
    # On one connection, so that one worker deals the turns.
    for _ in range(8):
        assert house.ask("local_turns").status == 200
    assert (len(a.asked("local_turns")), len(b.asked("local_turns"))) == (4, 4)


def test_whoever_has_least_to_do_is_asked(house: Any, a: Any, b: Any) -> None:
    house.offered("busy", a.url, "local_queues")
    house.offered("idle", b.url, "local_queues")
    house.beat("busy", 5)
    house.beat("idle", 2)
    assert {house.ask("local_queues").status for _ in range(6)} == {200}
    assert (len(a.asked("local_queues")), len(b.asked("local_queues"))) == (0, 6)
    house.beat("idle", 9)
    assert {house.ask("local_queues").status for _ in range(6)} == {200}
    assert (len(a.asked("local_queues")), len(b.asked("local_queues"))) == (6, 6)


def test_who_fails_before_the_first_byte_is_followed_by_another(house: Any, a: Any, say: Any) -> None:
    """Two offer the model; nobody listens at the one with the shorter queue."""
    house.offered("here", a.url, "local_over")
    house.offered("gone", "http://127.0.0.1:1", "local_over")
    house.beat("here", 3)
    for stream in (False, True):
        told = house.ask("local_over", stream=stream)
        assert (told.status, told.text) == (200, "I am local_over")
        assert told.headers["x-router-fallback"] == "true"


def test_who_drains_is_left_out_at_once_by_every_worker(house: Any, a: Any, b: Any) -> None:
    house.offered("leaving", a.url, "local_leaves")
    house.offered("staying", b.url, "local_leaves")
    house.beat("staying", 9)
    assert house.beat("leaving", 0, draining=True).status_code == 200
    assert {house.ask("local_leaves").status for _ in range(6)} == {200}
    assert not a.asked("local_leaves")
    house.beat("staying", 9, draining=True)
    assert house.ask("local_leaves").error["code"] == "agent_stale"
    house.register("leaving", a.url, "local_leaves")  # it is back
    assert house.ask("local_leaves").status == 200


def test_agents_are_listed_told_of_and_taken_out(house: Any, a: Any, wait: Callable[..., None]) -> None:
    house.offered("listed", a.url, "local_listed")
    house.beat("listed", 4)
    listed = house.run("agents", "list").stdout
    line = next(line for line in listed.splitlines() if line.startswith("listed "))
    assert line.split() == ["listed", "ok", a.url, "4", *line.split()[4:7], "local_listed"]
    house.silence("listed")
    (found,) = [each for each in json.loads(house.run("agents", "list", "--json").stdout) if each["name"] == "listed"]
    assert (found["state"], found["queue_length"], found["models"]) == ("stale", None, ["local_listed"])
    assert f"local_listed\tlocal\t{a.url}\tweight" in house.run("models", "list").stdout
    assert house.run("agents", "remove", "listed").stdout == "Removed listed\n"
    assert house.run("agents", "remove", "listed").exit_code == 1
    wait(lambda: not any(house.knows("local_listed") for _ in range(6)), "that it is gone")
    wait(lambda: house.beat("listed").status_code == 404, "that its beat is nobody's")


def test_what_was_long_silent_says_when_it_is_forgotten(tmp_path: Path) -> None:
    """Of an agent nobody heard since the machine's boot, the books say when it was."""
    config = load(Path("/dev/null"), {}, {"state_dir": tmp_path})
    now_ms = time.time_ns() // 1_000_000
    row = {"id": 1, "name": "old", "endpoint": "http://x", "models": ["m"], "heard_ms": now_ms - 3 * 86_400_000}
    (shown,) = told(config, [row])
    assert (shown["state"], shown["silent_s"] // 3600) == ("stale", 72)
    left = datetime.fromisoformat(shown["forgotten_at"]) - datetime.now(UTC)
    assert timedelta(days=3, hours=23) < left < timedelta(days=4, hours=1)
