"""Processes of the bench: each starts on its core in a session of its own, and none outlives whoever started it."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from fastroute.bench.machine import run_on
from fastroute.errors import FastrouteError

_END_S = 5.0


class NotStarted(FastrouteError):
    """A process of the bench did not come up, or is not there to be started."""


def free_port() -> int:
    """A port nobody has now. Who it is for takes it a moment later: not every peer can be handed a socket."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def own_environment(**more: str) -> dict[str, str]:
    """What a program needs of ours, and nothing that would configure it."""
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, **more}


@contextmanager
def running(
    command: Sequence[str],
    cores: Sequence[int],
    place: Path,
    environment: Mapping[str, str],
    pass_fds: Sequence[int] = (),
) -> Iterator[subprocess.Popen[bytes]]:
    """A process with all it starts, ended on the way out: asked first, then killed. What it says goes to `place`/log."""
    with (place / "log").open("ab") as log:
        process = subprocess.Popen(  # noqa: S603  commands of our own adapters, constants of their files
            command,
            cwd=place,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=pass_fds,
            start_new_session=True,
            preexec_fn=run_on(*cores),
        )
    try:
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_S)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def log_tail(place: Path) -> str:
    text = (place / "log").read_text(errors="replace") if (place / "log").exists() else ""
    return "\n".join(text.strip().splitlines()[-5:])


def first_answer(
    process: subprocess.Popen[bytes],
    place: Path,
    port: int,
    path: str,
    body: bytes,
    headers: Mapping[str, str],
    limit_s: float,
) -> float:
    """Seconds until a request is answered with 200; a process that ends, or takes too long, is a fault with its last words."""
    began, status = time.monotonic(), "no answer"
    while time.monotonic() - began < limit_s:
        if process.poll() is not None:
            raise NotStarted(f"{process.args!r} ended with {process.returncode}\n{log_tail(place)}")
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=limit_s)
        try:
            connection.request("POST", path, body, {"content-type": "application/json", **headers})
            answer = connection.getresponse()
            said = answer.read()
            if answer.status == 200:
                return time.monotonic() - began
            status = f"{answer.status} {said[:200]!r}"
        except (OSError, http.client.HTTPException):
            pass  # not there yet
        finally:
            connection.close()
        time.sleep(0.01)  # nobody is told when it begins to listen, so it is asked again
    raise NotStarted(f"no 200 within {limit_s:.0f} s, last: {status}\n{log_tail(place)}")
