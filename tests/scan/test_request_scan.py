"""The request scanner against a slow twin built on `json`, and its refusals one by one."""

from __future__ import annotations

import json
import os
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastroute._scan import (
    MAX_KEYS,
    MAX_MESSAGES,
    MAX_NUMBER,
    MAX_TOOLS,
    WHYS,
    RequestScanner,
    Scan,
    ScanError,
    json_string,
    scan_request,
    splice,
)

TORTURE = os.environ.get("FASTROUTE_TORTURE") == "1"
NAMES = (b"max_tokens", b"n", b"temperature", b"response_format", b"absent")
SCANNER = RequestScanner(NAMES)


# The twin: obvious, unhurried, and what the scanner must agree with.


class Refused(Exception):
    pass


class Number(str):
    __slots__ = ()


def number(text: str) -> Number:
    if len(text) > MAX_NUMBER:
        raise Refused
    return Number(text)


def pairs(members: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({key for key, _ in members}) != len(members):
        raise Refused
    return dict(members)


def constant(_: str) -> None:
    raise Refused


def check(value: Any, depth: int) -> None:
    if isinstance(value, str):
        value.encode()  # half a surrogate pair has no UTF-8
    elif isinstance(value, dict | list):
        if depth > 64:
            raise Refused
        for key in value if isinstance(value, dict) else ():
            key.encode()
        for inner in value.values() if isinstance(value, dict) else value:
            check(inner, depth + 1)


def twin(body: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(
            body.decode(), object_pairs_hook=pairs, parse_constant=constant, parse_int=number, parse_float=number
        )
        check(value, 1)
    except (Refused, ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    if isinstance(value.get("model"), Number) or not isinstance(value.get("model"), str | None):
        return None
    if not isinstance(value.get("stream"), bool | None):
        return None
    return value


MEDIA_KEYS = {
    "image_url", "input_audio", "file", "audio", "video_url", "inline_data", "inlineData", "file_data", "fileData",
}  # fmt: skip
MEDIA_TYPES = {"image", "document", "input_image", "input_file", "video", "container_upload"}


def compact(value: Any) -> int:
    """Bytes of a value as JSON without white space, escapes undone, brackets, commas and colons counted twice."""
    if isinstance(value, Number):
        return len(value)
    if isinstance(value, str):
        return len(value.encode()) + 2
    if value is None or isinstance(value, bool):
        return len(json.dumps(value))
    if isinstance(value, list):
        return 4 + sum(2 + compact(element) for element in value)
    return 4 + sum(len(key.encode()) + 6 + compact(inner) for key, inner in value.items())


def message(value: Any) -> int:
    if isinstance(value, dict):
        return sum(compact(inner) for inner in value.values())
    if isinstance(value, list):
        return sum(message(inner) for inner in value)
    return len(value.encode()) if isinstance(value, str) and not isinstance(value, Number) else 0


def text_bytes(body: dict[str, Any]) -> int:
    return sum(
        sum(message(element) for element in value) if key == "messages" and isinstance(value, list) else compact(value)
        for key, value in body.items()
    )


def media(value: Any) -> int:
    if isinstance(value, list):
        return sum(map(media, value))
    if not isinstance(value, dict):
        return 0
    kind = value.get("type")
    here = not MEDIA_KEYS.isdisjoint(value) or (not isinstance(kind, Number | list | dict) and kind in MEDIA_TYPES)
    return here + sum(map(media, value.values()))


def agree(body: bytes) -> Scan | None:
    """Scanner and twin say the same of this body, down to every span and count."""
    expected = twin(body)
    if expected is None:
        with pytest.raises(ScanError) as refused:
            SCANNER.scan(body)
        assert refused.value.why in WHYS
        assert 0 <= refused.value.offset <= len(body)
        return None
    scan = SCANNER.scan(body)
    assert scan.model == expected.get("model")
    assert scan.stream == bool(expected.get("stream"))
    for name in (*NAMES, b"model", b"stream", b"messages", b"tools", b"input", b"stream_options"):
        span = scan.span(name)
        assert (span is not None) == (name.decode() in expected), (name, body)
        if span is not None:
            raw = body[span[0] : span[1]]
            assert scan.raw(name) == raw
            assert raw == raw.strip()
            assert json.loads(raw, parse_int=number, parse_float=number) == expected[name.decode()]
    for name, count in (("messages", scan.messages), ("tools", scan.tools)):
        assert count == (len(expected[name]) if isinstance(expected.get(name), list) else 0)
    assert scan.text_bytes == text_bytes(expected), body
    assert scan.media == sum(
        media(expected.get(name)) for name in ("messages", "input", "prompt", "system", "contents")
    )
    return scan


# Random documents, whole and spoiled.

WORDS = ["model", "stream", "messages", "role", "content", "type", "image", "file", "input", "tools", "n", "a", "é", ""]
SPOIL = [
    *(bytes([byte]) for byte in b'"\\{}[],: \n\x00\xff\xc3-0.e'),
    *(b"\\u", b"\\ud800", b"\\udc00", b"true", b"NaN", b"null"),
    *(b"\xed\xa0\x80", b"\xef\xbb\xbf", b"1" * 65),
]


def random_text(rng: random.Random) -> str:
    if rng.random() < 0.5:
        return rng.choice(WORDS)
    return "".join(rng.choice('ab"\\/\n\t\x01 é中\u2028😀\x7f') for _ in range(rng.randrange(30)))


def spelled(rng: random.Random, text: str) -> str:
    """A string as JSON, in one of the ways it can be spelled."""
    if rng.random() < 0.2:
        units = text.encode("utf-16-be", "surrogatepass")
        return '"' + "".join(f"\\u{units[i]:02X}{units[i + 1]:02x}" for i in range(0, len(units), 2)) + '"'
    return json.dumps(text, ensure_ascii=rng.random() < 0.5)


def random_json(rng: random.Random, depth: int = 0) -> str:
    gap = rng.choice(["", "", "", " ", "\n\t", "\r "])
    kind = rng.randrange(8 if depth < 5 else 5)
    if kind < 2:
        return gap + spelled(rng, random_text(rng)) + gap
    if kind == 2:
        return gap + rng.choice(["0", "-0", "12", "-1.5", "1e9", "1E-2", "0.25e+3", "9" * 64]) + gap
    if kind < 5:
        return gap + rng.choice(["true", "false", "null"]) + gap
    if kind == 5:
        return gap + "[" + ",".join(random_json(rng, depth + 1) for _ in range(rng.randrange(4))) + "]" + gap
    return gap + random_object(rng, depth) + gap


def random_object(rng: random.Random, depth: int = 0) -> str:
    keys = [random_text(rng) for _ in range(rng.choice([0, 1, 2, 3, 12]))]
    if rng.random() < 0.9:
        keys = list(dict.fromkeys(keys))
    gap = rng.choice(["", " "])
    members = (f"{gap}{spelled(rng, key)}{gap}:{gap}{random_json(rng, depth + 1)}" for key in keys)
    return "{" + ",".join(members) + gap + "}"


def spoiled(rng: random.Random, body: bytes) -> bytes:
    at = rng.randrange(len(body) + 1)
    act = rng.randrange(4)
    if act == 0:
        return body[:at]
    if act == 1:
        return body[:at] + rng.choice(SPOIL) + body[at:]
    if act == 2:
        return body[:at] + rng.choice(SPOIL) + body[at + 1 :]
    return body[:at] + body[at + rng.randrange(1, 4) :]


def test_scanner_and_twin_agree_on_random_and_spoiled_documents() -> None:
    """Accepted by both or by none; every span, count and bound the same."""
    rng = random.Random(20260101)
    accepted = 0
    rounds = 1_000_000 if TORTURE else 10_000
    for _ in range(rounds):
        body = random_object(rng).encode()
        if rng.random() < 0.6:
            body = spoiled(rng, body)
        accepted += agree(body) is not None
    assert rounds * 0.2 < accepted < rounds * 0.8


@settings(max_examples=2_000 if TORTURE else 100, deadline=None)
@given(
    st.dictionaries(
        st.one_of(st.sampled_from(WORDS), st.text(max_size=5)),
        st.recursive(
            st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False) | st.text(),
            lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=12),
            max_leaves=12,
        ),
    ),
    st.booleans(),
)
def test_scanner_and_twin_agree_on_what_json_writes(value: dict[str, Any], ascii_only: bool) -> None:
    agree(json.dumps(value, ensure_ascii=ascii_only).replace("Infinity", "1").encode(errors="replace"))


@settings(max_examples=2_000 if TORTURE else 100, deadline=None)
@given(st.binary(max_size=40))
def test_bytes_inside_a_string_are_taken_only_as_utf8(raw: bytes) -> None:
    agree(b'{"a":"' + raw + b'"}')


def test_every_two_and_three_byte_start_is_judged_as_python_judges_it() -> None:
    for first in range(0x80, 0x100):
        for second in (0x20, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0):
            for rest in (b"", b"\x80", b"\xbf", b"\x80\x80", b"\xbf\xbf", b"\x80\x41"):
                agree(b'{"a":"' + bytes((first, second)) + rest + b'"}')


def test_a_multibyte_string_cut_anywhere_is_refused() -> None:
    body = '{"model":"中é😀","x":"\\ud83d\\ude00"}'.encode()
    assert agree(body) is not None
    for at in range(len(body)):
        assert agree(body[:at]) is None


def nested(depth: int) -> bytes:
    return b'{"a":' * (depth - 1) + b"{}" + b"}" * (depth - 1)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "syntax"),
        (b" ", "syntax"),
        (b"\xef\xbb\xbf{}", "syntax"),
        ("{}".encode("utf-16"), "syntax"),
        (b"{}{}", "syntax"),
        (b"{}\x00", "syntax"),
        (b"{},", "syntax"),
        (b'{"a":1,}', "syntax"),
        (b'{"a" 1}', "syntax"),
        (b"{a:1}", "syntax"),
        (b"{'a':1}", "syntax"),
        (b'{"a":[1,]}', "syntax"),
        (b'{"a":[1 2]}', "syntax"),
        (b'{"a":01}', "syntax"),
        (b'{"a":+1}', "syntax"),
        (b'{"a":.5}', "syntax"),
        (b'{"a":1.}', "syntax"),
        (b'{"a":1e}', "syntax"),
        (b'{"a":-}', "syntax"),
        (b'{"a":0x1}', "syntax"),
        (b'{"a":NaN}', "syntax"),
        (b'{"a":Infinity}', "syntax"),
        (b'{"a":-Infinity}', "syntax"),
        (b'{"a":True}', "syntax"),
        (b'{"a":nul}', "syntax"),
        (b'{"a":"\t"}', "syntax"),
        (b'{"a":"\\x41"}', "syntax"),
        (b'{"a":"\\u12"}', "syntax"),
        (b'{"a":/**/1}', "syntax"),
        (b"[]", "not_object"),
        (b'"a"', "not_object"),
        (b"12", "not_object"),
        (b"null", "not_object"),
        (b'{"a":"\xc0\xaf"}', "utf8"),
        (b'{"a":"\xed\xa0\x80"}', "utf8"),
        (b'{"\xff":1}', "utf8"),
        (b'{"a":"\\ud800"}', "surrogate"),
        (b'{"a":"\\udc00"}', "surrogate"),
        (b'{"a":"\\ud800\\ud800"}', "surrogate"),
        (b'{"a":' + b"1" * 65 + b"}", "number"),
        (b'{"a":' + b"1" * 1_000_000 + b"}", "number"),
        (b'{"a":1,"a":1}', "duplicate_key"),
        (b'{"a":1,"\\u0061":1}', "duplicate_key"),
        (b'{"\\u0061\\n":1,"a\\u000a":1}', "duplicate_key"),
        (b'{"x":[{"y":{"":1,"":2}}]}', "duplicate_key"),
        ('{"😀":1,"\\ud83d\\ude00":1}'.encode(), "duplicate_key"),
        (b'{"messages":[' + b",".join([b"{}"] * (MAX_MESSAGES + 1)) + b"]}", "too_many_messages"),
        (b'{"messages":[' + b"{}," * 400_000 + b"{}]}", "too_many_messages"),
        (b'{"tools":[' + b",".join([b"{}"] * (MAX_TOOLS + 1)) + b"]}", "too_many_tools"),
        (nested(65), "depth"),
        (b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "depth"),
        (b'{"a":' * 200_000, "depth"),
        (b'{"model":1}', "type"),
        (b'{"model":{}}', "type"),
        (b'{"stream":"true"}', "type"),
        (b'{"stream":1}', "type"),
    ],
)
def test_a_refusal_says_why(body: bytes, why: str) -> None:
    with pytest.raises(ScanError) as refused:
        SCANNER.scan(body)
    assert refused.value.why == why


