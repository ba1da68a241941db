"""Virtual keys: named, limited, rotated, revoked; a token is told once; what is refused changes nothing."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastroute.domain import MICRODOLLARS_MAX, TOKENS_MAX
from fastroute.ledger import tokens
from fastroute.ledger.book import Budget, Refused
from fastroute.panel.keys import GRACE_MAX_MS, METADATA_MAX, MODELS_MAX, NAME_MAX
from fastroute.panel.wording import INSTANT_MAX_MS

HOUR = 3_600_000


def opens(panel, token):
    """The state of the account that a token opens, None where it opens none."""
    row = panel.book.by_digest(tokens.digest(panel.pepper, token.encode()), panel.now)
    return None if row is None else panel.book.standing(row.id, panel.now)


def test_a_new_key_is_told_once_with_its_limits(kept):
    made = kept.ask(
        "keys.create",
        name="alice",
        budget_microdollars=2_010_000,
        window="monthly",
        zone="Europe/Berlin",
        daily_tokens=20_000,
        rpm=3,
        tpm=4,
        concurrency=5,
        models=["a", "b"],
        metadata={"team": "x"},
        expires_ms=kept.now + HOUR,
    )
    token = made.pop("key")
    assert tokens.well_formed(token)
    kept.restart()
    assert kept.ask("keys.show", id="alice") == made == kept.ask("keys.show", id=made["id"])
    assert opens(kept, token) == "live"
    assert token not in str(made)
    assert (made["kind"], made["state"], made["parent"]) == ("key", "live", None)
    assert (made["rpm"], made["tpm"], made["concurrency"], made["models"]) == (3, 4, 5, ["a", "b"])
    assert (made["created_at"], made["expires_at"]) == ("2026-09-21T14:13:20.000Z", "2026-09-21T15:13:20.000Z")
    money, daily = made["budgets"]
    assert money == {
        "unit": "microdollar",
        "limit": 2_010_000,
        "used": 0,
        "held": 0,
        "remaining": 2_010_000,
        "window": "monthly",
        "window_name": "2026-09",
        "zone": "Europe/Berlin",
        "resets_at": "2026-10-01T00:00:00+02:00",
        "owner": made["id"],
    }
    assert (daily["unit"], daily["window_name"], daily["resets_at"]) == (
        "token",
        "2026-09-21",
        "2026-09-22T00:00:00+02:00",
    )


@pytest.mark.parametrize("name", ["", " alice", "alice ", "a\nb", "a\x00b", "x" * (NAME_MAX + 1)])
def test_a_name_is_printable_and_short(panel, name):
    assert panel.refused("keys.create", name=name).field == "name"


def test_no_two_live_accounts_of_a_kind_share_a_name(kept):
    first = kept.ask("keys.create", name="alice")
    assert kept.refused("keys.create", name="alice").code == "name_taken"
    kept.ask("keys.create", name="alice", kind="agent")
    kept.restart()
    assert kept.refused("keys.create", name="alice").code == "name_taken"
    kept.ask("keys.revoke", id=first["id"])
    second = kept.ask("keys.create", name="alice")
    assert second["id"] != first["id"]
    assert kept.refused("keys.create", name="alice").code == "name_taken"
    kept.restart()
    assert kept.refused("keys.create", name="alice").code == "name_taken"


def test_a_name_stands_for_the_one_that_lives_else_for_the_last(panel):
    ids = []
    for _ in range(3):
        ids.append(panel.ask("keys.create", name="alice")["id"])
        assert panel.ask("keys.show", id="alice")["id"] == ids[-1]
        panel.ask("keys.revoke", id="alice")
        assert panel.ask("keys.show", id="alice")["id"] == ids[-1]
    panel.restart()
    assert panel.ask("keys.show", id="alice")["id"] == ids[-1]


def test_a_name_that_two_kinds_have_is_not_guessed_at(panel):
    key, user = panel.ask("keys.create", name="alice"), panel.ask("keys.create", name="alice", kind="user")
    refusal = panel.refused("keys.revoke", id="alice")
    assert (refusal.status, refusal.code) == (409, "name_ambiguous")
    assert key["id"] in refusal.message
    assert user["id"] in refusal.message
    panel.ask("keys.revoke", id=key["id"])
    assert panel.ask("keys.show", id="alice")["id"] == user["id"]


def test_who_is_not_there_is_not_found(panel):
    panel.key()
    for operation in ("keys.show", "keys.revoke", "keys.rotate", "usage.show"):
        assert panel.refused(operation, id="nobody").status == 404
    assert panel.refused("keys.change", id="nobody", changes={}).status == 404


BAD_FIELDS = [
    ({"budget_microdollars": -1}, "budget_microdollars"),
    ({"budget_microdollars": MICRODOLLARS_MAX}, "budget_microdollars"),
    ({"budget_microdollars": 2**63}, "budget_microdollars"),
    ({"daily_tokens": -1}, "daily_tokens"),
    ({"daily_tokens": MICRODOLLARS_MAX}, "daily_tokens"),
    ({"rpm": -1}, "rpm"),
    ({"tpm": TOKENS_MAX + 1}, "tpm"),
    ({"concurrency": 2**63}, "concurrency"),
    ({"models": [""]}, "models"),
    ({"models": ["m"] * (MODELS_MAX + 1)}, "models"),
    ({"models": ["m" * 201]}, "models"),
    ({"metadata": {"": "x"}}, "metadata"),
    ({"metadata": {"n" * 65: "x"}}, "metadata"),
    ({"metadata": {"n": "x" * 513}}, "metadata"),
    ({"metadata": {str(n): "x" for n in range(METADATA_MAX + 1)}}, "metadata"),
    ({"expires_ms": INSTANT_MAX_MS + 1}, "expires"),
    ({"expires_ms": 2**63}, "expires"),
    ({"expires_ms": -1}, "expires"),
]


@pytest.mark.parametrize(("fields", "named"), BAD_FIELDS)
def test_a_field_that_cannot_be_is_named(kept, fields, named):
    """Nothing is opened or changed then, whatever else was asked for and was right."""
    refusal = kept.refused("keys.create", name="alice", **fields)
    assert (refusal.status, refusal.field) == (400, named)
    kept.key(rpm=1, budget_microdollars=5)
    before = kept.ask("keys.show", id="alice")
    good = {"budget_microdollars": 7, "rpm": 9, "daily_tokens": 3, "models": ["m"], "metadata": {"a": "b"}}
    refusal = kept.refused("keys.change", id="alice", changes={**good, **fields})
    assert (refusal.status, refusal.field) == (400, named)
    assert kept.ask("keys.show", id="alice") == before


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"rpm": "3"}, "rpm"),
        ({"rpm": True}, "rpm"),
        ({"budget_microdollars": 1.5}, "budget_microdollars"),
        ({"models": "gpt"}, "models"),
        ({"models": {}}, "models"),
        ({"metadata": []}, "metadata"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"expires_ms": "tomorrow"}, "expires"),
        ({"name": "bob"}, "name"),
        ({"window": "daily"}, "window"),
    ],
)
def test_a_change_of_the_wrong_kind_changes_nothing(panel, changes, named):
    panel.key(budget_microdollars=5)
    before = panel.ask("keys.show", id="alice")
    refusal = panel.refused("keys.change", id="alice", changes={"budget_microdollars": 7, **changes})
    assert (refusal.status, refusal.field) == (400, named)
    assert panel.ask("keys.show", id="alice") == before


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"nme": "x", "name": "x"}, "nme"),
        ({}, "name"),
        ({"name": 3}, "name"),
        ({"name": "x", "models": [3]}, "models[0]"),
    ],
)
def test_an_operation_names_the_field_it_cannot_take(panel, arguments, named):
    refusal = panel.refused("keys.create", **arguments)
    assert (refusal.status, refusal.field) == (400, named)


def test_nobody_answers_an_unknown_operation(panel):
    assert panel.refused("keys.explode").code == "unknown_operation"


def test_a_change_sets_raises_lowers_and_takes_away(kept):
    kept.key(budget_microdollars=5, window="daily", zone="Asia/Kolkata", rpm=1, models=["a"], expires_ms=kept.now + 1)
    changes = {
        "budget_microdollars": 9,
        "daily_tokens": 20_000,
        "rpm": None,
        "tpm": 7,
        "models": None,
        "metadata": {"a": "b"},
        "expires_ms": None,
    }
    changed = kept.ask("keys.change", id="alice", changes=changes)
    kept.restart()
    assert kept.ask("keys.show", id="alice") == changed
    assert (changed["rpm"], changed["tpm"], changed["models"], changed["expires_at"]) == (None, 7, [], None)
    money, daily = changed["budgets"]
    assert (money["limit"], money["window"], money["zone"]) == (9, "daily", "Asia/Kolkata")
    # A new limit's day turns where the other's does.
    assert (daily["limit"], daily["zone"]) == (20_000, "Asia/Kolkata")
    cleared = kept.ask("keys.change", id="alice", changes={"budget_microdollars": None, "daily_tokens": None})
    assert cleared["budgets"] == []
    assert kept.ask("grants.remaining", account=kept.number(cleared["id"])) is None


def test_a_zero_budget_is_closed_and_none_is_no_limit(panel):
    assert panel.ask("grants.remaining", account=panel.key("closed", budget_microdollars=0)) == 0
    assert panel.ask("grants.remaining", account=panel.key("open")) is None


def test_a_second_limit_that_makes_a_path_too_long_leaves_the_first_as_it_was(panel):
    """Four limits are the most that one request draws on."""
    panel.key("top", budget_microdollars=1)
    panel.key("middle", parent="top", budget_microdollars=1, daily_tokens=9)
    panel.key("alice", parent="middle")
    top = panel.ask("keys.show", id="top")
    changes = {"budget_microdollars": 9, "daily_tokens": 9}
    panel.ask("keys.change", id="top", changes=changes)
    panel.ask("keys.change", id="top", changes={"budget_microdollars": 1, "daily_tokens": None})
    panel.key("bob", parent="middle", budget_microdollars=1)
    with pytest.raises(Refused, match="4 limits"):
        panel.desk(panel.book, "keys.change", {"id": "top", "changes": changes}, panel.now)
    panel.commit()
    assert panel.ask("keys.show", id="top") == top
    refusal = panel.refused("keys.create", name="eve", parent="middle", budget_microdollars=1, daily_tokens=1)
    assert refusal.code == "path_too_long"


def test_a_key_below_another_shows_both_limits_own_first(panel):
    panel.key("team", budget_microdollars=100)
    panel.key("member", parent="team", budget_microdollars=10)
    shown = panel.ask("keys.show", id="member")
    team = panel.ask("keys.show", id="team")["id"]
    assert [(each["limit"], each["owner"]) for each in shown["budgets"]] == [(10, shown["id"]), (100, team)]
    assert shown["parent"] == team


def test_a_parent_is_a_live_key(panel):
    panel.agent(1)
    panel.key("gone")
    panel.key("late", expires_ms=panel.now + 1)
    panel.ask("keys.revoke", id="gone")
    panel.now += 1
    assert panel.refused("keys.create", name="x", parent="bot").field == "parent"
    assert panel.refused("keys.create", name="x", parent="gone").status == 409
    assert panel.refused("keys.create", name="x", parent="late").status == 409
    assert panel.refused("keys.create", name="x", parent="nobody").status == 404


def test_a_rotated_key_has_its_old_token_until_the_grace_is_over(kept):
    old = kept.ask("keys.create", name="alice")["key"]
    new = kept.ask("keys.rotate", id="alice", grace_ms=HOUR)["key"]
    assert (opens(kept, old), opens(kept, new)) == ("live", "live")
    kept.restart()
    kept.now += HOUR - 1
    assert (opens(kept, old), opens(kept, new)) == ("live", "live")
    kept.now += 1
    assert (opens(kept, old), opens(kept, new)) == (None, "live")


def test_a_key_rotated_without_a_grace_has_one_token(panel):
    """Nor is one good any more whose own grace was not over."""
    first = panel.ask("keys.create", name="alice")["key"]
    second = panel.ask("keys.rotate", id="alice", grace_ms=HOUR)["key"]
    third = panel.ask("keys.rotate", id="alice")["key"]
    assert [opens(panel, each) for each in (first, second, third)] == [None, None, "live"]


def test_a_grace_is_a_week_at_most(panel):
    panel.key()
    for grace in (-1, GRACE_MAX_MS + 1):
        assert panel.refused("keys.rotate", id="alice", grace_ms=grace).field == "grace"
    panel.ask("keys.rotate", id="alice", grace_ms=GRACE_MAX_MS)


def test_a_user_has_no_key_and_gets_none(panel):
    made = panel.ask("keys.create", name="ann", kind="user", daily_tokens=20_000)
    assert "key" not in made
    assert made["hint"] == ""
    assert panel.refused("keys.rotate", id="ann").status == 400


def test_a_revoked_key_stays_revoked_with_its_tokens(kept):
    first = kept.ask("keys.create", name="alice")["key"]
    second = kept.ask("keys.rotate", id="alice", grace_ms=HOUR)["key"]
    gone = kept.ask("keys.revoke", id="alice")
    assert gone["state"] == "revoked"
    assert kept.ask("keys.revoke", id="alice") == gone
    kept.restart()
    assert (opens(kept, first), opens(kept, second)) == ("revoked", "revoked")
    assert kept.refused("keys.rotate", id="alice").status == 409
    assert kept.refused("keys.change", id="alice", changes={"rpm": 1}).status == 409


def test_a_revoked_agent_ends_its_leases(panel):
    agent = panel.agent(10**8)
    lease = panel.ask("leases.handshake", account=agent, provider="openai")
    panel.ask("keys.revoke", id="bot")
    assert opens(panel, lease["ip_token"]) == "revoked"
    assert panel.money(agent) == (0, 0, 10**8)


def test_a_key_past_its_expiry_shows_as_ended_with_those_below_it(panel):
    panel.key("top", expires_ms=panel.now + 10)
    panel.key("below", parent="top")
    panel.now += 10
    assert [each["state"] for each in panel.ask("keys.list")] == ["ended", "ended"]


def test_a_list_is_in_order_and_goes_on_where_it_ended(panel):
    ids = [panel.ask("keys.create", name=f"key {n}", kind="key" if n % 3 else "agent")["id"] for n in range(10)]
    asked = {"kinds": ["agent", "key"]}
    panel.ask("keys.revoke", id=ids[4])
    assert [each["id"] for each in panel.ask("keys.list", **asked)] == ids
    assert [each["id"] for each in panel.ask("keys.list", live=True, **asked)] == ids[:4] + ids[5:]
    pages, after = [], None
    while page := panel.ask("keys.list", limit=3, after=after, **asked):
        pages += [each["id"] for each in page]
        after = page[-1]["id"]
    assert pages == ids
    assert panel.refused("keys.list", kinds=["nonsense"]).status == 400
    assert panel.refused("keys.list", limit=0).field == "limit"
    assert panel.refused("keys.list", after="nobody").status == 404


def test_a_grant_in_a_list_draws_on_its_own_money_and_on_the_tokens_above(panel):
    """It brought its money along; whoever is above it does not pay a second time."""
    alice = panel.key(budget_microdollars=100_000, daily_tokens=5)
    panel.place(alice, "rd_1")
    [grant] = panel.ask("keys.list", kinds=["grant"])
    assert [(each["unit"], each["limit"]) for each in grant["budgets"]] == [("microdollar", 50_000), ("token", 5)]


def test_nothing_that_is_shown_tells_a_digest_or_a_token(panel):
    """S1: ids, hints and limits only."""
    made = panel.ask("keys.create", name="alice")
    rotated = panel.ask("keys.rotate", id="alice", grace_ms=HOUR)
    shown = [panel.ask("keys.list"), panel.ask("usage.overview"), panel.ask("keys.revoke", id="alice")]
    for token in (made["key"], rotated["key"]):
        secret = token.rpartition("_")[2]
        assert secret[:-6] not in str(shown)
        assert tokens.digest(panel.pepper, token.encode()).hex() not in str(shown)
    assert "digest" not in str(shown)


def test_a_name_is_looked_up_without_a_walk_over_all_accounts(panel):
    """With 20,000 accounts an operation on one takes no longer than with ten."""
    for number in range(20_000):
        panel.book.open_account(
            f"key_{number:08}", "key", f"name {number}", created_ms=panel.now, budgets=[Budget("microdollar", 5)]
        )
    panel.commit()
    desk, book = panel.desk, panel.book
    desk(book, "keys.create", {"name": "first"}, panel.now)  # the index is made here
    begin = time.perf_counter()
    for number in range(50):
        desk(book, "keys.create", {"name": f"new {number}"}, panel.now)
        desk(book, "keys.show", {"id": f"name {number}"}, panel.now)
        desk(book, "usage.show", {"id": f"name {number}"}, panel.now)
    walk = time.perf_counter()
    book.accounts("key")
    once = time.perf_counter() - walk
    assert walk - begin < 75 * max(once, 0.001), "each of these would have walked three times and more"


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["create", "revoke", "restart"]), st.sampled_from("ab"), st.sampled_from(["key", "user"])
        ),
        max_size=30,
    )
)
def test_the_index_of_names_agrees_with_a_walk(new_panel, steps):
    """Whatever is opened and revoked: the live one, else the last of that name."""
    panel = new_panel()
    for step, name, kind in steps:
        living = [row for row in panel.book.accounts(kind) if row.name == name and row.state == "live"]
        if step == "restart":
            panel.restart()
        elif step == "create" and living:
            assert panel.refused("keys.create", name=name, kind=kind).code == "name_taken"
        elif step == "create":
            panel.ask("keys.create", name=name, kind=kind)
        elif living:
            panel.ask("keys.revoke", id=living[0].public_id)
        rows = [row for row in panel.book.accounts(kind) if row.name == name]
        expected = [row for row in rows if row.state == "live"] or rows[-1:]
        found = panel.desk._counter.at(panel.book, panel.now).called(kind, name)
        assert [found] == expected if expected else found is None
