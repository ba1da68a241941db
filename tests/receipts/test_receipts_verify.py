"""P-A12: whatever is changed is found; what only looks changed is not."""

import json
import random

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastroute.receipts import Proof, ReceiptError, Sealer, canonical, describe, parse, verify

KEY = {"1": b"0123456789abcdef0123456789abcdef"}


@pytest.fixture(scope="module")
def body(particulars, attempt):
    told = particulars(
        attempts=(attempt(1, "slow", "stall"), attempt(2)), details={"policy": {"name": "é", "n": [1, 2]}}
    )
    return Sealer(KEY["1"], "1").seal(told).body


def leaves(value, path=()):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from leaves(inner, (*path, place))
    else:
        yield path


def put(value, path, new):
    for step in path[:-1]:
        value = value[step]
    value[path[-1]] = new


def shuffled(value, chance):
    if isinstance(value, dict):
        items = [(key, shuffled(inner, chance)) for key, inner in value.items()]
        chance.shuffle(items)
        return dict(items)
    return [shuffled(one, chance) for one in value] if isinstance(value, list) else value


class TestTampering:
    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("id", "rcpt_" + "a" * 26),
            ("ts", "2026-11-21T09:30:00.125Z"),
            ("cost_microdollars", 1),
            ("cost_picodollars", 1),
            ("cost_usd", "0.0000001"),
            ("route_primary", "other"),
            ("route_final", "other"),
        ],
    )
    def test_p_a12_a_changed_field_is_a_bad_signature(self, body, field, value):
        """P-A12: id, ts, cost or route changed: BAD SIGNATURE, told loudly."""
        fields = json.loads(body) | {field: value}
        tampered = json.dumps(fields).encode()
        proof = verify(tampered, KEY)
        assert proof.state == "bad_signature"
        assert describe(tampered, proof).startswith("BAD SIGNATURE: rcpt_")
        if field != "ts":
            assert any(field in sentence for sentence in proof.contradictions), proof

    @given(seed=st.integers(0, 2**32), indent=st.sampled_from([None, 0, 1, "\t"]), ascii=st.booleans())
    @settings(max_examples=60, deadline=None)
    def test_p_a12_order_and_spacing_alone_still_verify(self, body, seed, indent, ascii):
        """P-A12: the signature is over what is said, not over how it is laid out."""
        fields = shuffled(json.loads(body), random.Random(seed))
        assert verify(json.dumps(fields, indent=indent, ensure_ascii=ascii).encode(), KEY).ok

    @given(data=st.data())
    @settings(max_examples=200, deadline=None)
    def test_no_leaf_can_be_changed(self, body, data):
        fields = json.loads(body)
        path = data.draw(st.sampled_from(list(leaves(fields))))
        new = data.draw(st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=5))
        put(fields, path, new)
        tampered = canonical(fields)
        assert verify(tampered, KEY).ok == (tampered == body)

    @given(name=st.text(max_size=8), value=st.none() | st.integers(-5, 5) | st.text(max_size=3))
    def test_no_field_can_be_added(self, body, name, value):
        fields = json.loads(body)
        if name not in fields:
            assert not verify(canonical(fields | {name: value}), KEY).ok

    def test_no_field_can_be_taken_out(self, body):
        for name in json.loads(body):
            fields = json.loads(body)
            del fields[name]
            assert verify(canonical(fields), KEY).state == "bad_signature"

    @given(place=st.integers(min_value=0), byte=st.integers(0, 255))
    @settings(max_examples=200, deadline=None)
    def test_no_byte_can_be_changed(self, body, place, byte):
        place %= len(body)
        changed = body[:place] + bytes([byte]) + body[place + 1 :]
        try:
            same = canonical(parse(changed)) == body
        except ReceiptError:
            same = False
        assert verify(changed, KEY).ok == same

    def test_another_key_of_the_same_name_does_not_verify(self, body):
        assert verify(body, {"1": b"f" * 32}).state == "bad_signature"

    def test_a_key_that_is_not_here_is_said_to_be_missing(self, body):
        proof = verify(body, {"2": KEY["1"]})
        assert proof.state == "unknown_key"
        assert "UNKNOWN KEY" in str(proof)
        assert "'1'" in str(proof)

    def test_a_claimed_key_cannot_be_chosen(self, body):
        fields = json.loads(body) | {"kid": "2"}
        assert verify(canonical(fields), KEY | {"2": b"g" * 32}).state == "bad_signature"

    @pytest.mark.parametrize("signature", [None, 7, "", "é" * 64, "0" * 64, "0" * 63])
    def test_what_is_no_signature_does_not_verify(self, body, signature):
        assert verify(canonical(json.loads(body) | {"signature": signature}), KEY).state == "bad_signature"

    def test_capital_letters_in_a_signature_do_not_verify(self, body):
        fields = json.loads(body)
        assert not verify(canonical(fields | {"signature": fields["signature"].upper()}), KEY).ok


