"""What a request cost is put right: its balances, its usage, and who may read why."""

import pytest

from fastroute.ledger.audit import audit
from fastroute.ledger.book import Refused
from fastroute.ledger.store import Changes, ReceiptRow
from fastroute.panel import wording
from fastroute.receipts import receipt_id

DAY = 86_400_000


def served(panel, account, request, *amounts):
    """A request with an attempt for each of the amounts, and its receipt; its worker has ended."""
    worker = panel.worker()
    for amount in amounts:
        panel.serve(worker, account, request, amount)
    panel.book.bury(worker, panel.now, power_lost=False)
    panel.commit()
    row = ReceiptRow(len(panel.store.chain()) + 1, receipt_id(request), request, account, panel.now, b"{}", b"l" * 32)
    panel.store.commit(Changes(receipts=[row]))


@pytest.fixture
def house(kept):
    kept.key_ = kept.key(budget_microdollars=1000)
    served(kept, kept.key_, "req_1", 200)
    return kept


def correct(panel, microdollars, name="req_1", reason="billed twice"):
    return panel.ask("receipts.correct", id=name, microdollars=microdollars, reason=reason)


def usage(panel, account):
    return sum(each["microdollars"] for each in panel.ask("usage.show", account=account)["by_day"])


@pytest.mark.parametrize("name", ["req_1", receipt_id("req_1")])
@pytest.mark.parametrize("microdollars", [0, 50, 199, 201, 5000])
def test_a_correction_moves_balance_and_usage_and_the_books_add_up(house, name, microdollars):
    """Beyond the limit too: what was billed is owed."""
    told = correct(house, microdollars, name)
    assert (told["from_microdollars"], told["to_microdollars"], told["changed"]) == (200, microdollars, True)
    assert house.money(house.key_) == (microdollars, 0, 1000 - microdollars)
    assert usage(house, house.key_) == microdollars
    [entry] = [row for row in house.store.entries("req_1") if row.corrects is not None]
    [first] = [row for row in house.store.entries("req_1") if row.corrects is None]
    assert entry.corrects == (first.holder, first.attempt)
    assert entry.microdollars == microdollars - 200
    assert first.microdollars == 200, "nothing is edited"
    assert audit(house.store) == []


def test_said_twice_it_changes_nothing_twice(house):
    correct(house, 50)
    again = correct(house, 50, reason="asked again")
    assert (again["changed"], again["entries"]) == (False, [])
    assert house.money(house.key_) == (50, 0, 950)
    assert len(house.store.entries("req_1")) == 2
    assert [each["reason"] for each in house.ask("receipts.corrections", id="req_1")] == ["billed twice"]


def test_said_twice_in_one_turn_too(house):
    """The second meets the first before it is in the store."""
    for _ in range(2):
        house.desk(house.book, "receipts.correct", {"id": "req_1", "microdollars": 50, "reason": "r"}, house.now)
    house.commit()
    assert house.money(house.key_) == (50, 0, 950)


def test_each_correction_is_told_with_its_reason(house):
    correct(house, 50)
    house.now += 1000
    correct(house, 300, reason="  the provider\n changed its mind ")
    told = house.ask("receipts.corrections", id=receipt_id("req_1"))
    assert [(each["from_microdollars"], each["to_microdollars"], each["reason"]) for each in told] == [
        (200, 50, "billed twice"),
        (50, 300, "the provider changed its mind"),
    ]
    assert house.money(house.key_) == (300, 0, 700)


def test_less_is_given_back_from_the_last_attempt_backwards(house):
    served(house, house.key_, "req_2", 100, 30)
    told = correct(house, 80, "req_2")
    assert [each["corrects"][1] for each in told["entries"]] == [3, 2]
    assert house.money(house.key_) == (280, 0, 720)
    correct(house, 90, "req_2")
    assert house.money(house.key_) == (290, 0, 710)


def test_the_window_of_then_is_charged_though_it_is_long_over(kept):
    key = kept.key(budget_microdollars=1000, window="daily")
    served(kept, key, "req_1", 200)
    for _ in range(5):
        kept.wait(DAY)
        served(kept, key, f"req_{kept.now}", 10)
    kept.restart()
    correct(kept, 150)
    assert kept.money(key) == (10, 0, 990), "today's is not concerned"
    [row] = kept.store.windows([kept.store.entries("req_1")[0].windows[0]])
    assert row.closed == 150
    assert audit(kept.store) == []


def test_what_a_grant_spent_is_put_right_for_its_parent_too(kept):
    key = kept.key(budget_microdollars=100_000)
    grant = kept.number(kept.place(key, "rd_1")["grant"]["id"])
    served(kept, grant, "req_1", 200)
    correct(kept, 50)
    assert kept.money(grant)[0] == 50
    assert kept.money(key)[0] == 50
    assert usage(kept, key) == 50
    assert audit(kept.store) == []


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"id": "req_9", "microdollars": 5, "reason": "r"}, 404),
        ({"id": "req_1", "microdollars": -1, "reason": "r"}, 400),
        ({"id": "req_1", "microdollars": 10**12 + 1, "reason": "r"}, 400),
        ({"id": "req_1", "microdollars": 5, "reason": " "}, 400),
        ({"id": "req_1", "microdollars": 5, "reason": "x" * 501}, 400),
        ({"id": "req_1", "microdollars": 5}, 400),
    ],
)
def test_what_cannot_be_put_right_is_refused(house, asked, status):
    assert house.refused("receipts.correct", **asked).status == status


def test_a_request_of_which_nothing_was_sent_cost_nothing(house):
    row = ReceiptRow(2, receipt_id("req_2"), "req_2", house.key_, house.now, b"{}", b"l" * 32)
    house.store.commit(Changes(receipts=[row]))
    assert house.refused("receipts.correct", id="req_2", microdollars=5, reason="r").code == "nothing_charged"


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"microdollars": -5}, "microdollars"),
        ({"microdollars": 10**12 + 1}, "microdollars"),
        ({"microdollars": "5"}, "microdollars"),
        ({"microdollars": True}, "microdollars"),
        ({"usd": "5000000"}, "usd"),
    ],
)
def test_an_amount_that_no_request_costs_is_named_with_what_was_wanted(given, word):
    with pytest.raises(Refused, match="from 0 to 1000000000000 microdollars") as refused:
        wording.correction({**given, "reason": "billed twice"})
    assert refused.value.field == word
    assert f"not {given[word]!r}" in str(refused.value)


def test_an_amount_is_what_was_said():
    assert wording.correction({"usd": "1000000", "reason": "x"}) == {"microdollars": 10**12, "reason": "x"}
    assert wording.correction({"microdollars": 0, "reason": "x"}) == {"microdollars": 0, "reason": "x"}
