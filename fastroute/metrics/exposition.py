"""One scrape of one host: the files of all workers added up, and shown as Prometheus text.

A dead worker's counters stay in the totals, or they would go backwards. Its file is folded into `retired.json` and
removed; the fold names the file, so dying between the two steps counts nothing twice.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType

from fastroute.metrics.shelf import MetricsError, read
from fastroute.metrics.table import METRICS, Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
WAIT_S = 5.0

Totals = dict[tuple[int, bytes], list[int]]

_RETIRED = "retired.json"
_LOCK = "lock"
_SIGN = 1 << 63


def prepare(directory: Path) -> None:
    """Make the directory and forget an earlier server's counts: a server that starts, starts at zero."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _locked(directory):
            for path in [*directory.glob("*.bin"), *directory.glob("*.new"), directory / _RETIRED]:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise MetricsError(f"counters cannot be kept in {directory}: {error.strerror}") from None


def scrape(directory: Path, beside: Mapping[tuple[int, bytes], list[int]] = MappingProxyType({})) -> bytes:
    """The counters of all workers of this server, living and dead, and the gauges of the living; and what stands beside."""
    return render({**_collect(directory), **beside})


def retire(directory: Path) -> None:
    """Fold the files of dead workers together; every scrape does so too."""
    _collect(directory)


def render(totals: Totals) -> bytes:
    """Prometheus text 0.0.4: metrics in the order of their table, series in the order of their labels."""
    series: list[list[tuple[bytes, list[int]]]] = [[] for _ in METRICS]
    for (place, labels), words in totals.items():
        series[place].append((labels, words))
    lines: list[str] = []
    for metric, found in zip(METRICS, series, strict=True):
        lines += f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}"
        for labels, words in sorted(found):
            lines += _shown(metric, labels.decode(), words)
    lines.append("")
    return "\n".join(lines).encode()


def _shown(metric: Metric, labels: str, words: list[int]) -> Iterator[str]:
    name = metric.name
    braced = f"{{{labels}}}" if labels else ""
    if metric.kind == "counter":
        yield f"{name}{braced} {words[0]}.0"
    elif metric.kind == "gauge":
        yield f"{name}{braced} {(words[0] ^ _SIGN) - _SIGN}.0"
    else:
        head = f"{name}_bucket{{{labels}," if labels else f"{name}_bucket{{"
        count = 0
        for edge, bucket in zip(_edges(metric), words[1:], strict=True):
            count += bucket
            yield f'{head}le="{edge}"}} {count}.0'
        yield f"{name}_sum{braced} {_decimal(words[0], metric.per_unit)}"
        yield f"{name}_count{braced} {count}.0"


def _edges(metric: Metric) -> list[str]:
    return [*(repr(bound / metric.per_unit) for bound in metric.bounds), "+Inf"]


def _decimal(amount: int, per_unit: int) -> str:
    """A whole number of small units as an exact decimal of large ones; no float comes near a sum of money."""
    whole, rest = divmod(amount, per_unit)
    digits = len(str(per_unit)) - 1
    return f"{whole}." + (f"{rest:0{digits}d}".rstrip("0") or "0")


def _collect(directory: Path) -> Totals:
    try:
        with _locked(directory):
            return _merged(directory)
    except OSError as error:
        raise MetricsError(f"counters cannot be read in {directory}: {error.strerror}") from None


def _merged(directory: Path) -> Totals:
    retired, folded = _retired(directory)
    living: Totals = {}
    dead: list[Path] = []
    present: list[str] = []
    for path in sorted(directory.glob("*.bin")):
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            # In this order: a worker that dies after we asked is read as it was, and folded the next time.
            alive = _is_locked(fd)
            found = read(fd)
        finally:
            os.close(fd)
        if alive:
            if found is not None:
                for entry in found[1]:
                    _add(living, (entry.metric, entry.labels), entry.words)
            continue
        dead.append(path)
        if found is not None:
            name, entries = found
            present.append(name)
            if name not in folded:
                for entry in entries:
                    if METRICS[entry.metric].kind != "gauge":
                        _add(retired, (entry.metric, entry.labels), entry.words)
    if dead:
        # Without room to write, the files stay, and are read again at the next scrape: the totals are the same.
        with suppress(OSError):
            _fold(directory, retired, present)
            for path in dead:
                path.unlink()
    for key, words in retired.items():
        _add(living, key, words)
    return living


def _add(totals: Totals, key: tuple[int, bytes], words: list[int]) -> None:
    known = totals.get(key)
    totals[key] = words if known is None else [a + b for a, b in zip(known, words, strict=True)]


def _is_locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False


def _retired(directory: Path) -> tuple[Totals, set[str]]:
    path = directory / _RETIRED
    try:
        document = json.loads(path.read_bytes())
        places = {metric.name: place for place, metric in enumerate(METRICS)}
        totals = {(places[name], labels.encode()): words for name, labels, words in document["series"]}
        return totals, set(document["folded"])
    except FileNotFoundError:
        return {}, set()
    except (ValueError, KeyError, TypeError):
        raise MetricsError(
            f"{path} is not what this version writes; remove it and dead workers' counts with it"
        ) from None


def _fold(directory: Path, totals: Totals, names: list[str]) -> None:
    # json, because what is added up over many workers may be wider than 64 bits.
    series = [[METRICS[metric].name, labels.decode(), words] for (metric, labels), words in totals.items()]
    unborn = directory / "retired.new"
    unborn.write_text(json.dumps({"folded": names, "series": series}))
    unborn.chmod(0o600)
    unborn.rename(directory / _RETIRED)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    fd = os.open(directory / _LOCK, os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + WAIT_S
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                # Whoever holds it needs milliseconds; a process stopped in the middle must not stop every scrape.
                if time.monotonic() > deadline:
                    raise MetricsError(f"another process has been reading {directory} for {WAIT_S:.0f} s") from None
                time.sleep(0.002)
        yield
    finally:
        os.close(fd)
