"""`fastroute eval` and `fastroute simulate`: in a pipe and on a terminal, against providers that do what a script says."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from tests.cli import terminal_kit as kit
from tests.cli.terminal_kit import BACKUP, PRIMARY

terminal = kit.terminal


def prompts(terminal: Any, count: int = 4, expect: str = "hello from {}") -> str:
    path = terminal.place / "prompts.jsonl"
    lines = [
        {
            "prompt": f"question {n}",
            "expect": {"exact": expect.format(BACKUP)},
            "category": "odd" if n % 2 else "even",
            "split": "held_out",
        }
        for n in range(count)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def run(terminal: Any, *more: str, count: int = 4) -> Any:
    terminal.policy()
    return terminal.run("eval", "--prompts", prompts(terminal, count), "--policy", "desk", "--baseline", BACKUP, *more)


def test_s003_the_table_the_totals_and_the_savings_are_printed(terminal: Any, upstream: Any) -> None:
    ran = run(terminal)
    assert ran.code == 0, ran.err
    head = ran.out.splitlines()[0].split()
    assert head == ["policy", "model", "reason", "requests", "tokens_in", "tokens_out", "latency_ms", "cost_usd"]
    assert f"desk                      {PRIMARY}" in ran.out
    assert "route_primary" in ran.out
    assert "savings   $" in ran.out
    assert "95 % intervals over 4 prompts, seed 1" in ran.out
    assert f"quality   -100.0 points (-100.0 to -100.0) right answers against {BACKUP}, over 4 prompts" in ran.out
    assert ran.err.startswith("8 requests, at most $")
    assert "\r" not in ran.err
    assert len(upstream.asked(PRIMARY)) == len(upstream.asked(BACKUP)) == 4
    assert json.loads(upstream.asked(PRIMARY)[0].body)["max_tokens"] <= 1024


def test_the_json_holds_every_answer_and_whether_it_was_right(terminal: Any, upstream: Any) -> None:
    told = run(terminal, "--json").json
    assert [prompt["id"] for prompt in told["prompts"]] == ["line-1", "line-2", "line-3", "line-4"]
    first = told["prompts"][0]
    assert (first["policy"]["text"], first["policy"]["right"]) == (f"hello from {PRIMARY}", False)
    assert (first["baseline"]["text"], first["baseline"]["right"]) == (f"hello from {BACKUP}", True)
    ours = told["total"]["policy"]
    assert ours["picodollars"] == sum(prompt["policy"]["picodollars"] for prompt in told["prompts"])
    theirs = told["total"]["baseline"]
    assert told["savings"]["value"] == theirs["picodollars"] - ours["picodollars"]
    assert (ours["models"], theirs["right"], theirs["checked"]) == ({PRIMARY: 4}, 4, 4)


def test_the_answers_are_in_the_books_and_can_be_simulated(terminal: Any, upstream: Any) -> None:
    assert run(terminal).code == 0
    terminal.policy("cheap", objectives=", prefer: cost")
    told = terminal.run("simulate", "--policy", "cheap", "--json").json
    assert (told["decided"], told["moved"]) == (8, 4)
    assert told["models"]["projected"] == {PRIMARY: 8}
    assert told["cost"]["delta_picodollars"] < 0
    file = str(terminal.place / "policies" / "cheap.yaml")
    again = terminal.run("simulate", "--policy", file, "--since", "1h", "--json").json
    assert again | {"decisions_per_second": 0} == told | {"decisions_per_second": 0}


def test_fallbacks_and_failures_are_counted(terminal: Any, upstream: Any, say: Any) -> None:
    upstream.script(PRIMARY, say.whole(b"{}", 503))
    told = run(terminal, "--json", "-").json
    assert (told["total"]["policy"]["fallbacks"], told["total"]["policy"]["answered"]) == (4, 4)
    assert {line["reason"] for line in told["lines"]} == {"fallback", "manual_override"}
    upstream.script(BACKUP, say.whole(b"{}", 503))
    ran = run(terminal)
    assert ran.code == 69
    assert "desk answered nothing; 4 requests failed" in ran.err
    assert "failed: 502" in ran.out


def test_a_record_is_gone_on_with_and_nothing_is_asked_twice(terminal: Any, upstream: Any) -> None:
    record = str(terminal.place / "answers.jsonl")
    first = run(terminal, "--record", record, count=2)
    assert first.err.startswith("4 requests")
    again = run(terminal, "--record", record, count=5)
    assert again.err.startswith("6 requests")
    assert len(upstream.asked(PRIMARY)) == 5
    nobody = run(terminal, "--recorded", record, "--json", "-", count=5)
    assert len(upstream.asked(PRIMARY)) == 5
    whole = nobody.json
    assert whole == run(terminal, "--recorded", record, "--json", "-", count=5).json
    assert (whole["total"]["policy"]["answered"], whole["total"]["baseline"]["missing"]) == (5, 0)
    assert run(terminal, "--recorded", record, "--seed", "2", "--json", "-", count=5).json["seed"] == 2


def test_a_run_that_was_killed_goes_on_where_it_was(terminal: Any, upstream: Any, say: Any, patiently: Any) -> None:
    record = terminal.place / "answers.jsonl"
    held = threading.Event()
    good = say.good("openai", False, "yes")
    upstream.script(PRIMARY, good, good, [upstream.wait(held), good])
    terminal.policy()
    process = terminal.start(
        "eval", "--prompts", prompts(terminal), "--policy", "desk", "--baseline", BACKUP,
        "--record", str(record), "--concurrency", "1",
    )  # fmt: skip
    patiently(lambda: len(upstream.asked(PRIMARY)) == 3)
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=30)
    held.set()
    kept = record.read_bytes().count(b"\n")
    assert kept == 4
    upstream.script(PRIMARY, good)
    upstream.forget(BACKUP)
    ran = run(terminal, "--record", str(record))
    assert ran.code == 0, ran.err
    assert ran.err.startswith("4 requests")
    assert (len(upstream.asked(PRIMARY)), len(upstream.asked(BACKUP))) == (2, 2)


def test_ctrl_c_settles_what_runs_and_says_how_to_go_on(terminal: Any, upstream: Any, say: Any, patiently: Any) -> None:
    held = threading.Event()
    upstream.script(PRIMARY, [upstream.wait(held), say.good("openai", False, "yes")])
    terminal.policy()
    process = terminal.start(
        "eval", "--prompts", prompts(terminal), "--policy", "desk", "--baseline", BACKUP,
        "--record", str(terminal.place / "r"), "--concurrency", "2",
    )  # fmt: skip
    patiently(lambda: upstream.asked(PRIMARY))
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    held.set()
    assert (process.returncode, out) == (130, ""), err
    assert err.endswith("interrupted; the same command goes on\n")
    assert "Traceback" not in err
    assert terminal.run("receipts", "verify").code == 0


def test_a_terminal_sees_how_far_it_is_and_a_pipe_does_not(terminal: Any, upstream: Any) -> None:
    terminal.policy()
    master, slave = pty.openpty()
    words = ["eval", "--prompts", prompts(terminal), "--policy", "desk", "--baseline", BACKUP]
    process = subprocess.Popen(
        [sys.executable, "-m", "fastroute", *words],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=slave,
        cwd=terminal.place,
        env={**os.environ, **terminal.environment, "PYTHONPATH": str(kit.ROOT)},
    )
    os.close(slave)
    seen = b""
    until = time.monotonic() + 30
    while time.monotonic() < until:
        ready, _, _ = select.select([master], [], [], 1)
        try:
            data = os.read(master, 4096) if ready else b""
        except OSError:
            break
        seen += data
        if ready and not data:
            break
    out, _ = process.communicate(timeout=30)
    os.close(master)
    assert process.returncode == 0, seen
    assert b"\r[" in seen
    assert b"#] 8/8" in seen
    assert b"\r[" not in out


def test_what_it_may_cost_is_said_first_and_held_to(terminal: Any, upstream: Any) -> None:
    ran = run(terminal, "--max-cost-usd", "0.0001")
    assert ran.code == 1
    said, refused = ran.err.splitlines()
    assert said.startswith("8 requests, at most $0.0")
    assert refused == "that is above $0.0001; raise --max-cost-usd, or ask fewer with --limit"
    assert upstream.asked(PRIMARY) == []
    assert run(terminal, "--limit", "1").err.startswith("2 requests")


def test_broken_prompts_are_told_with_their_lines(terminal: Any, upstream: Any) -> None:
    path = terminal.place / "bad.jsonl"
    path.write_text('{"prompt": "fine"}\n{"prompt": 7}\n{"prompt"\n')
    ran = terminal.run("eval", "--prompts", str(path))
    assert ran.code == 65
    first, second = ran.err.splitlines()
    assert first.startswith(f"{path}:2: prompt: is a text, not 7")
    assert second.startswith(f"{path}:3: is not JSON")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--record", "a", "--recorded", "b"), 2, "give --record or --recorded, not both"),
        (("--picture", "a.png"), 2, "a picture is an .svg"),
        (("--policy", "nobody-has-this"), 65, "nobody-has-this"),
        (("--policy", BACKUP, "--baseline", BACKUP), 2, "would be compared with itself"),
        (("--policy", BACKUP), 65, "is one model; name another to compare it with"),
        (("--recorded", "nowhere.jsonl"), 65, "cannot be read"),
        (("--max-cost-usd", "a lot"), 65, "decimal text"),
        (("--url", "http://127.0.0.1:9", "--policy", "desk"), 2, "name what to compare with"),
        (("--url", "http://127.0.0.1:9"), 69, "http://127.0.0.1:9 does not answer"),
        (("--url", "nonsense"), 69, "nonsense"),
    ],
)
def test_refusals_say_what_is_wrong(terminal: Any, words: tuple[str, ...], code: int, message: str) -> None:
    terminal.policy()
    ran = terminal.run("eval", "--policy", "desk", *words) if "--policy" not in words and "--url" not in words else None
    ran = ran or terminal.run("eval", *words)
    assert ran.code == code, (ran.out, ran.err)
    assert message in ran.err


def test_the_picture_is_written(terminal: Any, upstream: Any) -> None:
    path = terminal.place / "out.svg"
    assert run(terminal, "--picture", str(path)).code == 0
    assert path.read_text().startswith("<svg")


def test_a_server_is_asked_over_http_until_the_money_is_gone(terminal: Any, served: Any) -> None:
    url = served.gateway.url
    words = ["eval", "--prompts", prompts(terminal), "--url", url, "--policy", "cheap", "--baseline", "lab:other"]
    told = terminal.run(*words, "--json", "-")
    assert told.code == 0, told.err
    assert told.err.startswith("what a server will cost is not known beforehand; asking ends at $1.00")
    ours, theirs = told.json["total"]["policy"], told.json["total"]["baseline"]
    assert (ours["answered"], ours["models"], ours["cost_unknown"]) == (4, {"cheap": 4}, 0)
    # 11 tokens in and 15 out, at 0.15 and 0.60 dollars a million, four times; nobody knows the other's price.
    assert ours["picodollars"] == 4 * (11 * 150_000 + 15 * 600_000)
    assert (theirs["answered"], theirs["cost_unknown"], told.json["savings"]) == (4, 4, None)
    poor = terminal.run(*words, "--json", "-", "--max-cost-usd", "0.00001", "--concurrency", "1")
    assert "questions were not asked: the limit of the cost was reached" in poor.json["warnings"][0]
    assert poor.json["total"]["policy"]["missing"] == 3
    unknown = terminal.run(*words[:-3], "nobody-has-this", "--baseline", "cheap")
    assert unknown.code == 69
    assert "nobody-has-this answered nothing; 4 requests failed: " in unknown.err
    served.run("keys", "create", "--name", "closing")
    closed = terminal.run(*words)
    assert closed.code == 69
    assert closed.err.endswith(f"{url} refuses the key (401); give one with --key\n")


# --- simulate -------------------------------------------------------------------------------------------------------


def test_simulate_says_where_nothing_is_recorded(terminal: Any) -> None:
    terminal.policy()
    ran = terminal.run("simulate", "--policy", "desk")
    assert (ran.code, ran.out) == (
        0,
        "nothing is recorded; requests are, once a server has books (any `fastroute serve`)\n",
    )


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("--policy", "nobody-has-this"), 65, "nobody-has-this"),
        (("--policy", "nowhere.yaml"), 78, "nowhere.yaml"),
        (("--policy", "desk", "--last", "3", "--since", "1h"), 2, "not both"),
        (("--policy", "desk", "--since", "tomorrow"), 1, "wanted a duration"),
        (("--policy", "desk", "--since", "2999-01-01"), 2, "yet to come"),
        (("--policy", "desk", "--last", "0"), 2, "--last"),
    ],
)
def test_simulate_refuses_with_the_value(terminal: Any, words: tuple[str, ...], code: int, message: str) -> None:
    terminal.policy()
    ran = terminal.run("simulate", *words)
    assert ran.code == code, (ran.out, ran.err)
    assert message in ran.err


def test_simulate_tells_costs_models_refusals_and_its_speed(terminal: Any, upstream: Any) -> None:
    terminal.policy()
    assert terminal.infer().code == 0
    terminal.policy("closed", cost="0.000001")
    place = terminal.place / "mine.yaml"
    place.write_text(f"policy: mine\nrouting: {{primary: ['{BACKUP}']}}\n")
    ran = terminal.run("simulate", "--policy", str(place))
    assert ran.code == 0, ran.err
    assert ran.out.startswith("1 of 1 requests under mine; 1 would have moved\n")
    assert f"{BACKUP}  0 (0.0 %)  " in ran.out
    assert "unknown      the latency of 1 requests is not known on both sides" in ran.out
    assert "speed        1 decisions in " in ran.out
    closed = terminal.run("simulate", "--policy", "closed", "--last", "5")
    assert "cost_ceiling 1" in closed.out
