"""Routed grants: minted once, never more than there is, never more than the key may, and back to the last microdollar."""

import os
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastroute.ledger import tokens
from fastroute.ledger.books import Books
from fastroute.ledger.sqlite import Store
from fastroute.panel.grants import DECISION_MS, GRANT_MS, IDEMPOTENT_MS

TORTURE = "FASTROUTE_TORTURE" in os.environ
DAY = 86_400_000


def test_one_idempotency_key_mints_one_grant_and_one_escrow(kept):
    """M-A12: the same Idempotency-Key twice gives the same grant and one reservation, after a restart too."""
    alice = kept.key(budget_microdollars=100_000)
    first = kept.place(alice, "rd_1", key="again")
    second = kept.place(alice, "rd_2", key="again")
    kept.restart()
    third = kept.place(alice, "rd_3", key="again")
    assert first == second == third
    assert first["grant"]["key"].startswith("vk-")
    assert first["grant"]["budget_microdollars"] == 50_000
    assert first["decision_id"] == "rd_1"
    assert kept.money(alice) == (0, 50_000, 50_000)
    assert kept.ask("decisions.show", id="rd_1")["grant_id"] == first["grant"]["id"]
    assert kept.refused("decisions.show", id="rd_2").status == 404


def test_an_idempotency_key_with_another_body_is_refused(panel):
    alice = panel.key(budget_microdollars=100_000)
    panel.place(alice, "rd_1", key="again", body_hash="one")
    refusal = panel.refused(
        "grants.place",
        account=alice,
        decision_id="rd_2",
        decision={},
        answer={},
        body_hash="two",
        ceiling=1,
        key="again",
    )
    assert (refusal.status, refusal.code) == (422, "idempotency_key_reused")
    assert panel.money(alice) == (0, 50_000, 50_000)


def test_an_idempotency_key_belongs_to_one_account(panel):
    alice, bob = panel.key("alice"), panel.key("bob")
    assert panel.place(alice, "rd_1", key="k")["grant"]["id"] != panel.place(bob, "rd_2", key="k")["grant"]["id"]


def test_an_idempotency_key_is_forgotten_after_a_day_and_may_mint_anew(panel):
    """The second grant has a token of its own, though key and body are those of the first."""
    alice = panel.key()
    first = panel.place(alice, "rd_1", key="daily job")
    panel.wait(IDEMPOTENT_MS)
    second = panel.place(alice, "rd_2", key="daily job")
    assert second["grant"]["id"] != first["grant"]["id"]
    assert second["grant"]["key"] != first["grant"]["key"]


def test_no_candidate_under_an_idempotency_key_is_told_again(panel):
    alice = panel.key(budget_microdollars=10)
    told = {"verdict": "no_candidate", "reasons": ["health"]}
    first = panel.place(alice, "rd_1", key="k", answer=told, ceiling=0)
    assert first == {**told, "decision_id": "rd_1"}
    assert panel.place(alice, "rd_2", key="k", answer=told, ceiling=0) == first
    assert panel.money(alice) == (0, 0, 10)


def test_a_grant_that_failed_may_be_asked_for_again_with_the_same_key(panel):
    """Nothing was set aside, so trying again once there is money cannot set it aside twice."""
    alice = panel.key(budget_microdollars=0)
    assert panel.place(alice, "rd_1", key="k")["error"] == "grant_failed"
    panel.ask("keys.change", id="alice", changes={"budget_microdollars": 100_000})
    assert panel.place(alice, "rd_2", key="k")["grant"]["budget_microdollars"] == 50_000


def test_the_token_of_a_grant_is_nowhere_in_the_store(tmp_path, new_panel):
    """S1: neither the token nor its secret part is in the database, its log, or anything beside them."""
    with Store.open(tmp_path / "fastroute.db") as store:
        panel = new_panel(Books(store))
        made = panel.ask("keys.create", name="alice", budget_microdollars=100_000)
        rotated = panel.ask("keys.rotate", id="alice", grace_ms=1000)
        alice = panel.number(made["id"])
        granted = panel.place(alice, "rd_1", key="again")["grant"]["key"]
        lone = panel.place(alice, "rd_2")["grant"]["key"]
        agent = panel.ask("keys.create", name="bot", kind="agent", budget_microdollars=10**9)
        lease = panel.ask("leases.handshake", account=panel.number(agent["id"]), provider="openai")
        tokens = [made["key"], rotated["key"], granted, lone, agent["key"], lease["ip_token"]]
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        dump = b"".join(path.read_bytes() for path in files)
        assert any(path.name.endswith("-wal") and path.stat().st_size for path in files)
        assert made["hint"].encode() in dump, "the dump is the one that was written"
        for token in tokens:
            secret = token.rpartition("_")[2]
            assert token.encode() not in dump
            assert secret.encode() not in dump
            assert secret[:-6].encode() not in dump
            assert secret[:12].encode() not in dump


