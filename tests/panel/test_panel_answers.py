"""Idempotent answers: one run for one key, told again byte for byte for a day."""

import pytest

from fastroute.ledger.book import Refused
from fastroute.panel.answers import ACCOUNT_MAX, BODY_MAX, KEPT_MS

HEADERS = [(b"content-type", b"application/json"), (b"x-request-id", b"req_1")]
BODY = bytes(range(256))


@pytest.fixture
def desk(kept):
    """The panel of one account, with a worker that lives."""
    kept.alice = kept.key("alice")
    kept.holder = kept.worker()

    def claim(request="req_1", name="n", body_hash="h", account=None, holder=None):
        return kept.ask(
            "answers.claim",
            account=kept.alice if account is None else account,
            name=name,
            body_hash=body_hash,
            request=request,
            holder=kept.holder if holder is None else holder,
        )

    def keep(request="req_1", status=200, body=BODY, name="n"):
        kept.ask(
            "answers.keep",
            account=kept.alice,
            name=name,
            request=request,
            status=status,
            headers=[list(pair) for pair in HEADERS],
            body=body,
        )

    def look(name="n", body_hash="h", account=None):
        return kept.ask(
            "answers.look", account=kept.alice if account is None else account, name=name, body_hash=body_hash
        )

    kept.claim, kept.keep_answer, kept.look = claim, keep, look
    return kept


def test_one_claims_and_the_others_wait(desk):
    assert desk.claim() == {"state": "run"}
    assert desk.claim("req_2") == {"state": "running", "request": "req_1"}
    desk.restart()
    assert desk.claim("req_3", holder=desk.worker()) == {"state": "running", "request": "req_1"}
    assert desk.look() == {"state": "running", "request": "req_1"}


def test_who_has_the_claim_may_ask_for_it_again(desk):
    """Its answer went missing with the bookkeeper; nobody else runs it."""
    desk.claim()
    desk.restart()
    assert desk.claim() == {"state": "run"}


def test_a_kept_answer_is_told_byte_for_byte_for_a_day(desk):
    desk.claim()
    desk.keep_answer(status=201)
    desk.restart()
    done = desk.claim("req_2")
    assert (done["state"], done["request"], done["status"], done["body"]) == ("done", "req_1", 201, BODY)
    assert [tuple(pair) for pair in done["headers"]] == HEADERS
    assert desk.look() == done
    desk.now += KEPT_MS - 1
    assert desk.look() == done
    desk.now += 1
    assert desk.look() == {"state": "gone"}
    assert desk.claim("req_3") == {"state": "run"}


def test_another_body_under_the_same_key_is_refused(desk):
    desk.claim()
    for done in (False, True):
        if done:
            desk.keep_answer()
        asked = {"account": desk.alice, "name": "n", "body_hash": "other"}
        claimed = desk.refused("answers.claim", request="req_2", holder=desk.holder, **asked)
        assert (claimed.status, claimed.code) == (422, "idempotency_key_reused")
        assert desk.refused("answers.look", **asked).status == 422


def test_accounts_do_not_share_keys(desk):
    bob = desk.key("bob")
    desk.claim()
    desk.keep_answer()
    assert desk.look(account=bob) == {"state": "gone"}
    assert desk.claim("req_2", account=bob, body_hash="other") == {"state": "run"}


def test_a_run_that_was_lost_before_anything_was_sent_is_run_again(desk):
    desk.claim()
    desk.book.bury(desk.holder, desk.now, power_lost=False)
    desk.commit()
    assert desk.look() == {"state": "lost", "request": "req_1"}
    assert desk.claim("req_2", holder=desk.worker()) == {"state": "run"}
    assert desk.claim("req_3", holder=desk.worker())["request"] == "req_2"


@pytest.mark.parametrize("settled", [True, False], ids=["settled", "under way"])
def test_a_run_that_was_lost_with_something_sent_is_not_run_again(desk, settled):
    """It has left for a provider and is charged; whoever wants another asks with another key."""
    desk.claim()
    desk.serve(desk.holder, desk.alice, "req_1", 5, settle=settled)
    desk.book.bury(desk.holder, desk.now, power_lost=False)
    asked = {"account": desk.alice, "name": "n", "body_hash": "h", "request": "req_2", "holder": desk.holder}
    with pytest.raises(Refused) as uncommitted:  # its entry is in the same turn, not in the store yet
        desk.desk(desk.book, "answers.claim", asked, desk.now)
    assert uncommitted.value.status == 409
    desk.commit()
    desk.restart()
    refusal = desk.refused("answers.claim", **asked)
    assert (refusal.status, refusal.code) == (409, "idempotency_run_lost")


def test_an_answer_that_is_too_long_says_so(desk):
    for name, body in (("long", bytes(BODY_MAX + 1)), ("cut", None)):
        desk.claim(name=name)
        desk.keep_answer(name=name, body=body)
        refusal = desk.refused(
            "answers.claim", account=desk.alice, name=name, body_hash="h", request="r", holder=desk.holder
        )
        assert (refusal.status, refusal.code) == (409, "idempotency_answer_not_kept")
    desk.claim(name="just")
    desk.keep_answer(name="just", body=bytes(BODY_MAX))
    assert len(desk.look("just")["body"]) == BODY_MAX


def test_answers_of_one_account_are_kept_up_to_a_size(desk):
    """S37: retries are remembered for a day, and nobody fills the books with them; the next day there is room again."""
    for number in range(ACCOUNT_MAX // BODY_MAX + 1):
        desk.claim(name=f"{number}")
        desk.keep_answer(name=f"{number}", body=bytes(BODY_MAX))
    with pytest.raises(Refused, match="all answers that are kept"):
        desk.look(f"{number}")
    assert len(desk.look(f"{number - 1}")["body"]) == BODY_MAX
    desk.now += 2 * KEPT_MS
    desk.claim(name="later")
    desk.keep_answer(name="later", body=bytes(BODY_MAX))
    assert len(desk.look("later")["body"]) == BODY_MAX


def test_a_run_that_came_to_nothing_and_was_billed_says_so(desk):
    desk.claim(name="broken")
    desk.keep_answer(name="broken", status=502, body=None)
    refusal = desk.refused(
        "answers.claim", account=desk.alice, name="broken", body_hash="h", request="r", holder=desk.holder
    )
    assert (refusal.status, refusal.code) == (409, "idempotency_run_failed")


def test_a_dropped_claim_may_be_claimed_anew(desk):
    desk.claim()
    drop = {"account": desk.alice, "name": "n"}
    desk.ask("answers.drop", request="req_2", **drop)
    assert desk.look()["state"] == "running", "only who runs it drops it"
    desk.ask("answers.drop", request="req_1", **drop)
    assert desk.look() == {"state": "gone"}
    assert desk.claim("req_2") == {"state": "run"}


def test_what_is_done_is_neither_dropped_nor_kept_again(desk):
    desk.claim()
    desk.keep_answer(status=200)
    desk.keep_answer(status=500)
    desk.ask("answers.drop", account=desk.alice, name="n", request="req_1")
    assert desk.look()["status"] == 200


def test_a_run_that_lost_its_claim_keeps_nothing(desk):
    """A worker thought dead whose request was given to another does not answer in its place."""
    desk.claim()
    desk.book.bury(desk.holder, desk.now, power_lost=False)
    desk.commit()
    desk.holder = desk.worker()
    desk.claim("req_2")
    desk.keep_answer("req_1")
    assert desk.look() == {"state": "running", "request": "req_2"}
