"""`fastroute ledger`: do the books add up? Every balance is computed anew from its entries, beside the running server."""

from __future__ import annotations

import sys

import click

from fastroute.cli import books, exits
from fastroute.ledger.audit import audit
from fastroute.ledger.books import Books
from fastroute.ledger.sqlite import Store


@click.group("ledger")
def command() -> None:
    """The books themselves."""


@command.command("verify")
@books.common
def verify(where: books.Where, as_json: bool) -> None:
    """Compute every balance from its entries, and explain any difference. A running server goes on meanwhile."""
    with books.told():
        config = where.settings()
        with Store.open(config.database_path, readonly=True) as store:
            library = Books(store)
            differences = audit(library)
            counts = library.counts()
    counted = {name: getattr(counts, name) for name in counts.__struct_fields__}
    if as_json:
        books.print_json({"ok": not differences, "differences": differences, "counts": counted})
    else:
        for sentence in differences:
            click.echo(sentence)
        said = ", ".join(f"{count:,} {what}" for what, count in counted.items())
        click.echo(f"{said}: {'THE BOOKS DO NOT ADD UP' if differences else 'the books add up'}")
    if differences:
        sys.exit(exits.FAILED)
