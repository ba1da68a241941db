"""`fastroute bench`: what the gateway costs on this machine, alone, beside its peers, and as it grows."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click
import msgspec

from fastroute.cli.exits import fail
from fastroute.cli.options import together
from fastroute.errors import FastrouteError

if TYPE_CHECKING:
    from fastroute.bench.peers import Peer
    from fastroute.bench.results import Phase, Results
    from fastroute.bench.subjects import Subject

OUT = Path("bench-results")


@contextmanager
def _ended_well() -> Iterator[None]:
    """SIGTERM is as good as Ctrl-C: every process is ended before this one is."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except FastrouteError as error:
        fail(error)
    except KeyboardInterrupt:
        click.echo("stopped; nothing is left running", err=True)
        sys.exit(130)
    finally:
        signal.signal(signal.SIGTERM, before)


class Wish(msgspec.Struct, frozen=True):
    """How long is measured, and what is told of it."""

    quick: bool
    seconds: float | None
    rounds: int | None
    out: Path
    as_json: bool
    markdown: bool


_options = together(
    "wish",
    Wish,
    click.option("--markdown", is_flag=True, help="Print the tables as the README has them."),
    click.option("--json", "as_json", is_flag=True, help="Print the raw results."),
    click.option(
        "--out", type=click.Path(path_type=Path), default=OUT, show_default=True, help="Where page and raw results go."
    ),
    click.option("--rounds", type=click.IntRange(1, 100), help="Interleaved rounds (default 3; 2 with --quick)."),
    click.option("--seconds", type=click.FloatRange(0.1, 600), help="Of each measurement (default 3; 1 with --quick)."),
    click.option("--quick", is_flag=True, help="Four kinds of load and short rounds: under two minutes."),
)


@click.group("bench", invoke_without_command=True)
@_options
@click.pass_context
def command(ctx: click.Context, wish: Wish) -> None:
    """Measure this gateway beside a constant answer, the provider asked directly and, if it is here, nginx.

    `bench compare` takes more peers, `bench scale` shows how cost grows. Everything runs on this machine, on loopback.
    """
    if ctx.invoked_subcommand is not None:
        return
    with _ended_well():
        from fastroute.bench.own import Bare, Compiled, Constant, Keyed, Served, TwoBudgets
        from fastroute.bench.peers import PEERS

        nginx = PEERS["nginx"]
        here = [nginx] if nginx.lacks(Path()) is None else []
        own: list[Peer] = (
            [Constant(), Bare(), Keyed(), Compiled()]
            if wish.quick
            else [Constant(), Bare(), Served(), Keyed(), Compiled(), TwoBudgets()]
        )
        _run("quick" if wish.quick else "gateway", [*own, *here], wish, home())


@command.command("compare")
@click.option(
    "--peers", "names", default="", help="Names, separated by commas; `all` is every one there is an adapter for."
)
@click.option(
    "--url", "urls", multiple=True, metavar="NAME=URL", help="A gateway that runs already, by its base address."
)
@click.option("--key", default=None, help="The key that gateways given by --url want.")
@click.option("--upstream-port", type=int, default=0, help="Port of the fake provider, for gateways given by --url.")
@click.option(
    "--peers-dir", type=click.Path(path_type=Path), help="Where peers are installed (default ~/.cache/fastroute/bench)."
)
@click.option(
    "--install", is_flag=True, help="Install what is missing: pip and npm into --peers-dir, nginx by apt-get."
)
@_options
def compare(
    names: str,
    urls: tuple[str, ...],
    key: str | None,
    upstream_port: int,
    peers_dir: Path | None,
    install: bool,
    wish: Wish,
) -> None:
    """Measure this gateway beside others, one worker each, everything on."""
    with _ended_well():
        from fastroute.bench.own import Bare, Compiled, Constant, Keyed
        from fastroute.bench.peers import PEERS
        from fastroute.bench.processes import NotStarted
        from fastroute.bench.subjects import elsewhere

        homes = peers_dir.absolute() if peers_dir else home()
        wanted = [*PEERS] if names == "all" else [name.strip() for name in names.split(",") if name.strip()]
        unknown = [name for name in wanted if name not in PEERS]
        if unknown:
            raise click.UsageError(f"no adapter for {', '.join(unknown)}; there are {', '.join(PEERS)}")
        given = []
        for each in urls:
            name, equals, url = each.partition("=")
            if not equals or not name or name in PEERS:
                raise click.UsageError(f"--url {each} has no name of its own; NAME=URL does")
            given.append(elsewhere(name, url, key))
        missing = {}
        for name in [*wanted]:
            if install and PEERS[name].lacks(homes / name):
                try:
                    PEERS[name].install(homes / name, lambda line: click.echo(line, err=True))
                except NotStarted as error:
                    missing[name] = str(error)
                    wanted.remove(name)
                    _skipped(name, str(error))
        peers = [Constant(), Bare(), Keyed(), Compiled(), *(PEERS[name] for name in wanted)]
        _run("compare", peers, wish, homes, given, upstream_port, missing)


