"""Who calls, as a worker knows it: asked for once, remembered by the whole of a token, and gone when the books say so."""

import asyncio
import time

import pytest

from fastroute.clock import ManualClock
from fastroute.ledger import records
from fastroute.ledger import teller as tellers
from fastroute.ledger._teller import siphash
from fastroute.ledger.accounts import Account, Shortage
from fastroute.ledger.protocol import Facts, Who
from fastroute.ledger.teller import Unknown
from fastroute.ledger.tokens import digest
from tests.ledger.path_kit import facts, window
from tests.ledger.teller_kit import PEPPER, TOKEN, exact, funded, scene, sent, until


@scene
async def test_a_caller_is_asked_for_once_and_then_known(books, open_teller):
    """One account for all its calls; ten who ask at once ask one question."""
    teller = await open_teller()
    assert teller.known(TOKEN) is None
    accounts = await asyncio.gather(*(teller.find(TOKEN) for _ in range(10)))
    assert {id(account) for account in accounts} == {id(teller.known(TOKEN))}
    assert isinstance(accounts[0], Account)
    assert len(books.of(Who)) == 1


@scene
async def test_a_token_is_told_apart_by_all_of_it(books, open_teller):
    """P22: a table keyed by a part of a digest lets one caller in as another."""
    teller = await open_teller()
    await teller.find(TOKEN)
    assert teller.known(TOKEN[:-1]) is None
    assert teller.known(TOKEN + b" ") is None
    assert books.of(Who)[0].digest == digest(PEPPER, TOKEN)
    with pytest.raises(TypeError, match="not by None"):
        teller.known(None)


@pytest.mark.parametrize("size", [0, 32, 64, 65, 200])
def test_a_token_is_digested_as_the_desk_does_it(size):
    """However long the pepper is: HMAC-SHA256, only quicker."""
    pepper = bytes(range(256))[:size]
    for token in (b"", TOKEN, TOKEN * 40):
        assert tellers.Digester(pepper).digest(token) == digest(pepper, token)


@pytest.mark.parametrize(
    ("size", "mark"),
    [
        (0, "a3817f04ba25a8e66df67214c7550293"),
        (1, "da87c1d86b99af44347659119b22fc45"),
        (3, "9c70b60c5267a94e5f33b6b02985ed51"),
        (15, "5493e99933b0a8117e08ec0f97cfc3d9"),
    ],
)
def test_the_mark_of_a_token_is_the_hash_its_authors_have(size, mark):
    """SipHash-2-4 of 128 bits: the reference's own vectors."""
    assert siphash(bytes(range(16)), bytes(range(size))).hex() == mark


@scene
async def test_more_callers_than_are_found_without_a_digest_are_each_found(books, open_teller):
    """Those who share a place there push each other out of it, and nobody is taken for another."""
    teller = await open_teller()
    tokens = [b"fr_live_%d" % number for number in range(200)]
    for number, token in enumerate(tokens, 1):
        books.accounts[digest(PEPPER, token)] = facts(account=number)
    accounts = await asyncio.gather(*map(teller.find, tokens))
    assert [account.id for account in accounts] == [*range(1, 201)]
    for order in (1, -1, 1):
        assert [teller.known(token).id for token in tokens[::order]] == [*range(1, 201)][::order]
    accounts[7].end("revoked")
    assert teller.known(tokens[7]) is None
    books.change()
    assert {teller.known(token) for token in tokens} == {None}


@scene
async def test_a_stranger_is_remembered_for_a_moment_and_no_more_than_so_many(books, open_teller):
    clock = ManualClock()
    teller = await open_teller(clock)
    books.dead[digest(PEPPER, b"old")] = "revoked"
    assert await teller.find(b"who") == Unknown("unknown", tellers.UNKNOWN_MS)
    assert (await teller.find(b"old")).state == "revoked"
    assert isinstance(teller.known(b"who"), Unknown)
    clock.advance(tellers.UNKNOWN_MS)
    assert teller.known(b"who") is None
    for n in range(tellers.UNKNOWN_MAX + 10):
        teller._unknown[str(n).encode()] = Unknown("unknown")
        if len(teller._unknown) > tellers.UNKNOWN_MAX:
            break
    before = len(teller._unknown)
    await teller.find(b"one more")
    assert len(teller._unknown) <= before


@scene
async def test_a_change_of_any_account_is_seen_by_the_next_request(books, open_teller):
    """P26: workers look at the generation with each request, and drop what they knew."""
    teller = await open_teller()
    account = await teller.find(TOKEN)
    books.accounts[digest(PEPPER, TOKEN)] = facts(window(1, 500))
    assert teller.known(TOKEN) is account
    books.change()
    assert teller.known(TOKEN) is None
    assert await teller.find(TOKEN) is account
    assert account.facts.path[0].limit == 500
    assert isinstance(await teller.find(b"new"), Unknown)
    books.accounts[digest(PEPPER, b"new")] = facts(account=2)
    books.change()
    assert isinstance(await teller.find(b"new"), Account)


