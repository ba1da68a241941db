"""Requests and tokens in a window, against a log of every admission that is read with exact arithmetic."""

import os
from fractions import Fraction

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fastroute.limits._table import HEADER, SLOT, Pass, Table

EXAMPLES = 20_000 if os.environ.get("FASTROUTE_TORTURE") else 150
TICKS = 60
# The stamps of buckets come again after 2**30 ticks.
STARTS = st.sampled_from([0, 1, 59_999, 1_000_003, (1 << 30) * 1000 - 45_000, (1 << 31) * 1000 - 61_500])


class Log:
    """Every admission of one account, and what counts of them in the window that ends now."""

    def __init__(self, limit: int, window_ms: int) -> None:
        self.limit = limit
        self.window_ms = window_ms
        self.entries: list[list[int]] = []

    def within(self, now_ms: int) -> int:
        return sum(count for at, count in self.entries if at > now_ms - self.window_ms)

    def within_ticks(self, now_ms: int) -> int:
        """With the tick counted in full in which the window began."""
        first = now_ms * TICKS // self.window_ms - TICKS
        return sum(count for at, count in self.entries if at * TICKS // self.window_ms >= first)


def table(window_s: int = 60, slots: int = 16) -> tuple[Table, bytearray]:
    memory = bytearray(HEADER + slots * SLOT)
    with memoryview(memory) as view, view.cast("Q") as words:
        words[1], words[2] = slots, window_s * 1000
    return Table(memory), memory


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    start=STARTS,
    window_s=st.sampled_from([1, 7, 60, 3600]),
    limit=st.integers(1, 12),
    steps=st.lists(st.tuples(st.integers(0, 400), st.integers(1, 20)), max_size=60),
)
@example(start=0, window_s=60, limit=1, steps=[(0, 1), (1000, 1), (16, 1), (1, 1)])
def test_no_window_ever_holds_more_than_the_limit(start, window_s, limit, steps):
    """And who is refused would have been one too many in a window that is longer by less than one sixtieth."""
    taking, memory = table(window_s)
    log = Log(limit, window_s * 1000)
    now = start
    for thousandths, burst in steps:
        now += thousandths * window_s
        for _ in range(burst):
            taken = taking.take([(7, limit, None, None)], 0, now)
            if isinstance(taken, Pass):
                log.entries.append([now, 1])
                assert log.within(now) <= limit
                assert taken.requests_left[:2] == (limit, limit - log.within_ticks(now))
            else:
                assert log.within_ticks(now) >= limit
                _, kind, told_limit, left, reset_ms = taken
                assert (kind, told_limit, left) == ("rpm", limit, 0)
                # The time that is told is the first that helps.
                assert 0 < reset_ms <= window_s * 1000 * 61 // 60 + 1
                assert isinstance(Table(bytearray(memory)).take([(7, limit, None, None)], 0, now + reset_ms), Pass)
                assert not isinstance(
                    Table(bytearray(memory)).take([(7, limit, None, None)], 0, now + reset_ms - 1), Pass
                )


@settings(max_examples=EXAMPLES, deadline=None)
@given(
    start=STARTS,
    own=st.integers(1, 200),
    parent=st.integers(1, 300),
    rpm=st.integers(1, 10),
    steps=st.lists(
        st.tuples(st.integers(0, 20_000), st.integers(0, 120), st.booleans(), st.integers(0, 150)), max_size=40
    ),
)
def test_tokens_of_two_accounts_are_taken_from_both_or_from_none(start, own, parent, rpm, steps):
    """And a correction changes the tick in which the reservation was made, as long as that counts."""
    taking, memory = table()
    owns, parents, requests = Log(own, 60_000), Log(parent, 60_000), Log(rpm, 60_000)
    passes = []
    now = start
    for later, tokens, correct, actual in steps:
        now += later
        if correct and passes:
            given_pass, entries = passes.pop(0)
            # The ring holds three ticks more than count; what is changed there is never read again.
            given_pass.correct(actual)
            assert given_pass.tokens == actual
            for entry in entries:
                entry[1] = actual
        before = bytes(memory[HEADER + 16 * 16 :])
        taken = taking.take([(1, None, own, None), (2, rpm, parent, None)], tokens, now)
        fits = (
            owns.within_ticks(now) + tokens <= own
            and parents.within_ticks(now) + tokens <= parent
            and requests.within_ticks(now) + 1 <= rpm
        )
        assert isinstance(taken, Pass) == fits
        if fits:
            entries = [[now, tokens], [now, tokens]]
            owns.entries.append(entries[0])
            parents.entries.append(entries[1])
            requests.entries.append([now, 1])
            passes.append((taken, entries))
            left = min((own - owns.within_ticks(now), own), (parent - parents.within_ticks(now), parent))
            assert taken.tokens_left[1] == left[0]
        else:
            assert bytes(memory[HEADER + 16 * 16 :]) == before


