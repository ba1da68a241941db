"""Taking in what changed while a worker serves: the registry, looked at every second, and on SIGHUP the configuration.

Validate, stage, swap: everything that can be wrong is found in a thread beside the loop, and what is sound is handed to
the loop whole. What is not changes nothing and is logged. Requests under way keep what they began with.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from fastroute import caching
from fastroute.assembly import directory_for, with_demo
from fastroute.config import Config
from fastroute.errors import FastrouteError
from fastroute.ledger.registry import Registry
from fastroute.ledger.sqlite import Store
from fastroute.routing.directory import Directory

LOOK_S: Final = 1.0

log = logging.getLogger("fastroute.reloading")

Load = Callable[[], Config]
Take = Callable[[Config, Directory], None]


def kept(before: Config, after: Config) -> tuple[Config, tuple[str, ...]]:
    """A new configuration with what only a restart can change left as it was, and the names of that."""
    server = replace(before.server, body_limit_bytes=after.server.body_limit_bytes)
    # A port that was chosen for the asker is no other than the one it listens on.
    port = before.server.port if after.server.port == 0 else after.server.port
    wanted = replace(after.server, port=port)
    changed = [f"server.{name}" for name in server.__struct_fields__ if getattr(server, name) != getattr(wanted, name)]
    # The bookkeeper signs, and the workers' limits share one table, as they were when each of them began.
    fixed = ("state_dir", "database", "log", "receipts")
    changed += [name for name in fixed if getattr(before, name) != getattr(after, name)]
    same = {name: getattr(before, name) for name in fixed}
    limits = replace(after.limits, window_s=before.limits.window_s)
    if limits != after.limits:
        changed.append("limits.window_s")
    return replace(after, server=server, limits=limits, **same), tuple(changed)


def sound(load: Load, before: Config) -> Config:
    """The configuration read again, as a worker that starts from now on would serve it; `FastrouteError` if it cannot."""
    config, _ = kept(before, load())
    directory_for(with_demo(config))
    caching.check(config)
    return config


class Reloader:
    """Watches for one worker; `take` is called in the loop with a configuration and the directory made of it."""

    def __init__(self, config: Config, load: Load | None, take: Take, look_s: float = LOOK_S) -> None:
        """To be made in the loop's thread, after the directory that is served now."""
        self._config = config
        self._load = load
        self._take = take
        self._look_s = look_s
        self._loop = asyncio.get_running_loop()
        self._generation = _generation(config.database_path)
        self._told = ""
        self._asked = False
        self._ended = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="fastroute-reloading", daemon=True)
        self._thread.start()

    def reload(self) -> None:
        """Read the configuration again, soon."""
        self._asked = True
        self._wake.set()

    def look(self) -> None:
        """Look at the registry now instead of soon."""
        self._wake.set()

    def close(self) -> None:
        """Watch no longer."""
        self._ended = True
        self._wake.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended:
            self._wake.wait(self._look_s)
            self._wake.clear()
            if self._asked and not self._ended:
                self._asked = False
                self._reread()
            elif not self._ended:
                self._look()

    def _look(self) -> None:
        try:
            generation = _generation(self._config.database_path)
            if generation == self._generation:
                return
            # Remembered first: a registry that cannot be served is said once, and looked at again when it changes.
            self._generation = generation
            self._stage(self._config)
        except FastrouteError as error:
            if str(error) != self._told:  # a file that cannot be read is no news a second later
                self._told = str(error)
                log.error("the registry cannot be served; what was served before stays: %s", error)
        else:
            self._told = ""
            log.info("the registry changed, and is served as generation %d", generation)

    def _reread(self) -> None:
        if self._load is None:
            return
        try:
            config, changed = kept(self._config, self._load())
            self._generation = _generation(config.database_path)
            self._stage(config)
        except FastrouteError as error:
            log.error("the configuration was read again and cannot be served; the one before stays: %s", error)
            return
        self._config = config
        log.info("the configuration was read again and is served")
        if changed:
            log.warning("changed, and kept as before until a restart: %s", ", ".join(changed))

    def _stage(self, config: Config) -> None:
        directory = directory_for(with_demo(config))
        try:
            self._loop.call_soon_threadsafe(self._take, config, directory)
        except RuntimeError:  # the loop is closed, and nobody is left to serve
            self._ended = True


def _generation(database: Path) -> int:
    """The registry's own count of its changes; a file that was never made is at none."""
    if not database.exists():
        return 0
    with Store.glance(database) as store:
        return Registry(store).generation()
