"""The order of blocks: whatever the deltas do, no block begins before the one before it has ended."""

import pytest

from fastroute.callers.blocks import Blocks


def told(blocks, chunks):
    """The events of all chunks and of the end, each as (op, kind, name, text)."""
    events = [event for chunk in chunks for event in blocks.feed(chunk)] + blocks.finish()
    return [(op, block.kind, block.name, text) for op, block, text in events]


def call(index=None, id=None, name=None, arguments=None):
    made = {"function": {}}
    if index is not None:
        made["index"] = index
    if id is not None:
        made["id"] = id
    if name is not None:
        made["function"]["name"] = name
    if arguments is not None:
        made["function"]["arguments"] = arguments
    return made


def test_reasoning_ends_where_text_begins_and_may_come_again(chunk):
    chunks = [chunk(reasoning="a"), chunk(content="b"), chunk(reasoning_content="c"), chunk(content="d")]
    assert [event[:2] for event in told(Blocks(), chunks)] == [
        (op, kind) for kind in ("reasoning", "text", "reasoning", "text") for op in ("open", "more", "close")
    ]


def test_a_call_that_is_whole_makes_way_for_the_next(chunk):
    chunks = [
        chunk(tool_calls=[call(0, "a", "f", "")]),
        chunk(tool_calls=[call(0, arguments="{}")]),
        chunk(tool_calls=[call(1, "b", "g", "")]),
        chunk(tool_calls=[call(1, arguments="{}")]),
    ]
    assert told(Blocks(), chunks) == [
        ("open", "tool", "f", ""),
        ("more", "tool", "f", "{}"),
        ("close", "tool", "f", ""),
        ("open", "tool", "g", ""),
        ("more", "tool", "g", "{}"),
        ("close", "tool", "g", ""),
    ]


def test_calls_that_interleave_come_out_one_after_the_other(chunk):
    chunks = [
        chunk(tool_calls=[call(0, "a", "f", '{"x"'), call(1, "b", "g", '{"y"')]),
        chunk(tool_calls=[call(1, arguments=":2}")]),
        chunk(tool_calls=[call(0, arguments=":1}")]),
        chunk(content="done"),
    ]
    assert told(Blocks(), chunks) == [
        ("open", "tool", "f", ""),
        ("more", "tool", "f", '{"x"'),
        ("more", "tool", "f", ":1}"),
        ("close", "tool", "f", ""),
        ("open", "tool", "g", ""),
        ("more", "tool", "g", '{"y":2}'),
        ("close", "tool", "g", ""),
        ("open", "text", "", ""),
        ("more", "text", "", "done"),
        ("close", "text", "", ""),
    ]


@pytest.mark.parametrize(
    "deltas",
    [
        pytest.param(
            [call(0, "a", "f", '{"x":'), call(0, "a", "f", "1}"), call(1, "b", "g", "{}")],
            id="name and id repeated in every delta",
        ),
        pytest.param(
            [call(None, "a", "f", '{"x":'), call(arguments="1}"), call(None, "b", "g", "{}")],
            id="no index",
        ),
        pytest.param(
            [call(0, "a", "f", '{"x":'), call(0, arguments="1}"), call(0, "b", "g", "{}")],
            id="index 0 for every call",
        ),
        pytest.param(
            [call(0, "a", "f", {"x": 1}), call(1, "b", "g", {})],
            id="arguments as an object",
        ),
        pytest.param(
            [call(0, "a", "f", '{"x":1}'), call(1, "b", "g", "{}"), call(0, arguments=" ")],
            id="a late blank for a call that has ended",
        ),
    ],
)
def test_calls_survive_what_servers_do_to_their_deltas(chunk, deltas):
    blocks = Blocks()
    told(blocks, [chunk(tool_calls=[delta]) for delta in deltas])
    calls = [(block.id, block.name, block.text.replace(" ", "")) for block in blocks.opened]
    assert calls == [("a", "f", '{"x":1}'), ("b", "g", "{}")]


def test_a_call_whose_arguments_never_close_still_comes_out(chunk):
    chunks = [
        chunk(tool_calls=[call(0, "a", "f", '{"x')]),
        chunk(content="and"),
        chunk(tool_calls=[call(1, "b", "g", "{}")]),
    ]
    assert [event for event in told(Blocks(), chunks) if event[0] != "more"] == [
        ("open", "tool", "f", ""),
        ("close", "tool", "f", ""),
        ("open", "text", "", ""),
        ("close", "text", "", ""),
        ("open", "tool", "g", ""),
        ("close", "tool", "g", ""),
    ]


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"choices": None},
        {"choices": {}},
        {"choices": [None, 3]},
        {"choices": [{"index": 0}]},
        {"choices": [{"index": 0, "delta": None, "finish_reason": 3}]},
        {"choices": [{"index": 0, "delta": {"content": 3, "tool_calls": {}, "reasoning": [], "refusal": 1}}]},
        {"choices": [{"index": 0, "delta": {"content": [None, {"text": 3}], "tool_calls": [None]}}]},
        {"choices": [{"index": 0, "delta": {"thinking_blocks": [None, {"signature": 3}]}}]},
    ],
)
def test_an_odd_chunk_says_nothing(odd):
    blocks = Blocks()
    assert told(blocks, [odd]) == []
    assert blocks.finish_reason is None


def test_content_in_parts_is_read_as_its_text(chunk):
    assert told(Blocks(), [chunk(content=[{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])])[1][3] == "ab"
