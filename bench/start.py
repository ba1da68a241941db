"""How long `fastroute infer` takes from its start to the first byte of its answer: `python -m bench.start [--runs 15]`.

The model is `demo-small`, so nothing is sent anywhere; of what is measured its simulated provider takes 60 to 120 ms before
the first token, which is told beside it. Each run is a process of its own in one state directory where no server runs,
so that it opens the books too. CPU is that of the command and of the bookkeeper it starts, and is what travels between
machines.
"""

from __future__ import annotations

import argparse
import os
import platform
import pty
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

POLICY = """
policy: quick
routing: {primary: [demo-small]}
tenancy: {per_user_rpm: 1000000, per_user_daily_tokens: 1000000000}
"""
COMMAND = ["-m", "fastroute", "infer", "-p", "quick", "-u", "somebody", "--input", "hi", "--stream", "--json"]


def run(place: Path, command: list[str], *, terminal: bool) -> tuple[float, float, float, bytes]:
    """Milliseconds to the first byte, to the end, and of CPU; and what was said."""
    ours, theirs = pty.openpty() if terminal else os.pipe()
    began = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=place, stdin=subprocess.DEVNULL, stdout=theirs, stderr=subprocess.DEVNULL, close_fds=True
    )
    os.close(theirs)
    said: list[bytes] = []
    first = 0.0
    while True:
        try:
            part = os.read(ours, 1 << 16)
            first = first or time.perf_counter() - began
        except OSError:  # how a terminal tells that nobody writes any more
            break
        if not part:
            break
        said.append(part)
    _, status, used = os.wait4(process.pid, 0)
    ended = time.perf_counter() - began
    process.returncode = os.waitstatus_to_exitcode(status)
    os.close(ours)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} exited with {process.returncode}")
    return first * 1000, ended * 1000, (used.ru_utime + used.ru_stime) * 1000, b"".join(said)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory(prefix="fastroute-start-") as directory:
        place = Path(directory)
        (place / "policies").mkdir()
        (place / "policies" / "quick.yaml").write_text(POLICY)
        (place / "fastroute.yaml").write_text("demo: true\n")
        *_, told = run(place, [sys.executable, *COMMAND], terminal=False)  # compiles what nobody has compiled yet
        simulated = re.search(rb'"first_chunk_ms":(\d+)', told)
        assert simulated is not None
        print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
        print(f"load {os.getloadavg()[0]:.1f}; the request itself waits {int(simulated[1])} ms for its first token")
        ways = {
            "in a pipe": (COMMAND[:-1], False),
            "on a terminal": (COMMAND[:-1], True),
            "python alone": (["-c", "print(1)"], False),
        }
        figures: dict[str, list[tuple[float, float, float]]] = {name: [] for name in ways}
        for _ in range(runs):
            for name, (arguments, terminal) in ways.items():
                figures[name].append(run(place, [sys.executable, *arguments], terminal=terminal)[:3])
        for name, found in figures.items():
            first, ended, cpu = (sorted(each[column] for each in found) for column in range(3))
            print(
                f"{name:16} first byte {statistics.median(first):6.0f} ms (best {first[0]:.0f})  "
                f"end {statistics.median(ended):6.0f} ms  CPU {statistics.median(cpu):6.0f} ms (best {cpu[0]:.0f})"
            )


if __name__ == "__main__":
    main()
