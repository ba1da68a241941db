"""C30: prompts are kept only where a policy opts in: scrubbed, encrypted, bounded, and shown to whoever has the keys."""

import pytest

from fastroute.capture import vault
from tests.cli import terminal_kit as kit
from tests.cli.terminal_kit import PRIMARY

terminal = kit.terminal
CANARY = "canary-prompt-41f7"
KEY = "sk-canary-0123456789abcdef"


def opting_in(terminal, capture="prompts: true, answers: true, retention_days: 7", name="desk"):
    terminal.policy(name, limit_ms=20_000)
    path = terminal.place / "policies" / f"{name}.yaml"
    path.write_text(f"{path.read_text()}capture: {{{capture}}}\n")


def everywhere(terminal):
    """Every byte of the state directory but of the keys."""
    found = [
        path for path in terminal.place.rglob("*") if path.is_file() and path.parent.name not in ("secrets", "policies")
    ]
    return b"".join(path.read_bytes() for path in found)


def test_c30_nothing_is_kept_unless_the_policy_says_so(terminal):
    terminal.policy()
    ran = terminal.infer(text=CANARY)
    assert "content   none is kept" in terminal.run("receipts", "--open", ran.tail[0]).out
    shown = terminal.run("receipts", "--open", ran.tail[0], "--content", "--json")
    assert shown.json["content"] is None
    assert not (terminal.state / "secrets" / "content-1.key").exists()
    assert CANARY.encode() not in everywhere(terminal)


def test_c30_what_is_kept_is_scrubbed_encrypted_and_shown_on_request(terminal):
    """The prompt is in no file in clear, the receipt has none of it, and `--content` shows it."""
    opting_in(terminal)
    ran = terminal.infer(text=f"{CANARY} with {KEY}")
    name = ran.tail[0]
    stored = everywhere(terminal)
    assert CANARY.encode() not in stored
    assert KEY.encode() not in stored
    assert b"hello from" not in stored
    plain = terminal.run("receipts", "--open", name)
    assert "content   kept, encrypted, until " in plain.out
    assert CANARY not in plain.out
    shown = terminal.run("receipts", "--open", name, "--content")
    assert f"{CANARY} with sk-***" in shown.out
    assert f"answered (stop):\nhello from {PRIMARY}" in shown.out
    content = terminal.run("receipts", "--open", name, "--content", "--json").json["content"]
    assert (content["answer"], content["finish"], content["cut"]) == (f"hello from {PRIMARY}", "stop", [])
    assert CANARY not in terminal.run("receipts", "--open", name, "--json").out


def test_answers_are_kept_only_where_they_are_asked_for(terminal):
    opting_in(terminal, "prompts: true")
    ran = terminal.infer("--no-stream", text=CANARY)
    content = terminal.run("receipts", "--open", ran.tail[0], "--content", "--json").json["content"]
    assert CANARY in content["prompt"]
    assert content["answer"] is None


def test_losing_a_capture_fails_nothing(terminal):
    """A key that cannot be used costs the capture, not the answer."""
    opting_in(terminal)
    (terminal.state / "secrets").mkdir(parents=True, mode=0o700)
    (terminal.state / "secrets" / "content-1.key").write_text("no key")
    ran = terminal.infer(text=CANARY)
    assert (ran.code, ran.out) == (0, f"hello from {PRIMARY}\n"), ran.err
    assert "content   none is kept" in terminal.run("receipts", "--open", ran.tail[0]).out


def test_a_policy_that_opts_in_without_the_package_is_told_what_to_install(terminal, monkeypatch):
    opting_in(terminal)
    monkeypatch.setattr(vault, "find_spec", lambda name: None)
    ran = terminal.infer()
    assert ran.code == 78, ran.err
    assert "policy 'desk': capture.prompts keeps them encrypted" in ran.err
    assert "pip install 'fastroute[capture]'" in ran.err


@pytest.mark.parametrize("arguments", [["--content"]])
def test_content_is_that_of_one_receipt(terminal, arguments):
    ran = terminal.run("receipts", *arguments)
    assert ran.code == 2
    assert "name it with --open" in ran.err


@pytest.fixture
def kept(terminal):
    """Four requests under two policies; one was not kept."""
    opting_in(terminal, "prompts: true")
    opting_in(terminal, "prompts: true", "shop")
    terminal.policy("plain", limit_ms=20_000)
    names = [terminal.infer(policy=policy, text=CANARY).tail[0] for policy in ("desk", "desk", "shop", "plain")]
    return terminal, names


def left(terminal):
    return terminal.run("capture", "forget", "--all", "--json").json["found"]


def test_nothing_is_forgotten_until_it_is_said_twice(kept):
    """Without --yes it is told what would be forgotten, by policy, and the exit code is that of a refusal."""
    terminal, _ = kept
    ran = terminal.run("capture", "forget", "--all")
    assert (ran.code, ran.out) == (1, "would forget the content of 3 requests (desk 2, shop 1)\n")
    assert "--yes" in ran.err
    told = terminal.run("capture", "forget", "--all", "--json")
    assert (told.code, told.json) == (
        1,
        {"found": 3, "forgotten": 0, "policies": {"desk": 2, "shop": 1}, "missing": []},
    )
    assert left(terminal) == 3


def test_content_is_forgotten_by_policy_and_the_receipts_stay_true(kept):
    terminal, names = kept
    ran = terminal.run("capture", "forget", "-p", "desk", "--yes")
    assert (ran.code, ran.out, ran.err) == (0, "forgot the content of 2 requests (desk 2)\n", "")
    assert left(terminal) == 1
    opened = terminal.run("receipts", "--open", names[0], "--content")
    assert (opened.code, "content   none is kept" in opened.out) == (0, True)
    assert terminal.run("receipts", "verify").code == 0
    assert "content   kept" in terminal.run("receipts", "--open", names[2]).out
    again = terminal.run("capture", "forget", "-p", "desk", "--yes")
    assert (again.code, again.out) == (0, "nothing of that is kept\n")


def test_content_is_forgotten_by_id_and_what_is_not_there_is_named(kept):
    """A request's id does as well as its receipt's."""
    terminal, names = kept
    request = terminal.run("receipts", "--open", names[0], "--json").json["request_id"]
    ran = terminal.run("capture", "forget", "--id", request, "--id", names[3], "--yes")
    assert (ran.code, ran.out) == (1, "forgot the content of 1 request\n")
    assert ran.err == f"nothing is kept of {names[3]}\n"
    assert left(terminal) == 2


def test_content_is_forgotten_by_age(kept):
    terminal, _ = kept
    assert terminal.run("capture", "forget", "--older-than", "1h", "--yes").out == "nothing of that is kept\n"
    ran = terminal.run("capture", "forget", "--older-than", "0s", "--policy", "shop", "--yes", "--json")
    assert (ran.code, ran.json["forgotten"]) == (0, 1)
    assert terminal.run("capture", "forget", "--older-than", "0s", "--yes").out.startswith("forgot the content of 2 ")
    assert left(terminal) == 0


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        ([], 2, "say what"),
        (["--all", "--policy", "desk"], 2, "say what"),
        (["--id", "rcpt_x", "--older-than", "1d"], 2, "say what"),
        (["--older-than", "soon"], 1, "wanted a duration such as 30d"),
        (["--older-than", "2999-01-01"], 2, "is yet to come"),
    ],
)
def test_what_is_to_be_forgotten_must_be_clear(terminal, arguments, code, words):
    ran = terminal.run("capture", "forget", *arguments, "--yes")
    assert ran.code == code, ran.err
    assert words in ran.err
