import pytest

from fastroute.domain import Usage
from fastroute.receipts import AttemptLine, Charge, Particulars, Sealer

KEYS = {"1": b"0123456789abcdef0123456789abcdef", "2": b"fedcba9876543210fedcba9876543210"}


@pytest.fixture(scope="session")
def keys():
    return dict(KEYS)


@pytest.fixture(scope="session")
def attempt():
    """300 tokens in and 200 out of gpt-4o-mini: 165 microdollars."""

    def make(number=1, entry="gpt-4o-mini", outcome="ok", picodollars=165_000_000, **other):
        microdollars = None if picodollars is None else -(-picodollars // 1_000_000)
        fields = {
            "attempt": number,
            "entry": entry,
            "lane": "openai",
            "model": entry,
            "outcome": outcome,
            "status": 200,
            "basis": "exact",
            "reserved_microdollars": 400,
            "charges": (Charge("key_a", "microdollar", "total", 400, microdollars or 0),),
            "picodollars": picodollars,
            "microdollars": microdollars,
            "usage": Usage(300, 200),
            "ms": 812,
        }
        return AttemptLine(**fields | other)

    return make


@pytest.fixture(scope="session")
def particulars(attempt):
    def make(count=1, **other):
        fields = {
            "request_id": f"req_abcdefgh{count:x}",
            "decision_id": "rd_" + "a" * 26,
            "started_ms": 1_795_253_400_123 + count,
            "account": "key_a",
            "account_name": "alice",
            "surface": "chat",
            "model": "auto",
            "route_final": "gpt-4o-mini",
            "reason": "tier_small",
            "status": 200,
            "stream": True,
            "latency_ms": 812,
            "first_chunk_ms": 120,
            "attempts": (attempt(),),
        }
        return Particulars(**fields | other)

    return make


@pytest.fixture
def sealer(keys):
    return Sealer(keys["1"], "1")
