"""C30: prompts are kept only where a policy opts in: scrubbed, encrypted, bounded, and shown to whoever has the keys."""

import importlib.util
import sys
from pathlib import Path

import pytest

from fastroute.capture import vault


def _kit():
    """Test folders are no packages, so the terminal is loaded by its path."""
    name = "terminal_kit"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


kit = _kit()
playing, upstream, say, terminal = kit.playing, kit.upstream, kit.say, kit.terminal
PRIMARY = kit.PRIMARY
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
