"""What the gateway costs: CPU of its worker per request and per event, beside a constant answer on the same server.

    python -m bench.gateway [--rounds N] [--seconds S]

Three gateways on the first core, the provider and the client on the last: the data plane alone (`bench.bare`), a gateway
as it is served, and one that is asked with a key that has a budget under a key that has another. What the last costs more
than the first is what money costs: keys, budgets, journal, receipts. The bookkeeper's own share is told beside it. Rounds
are interleaved, medians are shown; each is compared with the constant answer just before it, since that ratio travels
between machines and the microseconds do not.
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


def cpu_us(pid: int) -> dict[int, float]:
    """User and system time of a process and of each one below it."""
    found = {}
    for each in tree(pid):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        found[each] = (int(fields[11]) + int(fields[12])) * 1e6 / TICK
    return found


def rss_mib(pid: int) -> float:
    return max(
        int(line.split()[1]) / 1024
        for each in tree(pid)
        for line in Path(f"/proc/{each}/status").read_text().splitlines()
        if line.startswith("VmRSS")
    )


def measure(pid: int, port: int, connections: int, seconds: float, kind: str, key: str = "") -> dict[str, float]:
    before = cpu_us(pid)
    told = subprocess.run(
        [sys.executable, "-m", "bench.load", str(port), str(connections), str(seconds), kind, *([key] if key else [])],
        check=True,
        capture_output=True,
        timeout=seconds + 20,
        preexec_fn=lambda: os.sched_setaffinity(0, {LAST}),
    ).stdout
    result = json.loads(told)
    spent = [used - before.get(each, 0.0) for each, used in cpu_us(pid).items()]
    if result["failures"]:
        raise SystemExit(f"{result['failures']} of {result['answers']} answers failed")
    worker = max(spent)  # beside it there are its bookkeeper and their supervisor
    return {
        "per second": result["answers"] / result["seconds"],
        "us/request": worker / result["answers"],
        "books": (sum(spent) - worker) / result["answers"],
        "us/event": worker / result["events"] if result["events"] else 0.0,
    }


def gateway(stack: ExitStack, provider: int, *, bare: bool = False) -> tuple[subprocess.Popen[bytes], int, str]:
    """A gateway that is ready: its process, its port and its state directory."""
    state, port = stack.enter_context(tempfile.TemporaryDirectory()), free_port()
    command = ("bench.bare", str(port), state)
    served = ("fastroute", "serve", "--port", str(port), "--workers", "1", "--state-dir", state)
    process = start(
        stack,
        FIRST,
        *(command if bare else served),
        OPENAI_API_KEY="sk-bench-bench-bench-bench",
        OPENAI_BASE_URL=f"http://127.0.0.1:{provider}",
        LOG_PATH=f"{state}/router.log",
    )
    wait_for(f"http://127.0.0.1:{port}/readyz")
    return process, port, state


def key_of(state: str, name: str, parent: str = "") -> dict[str, str]:
    """A key with a budget that no run spends."""
    command = ["fastroute", "keys", "create", "--state-dir", state, "--json", "--name", name, "--budget-usd", "1000000"]
    made = subprocess.run(
        [sys.executable, "-m", *command, *(["--parent", parent] if parent else [])],
        check=True,
        capture_output=True,
        timeout=30,
    ).stdout
    found: dict[str, str] = json.loads(made)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    asked = parser.parse_args()
    with ExitStack() as stack:
        provider, constant = free_port(), free_port()
        start(stack, LAST, "bench.upstream", str(provider))
        still = start(stack, FIRST, "bench.constant", str(constant))
        wait_for(f"http://127.0.0.1:{constant}/")
        bare, bare_port, _ = gateway(stack, provider, bare=True)
        began = time.monotonic()
        served, port, _ = gateway(stack, provider)
        ready = time.monotonic() - began
        paid, paid_port, state = gateway(stack, provider)
        key = key_of(state, "child", key_of(state, "parent")["id"])["key"]
        rows: dict[str, list[dict[str, float]]] = {}
        for _ in range(asked.rounds):
            for name, pid, at, connections, kind, token in (
                ("JSON, the data plane alone", bare.pid, bare_port, 32, "json", ""),
                ("JSON, as served", served.pid, port, 32, "json", ""),
                ("JSON, a key under two budgets", paid.pid, paid_port, 32, "json", key),
                ("the same at 128 connections", paid.pid, paid_port, 128, "json", key),
                ("23 events, the data plane alone", bare.pid, bare_port, 32, "stream", ""),
                ("23 events, a key under two budgets", paid.pid, paid_port, 32, "stream", key),
            ):
                yardstick = measure(still.pid, constant, 32, asked.seconds / 2, "json")
                rows.setdefault("a constant answer", []).append({**yardstick, "ratio": 1.0})
                found = measure(pid, at, connections, asked.seconds, kind, token)
                rows.setdefault(name, []).append({**found, "ratio": found["us/request"] / yardstick["us/request"]})
        load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
        print(f"{platform.system()} {platform.release()}, Python {platform.python_version()}, load {load}")
        print(f"first answer {ready:.2f} s after the start, {rss_mib(served.pid):.0f} MiB in the worker\n")
        middles = {
            name: {key: statistics.median(row[key] for row in found) for key in found[0]}
            for name, found in rows.items()
        }
        for name, middle in middles.items():
            event = f"{middle['us/event']:6.1f} us/event" if middle["us/event"] else ""
            print(
                f"{name:36} {middle['per second']:8.0f}/s {middle['us/request']:7.1f} us/request in the worker "
                f"{middle['ratio']:5.2f}x, {middle['books']:5.1f} beside it {event}"
            )
        alone, money = middles["JSON, the data plane alone"], middles["JSON, a key under two budgets"]
        more = money["us/request"] - alone["us/request"]
        print(f"\nmoney: {more:.1f} us a request in the worker, {money['books']:.1f} us in the bookkeeper")


if __name__ == "__main__":
    main()
