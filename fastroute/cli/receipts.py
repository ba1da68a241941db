"""`fastroute receipts`: the signed account of every request, one by one or as a chain that proves itself whole."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import click
import msgspec

from fastroute.capture import Content, Vault, decode
from fastroute.cli import books, exits
from fastroute.clock import iso
from fastroute.config import Config
from fastroute.keeping import receipt_keys
from fastroute.panel import wording
from fastroute.reaching import Asking
from fastroute.receipts import describe, verify, verify_chain
from fastroute.receipts.describe import dollars

_PAGE = 1000


@click.group("receipts", invoke_without_command=True)
@click.option(
    "--open", "opened", metavar="ID", help="Print one, by its id or its request's, and say whether it is true."
)
@click.option("--content", is_flag=True, help="With --open: what was asked and answered, where a policy has it kept.")
@click.option("--limit", default=20, show_default=True, help="How many of the latest are listed.")
@books.common
@click.pass_context
def command(
    context: click.Context,
    where: books.Where,
    as_json: bool,
    opened: str | None,
    content: bool,
    limit: int,
) -> None:
    """The latest receipts, or one of them."""
    if context.invoked_subcommand is not None:
        return
    if content and opened is None:
        raise click.UsageError("--content shows that of one receipt; name it with --open")
    if opened is None:
        _list(where, as_json, limit)
        return
    with where.desk() as ask:
        body = ask("receipts.show", id=opened)
        settings = where.settings()
        proof = verify(body, receipt_keys(settings))
        name = msgspec.json.decode(body)["id"] if proof.ok else opened
        beside = ask("contents.show", receipt=name)
        corrections = ask("receipts.corrections", id=opened)
        kept = _opened(settings, name, beside["content"]) if content else None
    if as_json and not content:
        click.echo(body.decode())
    elif as_json:
        books.print_json({"receipt": msgspec.Raw(body), "content": kept})
    else:
        click.echo(describe(body, proof))
        for line in (*_corrected(corrections), *_beside(beside)):
            click.echo(line)
        if kept is not None:
            click.echo(_worded(kept))
    if not proof.ok:
        sys.exit(exits.FAILED)


def _opened(settings: Config, name: str, kept: bytes | None) -> Content | None:
    if kept is None:
        return None
    return decode(Vault.open(settings.state_dir / "secrets").unclose(name, kept))


def _corrected(found: list[dict[str, Any]]) -> Iterator[str]:
    """What was put right since it was signed."""
    for each in found:
        at = iso(datetime.fromtimestamp(each["at_ms"] // 1000, UTC))
        before, after = (books.amount("microdollar", each[name]) for name in ("from_microdollars", "to_microdollars"))
        yield f"corrected {at}: {before} -> {after}, {_shown(each['reason'])}"


def _shown(text: str) -> str:
    """A text without what would move the cursor."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _beside(found: dict[str, Any]) -> Iterator[str]:
    """What the books have beside the receipt."""
    if found["content"] is None:
        yield "content   none is kept"
    else:
        until = datetime.fromtimestamp(found["expires_ms"] / 1000, UTC)
        yield f"content   kept, encrypted, until {iso(until)} (--content shows it)"
    if found["shadow"] is not None:
        shadow, user = found["shadow"]["shadow"], found["shadow"]["user"]
        scores = "" if shadow["score"] is None else f", score {shadow['score']} beside {user['score']}"
        yield (
            f"shadow    {shadow['entry']}: {shadow['outcome']}, {shadow['latency_ms']} ms beside {user['latency_ms']} ms"
            f"{scores}; its receipt is {shadow['receipt']}"
        )


def _worded(content: Content) -> str:
    """Content as it was, but for what would move the cursor."""
    asked = content.prompt + (" (cut)" if "prompt" in content.cut else "")
    lines = ["", f"asked on {content.surface}:", asked]
    if content.answer is not None:
        how = f" ({content.finish})" if content.finish else ""
        lines += [f"answered{how}:", content.answer + (" (cut)" if "answer" in content.cut else "")]
    text = "\n".join(lines)
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


@command.command("list")
@click.option("--limit", default=20, show_default=True, help="How many of the latest are listed.")
@books.common
def list_(where: books.Where, as_json: bool, limit: int) -> None:
    """The latest receipts."""
    _list(where, as_json, limit)


@command.command("correct")
@click.argument("name", metavar="ID")
@click.option("--microdollars", type=int, help="What the request cost in all, in microdollars.")
@click.option("--usd", help="The same in dollars: 0.0125.")
@click.option("--reason", required=True, help="Why; it is kept and shown beside the receipt.")
@books.common
def correct(
    where: books.Where,
    as_json: bool,
    name: str,
    microdollars: int | None,
    usd: str | None,
    reason: str,
) -> None:
    """Put right what a request cost: balances and usage move, the receipt stays as it was signed."""
    given = {"microdollars": microdollars, "usd": usd, "reason": reason}
    with where.desk() as ask:
        fields = wording.correction({word: value for word, value in given.items() if value is not None})
        told = ask("receipts.correct", id=name, **fields)
    if as_json:
        books.print_json(told)
        return
    before, after = (books.amount("microdollar", told[word]) for word in ("from_microdollars", "to_microdollars"))
    click.echo(f"{told['id']}: {before} -> {after}" if told["changed"] else f"{told['id']}: {after} already")


@command.command("verify")
@books.common
def verify_(where: books.Where, as_json: bool) -> None:
    """Prove the whole chain: nothing altered, dropped, put in or moved."""
    with where.desk() as ask:
        keys = receipt_keys(where.settings())
        report = verify_chain(_chain(ask), keys)
    if as_json:
        books.print_json({"ok": report.ok, "receipts": report.count, "faults": [str(fault) for fault in report.faults]})
    else:
        for fault in report.faults:
            click.echo(str(fault))
        click.echo(f"{report.count:,} receipts, {'all of them true and in their places' if report.ok else 'BROKEN'}")
    if not report.ok:
        sys.exit(exits.FAILED)


def _list(where: books.Where, as_json: bool, limit: int) -> None:
    with where.desk() as ask:
        found = ask("receipts.list", limit=limit)
    bodies = [msgspec.json.decode(row["body"]) for row in found]
    if as_json:
        books.print_json(bodies)
        return
    if not bodies:
        click.echo("no receipts yet")
        return
    rows: list[tuple[str, ...]] = [("receipt", "when", "status", "route", "fallbacks", "latency", "cost")]
    rows.extend(map(_line, bodies))
    books.table(rows)


def _line(body: dict[str, Any]) -> tuple[str, ...]:
    return (
        body["id"],
        body["ts"],
        str(body["status"]),
        body.get("route_final") or "-",
        str(body.get("fallback_count", 0)),
        f"{body['latency_ms']} ms",
        dollars(body.get("cost_usd")),
    )


def _chain(ask: Asking) -> Iterator[bytes]:
    """Every receipt from the first on, a page at a time."""
    after = 0
    while True:
        page = ask("receipts.chain", after=after, limit=_PAGE)
        for row in page:
            yield row["body"]
            after = row["seq"]
        if len(page) < _PAGE:
            return