def test_without_the_pepper_no_kept_digest_opens(new_panel):
    """S1: what is stored, alone, verifies no token."""
    panel = new_panel()
    token = panel.ask("keys.create", name="alice")["key"]
    other = new_panel(panel.store, pepper=bytes(32))
    assert panel.book.by_digest(tokens.digest(panel.pepper, token.encode()), panel.now) is not None
    assert other.book.by_digest(tokens.digest(other.pepper, token.encode()), other.now) is None


def test_twenty_places_on_a_parent_of_two_make_two_grants(kept):
    """M-A14: exactly two grants, never more than the parent, and the record of every failure stays."""
    alice = kept.key(budget_microdollars=100_000)
    granted = failed = 0
    for number in range(20):
        answer = kept.place(alice, f"rd_{number}")
        if "grant" in answer:
            granted += answer["grant"]["budget_microdollars"]
        else:
            failed += 1
            assert answer == {"error": "grant_failed", "reason": "parent_exhausted", "decision_id": f"rd_{number}"}
            record = kept.ask("decisions.show", id=f"rd_{number}", account=alice)
            assert (record["outcome"], record["detail"], record["grant_id"]) == (
                "grant_failed",
                "parent_exhausted",
                None,
            )
        used, held, left = kept.money(alice)
        assert granted == used + held <= 100_000
        assert left >= 0
    assert (granted, failed) == (100_000, 18)


def test_a_grant_has_what_is_left_where_that_is_enough(panel):
    alice = panel.key(budget_microdollars=60_000)
    panel.place(alice, "rd_1")
    assert panel.ask("grants.remaining", account=alice) == 10_000
    assert panel.place(alice, "rd_2", need=10_001)["error"] == "grant_failed"
    assert panel.place(alice, "rd_3", need=10_000)["grant"]["budget_microdollars"] == 10_000
    assert panel.ask("grants.remaining", account=alice) == 0


def test_a_key_without_a_limit_grants_the_whole_ceiling(panel):
    alice = panel.key()
    assert panel.ask("grants.remaining", account=alice) is None
    answer = panel.place(alice, "rd_1", ceiling=10**12)
    assert answer["grant"]["budget_microdollars"] == 10**12
    grant = panel.number(answer["grant"]["id"])
    panel.book.post(grant, "r", 7, now_ms=panel.now)
    panel.commit()
    assert panel.money(grant) == (7, 0, 10**12 - 7)


def test_the_limits_above_a_key_bind_its_grants_as_its_own_do(panel):
    """A key without a limit of its own still has its parent's; what that cannot pay fails with its record kept."""
    panel.key("team", budget_microdollars=60_000)
    team = panel.number(panel.ask("keys.show", id="team")["id"])
    member = panel.key("member", parent="team")
    assert panel.ask("grants.remaining", account=member) == 60_000
    assert panel.place(member, "rd_1")["grant"]["budget_microdollars"] == 50_000
    assert panel.place(member, "rd_2")["grant"]["budget_microdollars"] == 10_000
    assert panel.place(member, "rd_3")["reason"] == "parent_exhausted"
    assert panel.ask("decisions.show", id="rd_3")["outcome"] == "grant_failed"
    assert panel.money(team) == (0, 60_000, 0)


