"""The policy that is tried: a file that is not served yet, or any name that is; and what it is compared with."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from fastroute.assembly import directory_for, directory_without_policies, with_demo
from fastroute.config import Config
from fastroute.errors import FastrouteError
from fastroute.policies import Policies, read_policy
from fastroute.policies.loading import SUFFIXES
from fastroute.routing.directory import Directory, Target
from fastroute.routing.rankers import Ordered, Pinned, Tiers
from fastroute.ruling import add_policies


class NothingToTry(FastrouteError):
    """What was named cannot be tried, or there is nothing to compare it with."""


class Trial(Struct, frozen=True):
    """A name that can be asked for, and the directory in which it can."""

    name: str
    config: Config
    directory: Directory
    target: Target


def trial_of(config: Config, policy: str) -> Trial:
    """The policy of a file or of a name. `NothingToTry`, `PolicyError`, `CatalogError`, `UnknownModel`."""
    config = with_demo(config)
    path = Path(policy)
    if path.suffix in SUFFIXES:
        read_in = read_policy(path)
        directory = directory_without_policies(config)
        if read_in.name in directory.names():
            raise NothingToTry(
                f"{policy}: {read_in.name!r} is the name of a model or an alias; call the policy otherwise"
            )
        add_policies(directory, Policies({read_in.name: read_in}, {read_in.name: policy}))
        return Trial(read_in.name, config, directory, directory.resolve(read_in.name))
    directory = directory_for(config)
    return Trial(policy, config, directory, directory.resolve(policy))


def baseline_of(trial: Trial) -> str:
    """The model to compare with where none is named: the dearest that the policy may choose, by its output."""
    ranker = trial.target.route.ranker
    if isinstance(ranker, Pinned):
        raise NothingToTry(f"{trial.name!r} is one model; name another to compare it with, with --baseline")
    among = trial.target.catalog.entries
    if isinstance(ranker, Tiers):
        among = tuple(entry for entry in among if entry.id in (ranker.small, ranker.medium))
    elif isinstance(ranker, Ordered):
        among = tuple(entry for entry in among if entry.id in ranker.order)
    priced = [
        (entry.price.rates.output, entry.price.rates.input, entry.id) for entry in among if entry.price is not None
    ]
    if not priced:
        raise NothingToTry(f"no model of {trial.name!r} has a known price; name one to compare with, with --baseline")
    return max(priced)[2]
