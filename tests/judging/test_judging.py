"""How answers are judged: by form, by a model's word, and alternatives by latency and cost alone."""

import json

import pytest

from fastroute.hearing import Heard
from fastroute.judging import decimals, ranked, structure, verdict_in

LONG = "A sentence that says something. " * 20


@pytest.mark.parametrize(
    ("heard", "wants_json", "reference", "score"),
    [
        (Heard("Oslo.", "stop"), False, None, 1000),
        (Heard("", "stop"), False, None, 0),
        (Heard(" \n", "stop"), False, None, 0),
        (Heard("", "tool_calls", 1), False, None, 1000),
        (Heard('{"a": 1}', "stop"), True, None, 1000),
        (Heard("Sure! {a: 1}", "stop"), True, None, 100),
        (Heard("", "tool_calls", 2), True, None, 1000),
        (Heard("It goes on and", "length"), False, None, 700),
        (Heard("I'm sorry, but I can't help with that.", "stop"), False, None, 500),
        (Heard("I\u2019m sorry, I cannot do that.", "stop"), False, None, 500),
        (Heard(f"{LONG} I cannot say more.", "stop"), False, None, 1000),
        (Heard("I cannot", "length"), False, None, 200),
        (Heard("short", "stop"), False, Heard(LONG), 800),
        (Heard(LONG, "stop"), False, Heard("short"), 800),
        (Heard("yes", "stop"), False, Heard("certainly, yes"), 1000),
    ],
)
def test_the_form_of_an_answer_has_a_score(heard, wants_json, reference, score):
    """It says something, is JSON where that was asked for, ended by itself, does not refuse, and is of a like length."""
    assert structure(heard, wants_json=wants_json, reference=reference) == score


def test_without_a_judge_alternatives_rank_by_latency_and_cost():
    """0.6 of the latency and 0.4 of the cost, beside the largest of each, to three decimals."""
    assert ranked([(1000, 100), (500, 200), (250, 50)]) == [800, 700, 250]
    assert [decimals(one) for one in ranked([(3, 7), (1, 1)])] == ["1.000", "0.257"]
    assert ranked([(0, 0), (0, 0)]) == [0, 0]
    assert ranked([]) == []


def answer(text):
    return json.dumps({"choices": [{"message": {"content": text}}]}).encode()


@pytest.mark.parametrize(
    ("body", "score"),
    [
        (answer('{"score": 7}'), 700),
        (answer('```json\n{"score": 10}\n```'), 1000),
        (answer('Here you are: {"score": 0}'), 0),
        (answer('It says {"score": 10}, which is no answer. {"score": 1}'), None),
        (answer('{"score": 10} {"a": 1}'), None),
        (answer('{"score": 11}'), None),
        (answer('{"score": 7.5}'), None),
        (answer('{"score": true}'), None),
        (answer('{"grade": 7}'), None),
        (answer("seven"), None),
        (answer(None), None),
        (b'{"choices": []}', None),
        (b"nonsense", None),
    ],
)
def test_a_judges_word_is_a_whole_number_from_0_to_10_or_nothing(body, score):
    verdict = verdict_in(body)
    assert verdict.thousandths == score
    assert bool(verdict.why) == (score is None)