class TestReading:
    def test_a_key_that_stands_twice_is_refused(self, body):
        """Two readers would believe two different receipts."""
        for doubled in (b'{"seq":9,' + body[1:], body[:-1] + b',"seq":1}'):
            proof = verify(doubled, KEY)
            assert proof.state == "unreadable"
            assert "twice" in proof.detail

    def test_a_key_that_stands_twice_deep_inside_is_refused(self, body):
        assert verify(body.replace(b'"n":[1,2]', b'"n":[1,2],"n":[1,2]'), KEY).state == "unreadable"

    @pytest.mark.parametrize(
        "junk",
        [
            b"",
            b"[]",
            b"1",
            b"null",
            b"{",
            b"\xff{}",
            b"\xef\xbb\xbf{}",
            b'{"a":NaN}',
            b'{"a":1.0}',
            b'{"a":1e3}',
            b'{"a":9223372036854775808}',
            b'{"a":' + b"9" * 5000 + b"}",
            b'{"a":"\\ud800"}',
            b'{"a":' + b"[" * 100_000,
            b'{"a":' + b"[" * 70 + b"]" * 70 + b"}",
            b" " * (1 << 20) + b"{}",
        ],
        ids=lambda junk: repr(junk[:24]),
    )
    def test_junk_is_unreadable_and_nothing_breaks(self, junk):
        proof = verify(junk, KEY)
        assert proof.state == "unreadable"
        assert describe(junk, proof).startswith("UNREADABLE")

    @pytest.mark.parametrize(
        "body", [b"{}", b'{"id":[],"seq":"x","kid":{}}', b'{"attempts":[1,{"entry":[]}],"kid":"1"}']
    )
    def test_json_of_any_other_shape_is_a_bad_signature(self, body):
        proof = verify(body, KEY)
        assert proof.state == "bad_signature"
        assert describe(body, proof).startswith("BAD SIGNATURE")

    @given(st.binary(max_size=200))
    def test_any_bytes_can_be_checked_and_shown(self, junk):
        assert describe(junk, verify(junk, KEY))


class TestShowing:
    def test_a_good_one_says_so_first(self, body):
        text = describe(body, verify(body, KEY))
        assert text.splitlines()[0].endswith("verifies: key 1, number 1 of its chain")
        assert "BAD" not in text
        assert "slow -> gpt-4o-mini  fallbacks=1 reason=tier_small" in text
        assert "key_a microdollar/total: charged 165 of 400" in text

    def test_what_callers_wrote_cannot_move_the_cursor(self, particulars):
        """A model's name may hold the bytes that clear a terminal, or that write `verifies` over BAD SIGNATURE."""
        evil = "\x1b[2J\r\x9b1mverifies\u202e\n"
        body = Sealer(KEY["1"], "1").seal(particulars(model=evil, account_name=evil, details={evil: evil})).body
        text = describe(body, verify(body, KEY))
        assert all(character.isprintable() or character == "\n" for character in text)
        assert not any(line.startswith("1mverifies") for line in text.splitlines())
        fields = orjson.loads(body) | {"id": evil, "kid": evil}
        assert all(c.isprintable() or c == "\n" for c in describe(canonical(fields), verify(canonical(fields), KEY)))

    def test_a_proof_is_told_in_one_line(self):
        assert str(Proof("bad_signature", "rcpt_x", 3, "1", "why", ("a", "b"))) == "BAD SIGNATURE: rcpt_x: why; a; b"
