"""Journals that are gone, damaged or cannot be looked at: nothing spent is forgotten, and the house goes on."""

from __future__ import annotations

import copy
import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from fastroute.errors import StoreError
from fastroute.ledger import records
from fastroute.ledger.bookkeeper import Bookkeeper, FileJournals
from fastroute.ledger.books import Books
from fastroute.ledger.following import SWEEP_MS
from fastroute.ledger.journal import Journal, JournalError
from fastroute.ledger.keeper import Keeper
from fastroute.ledger.protocol import Ask, Over
from fastroute.ledger.records import SEND, SETTLE
from fastroute.ledger.sqlite import Store
from fastroute.panel.desk import Desk
from tests.ledger.keeper_kit import NOON, Clerk, House, Paper, PaperGrave, PaperReader, paper_receipt, send, settle


def spending(house: House) -> tuple[int, int, int]:
    """A worker with 100 of 1000, of which 7 are spent."""
    account = house.key(1000)
    window = house.window(account)
    holder = house.hello(1)
    house.ask(house.want(1, holder, window, 1, 100), 1)
    house.request(holder, 1, account, window, 7, 7)
    house.turn()
    return holder, account, window


def used(house: House, account: int) -> int:
    return house.ask(Ask(1, "used", {"account": account})).result


# --- kept -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["start", "turn"])
def test_the_files_of_a_damaged_journal_stay(when: str) -> None:
    """They are all there is of what stands behind the damage, and somebody was told to restore them."""
    house = House()
    holder, account, _ = spending(house)
    house.paper.torn.add(holder)
    house.paper.dead.add(holder)
    if when == "start":
        house.open()
    else:
        house.keeper.gone(1)
        house.turn()
    assert used(house, account) == 100
    assert house.paper.removed == []
    house.open()
    assert house.paper.removed == []


def test_journals_that_a_copy_of_the_books_does_not_know_stay_and_their_numbers_are_not_given_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    paper = Paper()
    house = House(paper=paper)
    account = house.key(1000)
    window = house.window(account)
    before = copy.deepcopy(house.store)
    holder = house.hello(1)
    house.ask(house.want(1, holder, window, 1, 100), 1)
    house.request(holder, 1, account, window, 7, 7)
    paper.dead.add(holder)
    restored = House(store=before, paper=paper)
    assert paper.removed == []
    assert f"know nothing of holder {holder}" in caplog.text
    assert restored.hello(2) > holder
    restored.open()  # and it knows of higher numbers now
    assert paper.removed == []


# --- gone -------------------------------------------------------------------------------------------------------------


class OnDisk(House):
    """A house whose journals are real."""

    directory: Path

    def open(self) -> Keeper:
        self.keeper = Keeper(self.store, FileJournals(self.directory), Clerk, paper_receipt, self.boot)
        self.keeper.start(self.now)
        return self.keeper


@pytest.mark.parametrize(
    ("gone", "charged"), [("", 26), ("*", 100), ("*.log", 100)], ids=["nothing", "everything", "its records"]
)
def test_a_journal_that_somebody_took_away_is_charged_in_full(tmp_path: Path, gone: str, charged: int) -> None:
    """What it would have told is not known, so all that its life had rights for is presumed."""
    OnDisk.directory = tmp_path
    house = OnDisk()
    account = house.key(1000)
    window = house.window(account)
    holder = house.hello(1)
    with Journal.create(tmp_path, holder, segment_bytes=65536) as journal:
        house.ask(house.want(1, holder, window, 1, 100), 1)
        journal.append(SEND, records.encode(send(1, "r1", account, window)))
        journal.append(SETTLE, records.encode(settle(1, 7, 7)))
        house.turn()
        journal.append(SEND, records.encode(send(2, "r2", account, window)))
        journal.append(SETTLE, records.encode(settle(2, 9, 16)))
        journal.append(SEND, records.encode(send(3, "r3", account, window)))
    for path in tmp_path.glob(gone) if gone else ():
        path.unlink()
    house.open()
    assert used(house, account) == charged
    assert house.keeper.lives == 0


def test_a_life_that_was_never_lent_anything_needs_no_journal(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    OnDisk.directory = tmp_path
    house = OnDisk()
    house.hello(1)
    house.open()
    assert house.keeper.lives == 0
    assert "lost" not in caplog.text


# --- not to be looked at ----------------------------------------------------------------------------------------------


def refuse(*_: object) -> None:
    raise JournalError("a bad block")


@pytest.mark.parametrize(
    "fault",
    [
        lambda patch: patch.setattr(PaperReader, "check_end", refuse),
        lambda patch: patch.setattr(Paper, "grave", refuse),
    ],
    ids=["its end", "its lock"],
)
def test_a_dead_life_that_cannot_be_looked_at_is_closed_later_and_others_go_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, fault: Callable[[pytest.MonkeyPatch], None]
) -> None:
    house = House()
    holder, account, window = spending(house)
    other = house.hello(2)
    house.paper.dead.add(holder)
    house.keeper.gone(1)
    with monkeypatch.context() as patch:
        fault(patch)
        for _ in range(3):
            house.later(SWEEP_MS)
        house.open()
        other = house.hello(2, other)
        assert used(house, account) == 7
        assert house.ask(house.want(2, other, window, 1, 50), 2).leases[0].granted == 50
        assert caplog.text.count(f"holder {holder} cannot be closed yet") == 2  # once in each life of the bookkeeper
        assert house.keeper.stop(house.now) is False
        house.open()
    house.later(SWEEP_MS)
    assert holder in house.paper.removed
    assert used(house, account) == 7


