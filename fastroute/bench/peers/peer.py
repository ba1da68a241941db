"""What an adapter says of a peer; the base class does the installing that adapters have in common."""

from __future__ import annotations

import os
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from fastroute.bench.processes import NotStarted, own_environment

_INSTALL_S = 900

Say = Callable[[str], None]


class Peer(ABC):
    """One peer. `home` is the folder its environment lives in, `place` one for this run alone."""

    name: ClassVar[str]
    settings: ClassVar[str]
    """How it is configured, in a sentence for the page."""
    start_s: ClassVar[float] = 30.0
    streams: ClassVar[bool] = True
    requirements: ClassVar[tuple[str, ...]] = ()
    """What pip puts into an environment of its own."""

    @property
    @abstractmethod
    def version(self) -> str:
        """Which one is measured; a constant where it is installed for that."""

    @abstractmethod
    def program(self, home: Path) -> Path:
        """What must be there for it to start."""

    def lacks(self, home: Path) -> str | None:
        """Why it cannot be started as things are; None when it can."""
        if self.program(home).exists():
            return None
        return f"{', '.join(self.requirements)} is not installed in {home}"

    def install(self, home: Path, say: Say) -> None:
        """Put it there, saying first what will be done."""
        say(f"{self.name}: pip install {' '.join(self.requirements)} into {home}")
        home.mkdir(parents=True, exist_ok=True)
        run([sys.executable, "-m", "venv", str(home)])
        run([str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", *self.requirements])

    def files(self, port: int, upstream: int) -> dict[str, str]:
        """Configuration by file name; it is written into `place` before the start."""
        return {}

    @abstractmethod
    def command(self, home: Path, place: Path, port: int, upstream: int) -> Sequence[str]:
        """What starts it, with an upstream to ask."""

    def environment(self, place: Path, upstream: int) -> dict[str, str]:
        return {}

    def headers(self, place: Path, upstream: int) -> dict[str, str]:
        """What a caller has to send beside a JSON body; asked once, before the start."""
        return {"authorization": "Bearer sk-bench-bench-bench-bench"}


# Where they fetch from, and whose certificates they trust there.
_INSTALLERS = ("PIP_", "NPM_", "npm_", "NODE_EXTRA_", "SSL_CERT_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


def run(command: Sequence[str], place: Path | None = None) -> None:
    """A step of an installation; what it said is told when it fails."""
    try:
        done = subprocess.run(  # noqa: S603  the adapters' own commands, constants of their files
            command,
            cwd=place,
            env={
                **own_environment(),
                **{k: v for k, v in os.environ.items() if k.startswith(_INSTALLERS)},
            },
            capture_output=True,
            text=True,
            timeout=_INSTALL_S,
            check=False,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise NotStarted(f"{command[0]}: {error}") from error
    if done.returncode:
        raise NotStarted(f"{' '.join(command)} ended with {done.returncode}\n{done.stderr.strip()[-600:]}")
