"""The two figures that every attempt has; `settle` has the others."""

from fastroute.domain import Basis, Price, Settlement, Usage

OUTPUT_UNKNOWN: int
"""Where neither the caller nor the catalog bounds the output."""

def bound(
    price: Price | None, input_bound: int, output_cap: int | None, max_output: int | None, choices: int = 1
) -> int | None:
    """The most an attempt can cost in microdollars; None when its price is not known. The input is billed once."""

def exact(price: Price | None, usage: Usage) -> Settlement:
    """The provider told what it used."""

def priced(basis: Basis, price: Price | None, usage: Usage) -> Settlement:
    """So much usage at this price, rounded up once."""
