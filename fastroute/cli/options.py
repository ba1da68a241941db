"""Options that several commands share and hand on together: a command takes them as one value."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from msgspec import Struct

Command = Callable[..., Any]


def together(name: str, kind: type[Struct], *options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Adds the options, first to last, and gives the command those that are fields of `kind` as one argument of this name."""

    def decorate(command: Command) -> Command:
        @wraps(command)
        def taking(**given: Any) -> Any:
            value = kind(**{field: given.pop(field) for field in kind.__struct_fields__ if field in given})
            return command(**given, **{name: value})

        taken: Command = taking
        for option in reversed(options):
            taken = option(taken)
        return taken

    return decorate
