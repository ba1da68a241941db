"""P-A14: a policy's latest prompts run again on other models: a table beside what was recorded, and the policy that follows."""

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys

import pytest

from fastroute import replaying
from fastroute.capture import content_of
from fastroute.policies import read_policy
from tests.cli import terminal_kit as kit
from tests.cli.terminal_kit import BACKUP, PRIMARY

THIRD = "openai/gpt-4.1-mini"
REPLAY = ("replay", "-p", "desk")
MARK = "# the policy that follows"


def keeping(terminal, keeps=True, **more):
    terminal.policy(limit_ms=20_000, **more)
    path = terminal.place / "policies" / "desk.yaml"
    path.write_text(path.read_text() + ("capture: {prompts: true, answers: true}\n" if keeps else ""))


@pytest.fixture(scope="module")
def history(tmp_path_factory, playing):
    """A state directory in which one request was not kept and then two were."""
    made = kit.Terminal(tmp_path_factory.mktemp("history"), playing)
    keeping(made, keeps=False)
    assert made.infer(text="not kept").code == 0
    keeping(made)
    for text in ("first", "second"):
        assert made.infer(text=text).code == 0
    return made.state


@pytest.fixture
def terminal(tmp_path, upstream, history):
    """A terminal with a history of its own."""
    upstream.forget(THIRD)
    made = kit.Terminal(tmp_path, upstream)
    keeping(made)
    shutil.copytree(history, made.state, ignore=shutil.ignore_patterns("*.sock"))
    return made


def policy_in(out, place):
    """The policy at the end of what was printed, read as one."""
    path = place / "patched.yaml"
    path.write_text(out[out.index(MARK) :])
    return read_policy(path)


def test_p_a14_a_table_and_a_policy_that_loads(terminal, upstream):
    """N is clipped to what there is, what was not kept is listed, deltas are to the recorded route, the primary stays."""
    ran = terminal.run(*REPLAY, "--last", "50", "--alts", f"{BACKUP},{THIRD}")
    assert ran.code == 0, ran.err
    assert re.fullmatch(rf"replaying 2 requests on {BACKUP}, {THIRD}: at most \$0\.\d+\n", ran.err)
    rows = {line.split()[0]: line for line in ran.out[: ran.out.index("\n\n")].splitlines()}
    assert re.match(r"recorded +2/2 +\d+ ms +\$0\.\d+ +\d\.\d{3}$", rows["recorded"])
    for model in (BACKUP, THIRD):
        assert re.match(rf"{model} +2/2 +\d+ ms +[+-]\d+ ms +\$0\.\d+ +\+\$0\.\d+ +\d\.\d{{3}}$", rows[model]), rows[
            model
        ]
    assert "skipped 1:" in ran.out
    assert "no content of it is kept" in ran.out
    patch = policy_in(ran.out, terminal.place)
    assert patch.routing.primary == (PRIMARY,)
    assert set(patch.routing.backups) == {BACKUP, THIRD}
    asked = [each.json["messages"][-1]["content"] for each in upstream.asked(THIRD)]
    assert asked == ["second", "first"]


def test_p_a14_the_runs_are_booked_on_an_account_of_their_own(terminal):
    """Each has a receipt that names the one it repeats; nobody's quota is touched, and they are not replayed again."""
    before = terminal.run("usage", "-u", "alice", "--json").json["tokens"]["used"]
    assert terminal.run(*REPLAY, "--last", "1", "--alts", BACKUP).code == 0
    assert terminal.run("usage", "-u", "alice", "--json").json["tokens"]["used"] == before
    papers = terminal.run("receipts", "--json").json
    [again] = [paper for paper in papers if paper["reason"] == "replay"]
    assert (again["account_name"], again["route_final"], again["model"]) == ("replay", BACKUP, BACKUP)
    assert again["details"]["replay_of"] in [paper["id"] for paper in papers if paper["reason"] != "replay"]
    assert terminal.run("receipts", "verify").code == 0
    assert terminal.run("ledger", "verify").code == 0
    assert terminal.run(*REPLAY, "--last", "9", "--alts", BACKUP, "--json").json["replayed"] == 2


