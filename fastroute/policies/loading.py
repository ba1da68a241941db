"""All policies there are: those that are shipped, and the files of a directory, which win over one of the same name."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Final

from msgspec import Struct

from fastroute.config.values import Mistakes, shown
from fastroute.errors import FastrouteError, Problem
from fastroute.policies.policy import Policy
from fastroute.policies.reading import Found, PolicyError, policy_at, read_policy

SUFFIXES: Final = (".yaml", ".yml")
STARTER: Final = "starter"


class UnknownPolicy(FastrouteError):
    """No policy has that name."""

    def __init__(self, name: str, nearest: str | None = None) -> None:
        self.name = name
        self.nearest = nearest
        hint = f"; did you mean {nearest!r}?" if nearest else ""
        super().__init__(f"policy {name!r} is not known here{hint}")


class Policies(Struct, frozen=True):
    """Policies by name, and where each was said: `file:line`, or `starter`."""

    by_name: dict[str, Policy]
    sources: dict[str, str]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.by_name)

    def find(self, name: str) -> Policy:
        """The policy of that name; `UnknownPolicy` names the nearest one there is."""
        policy = self.by_name.get(name)
        if policy is None:
            near = difflib.get_close_matches(name, self.by_name, 1)
            raise UnknownPolicy(name, near[0] if near else None)
        return policy


def load_policies(directory: Path | None, starters: bool = True) -> Policies:
    """Every policy by name, the starters first; `PolicyError` with every mistake of every file.

    A directory that is not there holds no policies. Its files are those that end in `.yaml` or `.yml`; hidden ones and
    subdirectories are not looked into.
    """
    starting = _starters() if starters else []
    by_name = {policy.name: policy for policy in starting}
    sources = dict.fromkeys(by_name, STARTER)
    own: dict[str, Found] = {}
    problems: list[Problem] = []
    for path in _files(directory, problems):
        mistakes = Mistakes()
        found = policy_at(path, mistakes)
        if found is not None:
            name = found.policy.name
            if name in own:
                mistakes.add(
                    found.place, f"policy: {shown(name)} is the name of the policy at {own[name].place} already"
                )
            own.setdefault(name, found)
        problems += mistakes.problems()
    if problems:
        raise PolicyError(problems)
    by_name.update((name, found.policy) for name, found in own.items())
    sources.update((name, str(found.place)) for name, found in own.items())
    return Policies(by_name, sources)


def _starters() -> list[Policy]:
    folder = Path(__file__).with_name("starters")
    return [read_policy(each) for each in sorted(folder.iterdir()) if each.suffix in SUFFIXES]


def _files(directory: Path | None, problems: list[Problem]) -> list[Path]:
    """The files to read, by name; what only looks like one is a mistake."""
    if directory is None:
        return []
    try:
        named = sorted(each for each in directory.iterdir() if each.suffix in SUFFIXES)
    except FileNotFoundError:
        return []
    except OSError as fault:
        problems.append(Problem(str(directory), f"cannot be read as a directory of policies: {fault.strerror}"))
        return []
    files: list[Path] = []
    for each in named:
        if each.name.startswith("."):
            continue
        if each.exists() and not each.is_file():
            # A pipe would be waited for, and for ever.
            problems.append(Problem(str(each), "is not a file, wanted a YAML file"))
            continue
        files.append(each)
    return files
