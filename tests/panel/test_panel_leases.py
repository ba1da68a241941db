"""The budget protocol: leased money is the agent's, reported once, returned to the last microdollar, and never lost."""

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastroute.ledger.book import Refused
from fastroute.panel.leases import COST_MAX, GRACE_MS, HANDSHAKE_MAX, LEASE_MS, REFRESH_MAX

USD = 1_000_000
TORTURE = "FASTROUTE_TORTURE" in os.environ
DAY = 86_400_000


def handshake(panel, agent, requested=None):
    return panel.ask("leases.handshake", account=agent, provider="openai", requested=requested)


def report(lease, agent, request, cost, **more):
    asked = {"tokens": 10, "model": "gpt-4o", "provider": "openai", **more}
    return {"account": agent, "lease_id": lease["lease_id"], "request_id": request, "cost_microdollars": cost, **asked}


def told(panel, lease, agent, request, cost, **more):
    return panel.ask("leases.report", **report(lease, agent, request, cost, **more))


# --- R-A12: handshakes ------------------------------------------------------------------------------------------------


def test_a_handshake_leases_ten_dollars_of_a_hundred(panel):
    agent = panel.agent(100 * USD)
    lease = handshake(panel, agent)
    assert (lease["budget_granted"], lease["budget_remaining"]) == (10_000_000, 90_000_000)
    assert lease["ip_token"].startswith("ip_")
    assert lease["expires_at"] == "2026-09-21T15:13:20.000Z"
    assert panel.money(agent) == (0, 10 * USD, 90 * USD)


def test_a_handshake_grants_what_is_left_when_that_is_less(panel):
    lease = handshake(panel, panel.agent(5 * USD), 10 * USD)
    assert (lease["budget_granted"], lease["budget_remaining"]) == (5 * USD, 0)


def test_after_five_leases_of_ten_on_fifty_there_is_none(kept):
    agent = kept.agent(50 * USD)
    for left in (40, 30, 20, 10, 0):
        assert handshake(kept, agent)["budget_remaining"] == left * USD
    refusal = kept.refused("leases.handshake", account=agent, provider="openai")
    assert (refusal.status, refusal.message) == (403, "Budget limit exceeded")
    assert kept.money(agent) == (0, 50 * USD, 0)


def test_of_two_handshakes_for_the_whole_one_is_refused(panel):
    agent = panel.agent(10 * USD)
    handshake(panel, agent)
    assert panel.refused("leases.handshake", account=agent, provider="openai").status == 403


@pytest.mark.parametrize("requested", [HANDSHAKE_MAX + 1, 0, -1])
def test_a_handshake_asks_for_something_and_not_for_too_much(panel, requested):
    agent = panel.agent(10**9)
    refusal = panel.refused("leases.handshake", account=agent, provider="openai", requested=requested)
    assert (refusal.status, refusal.field) == (400, "requested_budget")
    assert handshake(panel, agent, HANDSHAKE_MAX)["budget_granted"] == 100_000_000


def test_an_agent_without_a_limit_is_leased_what_it_asks_for(panel):
    agent = panel.agent(None)
    lease = handshake(panel, agent, 7)
    assert (lease["budget_granted"], lease["budget_remaining"]) == (7, None)
    assert told(panel, lease, agent, "r", 7)["success"]


def test_only_a_live_agent_leases(panel):
    alice = panel.key()
    assert panel.refused("leases.handshake", account=alice, provider="openai").status == 403
    agent = panel.agent(10 * USD)
    lease = handshake(panel, agent, USD)
    panel.ask("keys.revoke", id="bot")
    assert panel.refused("leases.handshake", account=agent, provider="openai").status == 403
    assert panel.refused("leases.refresh", account=agent, current_lease_id=lease["lease_id"]).status == 403
    assert panel.money(agent) == (0, 0, 10 * USD)


