"""`fastroute infer`: one prompt under a policy, through the command, against providers that do what a script says."""

import asyncio
import json
import signal
import socket
import threading
import time
from datetime import UTC, datetime

import pytest

from fastroute.clock import SystemClock
from fastroute.domain import Settlement, Usage
from fastroute.ledger import bookkeeper
from fastroute.ledger.keeper import Now
from fastroute.visiting import visit
from tests.cli import terminal_kit as kit
from tests.cli.terminal_kit import BACKUP, PRIMARY

terminal = kit.terminal


def stream_of(say, *texts, usage=(5, 7)):
    return say.streamed(*say.openai_events(*texts, usage=usage))


def test_p_a1_output_comes_before_completion_and_the_receipt_verifies(terminal, upstream, say, patiently):
    """A happy path: text at once, one exact line of account, exit 0, and a receipt that proves itself."""
    terminal.policy()
    rest = threading.Event()
    first, *others = say.openai_events("Hel", "lo.")
    events = [first, *others]
    upstream.script(
        PRIMARY,
        [
            say.head() + b"".join(map(say.chunk, events[:2])),
            upstream.wait(rest),
            b"".join(map(say.chunk, events[2:])) + say.LAST,
        ],
    )
    process = terminal.start("infer", "-p", "desk", "-u", "alice", "--input", "hello")
    assert process.stdout.read(3) == "Hel"
    rest.set()
    ran = terminal.end(process)
    assert (ran.code, ran.out) == (0, "lo.\n"), ran.err
    assert ran.tail[1:3] == (PRIMARY, 0)
    paper = terminal.receipt(ran)
    assert (paper["outcome"], paper["details"]["policy"], paper["account_name"]) == ("ok", "desk", "alice")
    assert terminal.run("receipts", "verify").code == 0


def test_p_a2_a_primary_past_its_limit_gives_way_and_none_of_its_text_is_shown(terminal, upstream, say):
    """First chunk after 500 ms with a limit of 200: the backup answers, long before the primary would have."""
    terminal.policy(limit_ms=200)
    upstream.script(PRIMARY, [say.head(), upstream.pause(0.5), b"".join(map(say.chunk, say.openai_events("PRIMARY")))])
    ran = terminal.infer()
    assert (ran.code, ran.out) == (0, f"hello from {BACKUP}\n")
    _, route, fallbacks, latency, _ = ran.tail
    assert (route, fallbacks) == (BACKUP, 1)
    assert 200 <= latency < 500 + 300
    assert [line["outcome"] for line in terminal.receipt(ran)["attempts"]] == ["stall", "ok"]


@pytest.mark.parametrize(
    ("status", "retry_on", "code", "reasons"),
    [
        (503, "", 0, ["5xx"]),
        (429, ", retry_on: [5xx, rate_limit]", 0, ["rate_limit"]),
        (429, "", 69, []),
        (400, "", 69, []),
    ],
)
def test_p_a3_only_what_the_policy_retries_on_is_tried_elsewhere(
    terminal, upstream, say, status, retry_on, code, reasons
):
    """503 falls over, 429 only where `rate_limit` is listed, a bad request never."""
    terminal.policy(strategy=retry_on)
    upstream.script(PRIMARY, say.whole(json.dumps({"error": {"message": "no", "type": "x"}}).encode(), status))
    upstream.script(BACKUP, stream_of(say, "second"))
    ran = terminal.infer("--json")
    assert ran.code == code, ran.err
    assert ran.tail[2] == len(reasons)
    assert ran.json["reasons"] == reasons
    assert len(upstream.asked(BACKUP)) == len(reasons)
    if code:
        assert "the only attempt failed" in ran.err
        assert ran.json["error"]["message"]


def test_p_a4_a_healthy_answer_longer_than_the_limit_is_not_aborted(terminal, upstream, say):
    """The limit is for the first chunk alone: a stream of many times its length runs to its end."""
    terminal.policy(limit_ms=150)
    events = say.openai_events(*(f"{number} " for number in range(12)))
    steps = [say.head() + say.chunk(events[0]) + say.chunk(events[1])]
    for event in events[2:]:
        steps += [upstream.pause(0.05), say.chunk(event)]
    upstream.script(PRIMARY, [*steps, say.LAST])
    ran = terminal.infer()
    assert (ran.code, ran.out.strip()) == (0, " ".join(map(str, range(12))))
    assert ran.tail[1:3] == (PRIMARY, 0)
    assert ran.tail[3] > 3 * 150


