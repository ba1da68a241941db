"""What a receipt says, and how: one form, integers only, every attempt, the exact sum."""

import hashlib
import hmac
import json
import re

import msgspec
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastroute.domain import Tariff, Usage
from fastroute.ids import Ids
from fastroute.money import usd_from_picodollars
from fastroute.receipts import (
    GENESIS,
    Particulars,
    ReceiptError,
    Sealer,
    canonical,
    describe,
    is_receipt_id,
    parse,
    receipt_id,
    verify,
)

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


class TestWhatItSays:
    def test_p_a11_300_in_and_200_out_of_the_small_model_cost_165_microdollars(self, sealer, particulars, keys):
        """P-A11: exact to the picodollar, and printed as a person would write it."""
        body = sealer.seal(particulars()).body
        said = json.loads(body)
        assert said["cost_microdollars"] == 165
        assert said["cost_picodollars"] == 165_000_000
        assert said["cost_usd"] == usd_from_picodollars(165_000_000) == "0.0001650"
        assert re.search(r"^cost +\$0\.000165$", describe(body, verify(body, keys)), re.MULTILINE)

    def test_every_fact_of_the_request_is_there(self, sealer, particulars):
        sealed = sealer.seal(particulars(details={"policy": "balanced-helpdesk"}))
        assert json.loads(sealed.body) == {
            "account": "key_a",
            "account_name": "alice",
            "attempts": [
                {
                    "attempt": 1,
                    "basis": "exact",
                    "charges": [
                        {"account": "key_a", "charged": 165, "reserved": 400, "unit": "microdollar", "window": "total"}
                    ],
                    "entry": "gpt-4o-mini",
                    "lane": "openai",
                    "microdollars": 165,
                    "model": "gpt-4o-mini",
                    "ms": 812,
                    "outcome": "ok",
                    "picodollars": 165_000_000,
                    "price": None,
                    "reserved_microdollars": 400,
                    "status": 200,
                    "usage": {"cache_read": 0, "cache_write": 0, "input": 300, "output": 200, "reasoning": 0},
                }
            ],
            "cost_microdollars": 165,
            "cost_picodollars": 165_000_000,
            "cost_usd": "0.0001650",
            "decision_id": "rd_" + "a" * 26,
            "details": {"policy": "balanced-helpdesk"},
            "fallback_count": 0,
            "first_chunk_ms": 120,
            "id": receipt_id("req_abcdefgh1"),
            "kid": "1",
            "latency_ms": 812,
            "model": "auto",
            "outcome": "ok",
            "previous": GENESIS.hex(),
            "reason": "tier_small",
            "request_id": "req_abcdefgh1",
            "route_final": "gpt-4o-mini",
            "route_primary": "gpt-4o-mini",
            "seq": 1,
            "signature": sealed.link.hex(),
            "status": 200,
            "stream": True,
            "surface": "chat",
            "ts": "2026-11-21T09:30:00.124Z",
            "usage": {"cache_read": 0, "cache_write": 0, "input": 300, "output": 200, "reasoning": 0},
            "v": 1,
        }

    def test_a_request_costs_what_all_its_attempts_cost(self, sealer, particulars, attempt):
        stalled = attempt(1, "slow", "stall", 1_500_001, basis="presumed", usage=Usage())
        said = json.loads(sealer.seal(particulars(attempts=(stalled, attempt(2)))).body)
        assert (said["cost_picodollars"], said["cost_microdollars"]) == (166_500_001, 167)
        assert said["cost_usd"] == "0.000166500001"
        assert (said["route_primary"], said["route_final"], said["fallback_count"]) == ("slow", "gpt-4o-mini", 1)
        assert said["usage"]["output"] == 200

    def test_trying_the_same_entry_again_is_no_fallback(self, sealer, particulars, attempt):
        attempts = (attempt(1, outcome="5xx"), attempt(2, outcome="5xx"), attempt(3, "b"))
        assert json.loads(sealer.seal(particulars(attempts=attempts)).body)["fallback_count"] == 1

    def test_one_attempt_of_an_unknown_price_leaves_the_cost_unknown(self, sealer, particulars, attempt, keys):
        body = sealer.seal(particulars(attempts=(attempt(), attempt(2, picodollars=None)))).body
        said = json.loads(body)
        assert said["cost_usd"] is said["cost_picodollars"] is said["cost_microdollars"] is None
        assert "unknown" in describe(body, verify(body, keys))

    def test_a_refused_request_has_a_receipt_without_attempts(self, sealer, particulars, keys):
        body = sealer.seal(particulars(attempts=(), route_final="", status=402, first_chunk_ms=None)).body
        said = json.loads(body)
        assert (said["route_primary"], said["route_final"], said["outcome"]) == (None, None, "failed")
        assert said["cost_usd"] == "0.0000000"
        assert verify(body, keys).ok

    @pytest.mark.parametrize(
        ("status", "outcome", "expected"),
        [
            (200, "ok", "ok"),
            (200, "low_quality", "ok"),
            (200, "cut", "partial"),
            (200, "gone", "partial"),
            (502, "5xx", "failed"),
        ],
    )
    def test_an_answer_that_was_cut_is_partial(self, sealer, particulars, attempt, status, outcome, expected):
        told = particulars(status=status, attempts=(attempt(outcome=outcome),))
        assert json.loads(sealer.seal(told).body)["outcome"] == expected

    def test_what_an_attempt_was_priced_at_is_told(self, sealer, particulars, attempt, keys):
        tariff = Tariff(150_000, 600_000, 75_000, source="genai-prices 1.2 2026-11-01")
        body = sealer.seal(particulars(attempts=(attempt(price=tariff),))).body
        assert json.loads(body)["attempts"][0]["price"] == {
            "cache_read": 75_000,
            "cache_write": None,
            "input": 150_000,
            "output": 600_000,
            "source": "genai-prices 1.2 2026-11-01",
        }
        told = "a million tokens: 150000 in, 600000 out, 75000 read from cache (genai-prices 1.2 2026-11-01)"
        assert told in describe(body, verify(body, keys))
        assert verify(body, keys).ok

    def test_a_key_pasted_as_a_models_name_is_masked(self, sealer, particulars):
        """S23: receipts show no key, and no name is longer than it must be."""
        assert json.loads(sealer.seal(particulars(model="sk-proj-0123456789abcdef")).body)["model"] == "sk-***"
        assert len(json.loads(sealer.seal(particulars(model="m" * 100_000)).body)["model"]) < 300
        details = {"sk-0123456789abcdef": ["Bearer x"]}
        assert json.loads(sealer.seal(particulars(details=details)).body)["details"] == {"sk-***": ["Bearer ***"]}

    @pytest.mark.parametrize(
        "bad",
        [0.5, b"x", {1: 2}, 2**63, [float("nan")], {"a": {"b": 1.0}}, "\ud800", "x" * 300_000],
        ids=lambda bad: repr(bad)[:20],
    )
    def test_details_without_a_canonical_form_are_refused_and_the_request_has_its_receipt(
        self, sealer, particulars, keys, bad
    ):
        """P31: every settled request has a receipt that verifies, whatever a policy put into the details."""
        body = sealer.seal(particulars(details={"bad": bad})).body
        assert list(json.loads(body)["details"]) == ["refused"]
        assert verify(body, keys).ok


