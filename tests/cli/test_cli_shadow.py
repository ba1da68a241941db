"""`infer --shadow`: another model is asked the same once the answer and its account are out, and the two are compared."""

import json
import re
import signal
import threading

from tests.cli import terminal_kit as kit
from tests.cli.terminal_kit import BACKUP, PRIMARY

terminal = kit.terminal
ASK = ("infer", "-p", "desk", "-u", "alice", "--input", "hello", "--shadow", BACKUP)


def test_p_b16_the_answer_and_its_account_are_out_before_the_shadow_is_waited_for(terminal, upstream, say):
    """The shadow's cost is a real one, told in a line of its own."""
    terminal.policy(limit_ms=20_000)
    rest = threading.Event()
    events = say.openai_events("twin says so", usage=(300, 200))
    upstream.script(BACKUP, [upstream.wait(rest), say.head() + b"".join(map(say.chunk, events)) + say.LAST])
    process = terminal.start(*ASK)
    assert process.stdout.readline() == f"hello from {PRIMARY}\n"
    tail = process.stderr.readline()
    assert kit.TAIL.fullmatch(tail), tail
    assert process.poll() is None
    rest.set()
    ran = terminal.end(process)
    assert ran.code == 0, ran.err
    found = re.fullmatch(
        r"\[shadow (\S+)\] model=(\S+) latency=\d+ms \([+-]\d+ms\) cost=(\S+) tokens=300\+200 length=12 \(answer \d+\)\n",
        ran.err,
    )
    assert found is not None, ran.err
    assert found[2] == BACKUP
    assert found[3] != "$0.00"
    mine = terminal.run("receipts", "--open", kit.TAIL.fullmatch(tail)[1], "--json").json
    its = terminal.run("receipts", "--open", found[1], "--json").json
    assert (its["reason"], its["details"]["shadow_of"]) == ("shadow", mine["request_id"])
    assert its["account"] == mine["account"]
    assert f"shadow    {BACKUP}: ok" in terminal.run("receipts", "--open", mine["id"]).out


def test_a_shadow_that_fails_costs_the_answer_nothing(terminal, upstream, say):
    terminal.policy(limit_ms=20_000)
    upstream.script(BACKUP, say.whole(b"{}", 500))
    ran = terminal.run(*ASK)
    assert (ran.code, ran.out) == (0, f"hello from {PRIMARY}\n")
    assert re.search(r"\[shadow \S+\] model=\S+ 5xx: ", ran.err)


def test_one_json_object_has_both(terminal):
    terminal.policy(limit_ms=20_000)
    told = terminal.run(*ASK, "--json").json
    assert told["text"] == f"hello from {PRIMARY}"
    assert (told["shadow"]["shadow"]["entry"], told["shadow"]["shadow"]["outcome"]) == (BACKUP, "ok")
    assert told["shadow"]["user"]["receipt"] == told["id"]


def test_ctrl_c_ends_the_shadow_and_not_the_answer(terminal, upstream, patiently):
    terminal.policy(limit_ms=60_000)
    upstream.script(BACKUP, [upstream.hold])
    process = terminal.start(*ASK)
    assert kit.TAIL.fullmatch(process.stderr.readline())
    patiently(lambda: upstream.asked(BACKUP))
    process.send_signal(signal.SIGINT)
    ran = terminal.end(process)
    assert ran.code == 0, ran.err
    assert "gone: it did not end in time" in ran.err
    assert terminal.run("usage", "-u", "alice", "--json").json["tokens"]["held"] == 0


def test_a_shadow_nobody_knows_is_told_before_anything_is_asked(terminal, upstream):
    terminal.policy(limit_ms=20_000)
    upstream.script(PRIMARY, b"")
    ran = terminal.run(*ASK[:-1], "nobody-knows")
    assert ran.code == 65, ran.err
    assert "not known" in ran.err
    assert upstream.asked(PRIMARY) == []


def test_a_servers_shadows_are_its_own_affair(terminal):
    ran = terminal.run(*ASK, "--url", "http://127.0.0.1:1")
    assert ran.code == 2
    assert "whose own policies say what is shadowed" in ran.err


def test_a_policy_may_shadow_at_the_terminal_too(terminal):
    terminal.policy(limit_ms=20_000)
    path = terminal.place / "policies" / "desk.yaml"
    path.write_text(f"{path.read_text()}shadow: {{model: {BACKUP}}}\nquality: {{judge: structure}}\n")
    ran = terminal.run(*ASK[:-2])
    assert re.search(r"\[shadow \S+\] model=\S+ .* score=1\.000 \(answer 1\.000\)", ran.err), ran.err
    papers = json.loads(terminal.run("receipts", "--json").out)
    assert sorted(paper["reason"] for paper in papers) == ["route_primary", "shadow"]


def test_a_policy_whose_shadow_or_judge_nobody_knows_cannot_be_served(terminal):
    terminal.policy(limit_ms=20_000)
    path = terminal.place / "policies" / "desk.yaml"
    sound = path.read_text()
    for more in ("shadow: {model: nobody:x}\n", "quality: {judge: nobody:x}\n"):
        path.write_text(sound + more)
        ran = terminal.infer()
        assert ran.code == 78, ran.err
        assert "policy 'desk'" in ran.err
        assert "'nobody:x'" in ran.err
