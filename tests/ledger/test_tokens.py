"""Tokens: told apart by a checksum, made anew from a seed, and never shown whole."""

import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastroute.ledger.tokens import PREFIXES, digest, masked, new_token, well_formed

KINDS = sorted(PREFIXES)
TOKEN = new_token("key", bytes(32)).text
LETTERS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_is_a_prefix_an_id_a_secret_and_a_checksum(kind):
    """S1: what scanners know it by, what people may say, 256 bits, and six letters more."""
    token = new_token(kind)
    head, sum_ = token.text[:-6], token.text[-6:]
    name, _, secret = head.removeprefix(PREFIXES[kind]).partition("_")
    assert token.text.startswith(PREFIXES[kind])
    assert (len(name), len(secret)) == (8, 43)
    assert name == token.id
    assert 62 ** len(secret) > 2**256
    assert set(name + secret + sum_) <= set(LETTERS)
    assert well_formed(token.text)
    number = 0
    for letter in sum_:
        number = number * 62 + LETTERS.index(letter)
    assert number == zlib.crc32(head.encode())


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_makes_the_same_token_and_no_seed_another(kind):
    assert new_token(kind, b"s" * 32) == new_token(kind, b"s" * 32)
    assert new_token(kind, b"s" * 32) != new_token(kind, b"t" * 32)
    assert len({new_token(kind).text for _ in range(100)}) == 100


def test_tokens_of_one_seed_and_two_kinds_have_digests_of_their_own():
    assert len({digest(b"p" * 32, new_token(kind, b"s" * 32).text.encode()) for kind in KINDS}) == len(KINDS)


@settings(deadline=None)
@given(st.integers(0, len(TOKEN) - 1), st.sampled_from(LETTERS))
def test_one_wrong_letter_is_noticed(place, letter):
    mistyped = TOKEN[:place] + letter + TOKEN[place + 1 :]
    assert well_formed(mistyped) == (mistyped == TOKEN)


@settings(deadline=None)
@given(st.integers(0, len(TOKEN) - 2))
def test_two_letters_the_wrong_way_round_are_noticed(place):
    mistyped = TOKEN[:place] + TOKEN[place + 1] + TOKEN[place] + TOKEN[place + 2 :]
    assert well_formed(mistyped) == (mistyped == TOKEN)


@pytest.mark.parametrize(
    "text",
    ["", "fr_live_", "sk-1234", TOKEN[:-1], TOKEN + "a", TOKEN + "\n", " " + TOKEN, TOKEN.lower(), "x" + TOKEN[1:]],
)
def test_what_is_no_whole_token_is_not_well_formed(text):
    assert not well_formed(text)


@settings(deadline=None)
@given(st.text(max_size=120) | st.binary(max_size=120).map(lambda raw: "vk-" + raw.decode("latin-1")))
def test_whatever_somebody_sends_is_only_not_well_formed(text):
    assert not well_formed(text)
    assert not well_formed("fr_live_" + text)


def test_a_lone_surrogate_is_not_well_formed():
    assert not well_formed("vk-\ud800" + TOKEN[-55:])
    assert not well_formed(TOKEN[:-1] + "\ud800")


@pytest.mark.parametrize("kind", KINDS)
def test_hints_and_masks_show_nothing_of_the_secret(kind):
    """What is shown is the prefix, the id and the end of the checksum."""
    token = new_token(kind)
    secret = token.text[len(PREFIXES[kind]) + 9 : -6]
    assert token.hint == f"{PREFIXES[kind]}{token.id}_...{token.text[-4:]}"
    for shown in (token.hint, token.id, masked(token.text)):
        assert not any(secret[place : place + 6] in shown for place in range(len(secret) - 6))
    assert masked(token.text) == f"{token.text[:8]}... ({len(token.text)} chars)"


@pytest.mark.parametrize(
    ("token", "shown"),
    [(None, "(no key returned)"), ("", "(0 chars)"), ("12345678", "(8 chars)"), ("123456789", "12345678... (9 chars)")],
)
def test_a_token_is_masked_by_the_rule_of_the_routing_client(token, shown):
    assert masked(token) == shown


def test_a_digest_needs_the_pepper_and_every_letter():
    one = digest(b"p" * 32, TOKEN.encode())
    assert len(one) == 32
    assert one != digest(b"q" * 32, TOKEN.encode())
    assert one != digest(b"p" * 32, TOKEN[:-1].encode())
