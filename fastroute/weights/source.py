"""Where weights lie and what runs them: a file that ends in .gguf, a directory of safetensors, or a repository of the hub."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Final, Literal, NamedTuple

from msgspec import Struct

from fastroute.config import places
from fastroute.errors import FastrouteError

Engine = Literal["gguf", "huggingface"]

# What each engine is made of, and the extra of this package that brings it.
NEEDED: Final = {"gguf": (("xllamacpp",), "gguf"), "huggingface": (("torch", "transformers", "jinja2"), "weights")}
# How long a process that others may come back to stays when nobody uses it.
LINGER_S: Final = 5.0


class WeightsError(FastrouteError):
    """Weights that cannot be used: what is wrong with them, and what would mend it."""


class Source(Struct, frozen=True):
    """Where weights lie: a path of this machine, or the name of a repository of the hub."""

    engine: Engine
    path: str | None = None
    repo: str | None = None

    @property
    def name(self) -> str:
        """What to call them where no directory is to be told."""
        return self.repo or Path(self.path or "").name

    @classmethod
    def of(cls, text: str) -> Source:
        """A path, a `file://` address, a repository's name or its page at the hub; `WeightsError` for anything else."""
        try:
            address = places.place(text)
        except ValueError as error:
            raise WeightsError(str(error)) from None
        path = places.path(address)
        engine: Engine = "gguf" if places.engine(address) == "gguf" else "huggingface"
        return cls(engine, path, None if path else address.removeprefix(places.HUB + "/"))

    def missing_extra(self) -> str | None:
        """What has to be installed before these weights can be used, or None; nothing is imported to find out."""
        packages, extra = NEEDED[self.engine]
        missing = [package for package in packages if find_spec(package) is None]
        if not missing:
            return None
        return f"{self.name} needs {' and '.join(missing)}: pip install 'fastroute[{extra}]'"

    def refusal(self) -> str | None:
        """Why these weights cannot even be tried, or None."""
        if self.path is not None:
            path = Path(self.path)
            if self.engine == "gguf" and not path.is_file():
                return f"there is no file {self.name} where the weights should be"
            if self.engine == "huggingface" and not path.is_dir():
                return f"there is no directory {self.name} where the weights should be"
        return self.missing_extra()


class Spec(Struct, frozen=True):
    """Everything a process needs to know to run weights; the hub's token is told apart from it."""

    source: Source
    device: str = "cpu"
    threads: int = 1
    parallel: int = 1  # generations at a time; transformers make one
    context: int = 4096  # tokens of prompt and answer together, of each generation
    cache_dir: str = ""  # where repositories are kept
    download: bool = False  # whether the hub may be asked for what is not there
    linger_s: float = LINGER_S  # how long it stays when nobody uses it any more


class Running(NamedTuple):
    """Weights that answer on a port of loopback for as long as `server` is kept."""

    port: int
    server: object
