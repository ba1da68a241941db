"""What is told of a run: nothing is dropped in silence, and every figure is the one a slow count gives."""

from __future__ import annotations

import json
import os
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from fastroute.evaluation.answers import Answer, Key, Record, RecordError, read_answers
from fastroute.evaluation.asking import said_in
from fastroute.evaluation.picture import picture
from fastroute.evaluation.prompts import PromptSet, parse
from fastroute.evaluation.report import TUNING, report


def prompts(count: int, **fields: Any) -> PromptSet:
    said = [
        {"prompt": f"q{n}", "expect": {"exact": "yes"}, "category": "odd" if n % 2 else "even", "split": "held_out"}
        | fields
        for n in range(count)
    ]
    return parse("\n".join(map(json.dumps, said)).encode(), "set")


def answer(asked: str, digest: str, **more: Any) -> Answer:
    said: dict[str, Any] = {
        "status": 200, "model": asked, "reason": "r", "fallback": False, "tokens_in": 2, "tokens_out": 3,
        "latency_ms": 10, "picodollars": 100, "text": "yes",
    }  # fmt: skip
    return Answer(asked=asked, digest=digest, **{**said, **more})


def answers(some: PromptSet, **changes: dict[int, dict[str, Any]]) -> dict[Key, Answer]:
    found = [
        answer(
            name, prompt.digest, **({"picodollars": 300} if name == "big" else {}), **changes.get(name, {}).get(n, {})
        )
        for n, prompt in enumerate(some.prompts)
        for name in ("auto", "big")
    ]
    return {one.key: one for one in found}


def test_failures_are_wrong_answers_their_cost_counts_and_they_are_in_no_savings() -> None:
    some = prompts(10)
    failed = {"status": 502, "text": None, "model": None, "error": "broken", "picodollars": 7}
    told = report(some, answers(some, auto={0: failed, 1: {"text": "no"}, 2: {"fallback": True}}), "auto", "big", 1)
    ours, theirs = told.total.policy, told.total.baseline
    assert (ours.answered, ours.failed, ours.fallbacks, ours.checked, ours.right) == (9, 1, 1, 10, 8)
    assert (ours.picodollars, theirs.picodollars) == (907, 3000)
    assert told.savings is not None
    assert told.savings.value == 9 * 200
    assert told.savings_share is not None
    assert told.savings_share.value == 66_666
    assert told.quality is not None
    assert told.quality.value == -20_000
    assert any("1 of 10 prompts are not in the savings" in warning for warning in told.warnings)
    assert [row.category for row in told.rows] == ["even", "odd"]
    assert ("auto", "none", "failed: 502", 1) in [
        (one.policy, one.model, one.reason, one.requests) for one in told.lines
    ]


def test_an_unknown_cost_is_counted_and_never_taken_for_nothing() -> None:
    some = prompts(4)
    told = report(some, answers(some, auto={0: {"picodollars": None}}), "auto", "big", 1)
    assert (told.total.policy.cost_unknown, told.savings_pairs) == (1, 3)


def test_what_was_not_asked_is_missing() -> None:
    some = prompts(4)
    found = answers(some)
    del found["auto", some.prompts[3].digest]
    told = report(some, found, "auto", "big", 1, unasked=1)
    assert (told.total.policy.missing, told.total.policy.checked, told.quality_pairs) == (1, 3, 3)
    assert told.warnings[0] == "1 questions were not asked: the limit of the cost was reached"


def test_prompts_the_rules_were_tuned_on_are_in_no_total() -> None:
    tuned, held = prompts(4, split="tuning"), prompts(12)
    both = PromptSet("set", (*tuned.prompts, *held.prompts[4:]))
    told = report(both, answers(both), "auto", "big", 1)
    assert told.total.policy.prompts == 8
    assert told.rows[-1].category == TUNING
    assert told.rows[-1].policy.prompts == 4
    assert "4 prompts are ones that the rules were tuned on" in told.warnings[0]
    alone = report(tuned, answers(tuned), "auto", "big", 1)
    assert "flatter" in alone.warnings[0]
    assert alone.total.policy.prompts == 4
    unsaid = PromptSet("set", parse(b'{"prompt": "x"}', "set").prompts)
    assert "do not say whether" in report(unsaid, answers(unsaid), "auto", "big", 1).warnings[0]


