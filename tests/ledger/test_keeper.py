"""One turn of the bookkeeper: what goes in, what is durable, and what is answered then."""

from __future__ import annotations

from unittest.mock import ANY

import msgspec
import pytest
from msgspec.structs import replace

from fastroute.errors import StoreCorrupt, StoreDamaged, StoreError
from fastroute.ledger import records
from fastroute.ledger.following import SWEEP_MS
from fastroute.ledger.journal import JournalError
from fastroute.ledger.keeper import BACKOFF_MS, RECALL_MS, TICK_MS, UNAVAILABLE, Keeper
from fastroute.ledger.memory import Memory
from fastroute.ledger.protocol import Answered, Ask, Hello, Known, LeaseAnswer, Over, Recall, Refreshed, Who
from fastroute.ledger.records import FINISH, SETTLE, Finish, Stop
from fastroute.ledger.store import Changes, EntryRow, RecordRow, State, ToldTwice
from tests.ledger.keeper_kit import NOON, Clerk, House, PaperReader, send, settle


@pytest.fixture
def house() -> House:
    return House()


@pytest.fixture
def worker(house: House) -> tuple[int, int, int]:
    """A worker on connection 1 with 100 of the 1000 that account and window have."""
    account = house.key(1000)
    window = house.window(account)
    holder = house.hello(1)
    [(_, granted)] = house.turn((1, house.want(1, holder, window, 1, 100)))
    assert granted.leases == (LeaseAnswer(window, 100),)
    return holder, account, window