@pytest.mark.parametrize(
    "body",
    [
        nested(64),
        b'{"a":' + b"[" * 63 + b"]" * 63 + b"}",
        b'{"a":' + b"1" * 64 + b"}",
        b'{"messages":[' + b",".join([b"{}"] * MAX_MESSAGES) + b"]}",
        b'{"tools":[' + b",".join([b"{}"] * MAX_TOOLS) + b"]}",
        b'{"a":{"x":1},"b":{"x":1},"x":1}',
        b' {"a":"\x7f\\u0000"} \r\n',
    ],
)
def test_what_stands_at_a_limit_is_accepted(body: bytes) -> None:
    assert agree(body) is not None


def test_the_depth_allowed_is_a_setting() -> None:
    assert scan_request(nested(10), max_depth=10).raw(b"model") is None
    with pytest.raises(ScanError) as refused:
        scan_request(nested(11), max_depth=10)
    assert refused.value.why == "depth"


def test_thousands_of_keys_are_compared_and_more_are_refused() -> None:
    """A table takes over after the first few keys; the last key may repeat the first, or any in between."""
    keys = [f"key-{i}" for i in range(5_000)]
    body = "{" + ",".join(f'"{key}":{{"{key}":0}}' for key in keys)
    assert scan_request((body + "}").encode()).messages == 0
    for again in (0, 1, 7, 8, 9, 31, 32, 2_500, 4_999):
        with pytest.raises(ScanError) as refused:
            scan_request((body + f',"{keys[again]}":0}}').encode())
        assert refused.value.why == "duplicate_key"
        assert keys[again] in refused.value.message
    with pytest.raises(ScanError) as refused:
        scan_request(("{" + ",".join(f'"{i}":0' for i in range(MAX_KEYS + 1)) + "}").encode())
    assert refused.value.why == "too_many_keys"


