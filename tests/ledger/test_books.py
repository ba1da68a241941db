"""Where the books are kept: every store makes a set of rows durable as one, or not at all, and answers alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from operator import attrgetter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from fastroute.errors import StoreError
from fastroute.ledger.books import Books
from fastroute.ledger.library import SWEEP_ROWS, Counts
from fastroute.ledger.memory import Memory
from fastroute.ledger.sqlite import Store
from fastroute.ledger.store import (
    AccountRow,
    BudgetRow,
    Changes,
    EntryRow,
    HolderRow,
    LeaseRow,
    OpenRow,
    ReceiptRow,
    RecordRow,
    State,
    UsageDelta,
    WindowRow,
)

Kept = Books | Memory
NOON = 1_795_262_400_000  # 2026-11-21T12:00:00Z


@pytest.fixture(params=["sqlite", "memory"])
def books(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kept]:
    if request.param == "memory":
        yield Memory()
        return
    with Store.open(tmp_path / "fastroute.db") as store:
        yield Books(store)


ACCOUNT = AccountRow(
    1,
    "k_one",
    "key",
    "one",
    b"\x01" * 32,
    "fr_live_...abcd",
    "live",
    NOON,
    None,
    NOON + 1,
    ("gpt-4o", "ä"),
    10,
    20,
    30,
    {"team": "a", "n": 1},
    b"\x02" * 32,
    NOON + 2,
)
BUDGET = BudgetRow(1, 1, "microdollar", 9 * 10**15, "daily", "Europe/Berlin")
WINDOW = WindowRow(1, 1, "2026-11-21", NOON + 1000, -5)
WORKER = HolderRow(1, "worker", None, "boot", 2, 640, 7)
LEASE = LeaseRow(1, 1, 100, 20, 30)
RECEIPT = ReceiptRow(1, "rcpt_a", "req_a", 1, NOON, b'{"a":1}', b"\x03" * 32)


def entry(holder: int = 1, attempt: int = 1, request: str = "req_a", **fields: object) -> EntryRow:
    row = EntryRow(
        holder,
        attempt,
        request,
        1,
        (1, 2),
        (10, 20),
        (5, 20),
        "exact",
        "gpt-4o-mini",
        "openai:gpt-4o-mini",
        "openai",
        "ok",
        (1, 2, 3, 4, 5),
        2**62,
        5,
        NOON,
    )
    return replace(row, **fields)


def everything() -> Changes:
    return Changes(
        accounts={1: ACCOUNT},
        budgets={1: BUDGET},
        windows={1: WINDOW},
        leases={(1, 1): LEASE},
        holders={1: WORKER},
        open={(1, "req_b"): OpenRow(1, "req_b", b"\x00body")},
        entries=[entry()],
        receipts=[RECEIPT],
        usage=[UsageDelta(1, "2026-11-21", "m", 1, 2, 3, 4, 5)],
        records={("answer", "x"): RecordRow("answer", "x", 1, NOON, b"doc", NOON + 1)},
        notes={"boot_id": b"boot"},
    )


def seen(books: Kept) -> list[object]:
    with books.snapshot() as all_:
        parts = [getattr(all_, name) for name in all_.__struct_fields__]
        rows: list[object] = [list(part) for part in parts]
    return [*rows, books.load(), books.record("answer", "x")]


# --- rows -------------------------------------------------------------------------------------------------------------


def test_a_store_begins_empty(books: Kept) -> None:
    assert books.load() == State()
    assert books.counts() == Counts(0, 0, 0, 0, 0)


def test_what_was_committed_is_loaded_as_it_was(books: Kept) -> None:
    books.commit(everything())
    assert books.load() == State(
        accounts=[ACCOUNT],
        budgets=[BUDGET],
        windows=[WINDOW],
        leases=[LEASE],
        holders=[WORKER],
        open=[OpenRow(1, "req_b", b"\x00body")],
        notes={"boot_id": b"boot"},
        last_holder=1,
        last_receipt=RECEIPT,
    )
    assert books.entries("req_a") == [entry()]
    assert books.counts() == Counts(accounts=1, holders=1, open=1, entries=1, receipts=1)


def test_rows_are_replaced_by_their_ids(books: Kept) -> None:
    books.commit(everything())
    moved = LeaseRow(1, 1, 200, 50, 60)
    books.commit(
        Changes(
            accounts={1: replace(ACCOUNT, state="revoked", digest=None)},
            budgets={1: replace(BUDGET, amount=0)},
            windows={1: replace(WINDOW, closed=9)},
            leases={(1, 1): moved},
            holders={1: replace(WORKER, segment=3, offset=0)},
            open={(1, "req_b"): None, (1, "never"): None},
            notes={"boot_id": None, "other": b""},
        )
    )
    state = books.load()
    assert state.accounts == [replace(ACCOUNT, state="revoked", digest=None)]
    assert state.budgets[0].amount == 0
    assert state.windows[0].closed == 9
    assert state.leases == [moved]
    assert (state.holders[0].segment, state.holders[0].offset) == (3, 0)
    assert state.open == []
    assert state.notes == {"other": b""}


def test_only_what_a_book_needs_to_go_on_is_loaded(books: Kept) -> None:
    """Ended leases and dead holders stay stored, and a window is left once it is neither the newest nor leased out."""
    books.commit(
        Changes(
            accounts={1: ACCOUNT},
            budgets={1: BUDGET},
            windows={n: WindowRow(n, 1, f"2026-11-{n:02}", NOON + n) for n in (1, 2, 3)},
            holders={1: replace(WORKER, live=False), 2: replace(WORKER, id=2), 7: replace(WORKER, id=7, live=False)},
            leases={(1, 1): replace(LEASE, done=True), (2, 2): LeaseRow(2, 2, 5), (3, 1): LeaseRow(3, 1, 1, done=True)},
        )
    )
    state = books.load()
    assert [row.id for row in state.windows] == [2, 3]
    assert state.leases == [LeaseRow(2, 2, 5)]
    assert [row.id for row in state.holders] == [2]
    assert state.last_holder == 7
    with books.snapshot() as all_:
        assert (len(all_.windows), len(all_.leases), len(all_.holders)) == (3, 3, 3)


def test_the_order_of_rows_does_not_matter(books: Kept) -> None:
    """A book tells what changed in no order; a child may come before its parent."""
    child = replace(ACCOUNT, id=2, public_id="k_two", digest=None, parent=1)
    books.commit(Changes(accounts={2: child, 1: ACCOUNT}, budgets={1: BUDGET}))
    assert books.load().accounts == [ACCOUNT, child]


def test_usage_adds_up(books: Kept) -> None:
    one = UsageDelta(1, "2026-11-21", "m", 1, 2, 3, 4, 5)
    books.commit(Changes(usage=[one, one, replace(one, model="other")]))
    books.commit(Changes(usage=[one]))
    assert books.usage(1, days=1, now_ms=NOON) == [
        UsageDelta(1, "2026-11-21", "m", 3, 6, 9, 12, 15),
        replace(one, model="other"),
    ]


# --- all or nothing ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "refused",
    [
        Changes(entries=[entry(attempt=2), entry(attempt=1)]),
        Changes(entries=[entry(attempt=2), entry(attempt=2)]),
        Changes(receipts=[replace(RECEIPT, seq=2), RECEIPT]),
        Changes(receipts=[RECEIPT]),
        Changes(accounts={2: replace(ACCOUNT, id=2, public_id="k_two")}),
        Changes(accounts={2: replace(ACCOUNT, id=2, digest=b"other")}),
    ],
    ids=[
        "attempt told again",
        "attempt told twice",
        "chain goes back",
        "place in the chain taken",
        "digest taken",
        "name taken",
    ],
)
def test_what_was_told_once_is_refused_a_second_time_with_all_beside_it(books: Kept, refused: Changes) -> None:
    """I8: no replay can double anything, whatever went wrong before it."""
    books.commit(everything())
    before = seen(books)
    refused.notes["beside"] = b"it"
    refused.windows[9] = WindowRow(9, 1, "2027-01-01", NOON)
    with pytest.raises(StoreError):
        books.commit(refused)
    assert seen(books) == before


def test_nothing_is_nothing(books: Kept) -> None:
    books.commit(everything())
    before = seen(books)
    books.commit(Changes())
    assert seen(books) == before


# --- questions --------------------------------------------------------------------------------------------------------


@pytest.fixture
def receipts(books: Kept) -> list[ReceiptRow]:
    rows = [ReceiptRow(n, f"rcpt_{n}", f"req_{n}", n % 2, NOON - n, b"{}", bytes([n]) * 32) for n in range(1, 10)]
    books.commit(Changes(receipts=rows))
    return rows


def test_a_receipt_is_found_by_its_id(books: Kept, receipts: list[ReceiptRow]) -> None:
    assert books.receipt("rcpt_3") == receipts[2]
    assert books.receipt("req_3") is None


def test_receipts_are_listed_newest_first_page_by_page(books: Kept, receipts: list[ReceiptRow]) -> None:
    assert [row.seq for row in books.receipts(limit=4)] == [9, 8, 7, 6]
    assert [row.seq for row in books.receipts(limit=4, before=6)] == [5, 4, 3, 2]
    assert [row.seq for row in books.receipts(account=1)] == [9, 7, 5, 3, 1]
    assert [row.seq for row in books.receipts(account=0, limit=2, before=6)] == [4, 2]
    assert books.receipts(account=5) == []


def test_the_chain_is_read_in_its_order(books: Kept, receipts: list[ReceiptRow]) -> None:
    assert books.chain() == receipts
    assert books.chain(4, limit=2) == receipts[3:5]


def test_usage_is_told_by_account_and_day(books: Kept) -> None:
    rows = [UsageDelta(account, f"2026-11-{day}", "m", 1) for account in (1, 2) for day in (19, 20, 21)]
    books.commit(Changes(usage=rows))
    assert books.usage(1, days=2, now_ms=NOON) == rows[1:3]
    assert books.usage(None, days=1, now_ms=NOON) == [rows[2], rows[5]]
    assert books.usage(3, days=400, now_ms=NOON) == []


def test_windows_are_found_though_they_are_long_over(books: Kept) -> None:
    rows = {number: WindowRow(number, 1, f"2026-11-{number:02}", number * 86_400_000) for number in range(1, 6)}
    books.commit(Changes(accounts={1: ACCOUNT}, budgets={1: BUDGET}, windows=rows))
    assert books.windows((4, 1, 9)) == [rows[4], rows[1]]
    assert books.windows(()) == []


def test_entries_of_a_request_stand_with_their_corrections(books: Kept) -> None:
    correction = entry(0, 1, corrects=(1, 1), charged=(-1, -1), at_ms=NOON + 5, picodollars=None, microdollars=None)
    books.commit(Changes(entries=[correction, entry(), entry(1, 2, request="req_other")]))
    assert books.entries("req_a") == [entry(), correction]


def test_documents_are_kept_found_listed_and_forgotten(books: Kept) -> None:
    rows = [RecordRow("decision", f"rd_{n}", n % 2, NOON + n, b"%d" % n) for n in range(5)]
    books.commit(Changes(records={(row.kind, row.id): row for row in rows}))
    assert books.record("decision", "rd_3") == rows[3]
    assert books.record("answer", "rd_3") is None
    assert books.records("decision", limit=2) == [rows[4], rows[3]]
    assert books.records("decision", account=1, before_ms=NOON + 3) == [rows[1]]
    names = sorted((row.id, row.at_ms) for row in rows if row.kind == "decision")
    assert books.record_names("decision") == names
    assert books.record_names("decision", after=names[0][0], limit=1) == names[1:2]
    books.commit(Changes(records={("decision", "rd_3"): None}))
    assert books.record("decision", "rd_3") is None


def test_expired_documents_are_swept_some_at_a_time(books: Kept) -> None:
    """A turn of the bookkeeper stays short, however many expire in one moment."""
    rows = [RecordRow("answer", str(n), 1, NOON, b"", NOON + 10) for n in range(SWEEP_ROWS + 3)]
    rows += [RecordRow("answer", "later", 1, NOON, b"", NOON + 11), RecordRow("answer", "never", 1, NOON, b"")]
    books.commit(Changes(records={(row.kind, row.id): row for row in rows}))
    assert books.sweep(NOON + 9) == 0
    assert [books.sweep(NOON + 10) for _ in range(3)] == [SWEEP_ROWS, 3, 0]
    assert {row.id for row in books.records("answer", limit=SWEEP_ROWS)} == {"later", "never"}


def test_a_snapshot_is_everything_in_order(books: Kept) -> None:
    """Entries in the order in which they were told, receipts in that of the chain."""
    books.commit(everything())
    books.commit(Changes(entries=[entry(0, 2), entry(1, 0)], receipts=[replace(RECEIPT, seq=2)]))
    with books.snapshot() as all_:
        assert all_.usage == [UsageDelta(1, "2026-11-21", "m", 1, 2, 3, 4, 5)]
        assert [(row.holder, row.attempt) for row in all_.entries] == [(1, 1), (0, 2), (1, 0)]
        assert [row.seq for row in all_.receipts] == [1, 2]


def test_a_snapshot_does_not_see_what_is_written_beside_it(tmp_path: Path) -> None:
    """The audit runs while the house is open."""
    path = tmp_path / "fastroute.db"
    with ExitStack() as stack:
        writer = Books(stack.enter_context(Store.open(path)))
        writer.commit(everything())
        reader = Books(stack.enter_context(Store.open(path, readonly=True)))
        with reader.snapshot() as all_:
            writer.commit(Changes(entries=[entry(attempt=2)], receipts=[replace(RECEIPT, seq=2)]))
            assert (len(list(all_.entries)), len(list(all_.receipts))) == (1, 1)
        assert reader.counts().entries == 2


# --- the stores agree -------------------------------------------------------------------------------------------------

small = st.integers(1, 3)


@st.composite
def changes(draw: Callable[..., object]) -> Changes:
    def some(row: st.SearchStrategy[object], key: Callable[[object], object]) -> dict:
        return {key(one): one for one in draw(st.lists(row, max_size=3))}

    by_id = attrgetter("id")
    windows = st.builds(WindowRow, id=small, budget=st.just(1), name=st.sampled_from("abc"), ends_ms=st.just(None))
    return Changes(
        windows={row.id: replace(row, name="abc"[row.id - 1]) for row in some(windows, by_id).values()},
        leases=some(
            st.builds(LeaseRow, window=st.just(1), holder=st.just(1), granted=small, done=st.booleans()),
            lambda row: (row.window, row.holder),
        ),
        holders=some(
            st.builds(HolderRow, id=small, kind=st.just("worker"), boot_id=st.just("b"), live=st.booleans()), by_id
        ),
        entries=[
            entry(holder, attempt)
            for holder, attempt in draw(st.lists(st.tuples(small, st.integers(0, 9) | st.integers(1020, 1030))))
        ],
        usage=draw(st.lists(st.builds(UsageDelta, small, st.just("2026-11-21"), st.just("m"), small), max_size=3)),
        receipts=[replace(RECEIPT, seq=seq) for seq in draw(st.lists(st.integers(1, 9), max_size=2))],
    )


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(history=st.lists(changes(), max_size=6))
def test_all_stores_agree_on_any_history(history: list[Changes], tmp_path_factory: pytest.TempPathFactory) -> None:
    base = Changes(
        accounts={1: ACCOUNT}, budgets={1: BUDGET}, windows={1: WindowRow(1, 1, "a", None)}, holders={1: WORKER}
    )
    with Store.open(tmp_path_factory.mktemp("agree") / "fastroute.db") as store:
        both: list[Kept] = [Books(store), Memory()]
        for one in (base, *history):
            outcomes = []
            for books in both:
                try:
                    books.commit(one)
                    outcomes.append("kept")
                except StoreError:
                    outcomes.append("refused")
            assert outcomes[0] == outcomes[1]
            assert seen(both[0]) == seen(both[1])