def test_what_is_damaged_is_refused_to_whoever_asks_for_it_alone(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """An old receipt nobody can read is no reason to keep no books."""

    def asked(self: Clerk, *_: object, **__: object) -> None:
        raise StoreDamaged("some of their receipts cannot be read")

    with monkeypatch.context() as patch:
        patch.setattr(Clerk, "__call__", asked)
        assert house.ask(Ask(7, "used")).refusal[:2] == (500, "books_damaged")
    assert house.keeper.well
    assert house.key(10)


# --- what is answered is durable --------------------------------------------------------------------------------------


def test_a_life_is_stored_before_it_is_told(house: House) -> None:
    """R1: its number is never given again, whatever comes."""
    holder = house.hello(1)
    assert [row.id for row in house.store.load().holders] == [holder]


def test_a_grant_is_stored_before_it_is_told(house: House, worker: tuple[int, int, int]) -> None:
    holder, _, window = worker
    [lease] = house.store.load().leases
    assert (lease.window, lease.holder, lease.granted) == (window, holder, 100)


def test_effects_of_records_and_how_far_they_were_read_are_one_commit(
    house: House, worker: tuple[int, int, int]
) -> None:
    """R6, I8: whoever goes on from the store applies each record once."""
    holder, account, window = worker
    for n in range(1, 4):
        house.request(holder, n, account, window, 7, 7 * n)
    house.turn()
    state = house.store.load()
    assert (state.holders[0].offset, state.leases[0].spent) == (9, 21)
    house.open()
    house.turn()
    assert house.store.counts().entries == 3
    assert [row.seq for row in house.store.chain()] == [1, 2, 3]
    assert house.store.usage(account, days=1, now_ms=NOON)[0].requests == 3


@pytest.mark.parametrize("fault", ["once", "for long"])
@pytest.mark.parametrize("place", range(0, 12, 2))
def test_what_was_read_before_a_fault_of_the_disk_is_stored_with_its_place(
    house: House, worker: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch, place: int, fault: str
) -> None:
    """A turn takes its records in pieces; whichever of them cannot be read, those before it are applied once."""
    holder, account, window = worker
    monkeypatch.setattr(Keeper, "PIECE", 2)
    for n in range(1, 5):
        house.request(holder, n, account, window, 7, 7 * n)
    read, faults = PaperReader.read, []

    def faulty(self: PaperReader, limit: int = 4096) -> list[tuple[int, bytes]]:
        if self.offset >= place and (fault == "for long" or not faults):
            faults.append(self.offset)
            raise JournalError("a bad block")
        return read(self, limit)

    with monkeypatch.context() as patch:
        patch.setattr(PaperReader, "read", faulty)
        house.turn()
        assert faults == [place]
        [row] = house.store.load().holders
        assert row.offset == place
        house.open()
    house.turn()
    [row], [lease] = house.store.load().holders, house.store.load().leases
    assert (row.offset, lease.spent) == (12, 28)
    assert [entry.attempt for entry in entries_of(house)] == [1, 2, 3, 4]
    assert [row.seq for row in house.store.chain()] == [1, 2, 3, 4]


def entries_of(house: House) -> list[EntryRow]:
    with house.store.snapshot() as rows:
        return list(rows.entries)


@pytest.mark.parametrize("free", [False, True], ids=["on a budget", "on none"])
def test_a_life_that_tells_an_attempt_twice_is_given_up_and_the_house_goes_on(
    house: House, worker: tuple[int, int, int], free: bool
) -> None:
    """I8: with nothing charged no total gives it away, and the store would refuse every commit from then on."""
    holder, account, window = worker
    other = house.hello(2)
    again = [send(1, "req_x", account, window), settle(1, 7, 7)]
    if free:
        again = [replace(again[0], windows=(), reserved=()), replace(again[1], charged=(), spent=())]
    house.write(holder, *again, *again)
    house.request(other, 1, 0, window, 0, 0)
    assert (1, Over(0, ANY)) in house.turn()
    assert house.keeper.well
    assert sorted((entry.holder, entry.attempt) for entry in entries_of(house)) == [(holder, 1), (other, 1)]
    house.request(other, 2, 0, window, 0, 0)
    house.turn()
    assert house.store.counts().entries == 3


@pytest.mark.parametrize("when", ["turn", "start", "stop"])
def test_a_life_that_tells_an_attempt_again_after_a_restart_is_given_up_and_the_house_goes_on(
    house: House, worker: tuple[int, int, int], when: str
) -> None:
    """The book has forgotten that it was told; the store has not, and says whose it is."""
    holder, account, window = worker
    other = house.hello(2)
    told = [replace(send(1, "req_x", account, window), windows=(), reserved=())]
    told += [replace(settle(1, 7, 7), charged=(), spent=())]
    house.write(holder, *told, Finish("req_x", account, "rd", "chat", "m", "m", "", 200, False, NOON, 5, None))
    house.turn()
    if when != "start":
        house.open()
        house.hello(1, holder)
        house.hello(2, other)
    house.write(holder, *told)
    house.request(other, 1, 0, window, 0, 0)
    if when == "turn":
        assert (1, Over(0, ANY)) in house.turn()
    elif when == "start":
        house.open()
        assert isinstance(house.ask(Hello(1, 1, house.boot, holder), 1), Over)
    else:
        house.paper.dead |= {holder, other}
        assert house.keeper.stop(house.now)
        house.open()
    assert house.keeper.well
    assert sorted((entry.holder, entry.attempt) for entry in entries_of(house) if entry.attempt) == [
        (holder, 1),
        (other, 1),
    ]


def test_what_the_desk_tells_twice_is_a_fault_of_the_store_and_ends_nobody(
    house: House, worker: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No journal tells it, so there is none to give up; whoever asks is told to come again."""
    with monkeypatch.context() as patch:
        patch.setattr(house.store, "commit", lambda changes: (_ for _ in ()).throw(ToldTwice(0, 7)))
        assert house.ask(Ask(1, "open", {"name": "other", "amount": 5})).refusal == UNAVAILABLE
        assert not house.keeper.well
    house.later(BACKOFF_MS[0])
    assert house.key(5, "other")


def test_a_store_that_fails_while_a_life_is_given_up_is_tried_again(
    house: House, worker: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    holder, *_ = worker

    def fails(*_: object) -> None:
        raise StoreError("the disk is away")

    def twice(changes: Changes) -> None:
        patch.setattr(house.store, "load", fails)
        raise ToldTwice(holder, 7)

    with monkeypatch.context() as patch:
        patch.setattr(house.store, "commit", twice)
        posts = dict(house.turn((99, Ask(1, "open", {"name": "other", "amount": 5}))))
    assert posts == {99: Answered(1, refusal=UNAVAILABLE), 1: Over(0, ANY)}
    house.later(BACKOFF_MS[0])
    assert house.key(5, "other")
    assert house.keeper.well


def test_a_request_under_way_is_closed_by_whoever_comes_after(house: House, worker: tuple[int, int, int]) -> None:
    holder, account, window = worker
    house.write(holder, send(1, "req_x", account, window))
    house.turn()
    assert house.store.counts().open == 1
    house.open()
    house.write(holder, settle(1, 7, 7))
    house.turn()
    assert [row.charged for row in house.store.entries("req_x")] == [(7,)]


def test_the_desk_tells_what_it_refuses_and_nothing_is_changed(house: House) -> None:
    reply = house.ask(Ask(7, "fly"))
    assert reply == Answered(7, refusal=(404, "unknown_operation", "nobody answers 'fly' here", "operation"))


def test_changes_of_accounts_are_noticed(house: House) -> None:
    house.key(5)
    assert house.keeper.changed
    house.turn()
    assert not house.keeper.changed


def test_tokens_are_known_by_their_digest(house: House) -> None:
    account = house.key(5)
    assert house.ask(Who(1, digest=b"k".ljust(32))).facts.account == account
    assert house.ask(Who(2, digest=b"x".ljust(32))) == Known(2, None, "unknown")


# --- near the limit ---------------------------------------------------------------------------------------------------


def test_an_urgent_want_waits_for_what_others_do_not_use(house: House) -> None:
    """Whoever holds free rights is asked for them, and the asker is answered as soon as they came back."""
    window = house.window(house.key(100))
    first, second = house.hello(1), house.hello(2)
    house.turn((1, house.want(1, first, window, 1, 90)))
    [(to, recall)] = house.turn((2, house.want(2, second, window, 1, 50)))
    assert (to, recall.windows) == (1, (window,))
    report = house.want(1, first, window, 2, 0, granted_seen=90, released=80, spent=0, held=10, urgent=False)
    early = house.later(5, (1, report))
    assert [to for to, _ in early] == [1], "a report that was on its way already is no answer to the recall"
    heard = house.want(1, first, window, 3, 0, granted_seen=90, released=80, held=10, urgent=False, heard=recall.number)
    posts = dict(house.turn((1, heard)))
    assert posts[2].leases[0].granted == 50


def test_an_urgent_want_waits_no_longer_than_it_may(house: House) -> None:
    window = house.window(house.key(100))
    first, second = house.hello(1), house.hello(2)
    house.turn((1, house.want(1, first, window, 1, 90)))
    [(_, recall)] = house.turn((2, house.want(2, second, window, 1, 50)))
    assert isinstance(recall, Recall)
    assert house.keeper.due_ms() == house.ms + RECALL_MS
    assert house.later(RECALL_MS - 1) == []
    [(to, refused)] = house.later(1)
    assert (to, refused.leases[0].granted, refused.leases[0].short) == (2, 0, 10)


def test_the_desk_waits_for_what_workers_do_not_use(house: House) -> None:
    """A grant is as urgent as a request: it is not refused while a worker holds money that it does not need."""
    account = house.key(100)
    window = house.window(account)
    first = house.hello(1)
    house.turn((1, house.want(1, first, window, 1, 90)))
    lend = Ask(7, "lend", {"account": account, "amount": 50})
    [(to, recall)] = house.turn((9, lend))
    assert (to, recall.windows) == (1, (window,)), "the asker has no answer yet"
    heard = house.want(1, first, window, 2, 0, granted_seen=90, released=80, held=10, urgent=False, heard=recall.number)
    assert dict(house.turn((1, heard)))[9] == Answered(7, 90)


def test_the_desk_waits_no_longer_than_it_may_and_not_for_nobody(house: House) -> None:
    account = house.key(100)
    window = house.window(account)
    first = house.hello(1)
    house.turn((1, house.want(1, first, window, 1, 90)))
    lend = Ask(7, "lend", {"account": account, "amount": 50})
    house.turn((9, lend))
    assert house.later(RECALL_MS - 1) == []
    assert house.later(1) == [(9, Answered(7, 10))]
    house.keeper.gone(1)
    assert house.turn((9, lend)) == [(9, Answered(7, 10))], "its holder lives and cannot be reached"


def test_nobody_waits_for_one_who_has_left(house: House) -> None:
    window = house.window(house.key(100))
    first, second = house.hello(1), house.hello(2)
    house.turn((1, house.want(1, first, window, 1, 90)))
    house.turn((2, house.want(2, second, window, 1, 50)))
    house.paper.dead.add(first)
    house.keeper.gone(1)
    [(to, reply)] = house.turn()
    assert (to, reply.leases[0].granted) == (2, 50), "and what the dead one held is there at once"


# --- death ------------------------------------------------------------------------------------------------------------


def test_a_dead_worker_is_charged_for_what_it_had_under_way_and_no_more(
    house: House, worker: tuple[int, int, int]
) -> None:
    """The rest of its journal first; then the open attempt is presumed, and its rights come back."""
    holder, account, window = worker
    house.request(holder, 1, account, window, 7, 7)
    house.write(holder, send(2, "req_open", account, window))
    house.paper.dead.add(holder)
    house.keeper.gone(1)
    house.turn()
    state = house.store.load()
    assert (state.holders, state.leases, state.open) == ([], [], [])
    assert [(row.basis, row.charged) for row in house.store.entries("req_open")] == [("presumed", (10,))]
    assert house.ask(Ask(1, "used", {"account": account})).result == 17
    assert house.paper.removed == [holder]
    assert len(house.store.chain()) == 2


def test_a_worker_that_only_stopped_is_not_dead(house: House, worker: tuple[int, int, int]) -> None:
    """R4: neither silence nor a closed connection is proof; only its lock is."""
    holder, _, _ = worker
    house.keeper.gone(1)
    house.later(10 * SWEEP_MS)
    assert house.keeper.lives == 1
    assert house.hello(3, holder) == holder


def test_who_dies_without_its_connection_being_seen_to_close_is_found(house: House) -> None:
    """Such as a worker that died while no bookkeeper was there."""
    holder = house.hello(1)
    house.open()
    house.paper.dead.add(holder)
    house.later(SWEEP_MS)
    assert house.keeper.lives == 0


def test_a_life_that_is_over_is_not_gone_on_with(house: House) -> None:
    holder = house.hello(1)
    house.paper.dead.add(holder)
    house.keeper.gone(1)
    house.turn()
    assert house.hello(2, holder) != holder


def test_power_loss_charges_all_that_was_out(house: House, worker: tuple[int, int, int]) -> None:
    """Another boot without a clean stop: the end of the journal may be gone, so everything held is presumed."""
    holder, account, window = worker
    house.request(holder, 1, account, window, 7, 7)
    house.paper.dead.add(holder)
    house.boot = "boot-2"
    house.open()
    assert house.ask(Ask(1, "used", {"account": account})).result == 100
    assert house.store.entries("req_1_1")[0].charged == (7,)


def test_a_restart_within_one_boot_charges_only_what_was_sent(house: House, worker: tuple[int, int, int]) -> None:
    holder, account, window = worker
    house.write(holder, send(1, "req_x", account, window))
    house.paper.dead.add(holder)
    house.open()
    assert house.ask(Ask(1, "used", {"account": account})).result == 10


def test_a_clean_stop_leaves_nobody_and_says_so(house: House, worker: tuple[int, int, int]) -> None:
    holder, account, window = worker
    house.request(holder, 1, account, window, 7, 7)
    house.write(holder, Stop(NOON))
    house.paper.dead.add(holder)
    assert house.keeper.stop(house.now)
    state = house.store.load()
    assert "clean_stop" in state.notes
    assert state.holders == []
    house.boot = "boot-2"
    house.open()
    assert "clean_stop" not in house.store.load().notes
    assert house.ask(Ask(1, "used", {"account": account})).result == 7


def test_a_stop_beside_a_living_worker_is_not_clean(house: House, worker: tuple[int, int, int]) -> None:
    assert not house.keeper.stop(house.now)
    assert "clean_stop" not in house.store.load().notes


# --- what contradicts -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        (SETTLE, records.encode(settle(9, 1, 8))),
        (SETTLE, b"\xc1"),
        (77, b""),
        (FINISH, records.encode(Finish("req_x", 0, "rd", "chat", "m", "", "", 404, False, 2**63, 1, None))),
    ],
    ids=["contradiction", "no record", "unknown kind", "no date"],
)
def test_a_journal_is_followed_up_to_what_contradicts_the_books(
    house: House, worker: tuple[int, int, int], bad: tuple[int, bytes]
) -> None:
    """What stands before it counts; what its holder has stays held, and is charged in full when it is gone."""
    holder, account, window = worker
    house.request(holder, 1, account, window, 7, 7)
    house.paper.written[holder].append(bad)
    house.request(holder, 2, account, window, 7, 14)
    other = house.hello(2)
    house.write(other, Finish("req_other", 0, "rd", "chat", "m", "", "", 404, False, NOON, 1, None))
    house.turn()
    house.turn()
    assert house.ask(Ask(1, "used", {"account": account})).result == 7
    assert [row.request for row in house.store.chain()] == ["req_1_1", "req_other"], "others go on"
    house.paper.dead.add(holder)
    house.keeper.gone(1)
    house.turn()
    assert house.ask(Ask(1, "used", {"account": account})).result == 100
    assert house.paper.removed == [], "its files stay for whoever wants to know"
    house.open()
    assert house.paper.removed == []


def test_a_journal_with_a_gap_costs_all_that_its_holder_had(house: House, worker: tuple[int, int, int]) -> None:
    holder, account, _ = worker
    house.paper.dead.add(holder)
    house.paper.torn.add(holder)
    house.keeper.gone(1)
    house.turn()
    assert house.ask(Ask(1, "used", {"account": account})).result == 100


def test_who_reports_what_contradicts_the_books_is_told_to_end(house: House, worker: tuple[int, int, int]) -> None:
    """Hung up on it would come again, and say the same; a new life may be in the right."""
    holder, account, window = worker
    lie = house.want(1, holder, window, 2, 0, granted_seen=500)
    posts = dict(house.turn((1, lie), (5, Ask(4, "used", {"account": account}))))
    assert posts[5] == Answered(4, 0)
    assert isinstance(posts[1], Over)
    assert "granted 100" in posts[1].why
    truth = house.want(1, holder, window, 3, 50, granted_seen=100)
    assert house.turn((1, truth)) == [(1, Over(3, posts[1].why))], "nothing is lent to it any more"
    house.keeper.gone(1)
    assert house.ask(Hello(9, 1, house.boot, holder), 2) == Over(9, posts[1].why), "nor does it go on elsewhere"
    assert house.hello(3) == holder + 1
    house.paper.dead.add(holder)
    house.keeper.doubt()
    house.turn()
    assert house.ask(Ask(1, "used", {"account": account})).result == 0, "its journal was in the right"


def test_whose_journal_cannot_be_followed_is_told_to_end(house: House, worker: tuple[int, int, int]) -> None:
    """It would go on spending what nobody writes down."""
    holder, _, _ = worker
    house.paper.written[holder].append((SETTLE, b"\xc1"))
    [(to, over)] = house.turn()
    assert (to, type(over)) == (1, Over)
    assert "journal" in over.why
    assert house.turn() == [], "once"


def test_whose_journal_cannot_be_followed_is_told_when_it_is_back(house: House, worker: tuple[int, int, int]) -> None:
    holder, _, _ = worker
    house.paper.written[holder].append((SETTLE, b"\xc1"))
    house.open()
    over = house.ask(Hello(9, 1, house.boot, holder), 2)
    assert (over.number, type(over)) == (9, Over)
    assert house.turn() == []


def test_nobody_reports_for_another(house: House, worker: tuple[int, int, int]) -> None:
    holder, _, window = worker
    house.hello(2)
    assert house.turn((2, house.want(2, holder, window, 2, 500))) == [(2, None)]
    assert house.store.load().leases[0].granted == 100


# --- the store is sick ------------------------------------------------------------------------------------------------


def test_on_a_full_disk_nothing_is_granted_and_nothing_is_lost(house: House, worker: tuple[int, int, int]) -> None:
    holder, account, window = worker
    house.request(holder, 1, account, window, 7, 7)
    house.store.fault = StoreError("there is no room")
    more = house.want(1, holder, window, 2, 100, granted_seen=100)
    posts = house.turn((1, more), (5, Ask(3, "open", {"name": "n", "amount": 1})), (6, Hello(1, 6, house.boot)))
    assert posts == [
        (1, Refreshed(2, 2, (LeaseAnswer(window, 100),), sick=True)),
        (5, Answered(3, refusal=UNAVAILABLE)),
        (6, None),
    ]
    assert not house.keeper.well
    assert house.store.load().leases[0].spent == 0
    house.store.fault = None
    house.later(BACKOFF_MS[0])
    assert house.keeper.well
    assert house.store.load().leases[0].spent == 7
    again = house.want(1, holder, window, 3, 100, granted_seen=100)
    [(_, reply)] = house.turn((1, again))
    assert reply.leases[0].granted == 200
    assert len(house.store.chain()) == 1


def test_on_a_full_disk_what_only_reads_is_answered(house: House, worker: tuple[int, int, int]) -> None:
    _, account, _ = worker
    house.store.fault = StoreError("there is no room")
    house.turn((5, Ask(3, "open", {"name": "n", "amount": 1})))
    assert house.turn((5, Ask(4, "used", {"account": account}))) == [(5, Answered(4, 0))]
    assert house.ask(Who(5, digest=b"k".ljust(32))).facts.account == account
    assert house.ask(Who(6, digest=b"n".ljust(32))) == Known(6, None, "unknown")


def test_a_sick_store_is_tried_less_and_less_often(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    house.store.fault = StoreError("there is no room")
    tries = 0

    def load() -> State:
        nonlocal tries
        tries += 1
        return Memory.load(house.store)

    monkeypatch.setattr(house.store, "load", load)
    for _ in range(2000):
        house.later(5, (5, Ask(1, "open", {"name": "n", "amount": 1})))
    assert tries <= 10_000 // BACKOFF_MS[-1] * 3 + len(BACKOFF_MS)


def test_who_waits_for_others_is_answered_when_the_disk_fails(house: House) -> None:
    window = house.window(house.key(100))
    first, second = house.hello(1), house.hello(2)
    house.turn((1, house.want(1, first, window, 1, 90)))
    house.turn((2, house.want(2, second, window, 1, 50)))
    house.store.fault = StoreError("there is no room")
    posts = house.turn((5, Ask(3, "open", {"name": "n", "amount": 1})))
    assert (2, Refreshed(1, 1, (LeaseAnswer(window, 0),), sick=True)) in posts


def test_with_damaged_pages_nobody_goes_on(house: House) -> None:
    house.store.fault = StoreCorrupt("damaged")
    with pytest.raises(StoreCorrupt):
        house.turn((5, Ask(3, "open", {"name": "n", "amount": 1})))


def test_documents_whose_time_is_over_are_swept(house: House) -> None:
    rows = [
        RecordRow("answer", name, 1, NOON, b"", house.now.wall_ms + ms) for name, ms in (("old", 10), ("new", 9999))
    ]
    house.store.commit(Changes(records={(row.kind, row.id): row for row in rows}))
    house.later(TICK_MS)
    assert [row.id for row in house.store.records("answer")] == ["new"]


def test_every_reply_can_travel(house: House, worker: tuple[int, int, int]) -> None:
    reply = house.ask(Ask(4, "used", {"account": worker[1]}))
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(reply), type=Answered) == reply
