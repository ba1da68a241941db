"""Receipts as files, one each, for whoever has no database at hand: a name is there whole or not at all.

The books keep the receipts; a mirror that was lost is written again from them.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from fastroute.receipts.canonical import BODY_MAX
from fastroute.receipts.keys import sync_directory

_ID: Final = re.compile(r"rcpt_[a-z2-7]{26}")
_SCRATCH: Final = re.compile(r"\.[0-9]+\.tmp")


def is_receipt_id(text: str) -> bool:
    """Whether a text has the form of a receipt's id, which no path has."""
    return _ID.fullmatch(text) is not None


class Mirror:
    """A directory of `<id>.json`. One process writes to it; anybody may read at any time.

    With `durable`, a receipt is on the disk before `put` returns; without, only the loss of power can take it back.
    """

    def __init__(self, directory: Path, *, durable: bool = False) -> None:
        self._directory = os.fspath(directory)
        self._durable = durable
        self._scratch = ""
        self._pid = -1

    def put(self, name: str, body: bytes) -> None:
        """Write one receipt, or write it again; `ValueError` for what is no id, `OSError` when the disk refuses."""
        target = self._path(name)
        if self._pid != os.getpid():
            self._open()
        # One name is used over and over, so that a writer who is killed leaves one file behind and not many.
        fd = os.open(self._scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            rest = memoryview(body)
            while rest:
                rest = rest[os.write(fd, rest) :]
            if self._durable:
                os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(self._scratch, target)  # noqa: PTH104  # a Path costs more than the call
        if self._durable:
            sync_directory(Path(self._directory))

    def read(self, name: str) -> bytes | None:
        """One receipt as it was written; None when there is none of this name."""
        try:
            with Path(self._path(name)).open("rb") as file:
                return file.read(BODY_MAX + 1)
        except FileNotFoundError:
            return None

    def ids(self) -> list[str]:
        """The ids of all that are there, in the order of their names."""
        try:
            names = [path.name for path in Path(self._directory).iterdir()]
        except FileNotFoundError:
            return []
        return sorted(name[:-5] for name in names if name.endswith(".json") and is_receipt_id(name[:-5]))

    def _path(self, name: str) -> str:
        if not is_receipt_id(name):
            raise ValueError(f"{name[:64]!r} is not the id of a receipt; one is rcpt_ and 26 letters and digits")
        return f"{self._directory}/{name}.json"

    def _open(self) -> None:
        """Make the directory when it is missing, and remove what writers who were killed have left."""
        directory = Path(self._directory)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in directory.iterdir():
            if _SCRATCH.fullmatch(path.name):
                path.unlink(missing_ok=True)
        self._pid = os.getpid()
        self._scratch = f"{self._directory}/.{self._pid}.tmp"
