"""The terminal: commands are thin, and each is loaded only when it is called.

The seeds' spellings stand beside ours and do the same.
"""

from __future__ import annotations

import gc
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

# command -> (module, attribute); the help line of each is its own docstring
COMMANDS = {
    "serve": ("serve", "command"),
    "infer": ("infer", "command"),
    "eval": ("eval", "command"),
    "simulate": ("simulate", "command"),
    "replay": ("replay", "command"),
    "route": ("route", "command"),
    "keys": ("keys", "command"),
    "usage": ("usage", "command"),
    "receipts": ("receipts", "command"),
    "capture": ("capture", "command"),
    "ledger": ("ledger", "command"),
    "models": ("models", "command"),
    "agents": ("agents", "command"),
    "agent": ("agent", "command"),
    "doctor": ("doctor", "command"),
    "bench": ("bench", "command"),
}

ALIASES = {
    "add-model": ("models", "add_model"),
    "list-models": ("models", "list_models"),
    "refresh-openai": ("models", "refresh_openai"),
    "migrate": ("models", "migrate"),
    "seed": ("models", "seed"),
}


@contextmanager
def loading() -> Iterator[None]:
    """Imports make many objects and no garbage; looking for it again and again takes a tenth of a command's start.

    What was loaded is looked at no more for as long as the command runs, nor copied by a fork of it for that.
    """
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collecting:
            gc.enable()


class Lazy(click.Group):
    """A group whose commands are imported when they are asked for, so that `--help` of one pays for one."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [*COMMANDS]

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        finally:
            gc.unfreeze()  # whoever called this in a process of its own has it as it was

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = COMMANDS.get(cmd_name) or ALIASES.get(cmd_name)
        if place is None:
            return None
        module, attribute = place
        with loading():
            command = getattr(importlib.import_module(f"fastroute.cli.{module}"), attribute)
        assert isinstance(command, click.Command)
        return command


def _version(ctx: click.Context, param: click.Parameter, asked: bool) -> None:
    if asked:
        from fastroute import __version__

        click.echo(f"fastroute {__version__}")
        ctx.exit()


@click.command(cls=Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print the version."
)
def main() -> None:
    """One OpenAI-compatible endpoint in front of every model a team uses.

    Exit codes: 0 ok, 1 refused, 2 usage, 65 bad data, 69 unavailable, 74 store, 75 quota, 78 configuration.
    """