@pytest.mark.parametrize("way", ["expiry", "revocation", "the parent's revocation"])
@pytest.mark.parametrize("spent", [0, 1, 18_000, 50_000])
def test_the_end_of_a_grant_returns_exactly_what_was_not_spent(kept, way, spent):
    """M-B11: reservation, use and release are the same microdollars; spent by a worker, as a request does."""
    alice = kept.key(budget_microdollars=100_000)
    granted = kept.place(alice, "rd_1")["grant"]
    grant = kept.number(granted["id"])
    worker = kept.worker()
    if spent:
        kept.serve(worker, grant, "req_1", spent)
    assert kept.money(alice) == (spent, 50_000 - spent, 50_000)
    if way == "expiry":
        kept.wait(GRANT_MS - 1)
        assert kept.money(alice) == (spent, 50_000 - spent, 50_000)
        kept.wait(1)
        state = "ended"
    else:
        if way == "revocation":
            kept.ask("grants.revoke", id=granted["id"], account=alice)
        else:
            kept.ask("keys.revoke", id="alice")
        state = "revoked"
    if spent:  # a worker's rights come home with its own word, never by a timer
        kept.book.bury(worker, kept.now, power_lost=False)
        kept.commit()
    assert kept.money(alice) == (spent, 0, 100_000 - spent)
    assert kept.ask("grants.show", id=granted["id"])["state"] == state
    kept.restart()
    assert kept.money(alice) == (spent, 0, 100_000 - spent)
    assert kept.ask("grants.show", id=granted["id"])["spent_microdollars"] == spent


def test_a_revoked_key_ends_all_that_hang_on_it_down_to_the_last(panel):
    """Grants of keys below it return their money too, at once."""
    top, middle = panel.key("top", budget_microdollars=10**6), panel.key("middle", parent="top")
    bottom = panel.key("bottom", parent="middle")
    grants = [panel.place(account, f"rd_{account}")["grant"]["id"] for account in (top, middle, bottom)]
    assert panel.money(top) == (0, 150_000, 850_000)
    panel.ask("keys.revoke", id="top")
    assert panel.money(top) == (0, 0, 10**6)
    assert {panel.book.account(number).state for number in (top, middle, bottom)} == {"revoked"}
    assert {panel.ask("grants.show", id=each)["state"] for each in grants} == {"revoked"}


def test_a_grant_does_not_outlive_anybody_above_it(panel):
    panel.key("top", expires_ms=panel.now + 1000)
    alice = panel.key("alice", parent="top")
    assert panel.place(alice, "rd_1")["grant"]["expires_at"] == "2026-09-21T14:13:21.000Z"
    panel.now += 1000
    refusal = panel.refused(
        "grants.place", account=alice, decision_id="rd_2", decision={}, answer={}, body_hash="h", ceiling=1
    )
    assert (refusal.status, refusal.code) == (401, "invalid_api_key")


@pytest.mark.parametrize("change", ["revoked", "expired"])
def test_a_key_that_is_over_mints_nothing(panel, change):
    alice = panel.key(expires_ms=panel.now + 1000)
    if change == "revoked":
        panel.ask("keys.revoke", id="alice")
    else:
        panel.now += 1000
    refusal = panel.refused(
        "grants.place", account=alice, decision_id="rd_1", decision={}, answer={}, body_hash="h", ceiling=1
    )
    assert refusal.status == 401


def test_grants_agents_and_leases_mint_nothing(panel):
    """S9: only a key mints."""
    grant = panel.number(panel.place(panel.key(), "rd_1")["grant"]["id"])
    agent = panel.agent(10**9)
    lease = panel.number(panel.ask("leases.handshake", account=agent, provider="openai")["lease_id"])
    for account in (grant, agent, lease):
        refusal = panel.refused(
            "grants.place", account=account, decision_id="rd_2", decision={}, answer={}, body_hash="h", ceiling=1
        )
        assert (refusal.status, refusal.code) == (403, "insufficient_scope")


NAMES = st.lists(st.sampled_from("abcdef"), unique=True, max_size=4)
NOTHING = {""}  # how facts say that no model may be asked for
LIMIT = st.none() | st.integers(0, 1000)