def test_a_refusal_names_a_key_in_short_and_never_the_content() -> None:
    with pytest.raises(ScanError, match=r"key 'kkk.*' is given twice") as refused:
        SCANNER.scan(b'{"%b":"secret","%b":1}' % (b"k" * 90, b"k" * 90))
    assert "k" * 41 not in str(refused.value)
    for body in (b'{"a":"secret\xff"}', b'{"a":secret}', b'{"model":["secret"]}', b'{"a":"secret'):
        with pytest.raises(ScanError) as refused:
            SCANNER.scan(body)
        assert "secret" not in str(refused.value)


# What a gateway reads from a body.

BODY = (
    b'{ "model" : "gpt-4o-mini", "stream":true, "max_tokens":256, "n":null, "unknown":{"kept":[1.0, 2]},'
    b'"messages":[{"role":"user","content":[{"type":"text","text":"hi"},{"type":"image_url","image_url":{"url":"u"}}]},'
    b'{"role":"user","content":[{"type":"image","source":{}},{"type":"input_audio","input_audio":{}},'
    b'{"type":"file","file":{}}]}],"tools":[{"type":"function","function":{"name":"file","file":1}}] }'
)


def test_a_chat_body_is_read_in_one_pass() -> None:
    scan = SCANNER.scan(BODY)
    assert (scan.model, scan.stream, scan.messages, scan.tools, scan.media) == ("gpt-4o-mini", True, 2, 1, 4)
    assert scan.body is BODY
    assert scan.raw(b"max_tokens") == b"256"
    assert scan.integer(b"max_tokens") == 256
    assert scan.integer(b"n") is None
    assert scan.integer(b"absent") is None
    assert scan.span(b"absent") is None
    with pytest.raises(ValueError, match="does not look for"):
        scan.span(b"unknown")
    with pytest.raises(ScanError) as refused:
        SCANNER.scan(b'{"n":1.5}').integer(b"n")
    assert refused.value.why == "type"