def test_p_a14_json_has_everything(terminal):
    told = terminal.run(*REPLAY, "--last", "2", "--alts", BACKUP, "--judge", "--json").json
    assert (told["policy"], told["replayed"], told["judge"], told["skipped"]) == ("desk", 2, "structure", [])
    assert told["recorded"]["quality"] == "1.000"
    [line] = told["alternatives"]
    assert (line["model"], line["answered"], line["quality"], line["quality_delta"]) == (BACKUP, 2, "1.000", "0.000")
    assert line["latency_delta_ms"] == line["latency_ms"] - told["recorded"]["latency_ms"]
    assert line["cost_delta_picodollars"] == line["cost_picodollars"] - told["recorded"]["cost_picodollars"]
    path = terminal.place / "patched.yaml"
    path.write_text(told["patch"])
    assert read_policy(path).name == "desk"


def test_p_a14_on_a_terminal_there_is_a_bar_and_in_a_pipe_none(terminal):
    """The bar is on standard error, and gone at the end."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "fastroute", *REPLAY, "--last", "1", "--alts", BACKUP],
        stdin=subprocess.DEVNULL,
        stdout=follower,
        stderr=follower,
        cwd=terminal.place,
        env={"PATH": os.environ["PATH"], **terminal.environment, "PYTHONPATH": str(kit.ROOT)},
    )
    os.close(follower)
    shown = b""
    try:
        while piece := os.read(leader, 65536):
            shown += piece
    except OSError:  # the other end is closed: the command is over
        pass
    finally:
        os.close(leader)
    assert process.wait(kit.PATIENCE_S) == 0, shown
    text = shown.decode()
    assert f"[------------------------] 0/1 {BACKUP}" in text
    assert "\r\x1b[Kmodel" in text.replace("\r\n", "\n")
    assert policy_in(text.replace("\r\n", "\n"), terminal.place).name == "desk"
    piped = terminal.end(terminal.start(*REPLAY, "--last", "1", "--alts", BACKUP))
    assert (piped.code, "\r" in piped.err, "\x1b" in piped.err + piped.out) == (0, False, False)


def test_the_simulated_models_do_for_a_rehearsal(terminal):
    """`--demo`, as in the other commands: a policy over them is asked and replayed with no key at all."""
    path = terminal.place / "policies" / "rehearsed.yaml"
    path.write_text("policy: rehearsed\nrouting: {primary: [demo-local]}\ncapture: {prompts: true}\n")
    assert terminal.infer("--demo", policy="rehearsed").code == 0
    ran = terminal.run("replay", "-p", "rehearsed", "--alts", "demo-local", "--demo", "--json")
    assert (ran.code, ran.json["replayed"], ran.json["alternatives"][0]["answered"]) == (0, 1, 1)


def test_nothing_begins_when_it_might_cost_too_much(terminal, upstream):
    upstream.script(THIRD, b"")
    ran = terminal.run(*REPLAY, "--last", "2", "--alts", THIRD, "--max-cost-usd", "0.000001")
    assert (ran.code, ran.out) == (1, "")
    assert "and --max-cost-usd allows $0.000001" in ran.err
    assert upstream.asked(THIRD) == []
    most = re.search(r"at most \$(\S+),", ran.err)[1]
    upstream.forget(THIRD)
    assert terminal.run(*REPLAY, "--last", "2", "--alts", THIRD, "--max-cost-usd", most).code == 0


def test_a_model_whose_price_nobody_knows_has_no_bound(terminal):
    ran = terminal.run(*REPLAY, "--last", "1", "--alts", "nobody/knows", "--max-cost-usd", "100")
    assert ran.code == 1
    assert "nobody knows what it may cost" in ran.err


def test_a_model_may_judge_and_what_it_does_not_score_is_told(terminal, upstream, say):
    """Its verdicts are asked for under reservations of their own; the recorded answer is judged too."""
    grades = [
        say.whole(json.dumps(said(text)).encode()) for text in ('{"score": 4}', '{"score": 9}', "good", '{"score": 8}')
    ]
    upstream.script(THIRD, *grades)
    ran = terminal.run(*REPLAY, "--last", "2", "--alts", BACKUP, "--judge", THIRD, "--json")
    assert ran.code == 0, ran.err
    told = ran.json
    assert (told["recorded"]["quality"], told["alternatives"][0]["quality"]) == ("0.400", "0.850")
    assert told["unjudged"] == {"the judge gave no whole number from 0 to 10": 1}
    judged = [paper for paper in terminal.run("receipts", "--json").json if paper["reason"] == "judge"]
    assert len(judged) == 4


def said(text):
    usage = {"prompt_tokens": 5, "completion_tokens": 7, "total_tokens": 12}
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    return {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": usage}


def test_who_fails_is_counted_and_when_nobody_answers_it_exits_with_69(terminal, upstream, say):
    upstream.script(BACKUP, say.whole(b"{}", 500))
    ran = terminal.run(*REPLAY, "--last", "2", "--alts", BACKUP)
    assert ran.code == 69
    assert f"{BACKUP}: 2 x 5xx" in ran.out
    assert policy_in(ran.out, terminal.place).routing.backups == (BACKUP,)


def test_a_users_quota_holds_and_what_ran_before_it_is_told(terminal, upstream, say):
    """`-u` draws on a user's budgets: when they are used up the rest is not run, exit 75."""
    path = terminal.place / "policies" / "desk.yaml"
    path.write_text(path.read_text().replace("per_user_daily_tokens: 20000", "per_user_daily_tokens: 900"))
    upstream.script(BACKUP, say.streamed(*say.openai_events("x" * 500, usage=(5, 400))))
    ran = terminal.run(*REPLAY, "--last", "2", "--alts", BACKUP, "-u", "carol", "--json")
    assert ran.code == 75, ran.err
    assert (ran.json["replayed"], ran.json["alternatives"][0]["answered"]) == (1, 1)
    assert "stopped early: daily token cap reached" in ran.err
    assert terminal.run("usage", "-u", "carol", "--json").json["tokens"]["used"] == 405