@command.command("money")
@click.option("--rate", type=click.FloatRange(1, 100_000), default=5000, show_default=True, help="Requests a second.")
@_options
def money(rate: float, wish: Wish) -> None:
    """Show what keys, two budgets, journal, metrics and receipts add to a request at a fixed rate."""
    with _ended_well():
        from fastroute.bench.own import Bare, BareCompiled, TwoBudgets, TwoBudgetsCompiled

        _run("money", [Bare(), TwoBudgets(), BareCompiled(), TwoBudgetsCompiled()], wish, home(), rate=rate)


@command.command("scale")
@click.option(
    "--full",
    is_flag=True,
    help="Run ten million receipts and 50,000 keys through, which takes a quarter of an hour and 16 GB of disk.",
)
@click.option("--seconds", type=click.FloatRange(0.1, 600), default=2.0, show_default=True, help="Of each measurement.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=OUT, show_default=True, help="Where page and raw results go."
)
@click.option("--json", "as_json", is_flag=True, help="Print the raw results.")
def scale(full: bool, seconds: float, out: Path, as_json: bool) -> None:
    """Show how cost grows: with workers, keys, models, open streams, and with receipts in the books."""
    with _ended_well():
        from fastroute.bench import page
        from fastroute.bench import scale as scaling

        found = scaling.run(seconds, full=full, step=_step)
        text = msgspec.json.format(msgspec.json.encode(found), indent=1)
        _write(out, f"scale-{_stamp(found.date)}", text, page.scale(found))
        click.echo(text.decode() if as_json else scaling.told(found))


def home() -> Path:
    """Where peers are installed."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "fastroute" / "bench"


def _run(
    kind: str,
    peers: Sequence[Peer],
    wish: Wish,
    homes: Path,
    given: Sequence[Subject] = (),
    upstream_port: int = 0,
    missing: dict[str, str] | None = None,
    rate: float | None = None,
) -> None:
    from fastroute.bench import page, report
    from fastroute.bench import rounds as running

    each = wish.seconds or (1.0 if wish.quick else 3.0)
    if rate is not None:
        phases: list[Phase] = running.steady(rate, each)
    else:
        phases = running.quick(each) if wish.quick else running.whole(each)
    times = wish.rounds or (2 if wish.quick else 3)
    expected = running.length_s(phases, len(peers) + len(given) + 1, times)
    steps = (len(peers) + len(given) + 1) * len(phases) * times
    click.echo(f"about {expected + 3 * len(peers):.0f} s", err=True)
    with click.progressbar(length=steps, file=sys.stderr, item_show_func=lambda line: line, label=kind) as bar:

        def step(line: str) -> None:
            bar.update(line.startswith("round"), line)

        results: Results = running.measure(
            kind,
            peers,
            phases,
            times,
            homes=homes,
            step=step,
            skipped=_skipped,
            elsewhere=given,
            upstream_port=upstream_port,
            missing=missing,
        )
        bar.update(steps - bar.pos)
    text = msgspec.json.format(msgspec.json.encode(results), indent=1)
    _write(wish.out, f"{kind}-{_stamp(results.date)}", text, page.comparison(results))
    click.echo(text.decode() if wish.as_json else report.told(results, markdown=wish.markdown))


def _stamp(date: str) -> str:
    return date.partition("+")[0].replace(":", "").replace("-", "")


def _write(out: Path, name: str, text: bytes, page: str) -> None:
    out.mkdir(parents=True, exist_ok=True)
    (out / f"{name}.json").write_bytes(text)
    (out / f"{name}.html").write_text(page)
    click.echo(f"{out / name}.html, raw results in {out / name}.json", err=True)


def _step(line: str) -> None:
    click.echo(line, err=True)


def _skipped(name: str, why: str) -> None:
    click.echo(f"\nSKIPPED {name}: {why}", err=True)
