"""One value at a time: what was found, where, and what it may become.

A file gives typed scalars, the environment and `${NAME}` give text that may stand for any type, flags give what the
command line parsed. All three arrive as `Given` and leave through the readers below. A reader refuses with what was
found and what is wanted; what a file read out of the environment is shown as `${NAME}`, and a secret not at all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Final

from msgspec import Struct

from fastroute.config.secret import Secret
from fastroute.errors import FastrouteError, MoneyError, Problem
from fastroute.money import rate_from_usd_per_mtok

# 20 digits hold every bound of ours; Python itself refuses to read a number of thousands of digits.
_WHOLE: Final = re.compile(r"[-+]?[0-9]{1,20}")
_DECIMAL: Final = re.compile(r"[-+]?[0-9]{1,20}(\.[0-9]{0,20})?")
_SHOWN_MAX: Final = 60
_NAME_MAX: Final = 200
_TOLD_MAX: Final = 100  # a hostile file can hold a mistake every three bytes


class Place(Struct, frozen=True, order=True):
    """Where something was said; ordered so that a file's lines come first, then variables, then flags."""

    rank: int
    file: str
    line: int
    label: str

    def __str__(self) -> str:
        return self.label


def in_file(file: str, line: int) -> Place:
    return Place(0, file, line, f"{file}:{line}")


def whole_file(file: str) -> Place:
    return Place(0, file, 0, file)


def in_environment(variable: str) -> Place:
    return Place(1, "", 0, f"env {variable}")


def in_flag(flag: str) -> Place:
    return Place(2, "", 0, f"flag {flag}")


class Given(Struct, frozen=True):
    """One scalar as somebody gave it."""

    value: object
    place: Place
    written: str  # as it stands at its place, `${NAME}` unread
    textual: bool = False  # text that may stand for any type: it came from the environment
    variable: str | None = None  # the first `${NAME}` it was read through

    @property
    def literal(self) -> bool:
        return self.variable is None


class Refused(FastrouteError, ValueError):
    """A reader will not take a value; the message says what was found and what is wanted."""


class Mistakes:
    """Every problem met so far, told together at the end and in the order of their places."""

    def __init__(self) -> None:
        self._met: set[tuple[Place, str]] = set()

    def __bool__(self) -> bool:
        return bool(self._met)

    def add(self, place: Place, message: str) -> None:
        self._met.add((place, message))

    def problems(self) -> list[Problem]:
        told = [Problem(str(place), message) for place, message in sorted(self._met)]
        if len(told) <= _TOLD_MAX:
            return told
        more = Problem(told[_TOLD_MAX].where, f"this and {len(told) - _TOLD_MAX - 1} further mistakes are left out")
        return [*told[:_TOLD_MAX], more]


def shown(text: str) -> str:
    """Text quoted for a message, cut where it grows long."""
    return repr(text if len(text) <= _SHOWN_MAX else text[: _SHOWN_MAX - 3] + "...")


def found(value: object, written: str | None = None) -> str:
    """What stands there, in words."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"the whole number {shown(written or str(value))[1:-1]}"
    if isinstance(value, Decimal | float):
        return f"the decimal number {shown(written or str(value))[1:-1]}"
    if isinstance(value, str):
        return f"the text {shown(value if written is None else written)}"
    return "a list" if isinstance(value, list | tuple) else "a section"


def _wanted(given: Given, what: str) -> Refused:
    return Refused(f"found {found(given.value, given.written)}, wanted {what}")


def whole(given: Given, low: int, high: int, times: int = 1) -> int:
    """A whole number within bounds; `times` turns the unit it is written in into ours, exactly or not at all."""
    what = f"a whole number from {low} to {high}"
    value = given.value
    if times != 1:
        amount = _decimal(given, "a number")
        product = amount * times
        if product != product.to_integral_value() or not low <= product <= high:
            raise _wanted(given, f"a number that times {times} is {what}")
        return int(product)
    if given.textual and isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise _wanted(given, what)
    return value


def truth(given: Given) -> bool:
    """true or false; out of the environment also 1 and 0."""
    value = given.value
    if given.textual and isinstance(value, str):
        value = {"true": True, "1": True, "false": False, "0": False}.get(value.strip().lower(), value)
    if not isinstance(value, bool):
        raise _wanted(given, "true or false")
    return value


def text(given: Given, what: str = "text") -> str:
    """Text that says something: not empty, no control characters, no blanks around it."""
    if not isinstance(given.value, str):
        quoted = "" if given.value is None or isinstance(given.value, list | tuple) else " in quotes"
        raise _wanted(given, what + quoted)
    value = given.value.strip()
    if not value or not value.isprintable():
        raise _wanted(given, f"{what}, not empty and on one line")
    return value


def name(given: Given, what: str = "a name") -> str:
    """A name that can stand in a header: text without blanks, of a bounded length."""
    value = text(given, what)
    if len(value) > _NAME_MAX or any(letter.isspace() for letter in value):
        raise _wanted(given, f"{what} of at most {_NAME_MAX} characters without blanks")
    return value


def secret(given: Given) -> Secret:
    """A key; the blanks and the newline that files leave around one are dropped, and no refusal shows it."""
    if not isinstance(given.value, str):
        raise Refused("found something that is not text, wanted a secret as text in quotes")
    value = given.value.strip()
    if not value:
        raise Refused("found an empty secret; set it, or leave the setting out")
    if not value.isascii() or not value.isprintable():
        raise Refused("found a secret with characters that no header can carry; wanted printable ASCII")
    return Secret(value)


def redis_url(given: Given) -> Secret:
    """The address of a Redis, which may hold a password and is shown to nobody."""
    address = secret(given)
    if not address.reveal().startswith(("redis://", "rediss://", "unix://")):
        raise Refused("found an address of another kind, wanted one that begins with redis://, rediss:// or unix://")
    return address


def path(given: Given) -> Path:
    if isinstance(given.value, Path):
        return given.value
    return Path(text(given, "a path"))


def choice(given: Given, choices: Sequence[str]) -> str:
    """One of a closed list, in any case of letters."""
    if isinstance(given.value, str):
        for each in choices:
            if given.value.strip().lower() == each.lower():
                return each
    raise _wanted(given, f"one of {', '.join(choices)}")


def thousandths(given: Given, low: int, high: int) -> int:
    """A decimal number as whole thousandths; a float has already lost the answer and is refused."""
    what = f"a decimal number from {low // 1000} to {high // 1000} with at most three decimals"
    units = _decimal(given, what) * 1000
    if units != units.to_integral_value() or not low <= units <= high:
        raise _wanted(given, what)
    return int(units)


def dollars_per_mtok(given: Given) -> int:
    """A price in dollars per million tokens, from decimal text or a number read as one, as microdollars."""
    what = "a price in US dollars per million tokens, such as 0.15"
    amount = _decimal(given, what, any_text=True)
    try:
        rate = rate_from_usd_per_mtok(amount)
    except MoneyError:
        raise _wanted(given, f"{what}, not negative and not above 2000") from None
    if rate != amount * 1_000_000:
        raise _wanted(given, f"{what}, with at most six decimals")
    return rate


def _decimal(given: Given, what: str, *, any_text: bool = False) -> Decimal:
    value = given.value
    if isinstance(value, str) and (any_text or given.textual) and _DECIMAL.fullmatch(value.strip()):
        return Decimal(value.strip())
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise _wanted(given, what)
    amount = Decimal(value)
    # An exponent far beyond every bound would make exact arithmetic long; nothing of ours is near it.
    if not -30 < amount.adjusted() < 30:
        raise _wanted(given, what)
    return amount
