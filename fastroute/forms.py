"""Bodies of `multipart/form-data`, read for the few fields that matter here and changed in nothing but the model.

Pure: bytes go in, a form comes out. Files are never copied or looked into; the boundary alone says where they end.
"""

from __future__ import annotations

import re
from typing import Final

from fastroute.errors import FastrouteError

# Sixteen pictures to an edit are the most a provider takes; a thousand empty parts are somebody's game.
PARTS_MAX: Final = 128
PART_HEAD_MAX: Final = 8192
# The largest field that is a text: a prompt has 32 000 characters at most.
FIELD_MAX: Final = 1 << 20

_TYPE: Final = re.compile(
    rb'multipart/form-data\s*;(?:[^"]*?;)?\s*boundary=(?:"(?P<quoted>[^"\r\n]{1,70})"|(?P<plain>[^\s;",]{1,70}))\s*(?:;.*)?',
    re.IGNORECASE | re.DOTALL,
)
_BOUNDARY: Final = re.compile(rb"[A-Za-z0-9'()+_,./:=? -]{0,69}[A-Za-z0-9'()+_,./:=?-]")
_SENDABLE: Final = re.compile(rb"[\t -~]*")
_DISPOSITION: Final = re.compile(rb"(?:^|\r\n)content-disposition:([^\r\n]*)", re.IGNORECASE)
_NAME: Final = re.compile(rb';\s*name=(?:"([^"]*)"|([^\s;"]+))', re.IGNORECASE)
_FILE: Final = re.compile(rb";\s*filename\*?=", re.IGNORECASE)


class FormError(FastrouteError):
    """A form that cannot be read, or could be read in two ways."""

    def __init__(self, message: str, param: str | None = None) -> None:
        self.message = message
        self.param = param
        super().__init__(message)


class Form:
    """One form: its model and where that stands, how many files it has and how much text."""

    __slots__ = ("_at", "body", "files", "model", "n", "stream", "text_bytes")

    def __init__(self, body: bytes, boundary: bytes) -> None:
        """`FormError` unless the body is whole, and has each of the fields that matter at most once."""
        self.body = body
        self.model: str | None = None
        self.n = 1
        self.stream = False
        self.files = 0
        self.text_bytes = 0
        self._at = (0, 0)
        seen = set()
        for name, start, end in self._parts(boundary):
            if name is None:
                self.files += 1
                continue
            self.text_bytes += end - start
            if name in (b"model", b"n", b"stream"):
                if name in seen:
                    raise FormError(f"the field {name.decode()!r} is given twice", name.decode())
                seen.add(name)
                self._note(name, start, end)

    def asking(self, model: str) -> bytes:
        """The form with another model in it; one that names none stays as it is."""
        if self.model is None or model == self.model:
            return self.body
        start, end = self._at
        return b"".join((self.body[:start], model.encode(), self.body[end:]))

    def _note(self, name: bytes, start: int, end: int) -> None:
        try:
            text = self.body[start : min(end, start + 1024)].decode()
        except UnicodeDecodeError:
            raise FormError(f"the field {name.decode()!r} is not UTF-8", name.decode()) from None
        if name == b"model":
            self.model, self._at = text, (start, end)
        elif name == b"stream":
            self.stream = text.strip().lower() == "true"
        elif text.isascii() and text.isdigit() and len(text) < 10:
            self.n = max(int(text), 1)

    def _parts(self, boundary: bytes) -> list[tuple[bytes | None, int, int]]:
        """(name, start, end) of every part's value; a file has no name here."""
        body, mark = self.body, b"\r\n--" + boundary
        found: list[tuple[bytes | None, int, int]] = []
        at = len(mark) - 2 if body.startswith(mark[2:]) else -1
        if at < 0:
            raise FormError("the form does not begin with its boundary")
        while body[at : at + 2] != b"--":
            if body[at : at + 2] != b"\r\n":
                raise FormError("a boundary of the form is followed by something else than its part")
            if len(found) == PARTS_MAX:
                raise FormError(f"the form has more than {PARTS_MAX} parts")
            close = body.find(b"\r\n\r\n", at, at + PART_HEAD_MAX)
            if close < 0:
                raise FormError("a part of the form has no end of its head")
            start = close + 4
            end = body.find(mark, close + 2)
            if end < start:  # not found, or so near that two readers would cut the part in two ways
                raise FormError("the form ends in the middle of a part")
            found.append(_named(body[at:close], start, end))
            at = end + len(mark)
        return found


def boundary_of(content_type: bytes) -> bytes | None:
    """The boundary a content type names; None where it is no form or names none that may stand."""
    found = _TYPE.fullmatch(content_type.strip()) if _SENDABLE.fullmatch(content_type) else None
    if found is None:
        return None
    boundary: bytes = found["quoted"] or found["plain"]
    return boundary if _BOUNDARY.fullmatch(boundary) else None


def _named(head: bytes, start: int, end: int) -> tuple[bytes | None, int, int]:
    lines = _DISPOSITION.findall(head)
    if len(lines) != 1:
        raise FormError("a part of the form does not say once what it is")
    names = _NAME.findall(lines[0])
    if len(names) != 1:
        raise FormError("a part of the form does not have one name")
    name = names[0][0] or names[0][1]
    if _FILE.search(lines[0]):
        if name == b"model":
            raise FormError("the model is a field of the form, not a file", "model")
        return None, start, end
    if end - start > FIELD_MAX:
        raise FormError(f"a field of the form is longer than {FIELD_MAX} bytes")
    return name, start, end
