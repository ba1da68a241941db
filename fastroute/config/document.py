"""The YAML of the configuration, read with positions and without YAML's surprises.

PyYAML finds the events; this file builds the tree, so nothing is ever constructed by a tag, expanded by an alias or
overwritten by a later key. Scalars are those of YAML 1.2: `on`, `yes` and `012:30` stay text, and a number with a point
is a `Decimal`. It knows nothing of settings; `sections` and `sources` walk what it returns.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import yaml
from msgspec import Struct

from fastroute.config.values import Given, Mistakes, in_file, shown, whole_file

BYTES_MAX: Final = 1 << 20
DEPTH_MAX: Final = 32

# The C parser is six times as fast and finds the same events; both are held to the same tests.
_LOADER: Final[Any] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULL: Final = {"", "~", "null", "Null", "NULL"}
_TRUTH: Final = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_WHOLE: Final = re.compile(r"[-+]?[0-9]{1,40}")
_NUMBER: Final = re.compile(r"[-+]?(\.[0-9]{1,40}|[0-9]{1,40}(\.[0-9]{0,40})?)([eE][-+]?[0-9]{1,3})?")
_REFERENCE: Final = re.compile(r"\$\{([^}]*)(\}?)")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_UNLIKELY: Final = re.compile(r"[^A-Za-z0-9_./\- ]")


class Leaf(Struct, frozen=True):
    """A scalar."""

    line: int
    given: Given


class Items(Struct, frozen=True):
    """A list."""

    line: int
    nodes: tuple[Node, ...]


class Section(Struct, frozen=True):
    """A mapping with text for keys; each entry knows the line of its key."""

    line: int
    entries: dict[str, tuple[int, Node]]

    def silent(self, key: str) -> bool:
        """Nothing is said of the key: it is left out, or null."""
        node = self.entries[key][1] if key in self.entries else None
        return node is None or (isinstance(node, Leaf) and node.given.value is None)


class Broken(Struct, frozen=True):
    """Something already reported; whoever meets it stays silent."""

    line: int


Node = Leaf | Items | Section | Broken


class _Unusable(Exception):
    """The rest of the document makes no sense; the reason has been reported."""


def read(path: Path, environ: Mapping[str, str], mistakes: Mistakes) -> Section:
    """The document at `path` with every `${NAME}` read; what cannot be used is reported and left out."""
    file = str(path)
    data = _bytes(path, mistakes)
    if data is None:
        return Section(1, {})
    try:
        source = data.decode("utf-8-sig")
    except UnicodeDecodeError as fault:
        mistakes.add(in_file(file, data.count(b"\n", 0, fault.start) + 1), "is not UTF-8 text")
        return Section(1, {})
    tabs = [number for number, line in enumerate(source.split("\n"), 1) if "\t" in line]
    for number in tabs:
        mistakes.add(
            in_file(file, number), "holds a tab; indent with spaces, and write \\t in quotes where one is meant"
        )
    if tabs:
        return Section(1, {})
    return _Builder(file, environ, mistakes).document(source)


def _bytes(path: Path, mistakes: Mistakes) -> bytes | None:
    try:
        with path.open("rb") as stream:
            data = stream.read(BYTES_MAX + 1)
    except IsADirectoryError:
        mistakes.add(whole_file(str(path)), "is a directory, wanted a YAML file")
    except FileNotFoundError:
        mistakes.add(whole_file(str(path)), "does not exist")
    except (OSError, ValueError) as fault:
        mistakes.add(whole_file(str(path)), f"cannot be read: {getattr(fault, 'strerror', None) or fault}")
    else:
        if len(data) <= BYTES_MAX:
            return data
        mistakes.add(whole_file(str(path)), f"is longer than {BYTES_MAX} bytes, which no configuration needs")
    return None


class _Builder:
    """Turns one stream of events into one tree."""

    def __init__(self, file: str, environ: Mapping[str, str], mistakes: Mistakes) -> None:
        self._file = file
        self._environ = environ
        self._mistakes = mistakes

    def document(self, source: str) -> Section:
        try:
            return self._document(yaml.parse(source, Loader=_LOADER))
        except _Unusable:
            pass
        except yaml.reader.ReaderError as fault:
            # The C parser counts bytes and the other letters, so the character is looked up instead.
            line = source.count("\n", 0, source.find(chr(_code(fault)))) + 1
            self._report(line, f"holds the control character U+{_code(fault):04X}")
        except yaml.MarkedYAMLError as fault:
            mark: Any = fault.problem_mark or fault.context_mark
            line = mark.line + 1 if mark else 1
            context = f" ({fault.context})" if fault.context else ""
            near = source.split("\n")[:line]
            # The one mistake everybody makes: a brace inside braces.
            hint = '; inside { } and [ ] write "${NAME}" in quotes' if near and "${" in near[-1] else ""
            self._report(line, f"is not YAML: {fault.problem}{context}{hint}")
        return Section(1, {})

    def _document(self, events: Iterator[Any]) -> Section:
        root: Node | None = None
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                if root is not None:
                    self._report(_line(event), "starts a second document; wanted one")
                    break
                root = self._node(next(events), events, 1)
        match root:
            case Section():
                return root
            case None | Broken():
                return Section(1, {})
            case Leaf(given=given) if given.value is None:
                return Section(1, {})
            case _:
                self._report(root.line, "wanted sections such as `server:` at the top")
                return Section(1, {})

    def _node(self, event: Any, events: Iterator[Any], depth: int) -> Node:
        line = _line(event)
        if depth > DEPTH_MAX:
            self._report(line, f"is nested deeper than {DEPTH_MAX} levels")
            raise _Unusable
        if isinstance(event, yaml.AliasEvent):
            self._report(
                line, f"uses the alias *{_likely(str(event.anchor))}; aliases are not read, write the value out"
            )
            return Broken(line)
        refused = False
        if event.anchor is not None:
            self._report(line, f"sets the anchor &{_likely(event.anchor)}; anchors are not read, write the value out")
            refused = True
        if event.tag is not None:
            self._report(line, "uses a tag (!); tags are not read, write the plain value")
            refused = True
        node: Node
        if isinstance(event, yaml.MappingStartEvent):
            node = self._section(line, events, depth)
        elif isinstance(event, yaml.SequenceStartEvent):
            node = self._items(line, events, depth)
        else:
            node = self._leaf(line, event.value, plain=event.implicit[0])
        return Broken(line) if refused else node

    def _section(self, line: int, events: Iterator[Any], depth: int) -> Section:
        entries: dict[str, tuple[int, Node]] = {}
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key_line = _line(event)
            key = event.value if isinstance(event, yaml.ScalarEvent) else None
            if key is None or event.anchor is not None or event.tag is not None:
                self._node(event, events, depth + 1)
                if key is None:
                    self._report(key_line, "has a key that is not text")
            value = self._node(next(events), events, depth + 1)
            if key is None:
                continue
            if key in entries:
                self._report(key_line, f"says {likely_key(key)} again; line {entries[key][0]} said it first")
                continue
            entries[key] = (key_line, value)
        return Section(line, entries)

    def _items(self, line: int, events: Iterator[Any], depth: int) -> Items:
        nodes: list[Node] = []
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            nodes.append(self._node(event, events, depth + 1))
        return Items(line, tuple(nodes))

    def _leaf(self, line: int, written: str, *, plain: bool) -> Node:
        place = in_file(self._file, line)
        if "${" not in written:
            return Leaf(line, Given(scalar(written) if plain else written, place, written))
        first: str | None = None
        sound = True

        def fill(match: re.Match[str]) -> str:
            nonlocal first, sound
            variable, closed = match.groups()
            if closed and _VARIABLE.fullmatch(variable):
                first = first or variable
                if variable in self._environ:
                    return self._environ[variable]
                self._report(line, f"reads ${{{variable}}}, and no such variable is in the environment")
            elif closed and (known := _VARIABLE.match(variable)):
                self._report(
                    line,
                    f"writes ${{{known[0]}...}}: only ${{NAME}} is read, with no default or operator in the braces; "
                    "set the variable, or leave the setting out",
                )
            else:
                self._report(line, "opens `${` without a name and a closing brace; wanted ${NAME}")
            sound = False
            return ""

        value = _REFERENCE.sub(fill, written)
        if not sound:
            return Broken(line)
        return Leaf(line, Given(value, place, written, textual=True, variable=first))

    def _report(self, line: int, message: str) -> None:
        self._mistakes.add(in_file(self._file, line), message)


def scalar(written: str) -> object:
    """An unquoted scalar by the core schema of YAML 1.2, without its hexadecimal, octal and infinite numbers."""
    if written in _NULL:
        return None
    if written in _TRUTH:
        return _TRUTH[written]
    if _WHOLE.fullmatch(written):
        return int(written)
    if _NUMBER.fullmatch(written):
        return Decimal(written)
    return written


def likely_key(key: str) -> str:
    """A key for a message; a secret glued to its key by a missing blank (`api_key:sk-...`) is cut off."""
    return shown(_likely(key))


def _likely(key: str) -> str:
    odd = _UNLIKELY.search(key)
    return key[: odd.start()] + "..." if odd else key


def _line(event: Any) -> int:
    line: int = event.start_mark.line
    return line + 1


def _code(fault: yaml.reader.ReaderError) -> int:
    character = fault.character
    return character if isinstance(character, int) else ord(character)
