"""Heads as bytes: what headers say of a body, and what is told of a request."""

import asyncio

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastroute import _heads, _scan
from fastroute._sweep import Sweep
from fastroute.domain import Usage
from fastroute.money import usd_from_picodollars
from fastroute.upstreams.openai import usage_of


@given(st.integers(0, 2**80))
def test_a_cost_is_told_as_money_tells_it(picodollars):
    told = dict(_heads.accounts(0.0, picodollars, None))
    assert told[b"x-router-cost-usd"].decode() == usd_from_picodollars(picodollars)


def test_accounts_leave_out_what_is_not_known():
    assert _heads.accounts(1.2349, None, None) == [(b"x-router-latency-ms", b"1234")]
    told = dict(_heads.accounts(0.0, 0, Usage(1, 2, 3, 4)))
    assert (told[b"x-router-tokens-input"], told[b"x-router-tokens-output"]) == (b"8", b"2")


def test_a_comment_is_lines_that_no_client_reads():
    assert _heads.comment([(b"a", b"b"), (b"c", b"d")]) == b": a: b\n: c: d\n\n"


@pytest.mark.parametrize(
    ("told", "token"),
    [
        (b"Bearer fr_live_1", b"fr_live_1"),
        (b"Bearer a b", b"a b"),
        (b"Bearer  x\t", b"x"),
        (b"bearer x", b"x"),
        (b"BEARER \xffx\xff", b"\xffx\xff"),
        (b"Bearer \xffx\xff", b"\xffx\xff"),
        (b"Bearer x ", b"x"),
        (b"Bearer ", None),
        (b"Bearer \t ", None),
        (b"Bearerx", None),
        (b"Basic x", None),
        (b"", None),
    ],
)
def test_a_bearer_s_token_is_what_is_left_of_its_blanks(told, token):
    assert _heads.credential({b"authorization": told}, b"") == token


def test_what_the_cache_is_asked_for_may_stand_on_several_lines():
    found = _heads.look([(b"host", b"x"), (b"cache-control", b"no-store"), (b"cache-control", b"max-age=5")])
    assert found[b"cache-control"] == b"no-store, max-age=5"


@pytest.mark.parametrize(
    ("headers", "length"),
    [
        ({}, 0),
        ({b"transfer-encoding": b"chunked"}, -1),
        ({b"content-length": b"0"}, 0),
        ({b"content-length": b"9" * 15}, 10**15 - 1),
        ({b"content-length": b"1" * 16}, -2),
        ({b"content-length": b""}, -2),
        ({b"content-length": b"-1"}, -2),
        ({b"content-length": b"1 "}, -2),
    ],
)
def test_a_length_is_digits_and_few_of_them(headers, length):
    assert _heads.length(headers) == length


def test_a_first_message_is_the_body_only_when_it_has_all_of_it():
    message = {"type": "http.request", "body": b"abc", "more_body": True}
    assert _heads.whole(message, 3) == b"abc"
    assert _heads.whole(message, 4) is None
    assert _heads.whole({"type": "http.disconnect"}, 0) is None


@given(
    st.fixed_dictionaries(
        {
            "prompt_tokens": st.integers(-1, 9),
            "completion_tokens": st.integers(-1, 9),
            "total_tokens": st.integers(0, 18),
        },
        optional={
            "prompt_tokens_details": st.sampled_from([None, {}, {"cached_tokens": 2}, {"cache_write_tokens": 1}]),
            "completion_tokens_details": st.sampled_from([None, {}, {"reasoning_tokens": 3}]),
        },
    )
)
def test_plain_usage_is_what_a_closer_look_would_find(told):
    """None is no verdict; tokens are what the dialect reads of the same object."""
    plain = _scan.plain_usage(orjson.dumps(told))
    if plain is not None:
        prompt, output, cached, reasoning = plain
        assert usage_of(told) == Usage(prompt - cached, output, cached, 0, reasoning)


def test_a_sweep_acts_on_what_stays_and_on_nothing_that_was_dropped():
    async def play() -> list[str]:
        loop = asyncio.get_running_loop()
        over = loop.create_future()
        acted = []

        def act(name: str) -> None:
            acted.append(name)
            if name == "last":
                over.set_result(None)

        sweep = Sweep(0.01, act)
        for name in ("first", "dropped", "last"):
            sweep.add(name, loop)
        assert sweep.drop("dropped")
        assert not sweep.drop("dropped")
        await asyncio.wait_for(over, 5)
        assert len(sweep) == 0
        return acted

    assert asyncio.run(play()) == ["first", "last"]
