"""Money as text: dollars are read from decimal text and shown as exact decimals; between, money is an integer.

Microdollars are what ledgers hold, picodollars what a price times a token is. The arithmetic itself is in `_core`.
"""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation, localcontext

from fastroute.domain import MICRODOLLARS_MAX, RATE_MAX
from fastroute.errors import MoneyError

PICODOLLARS_PER_DOLLAR = 1_000_000_000_000


def microdollars_from_usd(text: str | int | Decimal) -> int:
    """Dollars as whole microdollars, half to even; a float is refused because it has already lost the answer."""
    return _scaled(text, 6, MICRODOLLARS_MAX, "an amount in dollars")


def picodollars_from_usd(text: str) -> int:
    """Dollars as they are told to the last digit, back as picodollars."""
    return _scaled(text, 12, MICRODOLLARS_MAX * 1_000_000, "an amount in dollars")


def rate_from_usd_per_mtok(text: str | int | Decimal) -> int:
    """A price in dollars per million tokens as microdollars per million tokens."""
    return _scaled(text, 6, RATE_MAX, "a price in dollars per million tokens")


def _scaled(text: str | int | Decimal, places: int, most: int, what: str) -> int:
    if isinstance(text, bool | float):
        raise MoneyError(f"{what} is decimal text such as '2.01', not {text!r}")
    try:
        amount = Decimal(text)
    except InvalidOperation:
        raise MoneyError(f"{what} is decimal text such as '2.01', not {text!r}") from None
    if not amount.is_finite():
        raise MoneyError(f"{what} is a finite number, not {text!r}")
    if amount < 0:
        raise MoneyError(f"{what} is not negative: {text!r}")
    if amount.adjusted() + places > 18:
        raise MoneyError(f"{what} is at most {Decimal(most).scaleb(-places)}: {text!r}")
    with localcontext() as context:
        context.prec = 60
        units = int(amount.scaleb(places).to_integral_value(rounding=ROUND_HALF_EVEN))
    if units > most:
        raise MoneyError(f"{what} is at most {Decimal(most).scaleb(-places)}: {text!r}")
    return units


def usd_from_microdollars(microdollars: int) -> str:
    """Whole microdollars as dollars, exact, with at least two decimals."""
    sign = "-" if microdollars < 0 else ""
    whole, rest = divmod(abs(microdollars), 1_000_000)
    return f"{sign}{whole}.{_trimmed(rest, 6, 2)}"


def usd_from_picodollars(picodollars: int) -> str:
    """Picodollars as dollars, exact, with seven decimals and up to twelve where they are needed."""
    whole, rest = divmod(picodollars, PICODOLLARS_PER_DOLLAR)
    return f"{whole}.{_trimmed(rest, 12, 7)}"


def _trimmed(rest: int, width: int, least: int) -> str:
    digits = f"{rest:0{width}d}".rstrip("0")
    return digits if len(digits) >= least else digits.ljust(least, "0")