@settings(max_examples=10_000 if TORTURE else 150, deadline=None)
@given(
    parents=st.lists(st.tuples(NAMES, LIMIT, LIMIT, LIMIT, LIMIT, st.none() | st.integers(1, 2 * DAY)), max_size=2),
    own=st.tuples(NAMES, LIMIT, LIMIT, LIMIT, LIMIT, st.none() | st.integers(1, 2 * DAY)),
    asked=NAMES,
    ceiling=st.integers(1, 2000),
)
def test_the_rights_of_a_grant_are_within_those_of_its_key(new_panel, parents, own, asked, ceiling):
    """S9: whatever the scopes, nothing a grant may do its key may not: models, limits, money, time."""
    panel = new_panel()
    above = None
    for place, (models, budget, rpm, tpm, concurrency, expires) in enumerate([*parents, own]):
        number = panel.key(
            f"key {place}",
            models=models,
            budget_microdollars=budget,
            rpm=rpm,
            tpm=tpm,
            concurrency=concurrency,
            expires_ms=None if expires is None else panel.now + expires,
            parent=above,
        )
        above = panel.book.account(number).public_id
    left = panel.ask("grants.remaining", account=number)
    answer = panel.place(number, "rd_1", ceiling=ceiling, models=asked)
    if "grant" not in answer:
        assert left == 0
        return
    grant = panel.number(answer["grant"]["id"])
    key_facts, facts = panel.book.facts(number, panel.now), panel.book.facts(grant, panel.now)
    if key_facts.models:
        assert facts.models
        assert set(facts.models) <= set(key_facts.models) | NOTHING
    if asked:
        assert facts.models
        assert set(facts.models) <= set(asked) | NOTHING
    assert set(key_facts.limits) <= set(facts.limits)
    assert answer["grant"]["budget_microdollars"] <= (ceiling if left is None else min(ceiling, left))
    assert facts.expires_in_ms <= GRANT_MS
    if key_facts.expires_in_ms is not None:
        assert facts.expires_in_ms <= key_facts.expires_in_ms


def test_a_grant_does_not_end_itself_and_others_do_not_see_it(panel):
    """S10: another account's id is 404, never 403."""
    alice, bob = panel.key("alice"), panel.key("bob")
    granted = panel.place(alice, "rd_1")["grant"]["id"]
    sibling = panel.number(panel.place(alice, "rd_2")["grant"]["id"])
    grant = panel.number(granted)
    assert panel.ask("grants.show", id=granted, account=grant)["id"] == granted
    assert panel.ask("grants.show", id=granted, account=alice)["id"] == granted
    assert panel.refused("grants.revoke", id=granted, account=grant).status == 403
    for other in (bob, sibling):
        for operation in ("grants.show", "grants.revoke"):
            assert panel.refused(operation, id=granted, account=other).status == 404
    assert panel.refused("grants.show", id=panel.book.account(alice).public_id, account=alice).status == 404
    assert panel.ask("grants.show", id=granted)["state"] == "live"


def test_a_grant_may_be_revoked_twice(panel):
    alice = panel.key(budget_microdollars=100_000)
    granted = panel.place(alice, "rd_1")["grant"]["id"]
    first = panel.ask("grants.revoke", id=granted, account=alice)
    assert panel.ask("grants.revoke", id=granted, account=alice) == first
    assert first["state"] == "revoked"


def test_decisions_are_their_owners_for_a_month(kept):
    alice, bob = kept.key("alice"), kept.key("bob")
    kept.place(alice, "rd_1", ceiling=0, decision={"decision_id": "rd_1", "descriptor": {"agent": {"digest": "x"}}})
    found = kept.ask("decisions.show", id="rd_1", account=alice)
    assert found == {"decision_id": "rd_1", "descriptor": {"agent": {"digest": "x"}}, "grant_id": None}
    assert kept.refused("decisions.show", id="rd_1", account=bob).status == 404
    kept.wait(DECISION_MS)
    assert kept.refused("decisions.show", id="rd_1", account=alice).status == 404


def test_a_decision_is_found_before_it_is_committed(panel):
    """Two questions of one turn: the second sees what the first did."""
    alice = panel.key()
    asked = {"account": alice, "decision_id": "rd_1", "decision": {"a": 1}, "answer": {}, "body_hash": "h", "key": "k"}
    first = panel.desk(panel.book, "grants.place", {**asked, "ceiling": 5}, panel.now)
    again = panel.desk(panel.book, "grants.place", {**asked, "ceiling": 5}, panel.now)
    shown = panel.desk(panel.book, "decisions.show", {"id": "rd_1"}, panel.now)
    panel.commit()
    assert first == again
    assert shown["grant_id"] == first["grant"]["id"]
    assert re.fullmatch(r"[0-9a-f-]{36}", shown["grant_id"])