def test_a_lease_does_not_outlive_its_agent(panel):
    agent = panel.key("bot", kind="agent", expires_ms=panel.now + 60_000)
    assert handshake(panel, agent)["expires_at"] == "2026-09-21T14:14:20.000Z"


# --- R-A13: reports and returns ---------------------------------------------------------------------------------------


def test_allocated_is_spent_and_leased_and_free(kept):
    """allocated 100 = spent 2 + leased 8 + free 90; the report again changes nothing; the return frees to 98."""
    agent = kept.agent(100 * USD)
    lease = handshake(kept, agent)
    first = told(kept, lease, agent, "r1", 2 * USD)
    assert first == {"success": True, "refused": None, "budget_remaining": 90 * USD, "lease_remaining": 8 * USD}
    assert kept.money(agent) == (2 * USD, 8 * USD, 90 * USD)
    kept.restart()
    assert told(kept, lease, agent, "r1", 2 * USD) == first
    assert kept.money(agent) == (2 * USD, 8 * USD, 90 * USD)
    # Who claims to have spent nothing gets back no more than what it did not report.
    assert kept.ask("leases.return", account=agent, lease_id=lease["lease_id"], spent_microdollars=0) == {
        "success": True,
        "returned": 8 * USD,
    }
    assert kept.money(agent) == (2 * USD, 0, 98 * USD)


def test_a_return_carries_what_was_not_reported(panel):
    agent = panel.agent(100 * USD)
    lease = handshake(panel, agent)
    told(panel, lease, agent, "r1", 2 * USD)
    back = panel.ask("leases.return", account=agent, lease_id=lease["lease_id"], spent_microdollars=5 * USD)
    assert back["returned"] == 5 * USD
    assert panel.money(agent) == (5 * USD, 0, 95 * USD)


def test_a_return_of_more_than_was_leased_is_charged_and_returns_nothing(panel):
    agent = panel.agent(100 * USD)
    lease = handshake(panel, agent)
    back = panel.ask("leases.return", account=agent, lease_id=lease["lease_id"], spent_microdollars=12 * USD)
    assert back["returned"] == 0
    assert panel.money(agent) == (12 * USD, 0, 88 * USD)


def test_a_report_that_comes_after_its_return_is_not_charged_twice(panel):
    """The return named the whole; reports that were under way explain it, and only what they exceed it by is new."""
    agent = panel.agent(100 * USD)
    lease = handshake(panel, agent)
    panel.ask("leases.return", account=agent, lease_id=lease["lease_id"], spent_microdollars=5 * USD)
    assert told(panel, lease, agent, "r1", 3 * USD)["refused"] == "Lease expired"
    told(panel, lease, agent, "r2", 2 * USD)
    assert panel.money(agent) == (5 * USD, 0, 95 * USD)
    told(panel, lease, agent, "r3", USD)
    assert panel.money(agent) == (6 * USD, 0, 94 * USD)


def test_a_second_return_is_refused_yet_what_it_claims_is_charged(panel):
    agent = panel.agent(100 * USD)
    lease = handshake(panel, agent)
    panel.wait(LEASE_MS + GRACE_MS)
    asked = {"account": agent, "lease_id": lease["lease_id"], "spent_microdollars": 3 * USD}
    for _ in range(2):
        refusal = panel.refused("leases.return", **asked)
        assert (refusal.status, refusal.message) == (400, "Lease is not active")
        assert panel.money(agent) == (3 * USD, 0, 97 * USD)


def test_a_report_that_changes_its_mind_is_refused(panel):
    agent = panel.agent(100 * USD)
    lease = handshake(panel, agent)
    told(panel, lease, agent, "r1", 2 * USD)
    refusal = panel.refused("leases.report", **report(lease, agent, "r1", 3 * USD))
    assert (refusal.status, refusal.code) == (409, "REPORT_CHANGED")
    assert panel.money(agent) == (2 * USD, 8 * USD, 90 * USD)