def test_the_same_seed_makes_the_same_report() -> None:
    some = prompts(30)
    changes = {n: {"picodollars": 10 * n, "text": "yes" if n % 3 else "no"} for n in range(30)}
    first, again, other = (report(some, answers(some, auto=changes), "auto", "big", seed) for seed in (5, 5, 6))
    assert first == again
    assert first.savings != other.savings


@pytest.mark.parametrize("share", [0, 100, 500, 9000])
def test_the_picture_is_sound_whatever_the_figures(share: int) -> None:
    some = prompts(5)
    changes = {n: {"picodollars": share * n} for n in range(5)}
    drawn = picture(report(some, answers(some, auto=changes), "auto", "big", 1))
    root = ElementTree.fromstring(drawn)  # noqa: S314  drawn by ourselves
    assert root.tag.endswith("svg")
    assert "prefers-color-scheme: dark" in drawn
    assert "savings" in drawn
    for circle in root.iter("{http://www.w3.org/2000/svg}circle"):
        assert 0 <= int(circle.attrib["cx"]) <= 760


def test_the_picture_says_where_there_is_nothing_and_names_cannot_break_it() -> None:
    some = PromptSet("<set> & more", parse(b'{"prompt": "x"}', "set").prompts)
    told = report(some, {}, 'a"b<c>', "big", 1)
    drawn = picture(told)
    ElementTree.fromstring(drawn)  # noqa: S314  drawn by ourselves
    assert "nothing to compare" in drawn
    assert "quality is not measured" in drawn


# --- records --------------------------------------------------------------------------------------------------------


def test_a_record_goes_on_after_a_line_that_was_torn(tmp_path: Path) -> None:
    path = tmp_path / "record.jsonl"
    record = Record(path)
    record.add(answer("auto", "d1"))
    record.close()
    with path.open("ab") as file:
        file.write(b'{"asked":"auto","dig')
    assert list(read_answers(path)) == [("auto", "d1")]
    record = Record(path)
    record.add(answer("auto", "d2"))
    record.close()
    assert list(read_answers(path)) == [("auto", "d1"), ("auto", "d2")]
    assert path.read_bytes().count(b"\n") == 2


def test_a_full_disk_leaves_no_half_line_that_another_would_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "record.jsonl"
    record = Record(path)
    record.add(answer("auto", "d1"))
    with monkeypatch.context() as full:
        write = os.write
        full.setattr("fastroute.evaluation.answers.os.write", lambda fd, line: write(fd, line[:20]))
        with pytest.raises(RecordError, match="disk is full"):
            record.add(answer("auto", "d2"))
    record.add(answer("auto", "d3"))  # asked at the same time
    record.close()
    assert list(read_answers(path)) == [("auto", "d1"), ("auto", "d3")]


def test_a_later_line_wins(tmp_path: Path) -> None:
    record = Record(tmp_path / "r")
    record.add(answer("auto", "d", text=None, error="away"))
    record.add(answer("auto", "d", text="yes"))
    record.close()
    assert read_answers(tmp_path / "r")["auto", "d"].good


def test_one_run_at_a_time_writes_a_record(tmp_path: Path) -> None:
    record = Record(tmp_path / "r")
    with pytest.raises(RecordError, match="another run writes it"):
        Record(tmp_path / "r")
    record.close()
    Record(tmp_path / "r").close()


def test_what_is_no_record_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("dear diary\nhalf a")
    for read in (Record, read_answers):
        with pytest.raises(RecordError, match=r"notes.txt:1: is no recorded answer"):
            read(path)
    assert path.read_text() == "dear diary\nhalf a"
    path.write_text("one line and no end")
    with pytest.raises(RecordError, match=r"notes.txt:1: is no recorded answer, nor the beginning of one"):
        Record(path)
    assert path.read_text() == "one line and no end"
    with pytest.raises(RecordError, match="cannot be written"):
        Record(tmp_path / "no" / "where")


@pytest.mark.parametrize(
    "body", [None, [], {}, {"choices": 5}, {"choices": {}}, {"choices": [5]}, {"choices": [{"message": 5}]}]
)
def test_an_answer_that_is_no_chat_s_says_nothing(body: Any) -> None:
    """`eval --url` may ask any server, and one that answers so has not ended the run of all the others."""
    assert said_in(body) == ""