@pytest.mark.parametrize("alone", ["the only model", "the last attempt", "the backup"])
def test_who_has_nobody_to_give_way_to_is_told_as_it_comes(terminal, upstream, say, alone):
    """What is held back at first is held back for a fallback; where none can follow, that is a wait for nothing."""
    attempts = {"the last attempt": ", max_attempts: 1"}.get(alone, "")
    terminal.policy(limit_ms=60_000, strategy=f", first_chunk_gate_ms: 25000{attempts}")
    model = PRIMARY
    if alone == "the only model":
        file = terminal.place / "policies" / "desk.yaml"
        file.write_text(file.read_text().replace(f", backups: ['{BACKUP}']", ""))
    elif alone == "the backup":
        model = BACKUP
        upstream.script(PRIMARY, say.whole(b"{}", 503))
    rest = threading.Event()
    first, *others = say.openai_events("Hel", "lo.")
    upstream.script(
        model,
        [
            say.head() + say.chunk(first) + say.chunk(others[0]),
            upstream.wait(rest),
            b"".join(map(say.chunk, others[1:])) + say.LAST,
        ],
    )
    began = time.monotonic()
    process = terminal.start("infer", "-p", "desk", "-u", "alice", "--input", "hello")
    assert process.stdout.read(3) == "Hel"
    assert time.monotonic() - began < 20
    rest.set()
    ran = terminal.end(process)
    assert (ran.code, ran.out, ran.tail[1]) == (0, "lo.\n", model)


def test_p_a5_a_stall_after_the_first_chunk_ends_in_an_error_and_no_second_answer(terminal, upstream, say):
    """What was relayed is kept and charged, the receipt says partial, and nobody else is asked."""
    terminal.configure("relay: {idle_ms: 300}\n")
    terminal.policy(strategy=", first_chunk_gate_ms: 0")
    upstream.script(PRIMARY, [say.head() + b"".join(map(say.chunk, say.openai_events("half")[:2])), upstream.hold])
    ran = terminal.infer()
    assert (ran.code, ran.out) == (69, "half\n")
    assert "broke off" in ran.err
    assert ran.tail[1:3] == (PRIMARY, 0)
    paper = terminal.receipt(ran)
    assert paper["outcome"] == "partial"
    assert paper["cost_microdollars"] > 0
    assert upstream.asked(BACKUP) == []
    assert terminal.run("usage", "-u", "alice", "--json").json["tokens"]["used"] > 0


def test_p_a6_a_rehearsed_stall_of_the_primary_falls_over_to_the_backup(terminal, upstream):
    """`CHAOS_PRIMARY_STALL=1`, limit 300: the primary is not asked, and the backup answers after the limit."""
    terminal.policy(limit_ms=300)
    upstream.script(PRIMARY, b"")
    ran = terminal.infer(env={"CHAOS_PRIMARY_STALL": "1"})
    assert (ran.code, ran.out) == (0, f"hello from {BACKUP}\n")
    assert ran.tail[1:3] == (BACKUP, 1)
    assert ran.tail[3] >= 300
    assert upstream.asked(PRIMARY) == []
    assert [line["basis"] for line in terminal.receipt(ran)["attempts"]] == ["void", "exact"]


def spend(terminal, tokens):
    """Use so many of alice's tokens, in the books themselves."""

    async def run():
        async with visit(terminal.config, SystemClock()) as teller:
            found = await teller.ask("users.open", name="alice")
            account = await teller.account(found["account"])
            hold = await account.fund(0, tokens)
            assert account.send(hold, "req_before", PRIMARY, PRIMARY, "gateway/openai") is None
            account.settle(hold, Settlement("exact", 0, 0, Usage(tokens, 0)), "ok", 200, 1)

    asyncio.run(run())