def test_a_report_of_more_than_the_lease_is_charged_and_refused(panel):
    """R-B12: real spend never vanishes; the refusal says that there must be no more."""
    agent = panel.agent(100 * USD)
    lease = handshake(panel, agent)
    assert told(panel, lease, agent, "r1", 10 * USD)["success"]
    answer = told(panel, lease, agent, "r2", 1)
    assert (answer["refused"], answer["lease_remaining"]) == ("Insufficient lease budget", 0)
    used, _, left = panel.money(agent)
    assert (used, used + left) == (10 * USD + 1, 100 * USD)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("tokens", 0),
        ("tokens", -1),
        ("tokens", 2**62),
        ("cost_microdollars", -1),
        ("cost_microdollars", COST_MAX + 1),
        ("cost_microdollars", 2**63),
    ],
)
def test_a_report_that_cannot_be_true_is_refused_and_the_books_go_on(kept, field, value):
    agent = kept.agent(100 * USD)
    lease = handshake(kept, agent)
    refusal = kept.refused("leases.report", **{**report(lease, agent, "r1", 1), field: value})
    assert (refusal.status, refusal.code, refusal.field) == (400, "VALIDATION_ERROR", field)
    assert kept.money(agent) == (0, 10 * USD, 90 * USD)


def test_the_largest_reports_can_be_written_down(kept):
    agent = kept.agent(100 * USD)
    lease = handshake(kept, agent)
    for number in range(3):
        told(kept, lease, agent, f"r{number}", COST_MAX, tokens=10**9)
    assert panel_spent(kept, agent) == 3 * COST_MAX


@pytest.mark.parametrize("claimed", [-1, COST_MAX + 1, 2**63])
def test_a_return_that_cannot_be_true_is_refused(panel, claimed):
    agent = panel.agent(100 * USD)
    lease = handshake(panel, agent)
    asked = {"account": agent, "lease_id": lease["lease_id"], "spent_microdollars": claimed}
    assert panel.refused("leases.return", **asked).field == "spent_microdollars"


def panel_spent(panel, agent):
    return panel.money(agent)[0]


def test_another_agents_lease_is_not_there(panel):
    """S10: 404 on every operation that names a lease."""
    agent, other = panel.agent(100 * USD), panel.agent(100 * USD, "other")
    lease = handshake(panel, agent)["lease_id"]
    asked = {"lease_id": lease, "account": other}
    call = {"request_id": "r", "tokens": 1, "cost_microdollars": 1, "model": "m", "provider": "p"}
    assert panel.refused("leases.report", **asked, **call).status == 404
    assert panel.refused("leases.return", **asked).status == 404
    assert panel.refused("leases.refresh", account=other, current_lease_id=lease).status == 404
    assert panel.money(agent) == (0, 10 * USD, 90 * USD)


# --- R-A14: refreshes -------------------------------------------------------------------------------------------------


def test_a_refresh_takes_the_old_rest_back_before_it_leases_anew(kept):
    """Refresh 20 after spending 5 of 10: new lease 20, old expired, free 75; a late report is refused and charged."""
    agent = kept.agent(100 * USD)
    old = handshake(kept, agent)
    told(kept, old, agent, "r1", 5 * USD)
    new = kept.ask("leases.refresh", account=agent, current_lease_id=old["lease_id"], requested=20 * USD)
    assert (new["status"], new["budget_granted"], new["budget_remaining"]) == ("approved", 20 * USD, 75 * USD)
    assert kept.money(agent) == (5 * USD, 20 * USD, 75 * USD)
    late = told(kept, old, agent, "r2", USD)
    assert (late["success"], late["refused"]) == (False, "Lease expired")
    assert kept.money(agent) == (6 * USD, 20 * USD, 74 * USD)
    kept.restart()
    assert kept.money(agent) == (6 * USD, 20 * USD, 74 * USD)