@scene
async def test_a_revoked_account_with_open_streams_is_found_out_without_another_request(books, open_teller):
    """P26: the streams of a revoked key can be cut; what it held is settled all the same."""
    teller = await open_teller()
    account = await teller.find(TOKEN)
    hold = sent(account, await funded(account))
    assert not teller.ended(account)
    books.dead[1] = "revoked"
    books.change()
    await until(lambda: teller.ended(account))
    assert account.reserve(1, 1) is None
    assert await account.fund(1, 1) == Shortage(401, "revoked")
    account.settle(hold, exact(40), "gone", None, 1)
    assert teller.journal.of(records.Settle)[-1].charged == (40,)


@scene
async def test_an_account_ends_at_its_time_and_is_asked_for_then(books, open_teller):
    clock = ManualClock()
    books.accounts[digest(PEPPER, TOKEN)] = facts(expires_in_ms=5000)
    teller = await open_teller(clock)
    account = await teller.find(TOKEN)
    clock.advance(5000)
    assert teller.ended(account)
    assert teller.known(TOKEN) is None
    books.dead[digest(PEPPER, TOKEN)] = books.dead[1] = "expired"
    assert (await teller.find(TOKEN)).state == "expired"
    assert await account.fund(1, 1) == Shortage(401, "expired")
    asked = len(books.of(Who))
    assert teller.known(TOKEN).state == (await teller.find(TOKEN)).state == "expired"
    assert len(books.of(Who)) == asked, "whoever calls on is not asked for with every call"


@scene
async def test_a_caller_whose_account_was_met_another_way_is_known_again(books, open_teller):
    """What was found without a digest hides nothing that was learned since."""
    clock = ManualClock()
    books.accounts[digest(PEPPER, TOKEN)] = facts(window(1, ends_in_ms=5000))
    teller = await open_teller(clock)
    before = await teller.find(TOKEN)
    assert teller.known(TOKEN) is before
    clock.advance(5000)
    books.accounts[digest(PEPPER, TOKEN)] = facts(window(2, ends_in_ms=86_400_000))
    met = await teller.account(1)
    assert met is not before
    assert await teller.find(TOKEN) is met
    assert teller.known(TOKEN) is met


@scene
async def test_a_request_over_midnight_reserves_on_the_new_day(books, open_teller):
    """2.11: leases never cross a window; the facts are asked for again when one is over."""
    clock = ManualClock()
    books.accounts[digest(PEPPER, TOKEN)] = facts(window(1, ends_in_ms=5000))
    teller = await open_teller(clock)
    account = await teller.find(TOKEN)
    yesterday = sent(account, await funded(account))
    clock.advance(5000)
    books.accounts[digest(PEPPER, TOKEN)] = facts(window(2, ends_in_ms=86_400_000))
    books.limits[2] = 10**9
    today = sent(account, await funded(account))
    account.settle(yesterday, exact(40), "ok", 200, 1)
    account.settle(today, exact(30), "ok", 200, 1)
    assert [send.windows for send in teller.journal.of(records.Send)] == [(1,), (2,)]
    assert [settle.spent for settle in teller.journal.of(records.Settle)] == [(40,), (30,)]


@scene
async def test_s3_keys_that_begin_alike_are_never_mixed_up(books, open_teller):
    """What is remembered of a key goes by the whole of it: a thousand that differ in their end are as many callers."""
    teller = await open_teller()
    tokens = [b"fr_live_" + b"x" * 40 + f"{number:04}".encode() for number in range(1000)]
    for number, token in enumerate(tokens):
        books.accounts[digest(PEPPER, token)] = Facts(number + 10, f"k{number}", "key", "", (), None)
    found = [await teller.find(token) for token in tokens]
    assert [account.id for account in found] == [teller.known(token).id for token in tokens]
    assert [account.id for account in found] == list(range(10, 1010))
    assert teller.known(tokens[0][:-1]) is None


@scene
async def test_s2_a_wrong_key_takes_as_long_as_one_that_never_was(books, open_teller):
    """Both are looked up by the digest of all they are, so that the time says nothing of how much of them is right."""
    teller = await open_teller()
    await teller.find(TOKEN)
    never, wrong, revoked = b"x" * len(TOKEN), TOKEN[:-1] + b"?", TOKEN[:-2] + b"??"
    books.dead[digest(PEPPER, revoked)] = "revoked"
    for token in (never, wrong, revoked):
        assert isinstance(await teller.find(token), Unknown)

    def took(token):
        began = time.perf_counter_ns()
        for _ in range(20):
            teller.known(token)
        return time.perf_counter_ns() - began

    rounds = [[took(token) for token in (never, wrong, revoked)] for _ in range(500)]
    fastest = [sorted(column)[50] for column in zip(*rounds, strict=True)]
    assert max(fastest) < 1.15 * min(fastest)
