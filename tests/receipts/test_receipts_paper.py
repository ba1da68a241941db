"""The sealer writes by hand what an encoder would write: beside it stands one that sorts, sums and encodes plainly."""

import base64
import hashlib
import hmac
import re
from datetime import UTC, datetime
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastroute.clock import iso
from fastroute.domain import Tariff, Usage
from fastroute.money import usd_from_picodollars
from fastroute.receipts import GENESIS, AttemptLine, Charge, Particulars, Sealer, receipt_id

KEY = b"0123456789abcdef0123456789abcdef"
encode = msgspec.json.Encoder(order="sorted").encode


def plainly(told: Particulars, seq: int, previous: bytes) -> bytes:
    """A receipt as anybody would make it who is in no hurry."""
    attempts = told.attempts
    known = all(line.picodollars is not None for line in attempts)
    priced = all(line.microdollars is not None for line in attempts)
    picodollars = sum(line.picodollars for line in attempts) if known else None
    outcome = "ok"
    if told.status >= 400:
        outcome = "failed"
    elif attempts and attempts[-1].outcome not in ("ok", "low_quality"):
        outcome = "partial"
    entries = [line.entry for line in attempts]
    fields = {
        "account": told.account,
        "account_name": told.account_name,
        "attempts": attempts,
        "cost_microdollars": sum(line.microdollars for line in attempts) if priced else None,
        "cost_picodollars": picodollars,
        "cost_usd": None if picodollars is None else usd_from_picodollars(picodollars),
        "decision_id": told.decision_id,
        "details": told.details,
        "fallback_count": sum(entry != before for before, entry in pairwise(entries)),
        "first_chunk_ms": told.first_chunk_ms,
        "id": plain_id(told.request_id),
        "kid": "1",
        "latency_ms": told.latency_ms,
        "model": told.model,
        "outcome": outcome,
        "previous": previous.hex(),
        "reason": told.reason,
        "request_id": told.request_id,
        "route_final": told.route_final or None,
        "route_primary": (entries[0] if entries else told.route_final) or None,
        "seq": seq,
        "status": told.status,
        "stream": told.stream,
        "surface": told.surface,
        "ts": iso(
            datetime.fromtimestamp(told.started_ms // 1000, UTC).replace(microsecond=told.started_ms % 1000 * 1000)
        ),
        "usage": {
            name: sum(getattr(line.usage, name) for line in attempts)
            for name in ("input", "output", "cache_read", "cache_write", "reasoning")
        },
        "v": 1,
    }
    return encode(fields | {"signature": hmac.new(KEY, encode(fields), hashlib.sha256).hexdigest()})


def plain_id(request: str) -> str:
    if re.fullmatch(r"req_[a-z2-7]{8}[1-9a-f][0-9a-f]{0,17}", request):
        count = request[12:].rjust(18, "0").translate(str.maketrans("0189", "wxyz"))
        return f"rcpt_{request[4:12]}{count}"
    digest = hashlib.blake2b(request.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return "rcpt_" + base64.b32encode(digest).decode().rstrip("=").lower()


words = st.text(max_size=12) | st.sampled_from(["", "ok", 'a"b', "\\", "\n\x00\x1f\x7f", "é\u2028😀", "x" * 5000])
counts = st.integers(0, 1000) | st.sampled_from([0, 9, 10, 99, 2**31, 2**53 + 1, 2**63, 2**70])
money = st.integers(0, 10**13) | st.sampled_from([0, 1, 10**5, 10**12, 10**12 - 1, 2**63 - 1, 2**63, -1, -(10**12)])
usages = st.builds(Usage, counts, counts, counts, counts, counts)
tariffs = st.none() | st.builds(Tariff, counts, counts, st.none() | counts, st.none() | counts, words)
charges = st.builds(Charge, words, words, words, counts, st.integers(-(2**63), 2**63 - 1))
lines = st.builds(
    AttemptLine,
    counts,
    words,
    words,
    words,
    st.sampled_from(["ok", "low_quality", "cut"]) | words,
    st.none() | st.integers(100, 599),
    words,
    st.none() | counts,
    st.lists(charges, max_size=3).map(tuple),
    st.none() | money,
    st.none() | counts,
    usages,
    counts,
    tariffs,
)
requests = st.from_regex(r"req_[a-z2-7]{8}[0-9a-f]{1,19}", fullmatch=True) | words
told = st.builds(
    Particulars,
    requests,
    words,
    st.integers(0, 4_000_000_000_000),
    st.none() | words,
    st.none() | words,
    words,
    st.text(alphabet="abc-é\n", max_size=12),  # what looks like a key is masked, which is shown elsewhere
    st.none() | words,
    words,
    st.integers(100, 599),
    st.booleans(),
    counts,
    st.none() | counts,
    st.lists(lines, max_size=3).map(tuple),
    st.just({}) | st.dictionaries(st.text("abc\n", max_size=5), st.integers(-9, 9) | st.none(), max_size=3),
)


@given(told=st.lists(told, min_size=1, max_size=3))
@settings(max_examples=300, deadline=None)
def test_both_write_the_same_bytes(told):
    sealer = Sealer(KEY, "1")
    link = GENESIS
    for seq, one in enumerate(told, 1):
        sealed = sealer.seal(one)
        assert sealed.body == plainly(one, seq, link)
        link = sealed.link
        assert sealer.link == link == bytes.fromhex(msgspec.json.decode(sealed.body)["signature"])


@given(request=requests)
def test_both_give_the_same_name(request):
    assert receipt_id(request) == plain_id(request)


@pytest.mark.parametrize(
    "request_id", ["", "req_", "\ud800", "req_abcdefgh", "req_abcdefgh01", "req_ABCDEFGH1", "req_abcdefgé1"], ids=repr
)
def test_what_is_no_id_of_this_house_has_a_name_too(request_id):
    assert receipt_id(request_id) == plain_id(request_id)


@pytest.mark.parametrize(
    "told",
    [
        lambda particulars, attempt: None,
        lambda particulars, attempt: attempt(),
        lambda particulars, attempt: particulars(attempts=[attempt()]),
        lambda particulars, attempt: particulars(attempts=(None,)),
        lambda particulars, attempt: particulars(attempts=(attempt(usage=(300, 200)),)),
        lambda particulars, attempt: particulars(attempts=(attempt(charges=[]),)),
        lambda particulars, attempt: particulars(attempts=(attempt(charges=(("key_a", 1),)),)),
    ],
)
def test_what_is_no_receipts_matter_is_refused(told, particulars, attempt):
    """Its fields are read where they lie, so whatever else lies there must not be."""
    sealer = Sealer(KEY, "1")
    with pytest.raises((TypeError, AttributeError)):
        sealer.seal(told(particulars, attempt))
    assert (sealer.seq, sealer.link) == (0, GENESIS)


def test_a_signature_of_another_length_is_refused(particulars):
    sealer = Sealer(KEY, "1")
    for signature in (b"", bytes(31), bytes(4096), None):
        sealer._sign = lambda _, signature=signature: signature
        with pytest.raises((TypeError, ValueError)):
            sealer.seal(particulars())