def test_a_refresh_asked_again_leases_once(panel):
    """R-B12: whoever lost the answer asks again; the lease it never heard of gives way, one that is in use does not."""
    agent = panel.agent(100 * USD)
    old = handshake(panel, agent)
    asked = {"account": agent, "current_lease_id": old["lease_id"], "requested": 20 * USD}
    lost, heard = (panel.ask("leases.refresh", **asked) for _ in range(2))
    assert lost["lease_id"] != heard["lease_id"]
    assert panel.money(agent) == (0, 20 * USD, 80 * USD)
    told(panel, heard, agent, "r1", 5 * USD)
    again = panel.ask("leases.refresh", **asked)
    assert again["status"] == "denied"
    assert heard["lease_id"] in again["reason"]
    assert panel.money(agent) == (5 * USD, 15 * USD, 80 * USD)


def test_a_refresh_of_the_last_money_has_the_old_rest(panel):
    agent = panel.agent(10 * USD)
    old = handshake(panel, agent)
    told(panel, old, agent, "r1", 4 * USD)
    new = panel.ask("leases.refresh", account=agent, current_lease_id=old["lease_id"])
    assert (new["budget_granted"], new["budget_remaining"]) == (6 * USD, 0)


def test_a_refresh_that_is_denied_leaves_the_old_lease(panel):
    agent = panel.agent(10 * USD)
    old = handshake(panel, agent)
    told(panel, old, agent, "r1", 10 * USD)
    denied = panel.ask("leases.refresh", account=agent, current_lease_id=old["lease_id"])
    assert denied == {"status": "denied", "budget_remaining": 0, "reason": "Budget limit exceeded"}
    assert panel.book.by_public(old["lease_id"]).state == "live"


def test_a_revoked_lease_is_not_refreshed(panel):
    agent = panel.agent(10 * USD)
    old = handshake(panel, agent, USD)
    panel.book.end_allocation(panel.number(old["lease_id"]), "revoked")
    panel.commit()
    denied = panel.ask("leases.refresh", account=agent, current_lease_id=old["lease_id"])
    assert (denied["status"], denied["reason"]) == ("denied", "Lease has been revoked")
    assert told(panel, old, agent, "r", 1)["refused"] == "Lease has been revoked"


@pytest.mark.parametrize("requested", [REFRESH_MAX + 1, 0, -1])
def test_a_refresh_asks_for_something_and_not_for_too_much(panel, requested):
    agent = panel.agent(100 * USD)
    old = handshake(panel, agent)["lease_id"]
    refusal = panel.refused("leases.refresh", account=agent, current_lease_id=old, requested=requested)
    assert refusal.status == 400


# --- R-A15: leases nobody returns -------------------------------------------------------------------------------------


def test_a_lease_nobody_returned_is_taken_back_after_its_grace(kept):
    """With 7 dollars unspent: after TTL and grace the panel reclaims exactly 7, and what is reported then is charged."""
    agent = kept.agent(100 * USD)
    lease = handshake(kept, agent)
    told(kept, lease, agent, "r1", 3 * USD)
    kept.wait(LEASE_MS)
    assert told(kept, lease, agent, "r2", 0)["success"], "the last instant is still in it"
    kept.wait(1)
    assert told(kept, lease, agent, "r3", 0)["refused"] == "Lease expired"
    kept.wait(GRACE_MS - 2)
    assert kept.money(agent) == (3 * USD, 7 * USD, 90 * USD)
    kept.wait(1)
    assert kept.money(agent) == (3 * USD, 0, 97 * USD)
    kept.restart()
    assert told(kept, lease, agent, "r4", 2 * USD)["refused"] == "Lease expired"
    assert kept.money(agent) == (5 * USD, 0, 95 * USD)