def test_files_that_cannot_be_removed_are_in_nobodys_way(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House()
    holder, account, _ = spending(house)
    house.paper.dead.add(holder)
    house.keeper.gone(1)
    with monkeypatch.context() as patch:
        patch.setattr(PaperGrave, "remove", refuse)
        house.turn()
        house.open()
        assert used(house, account) == 7
    house.open()
    assert house.paper.removed == [holder]


def test_faults_of_the_system_are_told_as_those_of_a_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that became read-only: what looks, and what removes."""
    journals = FileJournals(tmp_path)
    Journal.create(tmp_path, 1, segment_bytes=65536).close()
    grave = journals.grave(1)

    def refused(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", refused)
        with pytest.raises(JournalError, match=r"holder 1 cannot be removed: .*Read-only"):
            grave.remove()
    grave.close()
    with monkeypatch.context() as patch:
        patch.setattr("os.open", refused)
        with pytest.raises(JournalError, match=r"whether holder 1 lives cannot be seen: .*Read-only"):
            journals.grave(1)


# --- what it tells ----------------------------------------------------------------------------------------------------


def test_a_text_that_is_none_gives_up_its_life_alone() -> None:
    house = House()
    holder, account, window = spending(house)
    bad = records.encode(send(2, "rXq", account, window)).replace(b"rXq", b"r\xffq")
    house.paper.written[holder].append((SEND, bad))
    assert any(to == 1 and isinstance(said, Over) for to, said in house.turn())
    assert house.keeper.well
    house.open()
    assert used(house, account) == 7


def test_what_a_grant_spends_is_charged_to_a_parent_that_got_its_limit_later() -> None:
    """However it is spent: by an attempt within its rights, by a report, by a breach."""
    house = House()
    book = house.keeper.book
    key = book.open_account("k", "key", "k", created_ms=NOON, digest=b"k".ljust(32), budgets=[])
    grant = book.allocate(key.id, 100, "g", "grant", "g", now_ms=NOON, digest=b"g".ljust(32))
    house.turn()
    book.set_budget(key.id, "microdollar", 90)
    house.turn()
    holder, window = house.hello(1), house.window(grant.id)
    house.ask(house.want(1, holder, window, 1, 100), 1)
    house.write(holder, send(1, "r1", grant.id, window, 60), settle(1, 60, 60))
    house.turn()
    assert (used(house, grant.id), used(house, key.id)) == (60, 60)
    house.keeper.book.post(grant.id, "rep", 5, now_ms=NOON)
    house.write(holder, send(2, "r2", grant.id, window, 10), settle(2, 12, 72))
    house.turn()
    assert (used(house, grant.id), used(house, key.id)) == (77, 77)


class Desked(House):
    """A house with the real desk."""

    def open(self) -> Keeper:
        self.keeper = Keeper(self.store, self.paper, lambda: Desk(self.store, b"p" * 32), paper_receipt, self.boot)
        self.keeper.start(self.now)
        return self.keeper


@pytest.mark.parametrize(("boot", "state"), [("boot-1", "run"), ("boot-2", "refused")])
def test_a_run_that_a_loss_of_power_may_have_hidden_is_not_made_twice(boot: str, state: str) -> None:
    """Its record was in memory only when the machine went down, and its request may have left."""
    house = Desked()
    holder = house.hello(1)
    key = house.ask(Ask(1, "keys.create", {"name": "k", "budget_microdollars": 1000})).result
    account = house.keeper.book.by_public(key["id"]).id
    asked = {"account": account, "name": "n", "body_hash": "b"}
    assert (
        house.ask(Ask(2, "answers.claim", {**asked, "request": "req_1", "holder": holder}), 1).result["state"] == "run"
    )
    house.paper.dead.add(holder)
    house.boot = boot
    house.open()
    other = house.hello(2)
    said = house.ask(Ask(3, "answers.claim", {**asked, "request": "req_2", "holder": other}), 2)
    if state == "run":
        assert said.result == {"state": "run"}
    else:
        assert said.refusal[:2] == (409, "idempotency_run_lost")


# --- alone ------------------------------------------------------------------------------------------------------------


def test_two_state_directories_do_not_keep_books_in_one_database(tmp_path: Path) -> None:
    """Both would lend the whole of every budget. Whatever name leads to the file, it is that file."""
    database = tmp_path / "shared.db"
    (tmp_path / "link.db").symlink_to(database)

    def keeper(name: str, path: Path) -> Bookkeeper:
        return Bookkeeper(tmp_path / name, Books(Store.open(path)), Clerk, boot_id="boot")

    with keeper("a", database):
        for path in (database, tmp_path / "link.db"):
            with pytest.raises(
                StoreError, match=r"another fastroute keeps its books in .* from another state directory"
            ):
                keeper("b", path)
