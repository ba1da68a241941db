"""From tokens to words, piece by piece: characters that several tokens make, and stops that several pieces hold. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

# What a decoder gives for bytes that are no character yet.
_UNFINISHED: Final = "\ufffd"
# No character has more bytes than this many tokens; after that it is what it looks like.
_TOKENS_OF_A_CHARACTER: Final = 8


class Speller:
    """The text of tokens as they come. What a token adds may hang on those before it, so some are decoded again."""

    def __init__(self, decode: Callable[[list[int]], str]) -> None:
        self._decode = decode
        self._tokens: list[int] = []
        self._told = 0  # tokens whose text was told
        self._context = 0  # where decoding begins

    def feed(self, token: int) -> str:
        """The text that is certain now."""
        self._tokens.append(token)
        return self._new(whole=len(self._tokens) - self._told > _TOKENS_OF_A_CHARACTER)

    def end(self) -> str:
        """What is left, finished or not."""
        return self._new(whole=True)

    def _new(self, *, whole: bool) -> str:
        before = self._decode(self._tokens[self._context : self._told])
        now = self._decode(self._tokens[self._context :])
        if len(now) <= len(before) or (now.endswith(_UNFINISHED) and not whole):
            return ""
        self._context, self._told = self._told, len(self._tokens)
        return now[len(before) :]


class Stops:
    """Text up to the first stop: what may be the beginning of one is held back until it is, or is not."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._stops = stops
        self._held = ""
        self.met = False

    def feed(self, text: str) -> str:
        """What may be told of it; once a stop is met nothing more is."""
        if self.met:
            return ""
        text = self._held + text
        found = [place for place in map(text.find, self._stops) if place >= 0]
        if found:
            self.met, self._held = True, ""
            return text[: min(found)]
        keep = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def end(self) -> str:
        """What was held back and became no stop."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """How much of a stop's beginning the text ends with."""
    for size in range(min(len(stop) - 1, len(text)), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