class TestHowItIsWritten:
    @given(
        details=st.dictionaries(st.text(), plain, max_size=4), model=st.text(max_size=20), name=st.none() | st.text()
    )
    @settings(max_examples=150, deadline=None)
    def test_the_sealers_bytes_are_the_canonical_form(self, particulars, keys, details, model, name):
        """Two libraries write it, one for speed; they agree on every byte."""
        body = Sealer(keys["1"], "1").seal(particulars(details=details, model=model, account_name=name)).body
        assert canonical(json.loads(body)) == body
        assert verify(body, keys).ok

    @given(value=plain)
    @settings(max_examples=200, deadline=None)
    def test_both_encoders_agree_on_whatever_is_plain(self, value):
        assert canonical(value) == msgspec.json.encode(value, order="sorted")

    def test_keys_are_sorted_and_no_space_is_wasted(self):
        assert (
            canonical({"b": [1, None], "a": {"é": True, "z": "\u2028"}})
            == '{"a":{"z":"\u2028","é":true},"b":[1,null]}'.encode()
        )

    @pytest.mark.parametrize("bad", [1.0, {"a": 1.5}, [b"x"], {1: "a"}, 2**63, -(2**63) - 1, "\ud800"], ids=repr)
    def test_what_readers_disagree_upon_has_no_canonical_form(self, bad):
        with pytest.raises(ReceiptError):
            canonical(bad)

    def test_depth_is_bounded(self):
        value = []
        for _ in range(100):
            value = [value]
        with pytest.raises(ReceiptError):
            canonical(value)

    def test_the_signature_is_hmac_sha256_of_the_form_without_it(self, sealer, particulars, keys):
        """Anyone with the key can check one with a page of any language."""
        fields = json.loads(sealer.seal(particulars()).body)
        signature = fields.pop("signature")
        message = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        assert signature == hmac.new(keys["1"], message, hashlib.sha256).hexdigest()

    @pytest.mark.parametrize("length", [32, 64, 65, 200])
    def test_keys_of_any_length_sign_as_the_standard_says(self, particulars, length):
        key = bytes(range(length))
        fields = orjson.loads(Sealer(key, "k").seal(particulars()).body)
        signature = fields.pop("signature")
        assert signature == hmac.new(key, canonical(fields), hashlib.sha256).hexdigest()


