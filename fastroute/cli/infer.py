"""`fastroute infer`: one prompt under a policy, its text as it comes, one line of account, a receipt.

Alone it needs no server; with `--url` it asks one.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from fastroute.cli import books, exits, loading
from fastroute.cli.exits import fail
from fastroute.config import Config
from fastroute.errors import FastrouteError
from fastroute.money import usd_from_picodollars
from fastroute.policies import PolicyError, UnknownPolicy, load_policies
from fastroute.receipts.describe import dollars
from fastroute.visiting import ahead

if TYPE_CHECKING:
    from fastroute.prompting import Told

INTERRUPTED = 130
_CODES = {"quota": exits.QUOTA, "policy": exits.DATA, "config": exits.CONFIG, "upstream": exits.UNAVAILABLE}


@click.command("infer")
@click.option("-p", "--policy", required=True, help="The policy to ask under.")
@click.option("-u", "--user", required=True, help="Who asks; made, with the policy's budgets, on first use.")
@click.option("--input", "text", default=None, help="The prompt.")
@click.option(
    "--file", "path", type=click.Path(path_type=Path), help="A file with the prompt; default: standard input."
)
@click.option("--model", default=None, help="One of the policy's models, and no other unless it says pinned: failover.")
@click.option("--stream/--no-stream", default=None, help="As it comes, or whole; default: as the policy says.")
@click.option(
    "--shadow", default=None, metavar="MODEL", help="Ask this model the same once the answer is out, and compare."
)
@click.option(
    "--url", envvar="FASTROUTE_URL", default=None, help="Ask this server, with --key, instead of the providers."
)
@click.option("--key", envvar="FASTROUTE_API_KEY", default=None, help="The key for --url.")
@books.demo
@books.common
def command(
    where: books.Where,
    as_json: bool,
    policy: str,
    user: str,
    text: str | None,
    path: Path | None,
    model: str | None,
    stream: bool | None,
    shadow: str | None,
    url: str | None,
    key: str | None,
) -> None:
    """Run one prompt under a policy.

    The answer goes to standard output, and one line about it to standard error. Exit codes: 0 ok, 65 the policy refuses,
    69 nobody answered, 75 a quota is used up, 78 configuration, 130 interrupted, 1 anything else.
    """
    if shadow is not None and url is not None:
        raise click.UsageError("--shadow asks from here and not through --url, whose own policies say what is shadowed")
    said = (policy, user, _text(text, path), model, stream, shadow)
    ends = _Printer(as_json)
    try:
        told = _of_server(url, key, said, ends) if url is not None else _of_providers(where.settings(), said, ends)
    except (PolicyError, UnknownPolicy) as error:
        click.echo(str(error), err=True)
        sys.exit(exits.DATA)
    except FastrouteError as error:
        fail(error)
    ends.done(told)


_Said = tuple[str, str, str, str | None, bool | None, str | None]  # a `Prompt`, before there is a class for it


def _of_providers(config: Config, said: _Said, ends: _Printer) -> Told:
    """Ask from here. The books are opened by another process while this one loads what asks."""
    policies = load_policies(config.policies_dir)
    policies.find(said[0])  # a name that is none is told before anything is opened
    with ahead(config) as started:
        with loading():
            from fastroute.prompting import Prompt, ask
        return _asked(
            ends, lambda: asyncio.run(ask(config, Prompt(*said), policies, ends.write, started, ended=ends.account))
        )


def _of_server(url: str, key: str | None, said: _Said, ends: _Printer) -> Told:
    from fastroute.cli.remote import ask_server
    from fastroute.prompting import Prompt

    told = _asked(ends, lambda: ask_server(url, key, Prompt(*said), ends.write))
    ends.account(told)
    return told


def _asked(ends: _Printer, ask: Callable[[], Told]) -> Told:
    from fastroute.prompting import Interrupted, Refused

    try:
        return ask()
    except Refused as refused:
        ends.refused(refused.message, refused.code, refused.told)
        sys.exit(_CODES[refused.kind])
    except Interrupted as left:
        ends.refused("interrupted", None, left.told)
        sys.exit(INTERRUPTED)


def _text(text: str | None, path: Path | None) -> str:
    if text is not None and path is not None:
        raise click.UsageError("give --input or --file, not both")
    if text is None:
        try:
            text = sys.stdin.read() if path is None else path.read_text()
        except OSError as error:
            raise click.BadParameter(f"{path}: {error.strerror}", param_hint="--file") from None
        except UnicodeDecodeError:
            raise click.BadParameter(f"{path or 'standard input'} is not UTF-8", param_hint="--file") from None
    if not text.strip():
        raise click.UsageError("there is no prompt; give --input, --file or standard input")
    return text


class _Printer:
    """What the terminal sees: text at once and the account after it, or one JSON object at the end."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._last = ""

    def write(self, text: str) -> None:
        if not self._as_json:
            click.echo(text, nl=False)
            sys.stdout.flush()
            self._last = text

    def account(self, told: Any) -> None:
        """The line of account, at once: what is still waited for is no part of the answer."""
        self._end_line()
        cost = "unknown" if told.cost_picodollars is None else dollars(usd_from_picodollars(told.cost_picodollars))
        click.echo(
            f"[receipt {told.id}] route={told.route_final} fallbacks={told.fallback_count} "
            f"latency={told.latency_ms}ms cost={cost}",
            err=True,
        )

    def done(self, told: Any) -> None:
        if self._as_json:
            books.print_json(_fields(told))
        if told.shadow is not None:
            click.echo(_compared(told.shadow), err=True)

    def refused(self, message: str, code: str | None, told: Any) -> None:
        if self._as_json:
            error = {"error": {"message": message, "code": code}}
            books.print_json(error if told is None or not told.attempts else {**_fields(told), **error})
        self._end_line()
        click.echo(message, err=True)
        if told is not None and told.attempts:
            self.account(told)

    def _end_line(self) -> None:
        if self._last and not self._last.endswith("\n"):
            click.echo()
        self._last = ""


def _compared(told: Any) -> str:
    """The shadow in one line, beside the answer."""
    user, shadow = told.user, told.shadow
    if shadow.outcome != "ok":
        return f"[shadow {shadow.receipt}] model={shadow.entry} {shadow.outcome}: {told.why}"
    cost = "unknown"
    if shadow.cost_picodollars is not None:
        cost = dollars(usd_from_picodollars(shadow.cost_picodollars))
    scores = "" if shadow.score is None else f" score={shadow.score} (answer {user.score})"
    return (
        f"[shadow {shadow.receipt}] model={shadow.entry} latency={shadow.latency_ms}ms "
        f"({shadow.latency_ms - user.latency_ms:+d}ms) cost={cost} tokens={shadow.tokens_in}+{shadow.tokens_out} "
        f"length={shadow.length} (answer {user.length}){scores}"
    )


def _fields(told: Any) -> dict[str, Any]:
    cost = told.cost_picodollars
    return {
        "id": told.id,
        "policy": told.policy,
        "user": told.user,
        "route_primary": told.route_primary,
        "route_final": told.route_final,
        "fallback_count": told.fallback_count,
        "reasons": list(told.reasons),
        "latency_ms": told.latency_ms,
        "first_chunk_ms": told.first_chunk_ms,
        "cost_usd": None if cost is None else usd_from_picodollars(cost),
        "cost_picodollars": cost,
        "usage": told.usage,
        "status": told.status,
        "text": told.text,
        **({} if told.shadow is None else {"shadow": msgspec.to_builtins(told.shadow)}),
    }