def test_a_limit_under_which_nothing_fits_stops_it_and_is_not_waited_for(terminal, upstream):
    path = terminal.place / "policies" / "desk.yaml"
    path.write_text(path.read_text().replace("per_user_rpm: 1000", "per_user_rpm: 0"))
    upstream.script(THIRD, b"")
    process = terminal.start(*REPLAY, "--last", "2", "--alts", THIRD, "-u", "dave")
    ran = terminal.end(process)
    assert (ran.code, upstream.asked(THIRD)) == (75, [])
    assert "no requests are allowed" in ran.err


def test_what_leaves_something_behind_is_not_run_again():
    """A conversation that the provider keeps would grow by answers that nobody gave."""
    body = b'{"model": "m", "input": "hi", "conversation": "conv_1"}'
    kept = content_of("responses", body, stream=False, wants_json=False)
    assert replaying._not_again(kept).startswith("it leans on more than itself")


def test_ctrl_c_settles_what_ran_and_tells_it(terminal, upstream, patiently):
    upstream.script(THIRD, [upstream.hold])
    process = terminal.start(*REPLAY, "--last", "2", "--alts", f"{BACKUP},{THIRD}", "--json")
    patiently(lambda: upstream.asked(THIRD))
    process.send_signal(signal.SIGINT)
    ran = terminal.end(process)
    assert ran.code == 130, ran.err
    assert [line["answered"] for line in ran.json["alternatives"]] == [1, 0]
    assert terminal.run("ledger", "verify").code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["-p", "desk", "--alts", ","], 2, "--alts names no model"),
        (["-p", "desk", "--alts", "nobody-knows"], 65, "not known"),
        (["-p", "desk", "--alts", "desk"], 78, "chooses for itself"),
        (["-p", "deks", "--alts", BACKUP], 65, "did you mean 'desk'?"),
        (["-p", "beginner-minimal", "--alts", BACKUP], 65, "no receipt of policy 'beginner-minimal' has content"),
        (["-p", "desk", "--alts", BACKUP, "--max-cost-usd", "much"], 2, "--max-cost-usd"),
    ],
)
def test_what_cannot_be_replayed_is_said(terminal, arguments, code, words):
    ran = terminal.run("replay", *arguments)
    assert ran.code == code, ran.err
    assert words in ran.err
