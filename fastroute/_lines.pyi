"""The face of the lines that answered requests leave in the log."""

from collections import deque
from typing import Any

# As `logs.Kind`, and what stands around a line's moment, name, latency and cost.
_Kind = tuple[str, int, str | None, str | None, str, int, bool]
_Form = tuple[bytes, bytes, bytes, bytes, bytes]

class Sheet:
    """Whole lines in a row; it grows until it is taken, or something else is said after it."""

    @property
    def lines(self) -> int: ...

class Lines:
    """The half of a log that writes the usual line; the other half is `logs.Logs`."""

    awake: bool
    most: int
    _queue: deque[Any]
    _forms: dict[_Kind, _Form]
    _requests: bool

    @property
    def held(self) -> int:
        """Lines in sheets that nobody has taken yet."""

    def form(self, kind: _Kind) -> _Form | None:
        """What the lines of a kind have in common; None where no line is written of any request."""

    def answered(self, request_id: str, form: _Form, latency_ms: int, cost_picodollars: int | None) -> int:
        """One line for a request that was answered; `request_id` is one of ours."""

    def adopt(self, sheet: Sheet) -> None:
        """Count the lines of another log's sheet, which this one is to take."""

    def text_of(self, sheet: Sheet) -> bytes:
        """Take a sheet's lines; it grows no more."""

    def forget(self) -> None:
        """Drop what nobody has taken: it is the parent's, in a process that was forked."""

    def form_of(self, kind: _Kind) -> _Form: ...
    def second_of(self, second: int) -> str: ...
    def wake(self) -> None: ...
    def _drop(self, lines: int) -> None: ...