def test_escaped_names_and_models_are_read_as_what_they_spell() -> None:
    scan = SCANNER.scan(b'{"m\\u006fdel":"gpt\\u002d4\\ud83d\\ude00","str\\u0065am":true}')
    assert (scan.model, scan.stream) == ("gpt-4😀", True)


def test_null_and_absent_are_no_model_and_no_stream() -> None:
    for body in (b"{}", b'{"model":null,"stream":null}', b'{"stream":false}'):
        scan = SCANNER.scan(body)
        assert (scan.model, scan.stream) == (None, False)


@pytest.mark.parametrize("names", [(b'a"',), (b"a\n",), (b"\\",), (b"",), ("\u00e9".encode(),), (b"x" * 64,)])
def test_a_name_that_could_not_be_written_back_is_refused(names: tuple[bytes, ...]) -> None:
    with pytest.raises(ValueError, match="cannot be looked for"):
        RequestScanner(names)


def test_a_scanner_has_room_for_32_names() -> None:
    with pytest.raises(ValueError, match="32 names"):
        RequestScanner(tuple(b"name%d" % i for i in range(24)))


# What a gateway changes in a body.


@given(st.binary(max_size=30), st.data(), st.binary(max_size=10))
@settings(max_examples=100, deadline=None)
def test_a_splice_keeps_every_other_byte(body: bytes, data: st.DataObject, replacement: bytes) -> None:
    start = data.draw(st.integers(0, len(body)))
    end = data.draw(st.integers(start, len(body)))
    assert splice(body, start, end, replacement) == body[:start] + replacement + body[end:]


