"""The exit codes of every command, and how a fault becomes one. The figures above 2 are those of sysexits.h."""

from __future__ import annotations

import sys
from typing import NoReturn

import click

from fastroute.errors import (
    CatalogError,
    ConfigError,
    DescriptorError,
    FastrouteError,
    MoneyError,
    StoreError,
    UnknownModel,
)

OK = 0
FAILED = 1
USAGE = 2
DATA = 65
UNAVAILABLE = 69
IO = 74
QUOTA = 75
CONFIG = 78

# A class that is not here takes the code of its nearest ancestor that is; the family as a whole is FAILED.
CODES: dict[type[FastrouteError], int] = {
    FastrouteError: FAILED,
    CatalogError: CONFIG,
    ConfigError: CONFIG,
    DescriptorError: DATA,
    MoneyError: DATA,
    StoreError: IO,
    UnknownModel: DATA,
}


def code_of(error: FastrouteError) -> int:
    """The exit code that tells this fault."""
    return next(CODES[kind] for kind in type(error).__mro__ if kind in CODES)


def fail(error: FastrouteError) -> NoReturn:
    """Tell the fault on stderr and leave with its code."""
    click.echo(str(error), err=True)
    sys.exit(code_of(error))
