"""What a caller is told: which limit, how much of it is left, and when to come back."""

import pytest

from fastroute.limits import Exceeded, Limiter, Limits, Pass
from fastroute.limits.file import in_memory


def told(limiter: Limiter, *limits: Limits, tokens: int = 0, now_ms: int = 0) -> Exceeded:
    taken = limiter.admit(limits, tokens, now_ms)
    while isinstance(taken, Pass):
        keep.append(taken)
        taken = limiter.admit(limits, tokens, now_ms)
    return taken


keep: list[Pass] = []


@pytest.fixture(autouse=True)
def _keeps_nothing():
    yield
    keep.clear()


def test_the_third_of_two_requests_is_told_rate_limit_exceeded(limiter):
    """I-A2: the words come first, and a time to come back."""
    refused = told(limiter, Limits(7, rpm=2))
    assert refused.message == "Rate limit exceeded: 2 requests in 60 s are allowed; try again in 61 s"
    assert (refused.kind, refused.unit, refused.window_s, refused.level) == ("rpm", "requests", 60, 0)
    assert refused.headers() == [
        (b"x-ratelimit-limit", b"2"),
        (b"x-ratelimit-remaining", b"0"),
        (b"x-ratelimit-reset", b"61"),
        (b"x-ratelimit-limit-requests", b"2"),
        (b"x-ratelimit-remaining-requests", b"0"),
        (b"x-ratelimit-reset-requests", b"1m1s"),
        (b"retry-after", b"61"),
    ]


def test_tokens_say_what_is_left_and_what_was_asked_for(limiter):
    refused = told(limiter, Limits(7, tpm=100), tokens=60, now_ms=500)
    assert refused.message == (
        "Token rate limit exceeded: 100 tokens in 60 s are allowed, 40 are left, this request may need 60; try again in 61 s"
    )
    assert (refused.remaining, refused.requested, refused.reset_ms) == (40, 60, 60_500)
    assert (b"x-ratelimit-remaining-tokens", b"40") in refused.headers()
    assert (b"x-ratelimit-reset-tokens", b"1m0.5s") in refused.headers()


def test_concurrency_says_to_wait_for_one_to_end(limiter):
    refused = told(limiter, Limits(7, concurrency=2))
    assert (
        refused.message
        == "Concurrency limit exceeded: 2 requests at once are allowed; try again when one of them has ended"
    )
    assert refused.retry_after_s == 1
    assert [name for name, _ in refused.headers()] == [
        b"x-ratelimit-limit",
        b"x-ratelimit-remaining",
        b"x-ratelimit-reset",
        b"retry-after",
    ]


def test_the_parents_limit_is_told_as_the_parents(limiter):
    refused = told(limiter, Limits(7, rpm=5), Limits(8, rpm=1))
    assert (refused.level, refused.limit) == (1, 1)


@pytest.mark.parametrize(
    ("limits", "tokens", "message"),
    [
        (Limits(7, rpm=0), 0, "Rate limit exceeded: no requests are allowed"),
        (Limits(7, tpm=0), 5, "Token rate limit exceeded: no tokens are allowed"),
        (Limits(7, concurrency=0), 0, "Concurrency limit exceeded: no requests are allowed"),
        (
            Limits(7, tpm=100),
            500,
            "Token rate limit exceeded: 100 tokens in 60 s are allowed, and this request may need 500; make it smaller",
        ),
    ],
)
def test_what_no_wait_helps_is_told_without_a_time(limiter, limits, tokens, message):
    refused = limiter.admit([limits], tokens, 0)
    assert (refused.message, refused.reset_ms, refused.retry_after_s) == (message, None, None)
    assert not {b"retry-after", b"x-ratelimit-reset"} & dict(refused.headers()).keys()


def test_those_who_are_refused_together_do_not_come_back_together():
    """Up to a tenth later than it would fit, never earlier, and never at once."""
    chances = iter([0.0, 0.5, 0.999])
    limiter = Limiter(in_memory(), jitter=lambda: next(chances))
    limiter.admit([Limits(7, rpm=1)], 0, 0)
    waits = [limiter.admit([Limits(7, rpm=1)], 0, 1000).retry_after_s for _ in range(3)]
    assert waits == [60, 63, 66]
    hasty = Limiter(in_memory(window_s=1), jitter=lambda: 0.0)
    hasty.admit([Limits(7, rpm=1)], 0, 0)
    assert hasty.admit([Limits(7, rpm=1)], 0, 1000).retry_after_s == 1


def test_a_pass_tells_what_is_left_of_the_tightest_account(limiter):
    own, parent = Limits(7, rpm=5, tpm=1000), Limits(8, rpm=60, tpm=300)
    limiter.admit([own, parent], 100, 0)
    given = limiter.admit([own, parent], 100, 45_250)
    assert (given.requests_left, given.tokens_left) == ((5, 3, 15_750), (300, 100, 15_750))
    assert given.headers() == [
        (b"x-ratelimit-limit", b"5"),
        (b"x-ratelimit-remaining", b"3"),
        (b"x-ratelimit-reset", b"16"),
        (b"x-ratelimit-limit-requests", b"5"),
        (b"x-ratelimit-remaining-requests", b"3"),
        (b"x-ratelimit-reset-requests", b"15.75s"),
        (b"x-ratelimit-limit-tokens", b"300"),
        (b"x-ratelimit-remaining-tokens", b"100"),
        (b"x-ratelimit-reset-tokens", b"15.75s"),
    ]
    assert repr(given) == "Pass(tokens=100, requests_left=(5, 3, 15750), tokens_left=(300, 100, 15750), in=0)"


def test_without_a_limit_nothing_is_told(limiter):
    assert limiter.admit([Limits(7)], 10, 0).headers() == []
    assert limiter.admit([Limits(7, concurrency=3)], 10, 0).headers() == []
    only_tokens = limiter.admit([Limits(7, tpm=30)], 10, 0).headers()
    assert only_tokens[:2] == [(b"x-ratelimit-limit", b"30"), (b"x-ratelimit-remaining", b"20")]


@pytest.mark.parametrize(
    ("ms", "span"), [(1, b"1ms"), (999, b"999ms"), (1000, b"1s"), (60_000, b"1m0s"), (360_000, b"6m0s")]
)
def test_times_are_written_as_openai_writes_them(ms, span):
    limiter = Limiter(in_memory(window_s=3600), jitter=lambda: 0.0)
    limiter.admit([Limits(7, rpm=1)], 0, 0)
    refused = limiter.admit([Limits(7, rpm=1)], 0, 3_660_000 - ms)
    assert dict(refused.headers())[b"x-ratelimit-reset-requests"] == span
