"""Steps through the document: every step reports what it cannot use and goes on, so that all mistakes are met."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, TypeVar

from fastroute.config import values
from fastroute.config.document import Broken, Items, Leaf, Node, Section, likely_key
from fastroute.config.values import Given, Mistakes, Place, Refused, in_file

T = TypeVar("T")
D = TypeVar("D")

_LIKENESSES_MAX: Final = 100


class Walk:
    """A walk through one file, with the mistakes met on the way."""

    def __init__(self, file: str, mistakes: Mistakes) -> None:
        self.mistakes = mistakes
        self._file = file

    def place(self, line: int) -> Place:
        return in_file(self._file, line)

    def report(self, line: int, message: str) -> None:
        self.mistakes.add(self.place(line), message)

    def given(self, node: Node) -> Given | None:
        """The node as a reader takes it; None when it was reported already."""
        match node:
            case Leaf():
                return node.given
            case Items():
                return Given([], self.place(node.line), "")
            case Section():
                return Given({}, self.place(node.line), "")
            case Broken():
                return None

    def section(self, node: Node, label: str) -> Section | None:
        """The node as a section; one that is left empty is an empty section."""
        if isinstance(node, Section):
            return node
        if isinstance(node, Leaf) and node.given.value is None:
            return Section(node.line, {})
        if not isinstance(node, Broken):
            # The text is not shown: it may be a secret put one level too high.
            what = "a list" if isinstance(node, Items) else "one value"
            self.report(node.line, f"{label}: found {what}, wanted a section of `name: value`")
        return None

    def items(self, node: Node, label: str, what: str) -> tuple[Node, ...]:
        if isinstance(node, Items):
            return node.nodes
        if isinstance(node, Leaf) and node.given.value is None:
            return ()
        if not isinstance(node, Broken):
            given = self.given(node)
            assert given is not None
            self.report(
                node.line, f"{label}: found {values.found(given.value, given.written)}, wanted a list of {what}"
            )
        return ()

    def names(self, node: Node, label: str) -> tuple[str, ...]:
        """A list of different names."""
        read: dict[str, None] = {}
        for index, each in enumerate(self.items(node, label, "names")):
            name = self.read(each, f"{label}[{index}]", values.name, None)
            if name is None:
                continue
            if name in read:
                self.report(each.line, f"{label}[{index}]: {values.shown(name)} is in the list already")
            read[name] = None
        return tuple(read)

    def read(self, node: Node, label: str, reader: Callable[[Given], T], default: D) -> T | D:
        """What the reader makes of the node; the default when it refuses, which is reported."""
        given = self.given(node)
        return default if given is None else self.attempt(given, label, reader, default)

    def attempt(self, given: Given, label: str, reader: Callable[[Given], T], default: D) -> T | D:
        try:
            return reader(given)
        except Refused as refusal:
            self.mistakes.add(given.place, f"{label}: {refusal}")
            return default

    def field(self, section: Section, key: str, label: str, reader: Callable[[Given], T], default: D) -> T | D:
        """One entry of a section; where the default is None, null means the same as leaving it out."""
        if key not in section.entries:
            return default
        node = section.entries[key][1]
        if default is None and isinstance(node, Leaf) and node.given.value is None:
            return default
        return self.read(node, f"{label}.{key}", reader, default)

    def known_keys(
        self, section: Section, valid: Iterable[str], label: str, elsewhere: Mapping[str, Sequence[str]]
    ) -> None:
        """Every key that nobody reads is a mistake, told with the nearest that somebody does.

        `elsewhere` maps a word to the settings that end in it, for a word written in the wrong section.
        """
        names = list(valid)
        unknown = [(key, line) for key, (line, _) in section.entries.items() if key not in names]
        for count, (key, line) in enumerate(unknown):
            hint = f"valid here: {', '.join(sorted(names))}"
            # Looking for a likeness costs a tenth of a millisecond; beyond this many nobody reads the answer.
            if count < _LIKENESSES_MAX and (near := _nearest(key, names, elsewhere.get(key, ()))):
                hint = f"did you mean {near!r}?"
            self.report(line, f"{label + ': ' if label else ''}unknown key {likely_key(key)}; {hint}")


def _nearest(key: str, names: Sequence[str], elsewhere: Sequence[str]) -> str | None:
    close = difflib.get_close_matches(key, names, 1) or elsewhere or difflib.get_close_matches(key, names, 1, 0.4)
    return close[0] if close else None
