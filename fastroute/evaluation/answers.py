"""Answers as they are recorded: one JSON line each, appended as it comes, so that a run that was cut off goes on.

A line that was torn by a kill is the file's last and is cut off before anything is appended. A later line wins over an
earlier one of the same question to the same name: failures are asked anew.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from fastroute.errors import FastrouteError

Key = tuple[str, str]  # (the name that was asked, the digest of what it was asked)

FORMAT: Final = 1
_BEGIN: Final = b'{"asked":"'


class RecordError(FastrouteError):
    """A record cannot be read or written."""


class Answer(Struct, frozen=True, gc=False):
    """What came of one prompt asked of one name. `text` is None when nobody answered, and `error` then says why."""

    asked: str
    digest: str
    status: int
    model: str | None
    reason: str | None
    fallback: bool
    tokens_in: int
    tokens_out: int
    latency_ms: int
    picodollars: int | None  # None: not known
    text: str | None
    error: str | None = None
    v: int = FORMAT

    @property
    def key(self) -> Key:
        return self.asked, self.digest

    @property
    def good(self) -> bool:
        return self.text is not None


_decoder: Final = msgspec.json.Decoder(Answer)
_encode: Final = msgspec.json.Encoder().encode


def read_answers(path: Path) -> dict[Key, Answer]:
    """The answers of a record; `RecordError` names a line that is none, but for a last one that was cut off."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RecordError(f"{path}: cannot be read: {error.strerror}") from None
    return _answers(data, path)


class Record:
    """A record that is being written, by one run at a time."""

    def __init__(self, path: Path) -> None:
        """What is there already is in `answers`. `RecordError` when it is no record, or another run writes it."""
        self._path = path
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise RecordError(f"{path}: cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            data = path.read_bytes()
            self.answers = _answers(data, path)
            os.ftruncate(self._fd, data.rfind(b"\n") + 1)
        except BlockingIOError:
            os.close(self._fd)
            raise RecordError(f"{path}: another run writes it; wait for that one, or record elsewhere") from None
        except RecordError:
            os.close(self._fd)
            raise

    def add(self, answer: Answer) -> None:
        """Keep an answer: it is in the file when this returns."""
        line = _encode(answer) + b"\n"
        try:
            end = os.fstat(self._fd).st_size
            written = os.write(self._fd, line)
            if written != len(line):
                os.ftruncate(self._fd, end)  # nothing may follow half a line
        except OSError as error:
            raise RecordError(f"{self._path}: cannot be written: {error.strerror}") from None
        if written != len(line):
            raise RecordError(f"{self._path}: the disk is full")
        self.answers[answer.key] = answer

    def close(self) -> None:
        os.close(self._fd)


def _answers(data: bytes, path: Path) -> dict[Key, Answer]:
    found: dict[Key, Answer] = {}
    *lines, torn = data.split(b"\n")  # what follows the last line's end was cut off while it was written
    for number, line in enumerate(lines, 1):
        try:
            answer = _decoder.decode(line)
        except msgspec.MsgspecError as error:
            raise RecordError(f"{path}:{number}: is no recorded answer: {error}") from None
        if answer.v != FORMAT:
            raise RecordError(f"{path}:{number}: is of version {answer.v}, and this fastroute reads {FORMAT}")
        found[answer.key] = answer
    if torn[: len(_BEGIN)] != _BEGIN[: len(torn)]:
        raise RecordError(f"{path}:{len(lines) + 1}: is no recorded answer, nor the beginning of one")
    return found