def test_a_lease_of_yesterday_is_charged_to_yesterday(panel):
    """A daily budget: what was set aside before midnight is not taken from the new day."""
    agent = panel.key("bot", kind="agent", budget_microdollars=20 * USD, window="daily")
    lease = handshake(panel, agent)
    panel.now += DAY
    told(panel, lease, agent, "r1", 2 * USD)
    assert panel.money(agent) == (0, 0, 20 * USD)


# --- whatever is repeated or reordered --------------------------------------------------------------------------------

STEP = st.one_of(
    st.tuples(st.just("report"), st.integers(0, 2), st.integers(0, 5)),
    st.tuples(st.just("return"), st.integers(0, 2), st.integers(0, 40)),
    st.tuples(st.just("handshake"), st.integers(1, 40), st.just(0)),
    st.tuples(st.just("refresh"), st.integers(0, 2), st.integers(1, 40)),
    st.tuples(st.just("wait"), st.sampled_from([1, LEASE_MS, GRACE_MS]), st.just(0)),
    st.tuples(st.just("restart"), st.just(0), st.just(0)),
)


@settings(max_examples=10_000 if TORTURE else 150, deadline=None)
@given(budget=st.none() | st.integers(0, 120), steps=st.lists(STEP, max_size=25))
def test_nothing_is_charged_twice_and_nothing_is_lost(new_panel, budget, steps):
    """R-B12, R-B13: an agent has spent, of each lease, the larger of its distinct reports and the largest claim."""
    panel = new_panel()
    agent = panel.agent(budget)
    leases, reported, claimed = [], {}, {}
    for step, place, number in steps:
        if step == "wait":
            panel.wait(place)
        elif step == "restart":
            panel.restart()
        elif step == "handshake":
            granted = attempt(panel, "leases.handshake", account=agent, provider="p", requested=place)
            leases += [granted["lease_id"]] if granted else []
        elif place < len(leases):
            lease = leases[place]
            if step == "report":
                cost = (number * 7) % 11  # the same request costs the same
                asked = report({"lease_id": lease}, agent, f"r{number}", cost)
                assert panel.ask("leases.report", **asked)["lease_remaining"] >= 0
                reported[lease, number] = cost
            elif step == "return":
                attempt(panel, "leases.return", account=agent, lease_id=lease, spent_microdollars=number)
                claimed[lease] = max(number, claimed.get(lease, 0))
            else:
                granted = panel.ask("leases.refresh", account=agent, current_lease_id=lease, requested=number)
                leases += [granted["lease_id"]] if granted["status"] == "approved" else []
    expected = {
        lease: max(sum(cost for (of, _), cost in reported.items() if of == lease), claimed.get(lease, 0))
        for lease in leases
    }
    for lease, spent in expected.items():
        assert panel.money(panel.number(lease))[0] == spent
    entries = panel.ask("usage.show", account=agent)["by_day"]
    assert sum(day["microdollars"] for day in entries) == sum(expected.values())
    if budget is not None:
        used, held, left = panel.money(agent)
        assert used == sum(expected.values())
        assert used + held + left == budget
        panel.wait(LEASE_MS + GRACE_MS)
        assert panel.money(agent) == (used, 0, budget - used)


def attempt(panel, operation, **asked):
    try:
        return panel.ask(operation, **asked)
    except Refused:
        return None


# --- events -----------------------------------------------------------------------------------------------------------


def test_an_event_is_kept_once_for_its_agent(kept):
    """R-A16: unique per agent and event id."""
    agent, other = kept.agent(1), kept.agent(1, "other")
    asked = {"event_id": "e1", "body": {"model": "gpt", "cost_micros": 3}}
    assert kept.ask("events.note", account=agent, **asked)["status"] == "accepted"
    kept.restart()
    assert kept.ask("events.note", account=agent, **asked)["status"] == "duplicate"
    assert kept.ask("events.note", account=other, **asked)["status"] == "accepted"
    assert len(kept.store.records("event", account=agent)) == 1
    assert kept.money(agent) == (0, 0, 1), "an event is told, not charged"
