"""Every fault fastroute raises, as one family.

* FastrouteError
  * ConfigError            what the file, the environment or a flag says cannot be used
  * DescriptorError        a step describes itself in a way the contract refuses
  * CatalogError           the entries contradict each other or name what is not there
  * UnknownModel           a name leads to no entry, alias, provider or family
  * MoneyError             an amount is not a usable count of dollars or microdollars
  * RegistryError          a registry row is refused
  * StoreError             the database cannot be opened, read or written
    * StoreCorrupt         its pages do not add up
    * StoreDamaged         some old rows of it cannot be read; whoever does not need them goes on
    * StoreTooNew          a later fastroute wrote it
  * FetchError             a provider's list could not be fetched
  * StaleBuild             the compiled core is of another version than the code around it

A refusal is a value; a fault is one of these. Each says what was wrong, which value, and what would mend it; none
carries a key or a prompt.
"""

from __future__ import annotations


class FastrouteError(Exception):
    """Anything of ours that went wrong."""


class Problem:
    """One mistake in the configuration: where it stands, what is wrong and what would mend it."""

    __slots__ = ("message", "where")

    def __init__(self, where: str, message: str) -> None:
        self.where = where
        self.message = message

    def __str__(self) -> str:
        return f"{self.where}: {self.message}"

    __repr__ = __str__


class ConfigError(FastrouteError):
    """What the file, the environment or a flag says cannot be used; every mistake is told at once."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in problems))


class DescriptorError(FastrouteError):
    """A descriptor is refused; `kind` is the wire's error, `field` the first field that failed."""

    def __init__(self, field: str, message: str, *, kind: str = "invalid_descriptor") -> None:
        self.kind = kind
        self.field = field
        self.message = message
        super().__init__(f"{field}: {message}")


class CatalogError(FastrouteError):
    """The entries of a catalog contradict each other or name what is not there."""


class UnknownModel(FastrouteError):
    """A name leads to no entry, alias, provider or family."""

    def __init__(self, name: str, nearest: str | None = None) -> None:
        self.name = name
        self.nearest = nearest
        hint = f"; did you mean {nearest!r}?" if nearest else ""
        super().__init__(f"model {name!r} is not known here{hint}")


class MoneyError(FastrouteError, ValueError):
    """An amount is not a usable count of dollars or microdollars."""


class RegistryError(FastrouteError):
    """A registry row is refused."""


class StoreError(FastrouteError):
    """The database cannot be opened, read or written."""


class StoreCorrupt(StoreError):
    """The database's pages do not add up; nothing was changed."""


class StoreDamaged(StoreError):
    """Rows that are only looked up cannot be read; nothing was changed, and the books go on without them."""


class StoreTooNew(StoreError):
    """A later fastroute wrote this database; this one will not touch it."""


class FetchError(FastrouteError):
    """A provider's list could not be fetched; nothing was changed."""


class StaleBuild(FastrouteError):
    """The compiled core is of another version than the code around it; build again."""
