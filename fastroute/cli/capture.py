"""`fastroute capture`: what policies had kept of requests and answers, forgotten before its time is over."""

from __future__ import annotations

import sys
from collections import Counter
from datetime import datetime
from typing import Any

import click

from fastroute.cli import books, exits
from fastroute.clock import SystemClock
from fastroute.reaching import Asking
from fastroute.receipts.seal import receipt_id

_PAGE = 200
_BATCH = 50  # 200 at once took the bookkeeper 70 ms


@click.group("capture")
def command() -> None:
    """What is kept of requests and answers, where a policy has it kept; `receipts --open ID --content` shows one."""


@command.command("forget")
@click.option("--id", "ids", multiple=True, metavar="ID", help="Of this receipt or request; may be said again.")
@click.option("-p", "--policy", help="Of the requests under this policy.")
@click.option("--older-than", "older", help="Kept 30d, 12h ago or longer, or before 2027-01-31T00:00:00Z.")
@click.option("--all", "everything", is_flag=True, help="Whatever is kept.")
@click.option("--yes", is_flag=True, help="Do it; without, it is only said what would be forgotten.")
@books.common
def forget(
    where: books.Where,
    as_json: bool,
    ids: tuple[str, ...],
    policy: str | None,
    older: str | None,
    everything: bool,
    yes: bool,
) -> None:
    """Forget captured content now. Receipts and the comparisons of shadows stay: they hold none of it.

    Exit codes: 0 ok, 1 nothing was forgotten for want of --yes, or an --id of which nothing is kept.
    """
    if sum((bool(ids), policy is not None or older is not None, everything)) != 1:
        raise click.UsageError("say what: --id ID, --policy NAME and --older-than 30d (both, or one), or --all")
    names = [_receipt(name) for name in ids]
    with where.desk() as ask:
        before = None if older is None else books.past(older, SystemClock().now(), "--older-than")
        kept = _kept(ask, set(names), policy, before)
        if yes:
            for some in _batches(list(kept)):
                ask("contents.forget", receipts=some)
    missing = [name for name in ids if _receipt(name) not in kept]
    _tell(kept, missing, as_json=as_json, yes=yes)
    if missing or (kept and not yes):
        sys.exit(exits.FAILED)


def _batches(names: list[str]) -> list[list[str]]:
    """So few at a time that whoever spends meanwhile does not notice."""
    return [names[place : place + _BATCH] for place in range(0, len(names), _BATCH)]


def _receipt(name: str) -> str:
    return receipt_id(name) if name.startswith("req_") else name


def _kept(ask: Asking, names: set[str], policy: str | None, before: datetime | None) -> dict[str, str | None]:
    """The receipts whose content is meant, and their policies where those were looked up."""
    found: dict[str, str | None] = {}
    if names:
        for some in _batches(sorted(names)):
            found |= dict.fromkeys(ask("contents.kept", receipts=some))
        return found
    before_ms = None if before is None else int(before.timestamp() * 1000)
    after = ""
    while True:
        page: list[dict[str, Any]] = ask("contents.list", after=after, limit=_PAGE)
        for row in page:
            of_policy = policy is None or row["policy"] == policy
            if of_policy and (before_ms is None or row["kept_ms"] < before_ms):
                found[row["receipt"]] = row["policy"]
        if len(page) < _PAGE:
            return found
        after = page[-1]["receipt"]


def _tell(kept: dict[str, str | None], missing: list[str], *, as_json: bool, yes: bool) -> None:
    policies = Counter(name or "" for name in kept.values())
    if as_json:
        books.print_json(
            {
                "found": len(kept),
                "forgotten": len(kept) if yes else 0,
                "policies": {name: count for name, count in policies.most_common() if name},
                "missing": missing,
            }
        )
        return
    for name in missing:
        click.echo(f"nothing is kept of {name}", err=True)
    if not kept:
        if not missing:
            click.echo("nothing of that is kept")
        return
    count = f"the content of {len(kept):,} request{'' if len(kept) == 1 else 's'}"
    by = ", ".join(
        f"{name or 'no known policy'} {n:,}" for name, n in policies.most_common() if name or len(policies) > 1
    )
    click.echo(f"{'forgot' if yes else 'would forget'} {count}{f' ({by})' if by else ''}")
    if not yes:
        click.echo("nothing is forgotten yet; say --yes to do it", err=True)