class TestItsPlace:
    def test_each_names_the_one_before(self, sealer, particulars):
        first, second = sealer.seal(particulars(1)), sealer.seal(particulars(2))
        assert (first.seq, second.seq) == (1, 2)
        assert json.loads(second.body)["previous"] == json.loads(first.body)["signature"] == first.link.hex()

    def test_a_batch_that_was_not_stored_is_made_again_byte_for_byte(self, keys, particulars):
        sealer = Sealer(keys["1"], "1")
        stored = sealer.seal(particulars(1))
        lost = [sealer.seal(particulars(n)) for n in (2, 3)]
        again = Sealer(keys["1"], "1", stored.seq, stored.link)
        assert [again.seal(particulars(n)) for n in (2, 3)] == lost

    def test_a_chain_goes_on_under_another_key(self, sealer, particulars, keys):
        first = sealer.seal(particulars(1))
        sealer.use(keys["2"], "2")
        second = sealer.seal(particulars(2))
        assert json.loads(second.body)["previous"] == first.link.hex()
        assert verify(second.body, keys).kid == "2"

    @pytest.mark.parametrize(("seq", "link"), [(1, GENESIS), (0, b"x" * 32), (1, b"short"), (-1, b"x" * 32)])
    def test_a_place_that_cannot_be_is_refused(self, keys, seq, link):
        with pytest.raises(ReceiptError):
            Sealer(keys["1"], "1", seq, link)

    @pytest.mark.parametrize("link", [None, b"", b"short", bytes(33)])
    def test_a_chain_that_was_set_to_what_is_no_link_is_refused(self, sealer, particulars, link):
        sealer.link = link
        with pytest.raises(ReceiptError, match="32 bytes"):
            sealer.seal(particulars())

    def test_each_has_its_own_moment(self, sealer, particulars):
        moments = [0, 999, 1000, 1_795_253_400_007, 1_795_253_459_999, 1_795_253_400_007]
        said = [json.loads(sealer.seal(particulars(started_ms=at)).body)["ts"] for at in moments]
        assert said[:4] == [
            "1970-01-01T00:00:00.000Z",
            "1970-01-01T00:00:00.999Z",
            "1970-01-01T00:00:01.000Z",
            "2026-11-21T09:30:00.007Z",
        ]
        assert said[4:] == ["2026-11-21T09:30:59.999Z", said[3]]


class TestIds:
    def test_a_reply_can_name_its_receipt_before_it_is_made(self, sealer, particulars):
        told = particulars(77)
        assert sealer.seal(told).id == receipt_id(told.request_id)

    def test_the_ids_of_this_house_are_told_one_to_one(self):
        ids = Ids(bytes(16))
        made = {receipt_id(ids.request()) for _ in range(5000)}
        assert len(made) == 5000
        assert all(map(is_receipt_id, made))

    @given(st.text(max_size=40), st.text(max_size=40))
    def test_any_text_has_an_id_of_its_own(self, one, other):
        assert is_receipt_id(receipt_id(one))
        assert (receipt_id(one) == receipt_id(other)) == (one == other)

    @given(st.integers(1, 16**18 - 1), st.integers(1, 16**18 - 1))
    def test_counts_do_not_meet(self, one, other):
        a, b = (receipt_id(f"req_abcdefgh{n:x}") for n in (one, other))
        assert (a == b) == (one == other)

    def test_a_count_with_zeros_before_it_is_another_request(self):
        assert receipt_id("req_abcdefgh1") != receipt_id("req_abcdefgh01")


def test_particulars_need_no_key_to_be_configured(sealer, particulars):
    said = parse(sealer.seal(particulars(account=None, account_name=None)).body)
    assert said["account"] is None
    assert isinstance(particulars(), Particulars)
