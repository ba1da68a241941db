"""Usage and receipts: what was spent by an account and below it, and to whom a receipt is shown."""

import pytest

from fastroute.ledger.store import Changes, ReceiptRow
from fastroute.panel.usage import KEYS_SHOWN
from fastroute.receipts import receipt_id

DAY = 86_400_000
USD = 1_000_000


def test_a_user_of_a_day_sees_used_and_left_and_when_it_resets(kept):
    """P-A15: 1,500 of 20,000 used prints used 1500, remaining 18,500 and the reset instant with its offset."""
    ann = kept.key("ann", kind="user", daily_tokens=20_000, zone="Asia/Kolkata")
    kept.book.post(ann, "r", 0, usage=(1000, 500, 0, 0, 0), model="m", now_ms=kept.now)
    kept.commit()
    shown = kept.ask("usage.show", id="ann")
    assert shown["tokens"] == {
        "used": 1500,
        "held": 0,
        "remaining": 18_500,
        "resets_at": "2026-09-22T00:00:00+05:30",
    }
    assert shown["limit_microdollars"] is None
    assert shown["by_model"] == [
        {"model": "m", "requests": 1, "attempts": 1, "input_tokens": 1000, "output_tokens": 500, "microdollars": 0}
    ]


def test_the_next_local_day_begins_at_nothing(panel):
    """P-A7: midnight in India is 18:30 UTC."""
    ann = panel.key("ann", kind="user", daily_tokens=20_000, zone="Asia/Kolkata")
    panel.book.post(ann, "r", 0, usage=(20_000, 0, 0, 0, 0), now_ms=panel.now)
    panel.commit()
    midnight = 1_790_015_400_000  # 2026-09-21T18:30:00Z
    panel.now = midnight - 1
    assert panel.ask("usage.show", id="ann")["tokens"]["remaining"] == 0
    panel.now = midnight
    assert panel.ask("usage.show", id="ann")["tokens"] == {
        "used": 0,
        "held": 0,
        "remaining": 20_000,
        "resets_at": "2026-09-23T00:00:00+05:30",
    }


def test_what_grants_and_leases_and_keys_below_spent_is_in_the_usage_above(kept):
    """By day and by model add up to what the budget has lost, whoever spent it."""
    team = kept.key("team", budget_microdollars=10 * USD)
    member = kept.key("member", parent="team")
    grant = kept.number(kept.place(member, "rd_1")["grant"]["id"])
    worker = kept.worker()
    for account, request, cost in ((team, "a", 1), (member, "b", 20), (grant, "c", 300)):
        kept.serve(worker, account, request, cost)
    shown = kept.ask("usage.show", id="team")
    assert shown["spent_microdollars"] == 321
    [day], [model] = shown["by_day"], shown["by_model"]
    assert (day["day"], day["requests"], day["attempts"], day["microdollars"]) == ("2026-09-21", 3, 3, 321)
    assert (model["model"], model["input_tokens"], model["output_tokens"], model["microdollars"]) == ("m", 30, 15, 321)
    assert kept.ask("usage.show", account=member)["by_day"][0]["microdollars"] == 320
    own = kept.ask("usage.show", account=grant)
    assert (own["spent_microdollars"], own["by_day"]) == (300, []), "its days are told of whose money it was"
    assert kept.ask("usage.show", id=own["id"]) == own


def test_the_leases_of_an_agent_are_in_its_usage(kept):
    agent = kept.agent(100 * USD)
    lease = kept.ask("leases.handshake", account=agent, provider="openai")["lease_id"]
    asked = {"lease_id": lease, "tokens": 10, "model": "gpt-4o", "provider": "openai"}
    kept.ask("leases.report", account=agent, request_id="r1", cost_microdollars=2 * USD, **asked)
    kept.ask("leases.return", account=agent, lease_id=lease)
    [model] = kept.ask("usage.show", id="bot")["by_model"]
    assert (model["model"], model["input_tokens"], model["microdollars"]) == ("gpt-4o", 10, 2 * USD)


def test_grants_are_not_asked_one_by_one(panel):
    """A key with years of grants is shown as quickly as one without."""
    alice = panel.key()
    for day in range(20):
        panel.place(alice, f"rd_{day}")
        panel.wait(DAY)
    asked = []
    usage = panel.store.usage
    panel.store.usage = lambda account, **more: asked.append(account) or usage(account, **more)
    panel.ask("usage.show", id="alice", days=7)
    assert asked == [alice]


def test_usage_goes_back_as_far_as_is_asked(panel):
    alice = panel.key()
    for day in range(3):
        panel.book.post(alice, f"r{day}", 10**day, now_ms=panel.now)
        panel.wait(DAY)
    assert panel.ask("usage.show", id="alice", days=2)["by_day"] == [
        {"day": "2026-09-23", "requests": 1, "attempts": 1, "input_tokens": 0, "output_tokens": 0, "microdollars": 100}
    ]
    assert sum(each["microdollars"] for each in panel.ask("usage.show", id="alice")["by_day"]) == 111
    assert len(panel.ask("usage.show", id="alice", days=10**9)["by_day"]) == 3


def test_a_grant_sees_nothing_of_the_account_it_was_taken_from(panel):
    """S9: its own money, and neither the limits nor the id of the key above."""
    alice = panel.key(budget_microdollars=100_000, daily_tokens=5)
    grant = panel.number(panel.place(alice, "rd_1")["grant"]["id"])
    shown = panel.ask("usage.show", account=grant)
    assert [each["limit"] for each in shown["budgets"]] == [50_000]
    assert panel.book.account(alice).public_id not in str(shown)


