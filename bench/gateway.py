"""What the gateway costs: CPU of its whole process tree per request and per event, beside a constant answer.

    python -m bench.gateway [--rounds N] [--seconds S]

One worker on the first core, the provider and the client on the last; rounds are interleaved, medians are shown. The ratio
to the constant answer of the same run travels between machines, the microseconds do not.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")
FIRST, LAST = min(os.sched_getaffinity(0)), max(os.sched_getaffinity(0))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def start(stack: ExitStack, core: int, *command: str, **environment: str) -> subprocess.Popen[bytes]:
    """A process on one core that ends with this one."""
    process = subprocess.Popen(
        [sys.executable, "-m", *command],
        env={"PATH": os.environ["PATH"], **environment},
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    stack.callback(process.wait, 10)
    stack.callback(process.terminate)
    return process


def wait_for(url: str) -> float:
    began = time.monotonic()
    while time.monotonic() - began < 10:
        try:
            with urllib.request.urlopen(url, timeout=1) as answer:  # noqa: S310  # our own address
                answer.read()
            return time.monotonic() - began
        except urllib.error.HTTPError:
            return time.monotonic() - began
        except OSError:
            time.sleep(0.02)
    raise SystemExit(f"{url} did not answer")


def tree(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += tree(int(child))
    return found


def cpu_us(pid: int) -> float:
    """User and system time of a process and all below it."""
    total = 0
    for each in tree(pid):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total * 1e6 / TICK


def rss_mib(pid: int) -> float:
    return max(
        int(line.split()[1]) / 1024
        for each in tree(pid)
        for line in Path(f"/proc/{each}/status").read_text().splitlines()
        if line.startswith("VmRSS")
    )


def measure(pid: int, port: int, connections: int, seconds: float, kind: str) -> dict[str, float]:
    before = cpu_us(pid)
    told = subprocess.run(
        [sys.executable, "-m", "bench.load", str(port), str(connections), str(seconds), kind],
        check=True,
        capture_output=True,
        timeout=seconds + 20,
        preexec_fn=lambda: os.sched_setaffinity(0, {LAST}),
    ).stdout
    result = json.loads(told)
    spent = cpu_us(pid) - before
    if result["failures"]:
        raise SystemExit(f"{result['failures']} of {result['answers']} answers failed")
    return {
        "per second": result["answers"] / result["seconds"],
        "us/request": spent / result["answers"],
        "us/event": spent / result["events"] if result["events"] else 0.0,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    asked = parser.parse_args()
    with ExitStack() as stack:
        state = stack.enter_context(tempfile.TemporaryDirectory())
        provider, constant, gateway = free_port(), free_port(), free_port()
        start(stack, LAST, "bench.upstream", str(provider))
        still = start(stack, FIRST, "bench.constant", str(constant))
        served = start(
            stack,
            FIRST,
            *("fastroute", "serve", "--port", str(gateway), "--workers", "1", "--state-dir", state),
            OPENAI_API_KEY="sk-bench-bench-bench-bench",
            OPENAI_BASE_URL=f"http://127.0.0.1:{provider}",
            LOG_PATH=f"{state}/router.log",
        )
        ready = wait_for(f"http://127.0.0.1:{gateway}/readyz")
        wait_for(f"http://127.0.0.1:{constant}/")
        rows: dict[str, list[dict[str, float]]] = {}
        for _ in range(asked.rounds):
            for name, pid, port, connections, kind in (
                ("constant answer, 32 connections", still.pid, constant, 32, "json"),
                ("JSON, 32 connections", served.pid, gateway, 32, "json"),
                ("JSON, 128 connections", served.pid, gateway, 128, "json"),
                ("burst of 23 events, 32 connections", served.pid, gateway, 32, "stream"),
            ):
                rows.setdefault(name, []).append(measure(pid, port, connections, asked.seconds, kind))
        load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
        print(f"{platform.system()} {platform.release()}, Python {platform.python_version()}, load {load}")
        print(f"first answer {ready:.2f} s after the start, {rss_mib(served.pid):.0f} MiB in the worker\n")
        yardstick = statistics.median(row["us/request"] for row in rows["constant answer, 32 connections"])
        for name, found in rows.items():
            middle = {key: statistics.median(row[key] for row in found) for key in found[0]}
            event = f"{middle['us/event']:6.1f} us/event" if middle["us/event"] else ""
            print(
                f"{name:36} {middle['per second']:8.0f}/s {middle['us/request']:7.1f} us/request "
                f"{middle['us/request'] / yardstick:5.2f}x {event}"
            )


if __name__ == "__main__":
    main()
