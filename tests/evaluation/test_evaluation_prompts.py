"""Sets of prompts: read strictly, every mistake with its line; and what counts as a right answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastroute.evaluation.prompts import Expected, PromptSetError, parse, read_prompts


def line(**fields: object) -> bytes:
    return json.dumps(fields).encode()


def test_a_line_is_a_prompt_and_what_is_left_out_has_a_name() -> None:
    first, second = parse(
        line(prompt="What is 2 + 2?") + b"\n\n" + line(messages=[{"role": "user", "content": "x"}]), "f"
    ).prompts
    assert (first.id, first.category, first.split, first.expect) == ("line-1", "all", "unknown", None)
    assert first.messages == ({"role": "user", "content": "What is 2 + 2?"},)
    assert second.id == "line-3"
    assert first.digest != second.digest


def test_the_digest_is_of_what_is_asked_and_not_of_its_name() -> None:
    one, other = parse(line(prompt="q", id="a", category="x") + b"\n" + line(prompt="q", id="b"), "f").prompts
    assert one.digest == other.digest


BROKEN = [
    (b"{", "is not JSON"),
    (b"\xff", "is not JSON"),
    (b"[1]", "is not an object such as"),
    (line(prompt="x", expected="4"), "'expected' is not a field; there are id, prompt"),
    (line(), "has neither a prompt nor messages"),
    (line(prompt="x", messages=[]), "has both a prompt and messages"),
    (line(prompt="  "), "prompt: is a text"),
    (line(messages=[{"role": "judge"}]), "messages[0]: is a message with a role among system"),
    (line(prompt="x", id=7), "id: is a printable text"),
    (line(prompt="x", category=""), "category: is a printable text"),
    (line(prompt="x", split="train"), "split: is tuning or held_out, not 'train'"),
    (line(prompt="x", expect={"equals": "4"}), "expect: is one of exact, contains, regex, choices"),
    (line(prompt="x", expect={"exact": "4", "regex": "4"}), "expect: is one of exact"),
    (line(prompt="x", expect={"exact": 4}), "expect: exact is a text, not 4"),
    (line(prompt="x", expect={"exact": "4", "answer": "4"}), "expect: 'answer' does not go with exact"),
    (line(prompt="x", expect={"regex": "("}), "expect: regex '(' cannot be read"),
    (line(prompt="x", expect={"contains": []}), "expect: contains is a text or a list of texts"),
    (line(prompt="x", expect={"choices": ["A"], "answer": "A"}), "expect: choices are two or more different texts"),
    (line(prompt="x", expect={"choices": ["A", "B"], "answer": "C"}), "expect: answer is one of the choices, not 'C'"),
]


@pytest.mark.parametrize(("text", "message"), BROKEN, ids=[message[:30] for _, message in BROKEN])
def test_what_cannot_be_used_is_told_with_its_line(text: bytes, message: str) -> None:
    with pytest.raises(PromptSetError) as caught:
        parse(line(prompt="good") + b"\n" + text, "set.jsonl")
    assert str(caught.value).startswith("set.jsonl:2: ")
    assert message in str(caught.value)


def test_every_mistake_is_told_at_once_and_an_id_is_taken_once() -> None:
    with pytest.raises(PromptSetError) as caught:
        parse(b"\n".join([line(prompt="a", id="q"), b"{", line(prompt="b", id="q")]), "f")
    first, second = str(caught.value).splitlines()
    assert first.startswith("f:2: is not JSON")
    assert second == "f:3: id: 'q' is already the prompt of line 1"


def test_a_file_that_is_empty_or_away_says_so(tmp_path: Path) -> None:
    with pytest.raises(PromptSetError, match="holds no prompt"):
        parse(b"\n\n", "f")
    with pytest.raises(PromptSetError, match="cannot be read: No such file"):
        read_prompts(tmp_path / "nowhere.jsonl")


ANSWERS = [
    (Expected("exact", ("42",)), "42", True),
    (Expected("exact", ("The end",)), "  the   END. ", True),
    (Expected("exact", ("42",)), "It is 42", False),
    (Expected("contains", ("lima",)), "The capital is Lima.", True),
    (Expected("contains", ("red", "blue")), "red and green", False),
    (Expected("regex", (r"\b4\b",)), "it is 4", True),
    (Expected("regex", (r"\b4\b",)), "it is 42", False),
    (Expected("choices", ("B", "A", "C")), "The answer is B.", True),
    (Expected("choices", ("B", "A", "C")), "b", True),
    (Expected("choices", ("B", "A", "C")), "Either A or B", False),
    (Expected("choices", ("B", "A", "C")), "Bananas", False),
    (Expected("choices", ("B", "A", "C")), "", False),
]


@pytest.mark.parametrize(("expected", "text", "right"), ANSWERS)
def test_what_is_right(expected: Expected, text: str, right: bool) -> None:
    assert expected.met(text) is right


def test_a_few_of_a_set_are_spread_over_it() -> None:
    whole = parse(b"\n".join(line(prompt=str(n), category="ab"[n >= 5]) for n in range(10)), "f")
    assert [prompt.category for prompt in whole.some(4).prompts] == ["a", "a", "b", "b"]
    assert whole.some(None) == whole.some(99) == whole


def test_the_shipped_set_is_sound_and_its_checks_tell_right_from_wrong() -> None:
    shipped = read_prompts(None)
    assert 60 <= len(shipped.prompts) <= 100
    counts = {name: sum(prompt.category == name for prompt in shipped.prompts) for name in ("easy", "medium", "hard")}
    assert min(counts.values()) > 20
    assert all(prompt.split == "held_out" for prompt in shipped.prompts)
    by_id = {prompt.id: prompt.expect for prompt in shipped.prompts}
    assert all(expected is not None and not expected.met("I do not know.") for expected in by_id.values())
    for name, right, wrong in (
        ("sum-17-26", "17 + 26 = 43.", "17 + 26 = 44"),
        ("change-coins", "You get 3.85 back.", "3.95"),
        ("two-trains", "They meet 107.14 km from it.", "102.86 km"),
        ("complexity", "It is O(n log n).", "O(n^2)"),
        ("schedule", "CADB", "CBAD"),
        ("extract-mail", "ines.k@harbour.example", "jan@old.example, ines.k@harbour.example"),
    ):
        expected = by_id[name]
        assert expected is not None
        assert (expected.met(right), expected.met(wrong)) == (True, False), name