def test_an_overview_counts_everybody_and_names_who_spent_most(kept):
    alice, bob = kept.key("alice", budget_microdollars=100_000), kept.key("bob")
    kept.key("idle")
    grant = kept.number(kept.place(alice, "rd_1")["grant"]["id"])
    kept.book.post(grant, "r", 300, model="m", now_ms=kept.now)
    kept.book.post(bob, "s", 200, model="m", now_ms=kept.now)
    kept.commit()
    kept.ask("keys.revoke", id="bob")
    house = kept.ask("usage.overview")
    assert house["accounts"] == {"key": {"live": 2, "revoked": 1}, "grant": {"live": 1}}
    assert [each["name"] for each in house["keys"]] == ["alice", "idle", "bob"]
    assert house["keys"][0]["spent_microdollars"] == 300
    assert house["by_model"][0]["microdollars"] == 500
    assert house["breaches"] == 0


def test_an_overview_of_many_keys_names_only_some(panel):
    for number in range(KEYS_SHOWN + 5):
        panel.book.open_account(f"key_{number}", "key", f"name {number}", created_ms=panel.now)
    panel.book.post(KEYS_SHOWN + 5, "r", 1, now_ms=panel.now)
    panel.commit()
    house = panel.ask("usage.overview")
    assert house["accounts"]["key"]["live"] == KEYS_SHOWN + 5
    assert len(house["keys"]) == KEYS_SHOWN
    assert house["keys"][0]["name"] == f"name {KEYS_SHOWN + 4}"


# --- receipts ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def sealed(kept):
    """Receipts of a key, of its grant, of another key, and of nobody."""
    kept.alice, kept.bob = kept.key("alice"), kept.key("bob")
    kept.grant = kept.number(kept.place(kept.alice, "rd_1")["grant"]["id"])
    owners = [kept.alice, kept.grant, kept.bob, 0]
    rows = [
        ReceiptRow(seq, receipt_id(f"req_{seq}"), f"req_{seq}", owner, kept.now, b'{"seq":%d}' % seq, bytes([seq]) * 32)
        for seq, owner in enumerate(owners, 1)
    ]
    kept.store.commit(Changes(receipts=rows))
    return kept


@pytest.mark.parametrize("name", [receipt_id, str], ids=["its own id", "its request's"])
def test_a_receipt_is_shown_to_its_owner_and_to_whose_money_it_was(sealed, name):
    """S10: to everybody else it is not there."""
    may = {1: [sealed.alice], 2: [sealed.alice, sealed.grant], 3: [sealed.bob], 4: []}
    for seq, seen_by in may.items():
        body = b'{"seq":%d}' % seq
        assert sealed.ask("receipts.show", id=name(f"req_{seq}")) == body
        for asker in (sealed.alice, sealed.grant, sealed.bob):
            asked = {"id": name(f"req_{seq}"), "account": asker}
            if asker in seen_by:
                assert sealed.ask("receipts.show", **asked) == body
            else:
                assert sealed.refused("receipts.show", **asked).status == 404


def test_receipts_are_listed_newest_first_and_their_owners_only(sealed):
    assert [each["seq"] for each in sealed.ask("receipts.list")] == [4, 3, 2, 1]
    assert [each["seq"] for each in sealed.ask("receipts.list", before=3, limit=1)] == [2]
    assert [each["id"] for each in sealed.ask("receipts.list", account=sealed.bob)] == [receipt_id("req_3")]
    assert [each["seq"] for each in sealed.ask("receipts.chain", after=1, limit=2)] == [2, 3]


@pytest.mark.parametrize(
    ("operation", "asked"),
    [
        ("receipts.list", {"limit": 0}),
        ("receipts.list", {"limit": 1001}),
        ("receipts.list", {"before": -1}),
        ("receipts.list", {"before": 2**63}),
        ("receipts.chain", {"after": 2**63}),
    ],
)
def test_a_page_that_cannot_be_is_refused(kept, operation, asked):
    assert kept.refused(operation, **asked).status == 400


def test_who_is_gone_has_no_usage(panel):
    assert panel.refused("usage.show", account=99).status == 404
    assert panel.refused("usage.show").status == 404


def test_money_is_told_by_kind_and_adds_up_to_the_limits(panel):
    """Of a key with several limits that which leaves it the least; who is over counts no more."""
    key = panel.key(budget_microdollars=1000)
    panel.key("bob", budget_microdollars=500, window="daily")
    panel.key("free")
    gone = panel.ask("keys.create", name="gone", budget_microdollars=77)
    panel.ask("keys.revoke", id=gone["id"])
    assert panel.ask("usage.money") == {"key": {"free": 1500, "held": 0, "leased": 0, "spent": 0}}
    worker = panel.worker()
    panel.serve(worker, key, "req_1", 200)
    panel.serve(worker, key, "req_2", 50, settle=False)
    panel.place(key, "rd_1", ceiling=300)
    assert panel.ask("usage.money") == {
        "key": {"free": 950, "held": 50, "leased": 300, "spent": 200},
        "grant": {"free": 300, "held": 0, "leased": 0, "spent": 0},
    }


def test_money_of_a_day_that_is_over_is_free_again_though_nobody_asked(panel):
    key = panel.key(budget_microdollars=500, window="daily")
    panel.serve(panel.worker(), key, "req_1", 200)
    assert panel.ask("usage.money")["key"]["free"] == 300
    panel.now += DAY
    windows = len(panel.book._windows)
    assert panel.ask("usage.money")["key"] == {"free": 500, "held": 0, "leased": 0, "spent": 0}
    assert len(panel.book._windows) == windows, "looking opens nothing"
