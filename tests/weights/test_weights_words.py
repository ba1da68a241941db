"""From tokens to words: no character is told before it is whole, no stop is told at all."""

import pytest

from fastroute.weights.words import Speller, Stops


def spelled(data: bytes) -> list[str]:
    speller = Speller(lambda tokens: bytes(tokens).decode(errors="replace"))
    return [*map(speller.feed, data), speller.end()]


def test_a_character_of_several_tokens_is_told_once_it_is_whole():
    assert spelled("aé€😀".encode()) == ["a", "", "é", "", "", "€", "", "", "", "😀", ""]


def test_bytes_that_never_become_a_character_are_told_as_they_are():
    told = spelled(b"a\xff\xfe" + b"b" * 12)
    assert "".join(told) == "a\ufffd\ufffd" + "b" * 12
    assert "".join(spelled("né".encode()[:-1])) == "n\ufffd"


def test_what_a_token_adds_may_hang_on_those_before_it():
    """Some tokenizers put the blank between two words only when both are there."""
    speller = Speller(lambda tokens: " ".join("abc"[token] for token in tokens))
    assert [speller.feed(token) for token in (0, 1, 2)] == ["a", " b", " c"]


CUTS = [
    (["hello world"], ("wor",), "hello "),
    (["hel", "lo w", "or", "ld"], ("wor",), "hello "),
    (["a", "b", "a", "b", "c"], ("abc",), "ab"),
    (["aaab"], ("aab", "ab"), "a"),
    (["x END"], ("END", "x"), ""),
    (["almost EN", "d"], ("END",), "almost ENd"),
    (["no stop at all"], (), "no stop at all"),
]


@pytest.mark.parametrize(("pieces", "stops", "told"), CUTS)
def test_text_ends_before_the_first_stop_wherever_the_pieces_break(pieces, stops, told):
    for parts in (pieces, list("".join(pieces))):
        watch = Stops(stops)
        out = [watch.feed(part) for part in parts]
        assert "".join([*out, watch.end()]) == told
        assert watch.met == (told != "".join(pieces))


def test_only_what_may_begin_a_stop_is_held_back():
    watch = Stops(("\n\n",))
    assert [watch.feed(part) for part in ("one\n", "two", "\n", "\n", "three")] == ["one", "\ntwo", "", "", ""]
