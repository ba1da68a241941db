"""`fastroute serve`: the gateway as a service."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click

from fastroute.cli.exits import fail
from fastroute.config import Config, load
from fastroute.config.findings import is_loopback, weak_secrets
from fastroute.errors import ConfigError, FastrouteError, Problem
from fastroute.supervisor import Supervisor


def refuse_open_house(config: Config) -> None:
    """What other machines reach is behind keys that nobody guesses: else who finds the port spends the operator's money."""
    from fastroute.keeping import has_keys

    if is_loopback(config.server.host):
        return
    if config.auth.router_key is None and not has_keys(config):
        message = (
            f"{config.server.host} is reachable from outside and there is no key; make one with "
            "`fastroute keys create --name NAME --budget-usd 10`, or set ROUTER_API_KEY for all callers"
        )
        raise ConfigError([Problem("server.host", message)])
    weak = [
        Problem(name, f"{what}, and {config.server.host} is reachable from outside; {mend}")
        for name, what, mend in weak_secrets(config)
    ]
    if weak:
        raise ConfigError(weak)


def read_again(path: Path | None, environ: Mapping[str, str], flags: Mapping[str, Any]) -> Config:
    """The configuration as the file says it now, under the environment and the flags of the start."""
    config = load(path, environ, flags)
    refuse_open_house(config)
    return config


@click.command("serve")
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="The fastroute.yaml to serve.")
@click.option("--host", default=None, help="The address to listen on (default 127.0.0.1).")
@click.option("--port", type=int, default=None, help="The port to listen on (default 8000).")
@click.option("--workers", type=int, default=None, help="Worker processes (default: one for each core).")
@click.option("--state-dir", default=None, help="Where books, keys and sockets are kept (default ./data).")
@click.option("--demo", is_flag=True, default=None, help="Serve simulated providers: no keys, no network.")
def command(
    config_path: Path | None,
    host: str | None,
    port: int | None,
    workers: int | None,
    state_dir: str | None,
    demo: bool | None,
) -> None:
    """Serve the gateway until SIGTERM or Ctrl-C; a second one does not wait for open streams.

    SIGHUP reads the configuration again: what is sound is served from the next request on, what is not changes nothing.
    """
    given = {
        "server.host": host,
        "server.port": port,
        "server.workers": workers,
        "state_dir": state_dir,
        "demo": demo,
    }
    # The supervisor speaks to the terminal alone; a writer's thread must not be running when workers are forked.
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    try:
        flags = {name: value for name, value in given.items() if value is not None}
        config = load(config_path, os.environ, flags)
        # The worker's world (server, loop, application) is imported here once and inherited by every fork.
        from fastroute import caching
        from fastroute.assembly import directory_for, with_demo
        from fastroute.keeping import keep, make_private
        from fastroute.metrics import prepare
        from fastroute.reloading import sound
        from fastroute.web.worker import work

        # What cannot be served is said here, once, and not by every worker in turn.
        directory_for(with_demo(config))
        caching.check(config)
        make_private(config)
        prepare(config.state_dir / "run" / "metrics")
        refuse_open_house(config)
        again = partial(read_again, config_path, dict(os.environ), flags)
        serving = partial(work, load=again)
        sys.exit(Supervisor(config, config.server.workers, serving, keep, reload=partial(sound, again)).run())
    except FastrouteError as error:
        fail(error)