def test_p_a7_a_call_beyond_the_daily_cap_is_refused_before_anybody_is_asked(terminal, upstream, monkeypatch):
    """At 19 900 of 20 000, a call of 500: refused, nothing held; the next day of the user's own zone works."""
    # Midnight in Kolkata is 18:30 UTC.
    evening = datetime(2026, 3, 4, 18, 29, 50, tzinfo=UTC)
    wall = [int(evening.timestamp() * 1000)]
    monkeypatch.setattr(bookkeeper, "_now", lambda: Now(wall[0], time.monotonic_ns() // 1_000_000))
    terminal.policy()
    assert terminal.infer().code == 0
    used = terminal.run("usage", "-u", "alice", "--json").json["tokens"]["used"]
    spend(terminal, 19_900 - used)
    upstream.script(PRIMARY, b"")
    ran = terminal.infer()
    assert ran.code == 75
    assert ran.err == "429: daily token cap reached (resets at 00:00 IST)\n"
    assert ran.out == ""
    assert upstream.asked(PRIMARY) == []
    tokens = terminal.run("usage", "-u", "alice", "--json").json["tokens"]
    assert (tokens["used"], tokens["held"], tokens["remaining"]) == (19_900, 0, 100)
    assert tokens["resets_at"] == "2026-03-05T00:00:00+05:30"
    wall[0] += 20_000
    upstream.forget(PRIMARY)
    assert terminal.infer().code == 0


def test_p_a8_the_fourth_request_of_a_minute_is_refused_in_its_own_words(terminal):
    """rpm 3: three pass; the refusal is about requests, not tokens."""
    terminal.policy(rpm=3)
    assert [terminal.infer().code for _ in range(3)] == [0, 0, 0]
    ran = terminal.infer()
    assert ran.code == 75
    assert ran.err.startswith("429: rate cap reached: alice may make 3 requests a minute")


def test_p_a8_of_ten_processes_at_once_exactly_three_pass(terminal):
    """The limit is one for the host: ten processes race for the books, and three for the providers."""
    terminal.policy(rpm=3)
    processes = [terminal.start("infer", "-p", "desk", "-u", "alice", "--input", "hello") for _ in range(10)]
    ended = [terminal.end(process) for process in processes]
    assert sorted(ran.code for ran in ended) == [0] * 3 + [75] * 7, [ran.err for ran in ended]
    assert all("rate cap reached" in ran.err for ran in ended if ran.code == 75)


def test_p_a10_stalls_count_against_the_primary_and_not_against_the_backup(terminal, upstream, say):
    """After ten stalls at the limit the primary's p95 is the limit at least, and the backup is asked first."""
    terminal.policy(limit_ms=60, objectives=", p95_latency_ms: 50")
    upstream.script(PRIMARY, [upstream.hold])
    ran = [terminal.infer() for _ in range(10)]
    assert [each.tail[1:3] for each in ran] == [(BACKUP, 1)] * 10
    papers = terminal.run("receipts", "--json").json
    lines = [line for paper in papers for line in paper["attempts"]]
    assert len(papers) == 10
    stalled = sorted(line["ms"] for line in lines if line["entry"] == PRIMARY)
    assert stalled[(95 * 9) // 100] >= 60
    assert min(line["ms"] for line in lines if line["entry"] == BACKUP) < 60
    eleventh = terminal.infer()
    assert eleventh.tail[1:3] == (BACKUP, 0)
    assert terminal.receipt(eleventh)["reason"] == "p95_prepick"


def test_p_a11_a_cost_is_exact_to_the_microdollar(terminal, upstream, say):
    """300 tokens in and 200 out at gpt-4o-mini's rates: 165 microdollars."""
    terminal.policy()
    upstream.script(PRIMARY, stream_of(say, "x" * 800, usage=(300, 200)))
    ran = terminal.infer(text="word " * 300)
    assert ran.tail[4] == "$0.000165"
    assert terminal.receipt(ran)["cost_microdollars"] == 165


def test_the_prompt_may_come_from_a_file_or_from_standard_input(terminal, upstream, say):
    terminal.policy()
    (terminal.place / "prompt.txt").write_text("from a file")
    upstream.script(PRIMARY, stream_of(say, "read"))
    terminal.run("infer", "-p", "desk", "-u", "alice", "--file", str(terminal.place / "prompt.txt"))
    terminal.run("infer", "-p", "desk", "-u", "alice", stdin="from a pipe")
    sent = [asked.json["messages"][-1]["content"] for asked in upstream.asked(PRIMARY)]
    assert sent == ["from a file", "from a pipe"]


def test_a_whole_answer_is_asked_for_as_one(terminal, upstream):
    terminal.policy()
    ran = terminal.infer("--no-stream")
    assert (ran.code, ran.out) == (0, f"hello from {PRIMARY}\n")
    assert upstream.asked(PRIMARY)[0].json["stream"] is False


def test_one_json_object_tells_all_of_it(terminal):
    terminal.policy()
    told = terminal.infer("--json").json
    assert (told["route_final"], told["fallback_count"], told["text"]) == (PRIMARY, 0, f"hello from {PRIMARY}")
    assert told["usage"] == {"input": 5, "output": 7}


def test_when_every_route_fails_the_attempts_that_were_made_are_named(terminal, upstream, say):
    """P-B18: made, not planned."""
    terminal.policy()
    for model in (PRIMARY, BACKUP):
        upstream.script(model, say.whole(b"{}", 500))
    ran = terminal.infer()
    assert ran.code == 69
    assert f"all 2 attempts failed ({PRIMARY}: 5xx" in ran.err
    assert terminal.receipt(ran)["outcome"] == "failed"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["-p", "deks"], 65, "did you mean 'desk'?"),
        (["-p", "desk", "--model", "openai/gpt-5"], 65, "not known"),
        (["-p", "broken"], 65, "broken.yaml"),
    ],
)
def test_what_is_wrong_with_a_policy_exits_with_65(terminal, arguments, code, words):
    terminal.policy()
    if "broken" in arguments:
        (terminal.place / "policies" / "broken.yaml").write_text("policy: broken\nroutes: 1\n")
    ran = terminal.run("infer", *arguments, "-u", "alice", "--input", "hello")
    assert ran.code == code, ran.err
    assert words in ran.err


