"""The parser of requests: segment borders never matter, and nothing costs more than its length."""

from __future__ import annotations

import random
import time

import pytest
from asked_kit import ACCEPTED, CHUNKED, GET, HEAD, HEAD_MAX, POST, PROTOCOL, REFUSED, cut, fed, outcome, padded, singly
from hypothesis import given, settings
from hypothesis import strategies as st

from fastroute.web._asked import Asked

SHORT = [data for data, _, _ in ACCEPTED.values() if len(data) < 400]
SPLIT = [
    *SHORT,
    *[data for _, data in REFUSED.values() if len(data) < 400],
    CHUNKED + b"5\r\nhello\r\n6;ext=1\r\n world\r\n0\r\ntrailer: x\r\n\r\n" + GET + b"\r\n" + b"surplus",
    b"\r\n\r\n" + POST + b"content-length: 3\r\n\r\nabc\r\n" + CHUNKED + b"3\r\nabc\r\n0\r\n\r\n\r\n",
]


def test_a_split_at_any_offset_changes_nothing():
    for data in SPLIT:
        whole = outcome([data])
        for at in range(1, len(data)):
            assert outcome([data[:at], data[at:]]) == whole, (data, at)
        assert outcome(singly(data)) == whole, data


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(SPLIT), st.lists(st.integers(0, 400), max_size=12))
def test_segments_of_any_size_change_nothing(data, borders):
    assert outcome(cut(data, borders)) == outcome([data])


LONG = [data for data in [*(data for data, _, _ in ACCEPTED.values()), *HEAD.values()] if len(data) >= 400]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(LONG), st.lists(st.integers(0, HEAD_MAX + 8), max_size=6))
def test_segments_of_any_size_change_nothing_of_what_is_long(data, borders):
    assert outcome(cut(data, borders)) == outcome([data])


@settings(max_examples=200, deadline=None)
@given(
    parts=st.lists(st.binary(min_size=1, max_size=400), max_size=12), seed=st.integers(0, 2**32), short=st.booleans()
)
def test_chunked_bodies_survive_any_segments(parts, seed, short):
    """Whatever the chunks and the segments: the body is their sum, and it is complete only with its end."""
    data = CHUNKED + b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + (b"" if short else b"0\r\n\r\n")
    rng = random.Random(seed)
    asked, at, body = Asked(), 0, b""
    while at < len(data):
        step = rng.randint(1, 60)
        asked.feed(data[at : at + step])
        at += step
        if rng.random() < 0.5:
            body += asked.take()
    assert body + asked.take() == b"".join(parts)
    assert (asked.kind, asked.complete, asked.rest) == (None, not short, None)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(SHORT), min_size=1, max_size=8), st.lists(st.integers(0, 2000), max_size=12))
def test_requests_in_a_pipeline_are_each_read_whole(pipeline, borders):
    """Nothing of one is in another, whatever the segments, and nothing is left over."""
    alone = [outcome([data])[0] for data in pipeline]
    data, nothing = b"".join(pipeline), outcome([b""])
    for segments in ([data], cut(data, borders), singly(data)):
        assert outcome(segments) == [*alone, *nothing]


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(SHORT), st.sampled_from([data for data in PROTOCOL.values() if len(data) < 400]))
def test_a_request_before_a_refused_one_is_not_touched_by_it(good, bad):
    assert outcome([good + bad]) == [outcome([good])[0], outcome([bad])[0]]


def sane(asked: Asked) -> None:
    assert asked.kind in (None, "protocol", "head", "version")
    assert not (asked.complete and asked.kind)
    assert (asked.kind is None) == (asked.words is None)
    if asked.complete:
        assert None not in (asked.method, asked.path, asked.raw_path, asked.query, asked.headers)
    else:
        assert asked.rest is None


@settings(max_examples=500, deadline=None)
@given(
    st.binary(max_size=300),
    st.sampled_from([b"", GET, POST, CHUNKED, CHUNKED + b"5\r\nhello\r\n", *SHORT]),
    st.integers(0, 300),
)
def test_no_bytes_break_the_parser(noise, data, at):
    """Noise anywhere ends in a fault, a request or patience; and whoever claims an end has reached it just then."""
    data = data[:at] + noise + data[at:]
    asked = fed(data)
    sane(asked)
    if asked.complete:
        end = len(data) - len(asked.rest or b"")
        assert (fed(data[:end]).complete, fed(data[: end - 1]).complete) == (True, False)
        assert b"\r\n\r\n" in data[:end]
    asked = Asked()
    for segment in (data, noise, data):
        was, ended = asked.kind, asked.complete
        asked.feed(segment)
        sane(asked)
        assert was in (None, asked.kind)
        assert asked.complete >= ended


@pytest.mark.parametrize(
    "data",
    [
        padded(60 * 1024),
        GET + b"x: y\r\n" * 100 + b"z: " + b"y" * HEAD_MAX,
        b"\r" * HEAD_MAX,
        b"\r\n" * 30_000 + GET + b"\r\n",
        POST + b"content-length: 60000\r\n\r\n" + b"y" * 60_000,
        CHUNKED + b"0\r\nx: " + b"y" * 8000 + b"\r\n\r\n",
    ],
    ids=["a head", "a head without end", "CRs", "empty lines", "a body", "trailers"],
)
def test_single_bytes_cost_no_more_than_their_number(data):
    before = time.process_time()
    fed(*singly(data)).take()
    assert time.process_time() - before < 2


def test_chunks_of_one_byte_cost_no_more_than_their_number():
    data = CHUNKED + b"1\r\nx\r\n" * 50_000 + b"0\r\n\r\n"
    before = time.process_time()
    for asked in (fed(data), fed(*singly(data)), fed(*cut(data, list(range(0, len(data), 6))))):
        assert (asked.complete, asked.unread, asked.take()) == (True, 50_000, b"x" * 50_000)
    assert time.process_time() - before < 2
