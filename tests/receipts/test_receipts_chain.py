"""P31: any receipt that was altered, dropped, moved or put in is found, and told by its number."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastroute.receipts import GENESIS, Sealer, canonical, verify_chain

KEYS = {"1": b"0123456789abcdef0123456789abcdef", "2": b"fedcba9876543210fedcba9876543210"}


@pytest.fixture(scope="module")
def sealed(particulars):
    sealer = Sealer(KEYS["1"], "1")
    return [sealer.seal(particulars(n)) for n in range(1, 11)]


@pytest.fixture(scope="module")
def bodies(sealed):
    return [one.body for one in sealed]


@pytest.fixture(scope="module")
def head(sealed):
    return sealed[-1].seq, sealed[-1].link


def altered(body, **fields):
    return canonical(json.loads(body) | fields)


def found(report):
    return [(fault.kind, fault.seq, fault.until) for fault in report.faults]


class TestAWholeChain:
    def test_verifies(self, bodies, head):
        report = verify_chain(bodies, KEYS, head=head)
        assert report.ok
        assert (report.count, report.seq, report.link) == (10, *head)

    def test_verifies_in_pieces(self, bodies, head):
        first = verify_chain(bodies[:4], KEYS)
        assert first.ok
        assert verify_chain(bodies[4:], KEYS, after=(first.seq, first.link), head=head).ok

    def test_verifies_however_it_is_laid_out(self, bodies, head):
        assert verify_chain((json.dumps(json.loads(body), indent=2).encode() for body in bodies), KEYS, head=head).ok

    def test_of_nothing_is_whole(self):
        report = verify_chain([], KEYS, head=(0, GENESIS))
        assert report.ok
        assert (report.seq, report.link) == (0, GENESIS)

    def test_goes_on_through_a_rotation_of_keys(self, particulars):
        sealer = Sealer(KEYS["1"], "1")
        rows = [sealer.seal(particulars(1)).body]
        sealer.use(KEYS["2"], "2")
        rows.append(sealer.seal(particulars(2)).body)
        assert verify_chain(rows, KEYS).ok
        assert found(verify_chain(rows, {"1": KEYS["1"]})) == [("unknown_key", 2, 2)]
        assert found(verify_chain(rows, {"2": KEYS["2"]})) == [("unknown_key", 1, 1)]


class TestAttacks:
    @pytest.mark.parametrize("place", range(10))
    def test_an_altered_one_is_found(self, bodies, head, place):
        rows = list(bodies)
        rows[place] = altered(rows[place], cost_microdollars=1)
        report = verify_chain(rows, KEYS, head=head)
        assert found(report) == [("altered", place + 1, place + 1)]
        assert "BAD SIGNATURE" in str(report.faults[0])

    @pytest.mark.parametrize("place", range(10))
    def test_one_that_was_made_unreadable_is_found(self, bodies, head, place):
        rows = list(bodies)
        rows[place] = rows[place][:-5]
        assert found(verify_chain(rows, KEYS, head=head)) == [("altered", place + 1, place + 1)]

    def test_one_whose_number_was_changed_is_found_in_its_place(self, bodies, head):
        rows = list(bodies)
        rows[4] = altered(rows[4], seq=9_000_000_000)
        assert found(verify_chain(rows, KEYS, head=head)) == [("altered", 5, 5)]

    @pytest.mark.parametrize("first", range(10))
    @pytest.mark.parametrize("count", [1, 3])
    def test_dropped_ones_are_found(self, bodies, head, first, count):
        rows = bodies[:first] + bodies[first + count :]
        until = min(first + count, 10)
        assert found(verify_chain(rows, KEYS, head=head)) == [("dropped", first + 1, until)]

    def test_dropping_the_last_ones_is_found_by_whoever_knows_the_head(self, bodies, head):
        assert verify_chain(bodies[:7], KEYS).ok
        assert found(verify_chain(bodies[:7], KEYS, head=head)) == [("dropped", 8, 10)]

    @pytest.mark.parametrize("place", range(9))
    def test_two_that_changed_places_are_found(self, bodies, head, place):
        rows = list(bodies)
        rows[place], rows[place + 1] = rows[place + 1], rows[place]
        assert found(verify_chain(rows, KEYS, head=head)) == [("reordered", place + 1, place + 1)]

    @pytest.mark.parametrize("place", range(11))
    def test_a_copy_put_in_again_is_found(self, bodies, head, place):
        rows = [*bodies[:place], bodies[3], *bodies[place:]]
        kinds = {kind for kind, _, _ in found(verify_chain(rows, KEYS, head=head))}
        assert kinds & {"inserted", "reordered"}

    @pytest.mark.parametrize("place", range(11))
    def test_a_forgery_put_in_is_found(self, bodies, head, place):
        rows = [*bodies[:place], altered(bodies[min(place, 9)], model="forged"), *bodies[place:]]
        report = verify_chain(rows, KEYS, head=head)
        assert [fault.kind for fault in report.faults] == ["inserted"]

    def test_a_dropped_one_beside_an_altered_one_is_told_apart(self, bodies, head):
        rows = [*bodies[:4], altered(bodies[5], model="x"), *bodies[6:]]
        assert found(verify_chain(rows, KEYS, head=head)) == [("dropped", 5, 5), ("altered", 6, 6)]

    def test_a_piece_of_another_chain_under_the_same_key_is_found(self, bodies, head, particulars):
        """Two houses that share a secret cannot lend each other receipts."""
        other = Sealer(KEYS["1"], "1")
        lent = [other.seal(particulars(100 + n)).body for n in range(1, 11)]
        rows = [*bodies[:4], *lent[4:6], *bodies[6:]]
        assert found(verify_chain(rows, KEYS, head=head)) == [("forked", 5, 5), ("forked", 7, 7)]

    def test_a_late_one_of_another_chain_fits_neither_neighbour(self, bodies, head, particulars):
        other = Sealer(KEYS["1"], "1")
        lent = [other.seal(particulars(100 + n)).body for n in range(1, 11)]
        rows = [*bodies[:4], *bodies[5:], lent[4]]
        assert found(verify_chain(rows, KEYS, head=head)) == [("reordered", 5, 5), ("forked", 5, 5), ("forked", 6, 6)]

    def test_books_that_were_put_back_and_went_on_are_found(self, sealed, bodies, particulars):
        """A restored backup seals numbers again that were given before."""
        again = Sealer(KEYS["1"], "1", 6, sealed[5].link)
        went_on = [again.seal(particulars(200 + n)) for n in range(4)]
        rows = [*bodies[:6], *(one.body for one in went_on)]
        assert verify_chain(rows, KEYS).ok
        assert found(verify_chain(rows, KEYS, head=(10, sealed[-1].link))) == [("forked", 10, 10)]
        assert {fault.kind for fault in verify_chain([*bodies, *rows[6:]], KEYS).faults} == {"inserted"}

    def test_receipts_past_the_end_of_the_books_are_found(self, sealed, bodies):
        assert found(verify_chain(bodies, KEYS, head=(7, sealed[6].link))) == [("inserted", 8, 10)]

    def test_a_link_that_was_mended_by_hand_is_a_bad_signature(self, bodies, head):
        rows = [*bodies[:4], altered(bodies[5], seq=5, previous=json.loads(bodies[4])["previous"]), *bodies[6:]]
        assert [kind for kind, *_ in found(verify_chain(rows, KEYS, head=head))] == ["altered", "dropped"]

    def test_a_chain_that_is_all_forged_is_all_found(self, bodies, head):
        report = verify_chain([altered(body, v=2) for body in bodies], KEYS, head=head)
        assert found(report) == [("altered", n, n) for n in range(1, 11)]
        assert report.link is None

    def test_junk_alone_neither_breaks_nor_verifies(self):
        assert [kind for kind, *_ in found(verify_chain([b"", b"{}", b"[1]"], KEYS))] == ["altered"] * 3

    @given(seed=st.integers(0, 2**32))
    @settings(max_examples=150, deadline=None)
    def test_no_mixture_of_attacks_passes(self, bodies, head, seed):
        chance = random.Random(seed)
        rows = list(bodies)
        for _ in range(chance.randint(1, 6)):
            place = chance.randrange(len(rows)) if rows else 0
            act = chance.choice(["drop", "swap", "copy", "alter", "junk"])
            if act == "drop" and rows:
                del rows[place]
            elif act == "swap":
                chance.shuffle(rows)
            elif act == "copy":
                rows.insert(place, chance.choice(bodies))
            elif act == "alter" and rows:
                rows[place] = rows[place].replace(b"tier_small", b"tier_large")
            else:
                rows.insert(place, b"{}")
        report = verify_chain(rows, KEYS, head=head)
        assert report.ok == (rows == bodies)

    def test_what_is_held_grows_with_disorder_and_not_with_length(self, particulars):
        """A million receipts are checked in one pass from the disk."""
        sealer = Sealer(KEYS["1"], "1")
        seen = []

        def rows():
            for n in range(1, 301):
                seen.append(n)
                yield sealer.seal(particulars(n)).body

        report = verify_chain(rows(), KEYS)
        assert report.ok
        assert report.count == len(seen) == 300
