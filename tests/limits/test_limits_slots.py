"""Slots: who has one, who loses it, and how many requests are in progress in it."""

import gc

import pytest

from fastroute.limits._table import HEADER, SLOT, WORKERS_MAX, Pass, Table

WINDOW = 60_000


def memory_of(slots: int) -> bytearray:
    memory = bytearray(HEADER + slots * SLOT)
    with memoryview(memory) as view, view.cast("Q") as words:
        words[1], words[2] = slots, WINDOW
    return memory


@pytest.fixture
def memory() -> bytearray:
    """One set of 16 entries: every key meets every other."""
    return memory_of(16)


@pytest.fixture
def table(memory: bytearray) -> Table:
    return Table(memory)


def passes(table: Table, key: int, now_ms: int = 0, **limits: int) -> bool:
    asked = (key, limits.get("rpm"), limits.get("tpm"), limits.get("at_once"))
    return isinstance(table.take([asked], 0, now_ms), Pass)


def test_ten_thousand_addresses_in_a_window_each_have_their_own_limit():
    """I-A15: and the table has grown by nothing."""
    table = Table(memory_of(65_536))
    keys = [(1 << 61) + n * n * 7919 for n in range(10_000)]
    for now in (0, 30_000):
        assert all(passes(table, key, now, rpm=2) for key in keys)
    assert not any(passes(table, key, 59_000, rpm=2) for key in keys)
    assert (table.identities, table.pushed_out) == (10_000, 0)


def test_more_identities_than_slots_never_outgrow_the_table(table):
    for key in range(1, 10_001):
        passes(table, key, key, rpm=1)
    assert (table.identities, table.pushed_out) == (16, 10_000 - 16)


def test_a_slot_unused_for_two_windows_is_the_next_newcomers(table):
    for key in range(1, 17):
        assert passes(table, key, 0, rpm=1)
    for key in range(2, 17):
        passes(table, key, 2 * WINDOW - 1000, rpm=1)
    assert passes(table, 100, 2 * WINDOW, rpm=1)
    assert (table.identities, table.pushed_out) == (16, 0)
    assert not any(passes(table, key, 2 * WINDOW, rpm=1) for key in range(2, 17))


def test_a_full_set_pushes_out_who_was_unused_for_longest(table):
    """That one begins anew, and nobody else notices."""
    for key in range(1, 17):
        assert passes(table, key, key * 1000, rpm=1)
    assert not passes(table, 1, 17_000, rpm=1)
    assert passes(table, 100, 17_000, rpm=1)
    assert table.pushed_out == 1
    assert not any(passes(table, key, 18_000, rpm=1) for key in (1, *range(3, 17), 100))
    assert table.pushed_out == 1
    assert passes(table, 2, 18_000, rpm=1)


def test_a_newcomer_does_not_inherit_what_the_one_before_it_counted(table):
    """But for one of 63, whose buckets bear the same mark: it is refused too early, never too late."""
    inherited = 0
    for key in range(1, 2001):
        inherited += not passes(table, key, 0, rpm=1)
    assert inherited < 2000 / 63 * 2


def test_a_request_in_progress_keeps_its_slot_however_long_it_takes(table):
    held = table.take([(1, None, None, 1)], 0, 0)
    for key in range(2, 50):
        passes(table, key, 10 * WINDOW, rpm=1)
    assert not passes(table, 1, 10 * WINDOW, at_once=1)
    held.leave()
    assert passes(table, 1, 10 * WINDOW, at_once=1)


def test_a_pass_whose_slot_another_has_by_now_takes_nothing_from_it(table):
    """All sixteen have requests in progress, so that even one of those has to make room."""
    held = [table.take([(key, None, 10, 1)], 10, 0) for key in range(1, 17)]
    newcomer = table.take([(101, None, 10, 1)], 10, 0)
    assert table.pushed_out == 1
    for each in held:
        each.correct(0)
        each.leave()
    assert table.in_use(101) == 1
    assert table.take([(101, None, 10, None)], 1, 0)[1] == "tpm"
    newcomer.leave()
    assert table.in_use(101) == 0


def test_the_accounts_of_one_request_do_not_push_each_other_out(table):
    for key in range(1, 40):
        passes(table, key, 0, rpm=1)
    for key in range(100, 140, 4):
        accounts = [(key + n, 1, None, None) for n in range(4)]
        table.take(accounts, 0, 0)
        assert not isinstance(table.take(accounts, 0, 0), Pass)