@pytest.mark.parametrize(("start", "end"), [(-1, 0), (2, 1), (0, 4)])
def test_a_splice_outside_the_body_is_refused(start: int, end: int) -> None:
    with pytest.raises(ValueError, match="span"):
        splice(b"abc", start, end, b"")


@given(st.text())
@settings(max_examples=100, deadline=None)
def test_a_model_is_written_as_a_json_string(model: str) -> None:
    scan = SCANNER.scan(BODY)
    start, end = scan.span(b"model") or (0, 0)
    written = scan.rewrite([(b"model", json_string(model))])
    assert written == splice(BODY, start, end, json_string(model))
    assert SCANNER.scan(written).model == model


def test_a_rewrite_replaces_what_is_there_and_adds_what_is_not() -> None:
    written = SCANNER.scan(BODY).rewrite(
        [(b"stream_options", b"{}"), (b"absent", b"0"), (b"model", b'"x"'), (b"n", b"1")]
    )
    expected = json.loads(BODY) | {"stream_options": {}, "absent": 0, "model": "x", "n": 1}
    assert json.loads(written) == expected
    assert len(SCANNER.scan(written).rewrite([])) == len(written)
    assert scan_request(b" { } ").rewrite([(b"model", b"1"), (b"n", b"2")][:1]) == b' { "model":1} '
    assert SCANNER.scan(b"{}").rewrite([(b"model", b"1"), (b"n", b"2")]) == b'{"model":1,"n":2}'


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (None, b'{"include_usage":true}'),
        (b"null", b'{"include_usage":true}'),
        (b"{}", b'{"include_usage":true}'),
        (b'{"x":1}', b'{"x":1,"include_usage":true}'),
        (b'{"include_usage":false, "x":1}', b'{"include_usage":true, "x":1}'),
        (b'{"include\\u005fusage":null}', b'{"include\\u005fusage":true}'),
        (b'{"include_usage": true}', None),
    ],
)
def test_usage_is_asked_for_once(options: bytes | None, expected: bytes | None) -> None:
    scan = SCANNER.scan(b"{}" if options is None else b'{"stream_options":%b}' % options)
    assert scan.usage_options() == expected


def test_stream_options_must_be_an_object() -> None:
    with pytest.raises(ScanError) as refused:
        SCANNER.scan(b'{"stream_options":[]}').usage_options()
    assert refused.value.why == "type"
