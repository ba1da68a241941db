"""`fastroute agent`: this machine's models, offered to a router that sends them work."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from fastroute.cli.exits import fail
from fastroute.config import Secret, load
from fastroute.config.providers import base_url
from fastroute.config.values import Given, Refused, in_flag
from fastroute.errors import ConfigError, FastrouteError, Problem

if TYPE_CHECKING:  # what answers is imported once all that was said makes sense
    from fastroute.agent.backend import Backend
    from fastroute.upstreams.pool import Pool

PORT = 5000
_TOKEN = re.compile(r"[!-~]{1,2000}")


@click.command("agent")
@click.option("--backend", envvar="AGENT_BACKEND", help="An OpenAI-compatible server: http://127.0.0.1:8080")
@click.option(
    "--weights", envvar="AGENT_WEIGHTS", help="In its place, weights: a .gguf file, a directory, a repository."
)
@click.option("--backend-key", envvar="AGENT_BACKEND_KEY", help="The key that server wants, if it wants one.")
@click.option("--name", envvar="AGENT_NAME", default="local-agent", show_default=True, help="What the router calls it.")
@click.option(
    "--models",
    envvar="MODEL_LIST",
    help="What it offers, with commas between; name=backend's-name offers one under another name. Default: all the "
    "backend lists.",
)
@click.option("--router", envvar="ROUTER_URL", default="http://localhost:8000", show_default=True, help="Its router.")
@click.option("--token", envvar="AGENT_TOKEN", help="An agent's token, from `fastroute keys create --kind agent`.")
@click.option("--host", envvar="AGENT_HOST", default="127.0.0.1", show_default=True, help="The address to listen on.")
@click.option(
    "--port", envvar="AGENT_PORT", type=click.IntRange(0, 65_535), help="The port (default: the endpoint's, or 5000)."
)
@click.option("--endpoint", envvar="AGENT_ENDPOINT", help="Where the router reaches it, if that is elsewhere.")
@click.option(
    "--interval",
    envvar="HEARTBEAT_INTERVAL",
    type=click.FloatRange(0.05, 3600),
    default=30.0,
    show_default=True,
    help="Seconds between heartbeats; a router's agents.stale_ms is meant for three of them.",
)
def command(weights: str | None, **said: Any) -> None:
    """Serve this machine's models and announce them to a router, until SIGTERM or Ctrl-C.

    Every option can be given by the environment: AGENT_BACKEND, AGENT_WEIGHTS, AGENT_BACKEND_KEY, AGENT_NAME, MODEL_LIST,
    ROUTER_URL, AGENT_TOKEN, AGENT_HOST, AGENT_PORT, AGENT_ENDPOINT, HEARTBEAT_INTERVAL. Bound beyond loopback it answers
    only requests of its router. Weights are run as the settings under `weights` say.
    """
    if bool(said["backend"]) == bool(weights):
        raise click.UsageError("Give one of --backend and --weights: a server that answers, or weights to run.")
    try:
        terms, address, key = _read(**said)
        import uvloop

        from fastroute.agent.process import Terms, serve

        backend_in = _server(address, key) if address is not None else _weights(str(weights))
        uvloop.run(serve(Terms(**terms), backend_in, _say))
    except FastrouteError as error:
        fail(error)


def _server(address: str, key: Secret | None) -> Callable[[Pool], Backend]:
    from fastroute.agent.backend import OpenAIBackend

    return lambda pool: OpenAIBackend(address, None if key is None else key.reveal(), pool)


def _weights(text: str) -> Callable[[Pool], Backend]:
    from fastroute.agent.weights import WeightsBackend
    from fastroute.weights import Source

    source, said = Source.of(text), load(None, os.environ, {}).weights
    return lambda pool: WeightsBackend(source, said, pool, _say)


def _say(line: str) -> None:
    click.echo(line, err=True)


def _read(
    backend: str | None,
    backend_key: str | None,
    name: str,
    models: str | None,
    router: str,
    token: str | None,
    host: str,
    port: int | None,
    endpoint: str | None,
    interval: float,
) -> tuple[dict[str, Any], str | None, Secret | None]:
    """What was said, as an agent's terms; `ConfigError` with every mistake."""
    problems: list[Problem] = []

    def address(flag: str, text: str) -> str:
        try:
            return base_url(Given(text, in_flag(flag), text))
        except Refused as refused:
            problems.append(Problem(flag, str(refused)))
            return ""

    def secret(flag: str, text: str | None) -> Secret | None:
        if text is None or not text.strip():
            return None
        if not _TOKEN.fullmatch(text.strip()):
            problems.append(Problem(flag, "has characters that no key has"))
        return Secret(text.strip())

    named = _names(models, problems)
    router, place = address("--router", router), address("--backend", backend) if backend else None
    where = address("--endpoint", endpoint) if endpoint and endpoint.strip() else None
    if port is None:
        port = (urlsplit(where).port if where else None) or PORT
    terms: dict[str, Any] = {
        "name": name.strip(),
        "host": host,
        "port": port,
        "endpoint": where,
        "models": named,
        "router": router,
        "token": secret("--token", token),
        "interval_s": interval,
    }
    key = secret("--backend-key", backend_key)
    if problems:
        raise ConfigError(problems)
    return terms, place, key


def _names(models: str | None, problems: list[Problem]) -> dict[str, str] | None:
    """Names offered, with the backend's own for each; None when nobody named any."""
    named: dict[str, str] = {}
    for text in (models or "").split(","):
        offered, renamed, own = (part.strip() for part in text.partition("="))
        if not offered and not renamed:
            continue
        if not offered or (renamed and not own):
            problems.append(Problem("--models", f"{text.strip()!r} is no name; say name, or name=backend's-name"))
        elif offered in named:
            problems.append(Problem("--models", f"{offered!r} is named twice"))
        else:
            named[offered] = own or offered
    return named or None
