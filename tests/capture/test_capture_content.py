"""What is kept of a request: scrubbed, bounded, and readable with the right key and under the right receipt alone."""

import os
import stat

import orjson
import pytest

from fastroute.capture import ANSWER_MAX, PROMPT_MAX, CaptureError, Vault, content_of, decode, vault

NAME = "rcpt_" + "a" * 26


def body(text):
    return orjson.dumps({"model": "m", "messages": [{"role": "user", "content": text}]})


def content(text, **more):
    return content_of("chat", body(text), stream=False, wants_json=False, **more)


def test_what_looks_like_a_key_is_masked_in_prompt_and_answer():
    """Escaped or not: the request is read before it is scrubbed."""
    raw = rb'{"model":"m","messages":[{"role":"user","content":"use \u0073k-proj-0123456789 and vk-abcdef12"}]}'
    kept = content_of("chat", raw, stream=False, wants_json=False, answer="it was AKIAIOSFODNN7EXAMPLE")
    assert orjson.loads(kept.prompt)["messages"][0]["content"] == "use sk-*** and vk-***"
    assert kept.answer == "it was AKIA***"
    assert kept.cut == ()


def test_a_prompt_that_is_too_long_is_cut_between_characters_and_says_so():
    kept = content("日" * PROMPT_MAX)
    assert kept.cut == ("prompt",)
    assert len(kept.prompt.encode()) <= PROMPT_MAX
    assert kept.prompt.endswith("日…")


def test_a_key_at_the_cut_is_masked_all_the_same():
    for shift in range(0, 60, 7):
        text = "x" * (PROMPT_MAX - 60 - shift) + " sk-canary-0123456789abcdefghijklmnop" + "y " * 5000
        assert "canary" not in content(text).prompt


def test_an_answer_that_is_too_long_is_cut_and_says_so():
    kept = content("hi", answer="é" * ANSWER_MAX)
    assert kept.cut == ("answer",)
    assert len(kept.answer.encode()) <= ANSWER_MAX


def test_content_reads_back_as_it_was():
    kept = content("hi", answer="hello", finish="stop")
    assert decode(kept.encode()) == kept


def test_only_the_key_and_the_receipt_it_was_closed_for_open_it(tmp_path):
    box = Vault.open(tmp_path / "secrets", make=True)
    kept = box.close(NAME, b"the prompt")
    assert b"the prompt" not in kept
    assert Vault.open(tmp_path / "secrets").unclose(NAME, kept) == b"the prompt"
    with pytest.raises(CaptureError, match="altered, is another"):
        box.unclose("rcpt_" + "b" * 26, kept)
    for place in (0, 3, 8, 20, len(kept) - 1):
        broken = bytearray(kept)
        broken[place] ^= 1
        with pytest.raises(CaptureError):
            box.unclose(NAME, bytes(broken))
    assert box.close(NAME, b"the prompt") != kept  # a nonce serves once


def test_a_new_key_closes_and_the_old_one_still_opens(tmp_path):
    before = Vault.open(tmp_path, make=True).close(NAME, b"old")
    (tmp_path / "content-2.key").write_text(os.urandom(32).hex())
    box = Vault.open(tmp_path)
    assert box.is_of(tmp_path)
    after = box.close(NAME, b"new")
    assert (box.unclose(NAME, before), box.unclose(NAME, after)) == (b"old", b"new")
    (tmp_path / "content-1.key").unlink()
    assert not box.is_of(tmp_path)
    with pytest.raises(CaptureError, match=r"content-1\.key, which is not here any more"):
        Vault.open(tmp_path).unclose(NAME, before)


def test_the_key_is_its_owners_alone_and_is_made_once(tmp_path):
    Vault.open(tmp_path / "secrets", make=True)
    path = tmp_path / "secrets" / "content-1.key"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    text = path.read_text()
    path.chmod(0o644)
    assert repr(Vault.open(tmp_path / "secrets", make=True)) == "<Vault of 1 keys>"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == text
    assert [each.name for each in path.parent.iterdir()] == ["content-1.key"]


@pytest.mark.parametrize("text", ["", "secret", "00" * 32, "zz" * 32])
def test_a_key_that_is_none_is_refused_by_its_name(tmp_path, text):
    (tmp_path / "content-1.key").write_text(text)
    with pytest.raises(CaptureError, match=r"content-1\.key is not 64 random hexadecimal digits"):
        Vault.open(tmp_path)


def test_without_a_key_or_the_package_it_is_said_what_is_missing(tmp_path, monkeypatch):
    with pytest.raises(CaptureError, match=r"has no content-1\.key"):
        Vault.open(tmp_path / "secrets")
    monkeypatch.setattr(vault, "find_spec", lambda name: None)
    with pytest.raises(CaptureError, match=r"pip install 'fastroute\[capture\]'"):
        Vault.open(tmp_path, make=True)


def test_keys_that_cannot_be_looked_at_any_more_are_a_fault_of_capture(tmp_path):
    """It is looked at before each prompt that is kept, and a prompt that is not kept is counted."""
    directory = tmp_path / "secrets"
    box = Vault.open(directory, make=True)
    directory.rename(tmp_path / "away")
    assert not box.is_of(directory)
    directory.write_text("in its place")
    with pytest.raises(CaptureError, match=r"secrets cannot be used: Not a directory"):
        box.is_of(directory)
