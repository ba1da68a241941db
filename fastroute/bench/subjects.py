"""What is measured, up and answering: the provider itself, an adapter's process, or an address somebody gave."""

from __future__ import annotations

import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from fastroute.bench import traffic
from fastroute.bench.machine import Cores
from fastroute.bench.peers import Peer
from fastroute.bench.processes import NotStarted, first_answer, free_port, own_environment, running

PATH = "/v1/chat/completions"
BODY = traffic.body(500)


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """One that can be asked. Without a `pid` nothing is known of its CPU and memory."""

    name: str
    version: str = ""
    settings: str = ""
    host: str = "127.0.0.1"
    port: int
    path: str = PATH
    headers: dict[str, str] = {}
    streams: bool = True
    pid: int | None = None
    ready_s: float | None = None
    place: Path | None = None

    def request(self, body: bytes) -> bytes:
        return traffic.request(body, f"{self.host}:{self.port}", self.path, self.headers)


@contextmanager
def provider(cores: Cores, port: int = 0) -> Iterator[Subject]:
    """The fake provider, asked directly: what every delay is compared with."""
    with socket.socket() as listener, tempfile.TemporaryDirectory(prefix="fastroute-bench-") as place:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError as error:
            raise NotStarted(
                f"port {port} of the provider: {error.strerror}; another --upstream-port would do"
            ) from error
        listener.listen(4096)
        command = [sys.executable, "-m", "fastroute.bench.upstream", str(listener.fileno())]
        with running(command, [cores.rest], Path(place), own_environment(), [listener.fileno()]) as process:
            port = listener.getsockname()[1]
            first_answer(process, Path(place), port, PATH, BODY, {}, 20)
            yield Subject(name="direct", settings="no gateway: the load asks the provider", port=port, pid=process.pid)


@contextmanager
def started(peer: Peer, homes: Path, cores: list[int], upstream: int, body: bytes = BODY) -> Iterator[Subject]:
    """An adapter's process that has answered once."""
    home = homes / peer.name
    missing = peer.lacks(home)
    if missing:
        raise NotStarted(missing)
    with tempfile.TemporaryDirectory(prefix="fastroute-bench-") as directory:
        place, port = Path(directory), free_port()
        for name, text in peer.files(port, upstream).items():
            (place / name).write_text(text)
        headers = peer.headers(place, upstream)
        environment = own_environment(**peer.environment(place, upstream))
        with running(peer.command(home, place, port, upstream), cores, place, environment) as process:
            ready = first_answer(process, place, port, PATH, body, headers, peer.start_s)
            yield Subject(
                name=peer.name,
                version=peer.version,
                settings=peer.settings,
                port=port,
                headers=headers,
                streams=peer.streams,
                pid=process.pid,
                ready_s=ready,
                place=place,
            )


def elsewhere(name: str, url: str, key: str | None) -> Subject:
    """A gateway that runs already; its provider should be ours, by `--upstream-port`."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise NotStarted(f"{url} is no address of a gateway; http://HOST[:PORT][/PREFIX] is")
    try:
        host = socket.gethostbyname(parts.hostname)
        port = parts.port or 80
    except (OSError, ValueError) as error:
        raise NotStarted(f"{url}: {error}") from error
    prefix = parts.path.rstrip("/")
    path = f"{prefix}/chat/completions" if prefix.endswith("/v1") else f"{prefix}{PATH}"
    headers = {"authorization": f"Bearer {key}"} if key else {}
    return Subject(
        name=name, settings=f"given as {url}; its CPU is not seen", host=host, port=port, path=path, headers=headers
    )