def test_an_identity_that_two_workers_gave_a_slot_each_is_counted_in_both(memory, table):
    """Both met it for the first time at the same moment; one counted in one slot, the other in the other."""
    held = [table.take([(7, 3, 30, 9)], 10, 0) for _ in range(2)]
    first, bodies, size = HEADER, HEADER + 16 * 16, SLOT - 16
    memory[first + 5 * 8 : first + 6 * 8] = memory[first : first + 8]
    memory[bodies + 5 * size : bodies + 6 * size] = memory[bodies : bodies + size]
    memory[bodies : bodies + size] = bytes(size)
    assert table.in_use(7) == 2
    held.append(table.take([(7, 3, 30, 9)], 10, 0))
    assert held[2].requests_left[:2] == (3, 0)
    assert table.in_use(7) == 3
    assert table.take([(7, 3, 30, 9)], 10, 0) == (0, "rpm", 3, 0, 61_000)
    assert table.take([(7, None, 30, 9)], 10, 0) == (0, "tpm", 30, 0, 61_000)


def test_a_place_among_the_concurrent_is_free_again_once_left(table):
    one, two = (table.take([(7, None, None, 2)], 0, 0) for _ in range(2))
    assert table.take([(7, None, None, 2)], 0, 0) == (0, "concurrency", 2, 0, None)
    one.leave()
    one.leave()
    assert table.in_use(7) == 1
    assert passes(table, 7, at_once=2)
    two.leave()
    assert table.in_use(7) == 0, "the one that nobody kept left by itself"


def test_a_lost_pass_leaves_by_itself(table):
    held = [table.take([(7, None, None, 2)], 0, 0)]
    held.append(held)
    assert table.in_use(7) == 1
    del held
    gc.collect()
    assert table.in_use(7) == 0


def test_a_refusal_by_the_parent_gives_everything_back_to_the_child(table):
    held = table.take([(2, None, None, 1)], 0, 0)
    assert table.take([(1, 5, 50, 5), (2, None, None, 1)], 10, 0) == (1, "concurrency", 1, 0, None)
    assert table.in_use(1) == 0
    held.leave()
    given_pass = table.take([(1, 5, 50, 5), (2, None, None, 1)], 10, 0)
    assert (given_pass.requests_left[:2], given_pass.tokens_left[:2]) == ((5, 4), (50, 40))


def test_workers_count_together_and_a_dead_ones_places_are_free(memory):
    workers = [Table(memory, worker) for worker in (0, 1, WORKERS_MAX - 1)]
    held = [worker.take([(7, None, None, 6)], 0, 0) for worker in workers for _ in range(2)]
    assert all(worker.in_use(7) == 6 for worker in workers)
    assert not passes(workers[0], 7, at_once=6)
    workers[0].clear_worker(1)
    assert workers[2].in_use(7) == 4
    held[2].leave()
    assert workers[0].in_use(7) == 4, "what died before does not leave again"
    workers[0].clear_workers()
    assert workers[0].in_use(7) == 0, "nobody lives"
    for each in held:
        each.leave()
    assert workers[0].in_use(7) == 0


@pytest.mark.parametrize("worker", [-1, WORKERS_MAX])
def test_a_worker_beyond_the_columns_is_refused(memory, worker):
    with pytest.raises(ValueError, match="worker"):
        Table(memory, worker)
    with pytest.raises(ValueError, match="worker"):
        Table(memory).clear_worker(worker)


@pytest.mark.parametrize(("slots", "window"), [(0, 60_000), (24, 60_000), (32, 60_000), (16, 999), (16, 86_400_001)])
def test_memory_that_is_not_what_its_header_says_is_refused(slots, window):
    memory = bytearray(HEADER + 16 * SLOT)
    with memoryview(memory) as view, view.cast("Q") as words:
        words[1], words[2] = slots, window
    with pytest.raises(ValueError):
        Table(memory)
    with pytest.raises(ValueError):
        Table(bytearray(100))


def word_of(memory: bytearray, key: int) -> tuple[int, int]:
    with memoryview(memory) as view, view.cast("Q") as words:
        entries = words[HEADER // 8 : HEADER // 8 + 16].tolist()
    return next((place, word) for place, word in enumerate(entries) if word >> 2 == key)


def mark_leaving(memory: bytearray, key: int) -> None:
    """As a worker does that is about to push the identity out, and looks once more whether it is idle."""
    place, word = word_of(memory, key)
    with memoryview(memory) as view, view.cast("Q") as words:
        words[HEADER // 8 + place] = word | 1


def test_who_is_about_to_be_pushed_out_stays_by_asking(memory, table):
    """Its entry is another word than before, so the one who wanted it comes too late, even much later."""
    assert passes(table, 7, 0, rpm=2)
    place, before = word_of(memory, 7)
    mark_leaving(memory, 7)
    assert passes(table, 7, 3 * WINDOW, rpm=2)
    assert word_of(memory, 7) == (place, before ^ 2)
    assert passes(table, 7, 3 * WINDOW, rpm=2)
    assert not passes(table, 7, 3 * WINDOW, rpm=2)


def test_an_eviction_whose_worker_died_is_another_newcomers(memory, table):
    for key in range(1, 17):
        passes(table, key, 0, rpm=1)
    for key in range(1, 17):
        mark_leaving(memory, key)
    assert passes(table, 100, 2 * WINDOW, rpm=1)
    assert (table.identities, table.pushed_out) == (16, 0)