def test_a_provider_nobody_configured_exits_with_78(terminal):
    terminal.policy()
    del terminal.environment["AI_GATEWAY_BASE_URL"]
    ran = terminal.infer()
    assert ran.code == 78, ran.err
    assert "not configured" in ran.err


def test_a_request_that_may_cost_more_than_the_policy_allows_is_not_sent(terminal, upstream):
    terminal.policy(cost="0.000001")
    upstream.script(PRIMARY, b"")
    ran = terminal.infer()
    assert ran.code == 65, ran.err
    assert "lets a request cost $0.000001" in ran.err
    assert upstream.asked(PRIMARY) == []


def test_ctrl_c_settles_what_was_begun(terminal, upstream, say, patiently):
    """The provider is let go, the text that came is charged, and nothing stays on hold."""
    terminal.policy(strategy=", first_chunk_gate_ms: 0")
    upstream.script(PRIMARY, [say.head() + b"".join(map(say.chunk, say.openai_events("half")[:2])), upstream.hold])
    process = terminal.start("infer", "-p", "desk", "-u", "alice", "--input", "hello")
    assert process.stdout.read(4) == "half"
    process.send_signal(signal.SIGINT)
    ran = terminal.end(process)
    assert ran.code == 130, ran.err
    paper = terminal.receipt(ran)
    assert (paper["outcome"], paper["attempts"][0]["outcome"]) == ("partial", "gone")
    assert upstream.asked(PRIMARY)[0].gone.wait(5)
    assert terminal.run("usage", "-u", "alice", "--json").json["tokens"]["held"] == 0


def test_beside_a_running_server_its_books_are_used_and_over_http_its_policies(terminal, upstream, patiently):
    """One account, one chain of receipts, whoever keeps the books; `--url` asks with a key."""
    terminal.policy()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = terminal.start("serve", "--port", str(port), "--workers", "1")
    try:
        patiently(lambda: _listens(port))
        beside = terminal.infer()
        assert (beside.code, beside.out) == (0, f"hello from {PRIMARY}\n"), beside.err
        key = terminal.run("keys", "create", "--name", "app").out.strip()
        over = terminal.infer("--url", f"http://127.0.0.1:{port}", "--key", key)
        assert (over.code, over.out) == (0, f"hello from {PRIMARY}\n"), over.err
        assert over.tail[1:3] == (PRIMARY, 0)
        assert over.tail[4] == "$0.00000495"
        wrong = terminal.infer("--url", f"http://127.0.0.1:{port}", "--key", "nobody")
        assert wrong.code == 78, wrong.err
        papers = terminal.run("receipts", "--json").json
        assert {paper["account_name"] for paper in papers} == {"alice", "app"}
        assert terminal.run("receipts", "verify").code == 0
    finally:
        server.send_signal(signal.SIGTERM)
        terminal.end(server)
    assert server.returncode == 0


def _listens(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (500, b'{"error": "out of order"}', "out of order"),
        (404, b'{"detail": "Not Found"}', "answered 404"),
        (200, b"[]", "no answer of a chat"),
        (200, b"null", "no answer of a chat"),
        (200, b'{"choices": 5}', "no answer of a chat"),
        (200, b'{"choices": [5]}', "no answer of a chat"),
        (200, b"<html>", "not JSON"),
    ],
)
def test_a_server_that_answers_no_chat_is_no_answer(terminal, upstream, say, status, body, told):
    """Some other server behind `--url`, or a proxy before it: nothing was answered, and a script is told so."""
    terminal.policy()
    upstream.script("desk", say.whole(body, status))
    ran = terminal.infer("--url", upstream.url, "--key", "sk-any")
    assert (ran.code, ran.out) == (69, "")
    assert told in ran.err


def test_a_stream_that_turns_into_something_else_is_no_answer(terminal, upstream, say):
    terminal.policy()
    first, *_ = say.openai_events("Hel")
    for junk, told in ((b"data: <html>\n\n", "not JSON"), (b"data: " + b"x" * (1 << 21) + b"\n\n", "cannot be read")):
        upstream.script("desk", [say.head(), say.chunk(first), say.chunk(junk), say.LAST])
        ran = terminal.infer("--url", upstream.url, "--key", "sk-any")
        assert ran.code == 69, ran.err
        assert told in ran.err
