"""Events out of bytes by the WHATWG rules, and bytes out of events by the one encoder."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastroute._scan import EventSplitter, ScanError
from fastroute.upstreams import sse

TORTURE = os.environ.get("FASTROUTE_TORTURE") == "1"
Events = list[tuple[str, bytes]]
Cuttings = Callable[[bytes], Iterator[list[bytes]]]


def twin(stream: bytes) -> tuple[Events, bool]:
    """The rules as the standard says them, over the whole stream at once; and whether an event was left open."""
    lines = re.split(rb"\r\n|\r|\n", stream.removeprefix(b"\xef\xbb\xbf"))
    events: Events = []
    data: list[bytes] = []
    name = b""
    begun = False
    for line in lines[:-1]:
        if not line:
            if data:
                events.append((name.decode(errors="replace"), b"\n".join(data)))
            data, name, begun = [], b"", False
            continue
        begun = begun or not line.startswith(b":")
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value
    return events, begun or (lines[-1] != b"" and not lines[-1].startswith(b":"))


def split(pieces: list[bytes]) -> tuple[Events, bool]:
    splitter = EventSplitter()
    events = [event for piece in pieces for event in splitter.feed(piece)]
    return events, splitter.end()


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        (b"data: a\n\n", [("", b"a")]),
        (b"data: a\r\n\r\n", [("", b"a")]),
        (b"data: a\r\r", [("", b"a")]),
        (b"data: a\r\n\ndata: b\n\r\n", [("", b"a"), ("", b"b")]),
        (b"data:a\n\n", [("", b"a")]),
        (b"data:  a \n\n", [("", b" a ")]),
        (b"data: a\ndata: b\n\n", [("", b"a\nb")]),
        (b"data\n\n", [("", b"")]),
        (b"data:\ndata\n\n", [("", b"\n")]),
        (b"event: x\ndata: a\n\ndata: b\n\n", [("x", b"a"), ("", b"b")]),
        (b"data: a\nevent: x\nevent: y\n\n", [("y", b"a")]),
        (b"event: x\n\ndata: b\n\n", [("", b"b")]),
        (b"event: \xff\ndata: a\n\n", [("\ufffd", b"a")]),
        (b"\xef\xbb\xbfdata: a\n\n", [("", b"a")]),
        (b"\xef\xbb\xbf\ndata: a\n\n", [("", b"a")]),
        (b"\xef\xbb\xbf: c\n\xef\xbb\xbfdata: a\n\n", []),
        (b"\n\n\ndata: a\n\n\n", [("", b"a")]),
        (b": ping\n\n:\n:: x\ndata: a\n: inside\n\n", [("", b"a")]),
        (b"id: 7\nretry: 5\nnonsense\nData: x\ndata : x\ndata: a\n\n", [("", b"a")]),
        (b"data: \xff\x00\xe4\xb8\n\n", [("", b"\xff\x00\xe4\xb8")]),
        ("data: a\u2028b\u0085\x0b\x0cc\n\n".encode(), [("", "a\u2028b\u0085\x0b\x0cc".encode())]),
        (b"data: a\n", []),
        (b"data: a", []),
    ],
)
def test_a_stream_gives_these_events_however_it_is_cut(stream: bytes, events: Events, cuttings: Cuttings) -> None:
    assert twin(stream)[0] == events
    for pieces in cuttings(stream):
        assert split(pieces) == twin(stream), pieces


TOKENS = [
    *(
        b"data",
        b":",
        b" ",
        b"\r",
        b"\n",
        b"\r\n",
        b"x",
        b"event",
        b"id: 1",
        b"retry",
        b": c",
        b"\xff",
        b"\xc3\xa9",
        b"\x00",
    ),
    *(b"\xef\xbb\xbf", b"\ndata: y", b"data: x\n\n", b"event: e\r\ndata: z\r\n\r\n"),
]


def test_random_streams_agree_with_the_twin_however_they_are_cut(cuttings: Cuttings) -> None:
    """P-B14: CRLF framing, bare CRs, comments and marks in any order and in pieces of any size."""
    rng = random.Random(7)
    for _ in range(200_000 if TORTURE else 2_000):
        stream = b"".join(rng.choices(TOKENS, k=rng.randrange(1, 14)))
        for pieces in cuttings(stream):
            assert split(pieces) == twin(stream), pieces


@pytest.mark.parametrize(
    ("stream", "inside"),
    [
        (b"", False),
        (b"data: a\n\n", False),
        (b"data: a\r\n\r", False),
        (b"data: a\n\n: half a com", False),
        (b": ping\n", False),
        (b"data: a\n\nd", True),
        (b"data: a\n", True),
        (b"event: x\n", True),
    ],
)
def test_the_end_tells_whether_an_event_was_cut(stream: bytes, inside: bool, cuttings: Cuttings) -> None:
    for pieces in cuttings(stream):
        assert split(pieces)[1] is inside


def test_events_leave_in_the_call_that_completes_them() -> None:
    splitter = EventSplitter()
    assert splitter.feed(b"data: a\r\n\r") == [("", b"a")]
    assert splitter.feed(b"\n") == []
    assert splitter.feed(b"data: b\n") == []
    assert splitter.feed(b"\ndata: c\n\ndata") == [("", b"b"), ("", b"c")]
    assert splitter.end() is True


@pytest.mark.parametrize(
    "stream",
    [
        b"data: " + b"x" * 200,
        b"data: " + b"x" * 200 + b"\n\n",
        b"data: x\n" * 30,
        b"data: x\r" * 30 + b"\r",
        b": " + b"x" * 200,
        b": " + b"x" * 200 + b"\n",
        b"x" * 200,
        b"event: " + b"x" * 200 + b"\ndata: a\n\n",
    ],
)
def test_what_is_too_large_is_refused_after_what_came_before_it(stream: bytes, cuttings: Cuttings) -> None:
    """The limit holds for lines, events and comments, and in pieces of any size; a refused stream stays refused."""
    for pieces in cuttings(b"data: a\n\n" + stream):
        splitter = EventSplitter(max_event_bytes=100)
        seen: Events = []

        def read(splitter: EventSplitter, seen: Events, pieces: list[bytes]) -> None:
            for piece in pieces:
                seen += splitter.feed(piece)

        with pytest.raises(ScanError) as refused:
            read(splitter, seen, [*pieces, b""])
        assert seen == [("", b"a")]
        assert (refused.value.why, refused.value.offset) == ("event_too_large", 9)
        assert "xxx" not in refused.value.message
        with pytest.raises(ScanError):
            splitter.feed(b"data: b\n\n")
        with pytest.raises(ScanError):
            splitter.end()


def test_an_event_of_exactly_the_limit_passes(cuttings: Cuttings) -> None:
    """The bytes that count are those of its lines with their ends; the blank line is free."""
    for end in (b"\n", b"\r", b"\r\n"):
        event = b"data: " + b"x" * (94 - len(end)) + end
        for pieces in cuttings(event + end):
            splitter = EventSplitter(max_event_bytes=100)
            assert [data for piece in pieces for _, data in splitter.feed(piece)] == [event[6 : -len(end)]]


def test_comments_never_pile_up() -> None:
    splitter = EventSplitter(max_event_bytes=100)
    for _ in range(1_000):
        assert splitter.feed(b": keep-alive\n") == []
    assert splitter.feed(b"data: a\n\n") == [("", b"a")]


def test_a_limit_below_one_byte_is_refused() -> None:
    with pytest.raises(ValueError, match="positive"):
        EventSplitter(0)


# Writing.


def lines(text: bytes) -> bytes:
    return re.sub(rb"\r\n|\r", b"\n", text)


@settings(max_examples=20_000 if TORTURE else 300, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.binary() | st.text(alphabet="ab:\r\n\u2028é"), st.none() | st.from_regex(r"[^\r\n]+", fullmatch=True)
        )
    ),
    st.text(alphabet="a:\r\ndt"),
)
def test_what_is_written_is_what_is_read(events: list[tuple[str | bytes, str | None]], remark: str) -> None:
    """P15: nothing in data, name or comment begins an event or a field of its own."""
    stream = sse.comment("first") + b"".join(sse.encode(data, event) + sse.comment(remark) for data, event in events)
    expected = [(event or "", lines(data.encode() if isinstance(data, str) else data)) for data, event in events]
    assert split([stream]) == (expected, False)


def test_injection_attempts_stay_data() -> None:
    rng = random.Random(15)
    attack = [b"\r", b"\n", b"\r\n", b"data: ", b"event: error", b"id: 1", b": ", b"[DONE]", b"\x00", b"retry: 0"]
    for _ in range(1_000_000 if TORTURE else 10_000):
        data = b"".join(rng.choices(attack, k=rng.randrange(12)))
        assert split([sse.encode(data)]) == ([("", lines(data))], False)


@pytest.mark.parametrize("name", ["a\nb", "a\rb", "\r\n"])
def test_an_event_name_of_several_lines_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="one line"):
        sse.encode("x", name)


def test_the_bytes_written_are_these() -> None:
    assert sse.encode("a\nb", "error") == b"event: error\ndata: a\ndata: b\n\n"
    assert sse.encode(b"") == b"data: \n\n"
    assert sse.encode("\ud800") == b"data: ?\n\n"
    assert sse.comment("ping") == b": ping\n\n"
    assert sse.encode("[DONE]") == sse.DONE