@pytest.mark.parametrize("limit", [60, 600, 1000])
def test_a_caller_who_never_stops_gets_all_but_a_sixtieth_of_its_limit(limit):
    """It asks at even steps, two times as often as it may, so every refusal that is too early costs it something."""
    taking, _ = table()
    step = Fraction(60_000, 2 * limit)
    passed = sum(isinstance(taking.take([(7, limit, None, None)], 0, int(n * step)), Pass) for n in range(40 * limit))
    assert 20 * limit * Fraction(60, 61) - 1 <= passed <= 20 * limit


@pytest.mark.parametrize("idle_ms", [60_000, 61_000, 3_600_000, 10**9, (1 << 30) * 1000, (1 << 20) * 1000])
def test_after_a_long_rest_the_whole_limit_is_there_again(idle_ms):
    taking, _ = table()
    now = 12_000
    for _ in range(5):
        assert isinstance(taking.take([(7, 5, 50, None)], 10, now), Pass)
    now += idle_ms + (1000 if idle_ms == 60_000 else 0)
    if idle_ms == (1 << 30) * 1000:
        now += 61_000  # 34 years to the second later the stamps are the same; a window after that they are not
    assert [isinstance(taking.take([(7, 5, 50, None)], 10, now), Pass) for _ in range(6)] == [True] * 5 + [False]


def test_a_clock_read_long_ago_takes_the_time_that_others_saw():
    """A worker that was stopped between reading the clock and asking neither finds room nor spoils the count."""
    taking, _ = table()
    for _ in range(3):
        assert isinstance(taking.take([(7, 3, None, None)], 0, 200_000), Pass)
    assert not isinstance(taking.take([(7, 3, None, None)], 0, 60_000), Pass)
    assert isinstance(taking.take([(7, 4, None, None)], 0, 60_000), Pass)
    assert not isinstance(taking.take([(7, 4, None, None)], 0, 260_000), Pass)
    assert isinstance(taking.take([(7, 4, None, None)], 0, 261_000), Pass)


def test_a_closed_limit_lets_nothing_pass_and_no_wait_helps():
    taking, _ = table()
    assert taking.take([(7, 0, None, None)], 0, 0) == (0, "rpm", 0, 0, None)
    assert taking.take([(7, None, 0, None)], 0, 0) == (0, "tpm", 0, 0, None)
    assert taking.take([(7, None, None, 0)], 0, 0) == (0, "concurrency", 0, 0, None)


def test_a_request_larger_than_its_limit_is_told_that_no_wait_helps():
    taking, _ = table()
    assert taking.take([(7, None, 100, None)], 101, 0) == (0, "tpm", 100, 100, None)
    assert isinstance(taking.take([(7, None, 100, None)], 100, 0), Pass)


def test_accounts_without_limits_take_no_slot():
    taking, _ = table()
    given_pass = taking.take([(7, None, None, None), (8, 2, None, None)], 5, 0)
    assert (given_pass.requests_left, given_pass.tokens_left) == ((2, 1, 61_000), None)
    assert taking.identities == 1
    assert isinstance(taking.take([], 5, 0), Pass)
    assert taking.take([(7, None, None, None), (8, 1, None, None)], 5, 0)[0] == 1, (
        "the place is that of the caller's list"
    )


def test_a_correction_upwards_counts_beyond_the_limit_until_it_has_left():
    taking, _ = table()
    given_pass = taking.take([(7, None, 100, None)], 60, 5000)
    given_pass.correct(140)
    assert taking.take([(7, None, 100, None)], 1, 6000) == (0, "tpm", 100, 0, 60_000)
    given_pass.correct(90)
    assert taking.take([(7, None, 100, None)], 10, 6000).tokens_left[:2] == (100, 0)


def test_a_correction_of_what_has_left_the_window_changes_nothing():
    """Its bucket is another tick's by now."""
    taking, _ = table()
    late = taking.take([(7, None, 100, None)], 60, 5000)
    assert taking.take([(7, None, 100, None)], 100, 5000 + 64_000).tokens_left[:2] == (100, 0)
    late.correct(0)
    assert taking.take([(7, None, 100, None)], 1, 5000 + 64_000)[1] == "tpm"


@pytest.mark.parametrize(
    ("accounts", "tokens", "now_ms"),
    [
        ([(0, 1, 1, 1)], 0, 0),
        ([(-1, 1, 1, 1)], 0, 0),
        ([(1 << 62, 1, 1, 1)], 0, 0),
        ([(1, -1, None, None)], 0, 0),
        ([(1, 10_000_000_001, None, None)], 0, 0),
        ([(1, 1 << 70, None, None)], 0, 0),
        ([(1, 1, 1, 1)], -1, 0),
        ([(1, 1, 1, 1)], 1_000_000_001, 0),
        ([(1, 1, 1, 1)], 0, -1),
        ([(1, 1, 1, 1)], 0, 1 << 57),
        ([(n, 1, 1, 1) for n in range(1, 6)], 0, 0),
    ],
)
def test_numbers_out_of_range_are_refused_and_count_nothing(accounts, tokens, now_ms):
    taking, memory = table()
    before = bytes(memory)
    with pytest.raises((ValueError, OverflowError)):
        taking.take(accounts, tokens, now_ms)
    assert bytes(memory) == before
