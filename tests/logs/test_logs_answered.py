"""The line of an answered request: written from a format made once, and the same as if it had been encoded by itself."""

import pytest

from fastroute import logs
from fastroute.logs import Kind

NAMES = (
    "m",
    None,
    "100%s %% %d",
    '"\\u0000ms"',
    'quoted " and \\ back',
    "ünïcode",
    "\\0id",
    "\0",
    "\0ts",
    "\0cost",
    '","ts":"\0',
    "a" * 256,
)


@pytest.mark.parametrize("model", NAMES)
@pytest.mark.parametrize("cost", [None, 0, 2**62])
def test_it_says_what_the_general_line_says(started, path, lines, model: str | None, cost: int | None):
    """Whatever a model is called, no name is taken for a place to be filled in."""
    book = started(worker=3)
    kind: Kind = ("chat", 200, model, "openai", "manual_override", 1, True)
    form = book.form(kind)
    book.answered("req_1", form, 12, cost)
    book.answered("req_2", form, 13, 5)
    told = dict(zip(("surface", "status", "model", "backend", "reason", "attempts", "stream"), kind, strict=True))
    book.request("req_1", **told, latency_ms=12, cost_picodollars=cost, cache_hit=False)
    book.flush()
    written = path.read_bytes().splitlines()
    stamp = len('{"ts":"2026-01-01T00:00:00.000Z"')
    assert written[0][stamp:] == written[2][stamp:]
    first, second = lines()[:2]
    assert (first["request_id"], first["cost_picodollars"], first["model"]) == ("req_1", cost, model)
    assert (second["request_id"], second["latency_ms"], second["cost_picodollars"]) == ("req_2", 13, 5)


def test_a_key_in_a_models_name_is_masked(started, path):
    book = started(secrets=["a-secret-of-ours"])
    for name in ("sk-abcdefghijkl", "x-a-secret-of-ours"):
        book.answered("req_1", book.form(("chat", 404, name, None, "", 0, False)), 1, None)
    book.flush()
    text = path.read_bytes()
    assert b"abcdefghijkl" not in text
    assert b"a-secret-of-ours" not in text
    assert text.count(b"***") == 2


def test_a_key_that_is_called_like_a_field_does_no_harm(started, lines):
    book = started(secrets=["request_id", "latency_ms", "cost_picodollars"])
    book.answered("req_1", book.form(("chat", 200, "a latency_ms", "openai", "", 1, False)), 12, 5)
    book.flush()
    (line,) = lines()
    assert (line["request_id"], line["model"], line["latency_ms"], line["cost_picodollars"]) == (
        "req_1",
        "a ***",
        12,
        5,
    )


def test_many_kinds_are_not_all_kept(started, lines):
    book = started()
    for n in range(1500):
        book.answered(f"req_{n}", book.form(("chat", 200, f"m{n}", "openai", "", 1, False)), 1, 2)
    book.flush()
    assert [line["model"] for line in lines()] == [f"m{n}" for n in range(1500)]
    assert len(book._forms) <= 1024


def test_making_a_form_leaves_the_clock_of_the_logs_thread_alone(started, monkeypatch):
    """It is made where requests end, while that thread writes other moments down."""
    book = started()
    monkeypatch.setattr(book, "_moment", None)
    assert book.form(("chat", 200, "m", "openai", "", 1, False)) is not None


def test_what_another_log_could_not_write_is_counted_until_it_is_written(started, monkeypatch):
    """Or it would count for less than nothing after it, and the bound of what waits were that much higher."""
    monkeypatch.setattr(logs, "GATHER_S", 30)  # nothing is written before somebody waits for it
    stuck, after = started(), started()
    stuck.answered("req_1", stuck.form(("chat", 200, "m", "openai", "", 1, False)), 1, 2)
    pending = stuck.pending()
    assert len(pending) == 1
    after.take(pending)
    assert after.held == 1
    after.flush()
    assert after.held == 0
