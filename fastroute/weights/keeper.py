"""A process of weights from the side of those who use it: started when first wanted, shared, and started again if it dies.

Whoever wants it may start it; of several that are started at once one stays. It ends by itself when nobody is left.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from fastroute.config import Weights
from fastroute.weights.place import Place
from fastroute.weights.source import LINGER_S, Source, Spec, WeightsError

PROGRAM = ("-m", "fastroute.weights.child")

# The pause before it is started again, by how often it died soon after it began.
_PAUSES_S: Final = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)
# One that lived so long was well.
_SETTLED_S: Final = 10.0
# What cannot be loaded wants somebody to mend it, who shall not have to wait long afterwards.
_FAILED_PAUSE_S: Final = 5.0
_LOOK_S: Final = 0.05
_FAREWELL_S: Final = 2.0
# The process runs other people's native code: it is told no key of a provider. By their beginnings:
_ENVIRONMENT: Final = (
    "PATH", "HOME", "LANG", "LC_", "TZ", "TMPDIR", "USER", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "CUDA_", "NVIDIA_", "HIP_",
    "ROCR_", "OMP_", "MKL_", "GGML_", "HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME", "SSL_CERT_", "REQUESTS_CA_BUNDLE",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
)  # fmt: skip


class Unloadable(WeightsError):
    """The weights cannot be had now; what failed is tried again after a pause."""


class Address(Struct, frozen=True):
    """Where weights answer: the base URL and key for any OpenAI client, and the name of the model there."""

    base_url: str
    api_key: str
    model: str


class Keeper:
    """One process of weights, shared by all keepers of the same directory and spec; safe to use from any thread."""

    def __init__(self, directory: Path, spec: Spec, hub_token: str | None = None) -> None:
        self.spec = spec
        self._directory = directory
        self._hub_token = hub_token
        self._key = hashlib.sha256(msgspec.json.encode(spec)).hexdigest()[:16]
        self._place: Place | None = None
        self._child: int | None = None
        self._began = 0.0
        self._deaths = 0
        self._address: Address | None = None
        self._stamp: tuple[int, int] | None = None
        self._refused: tuple[float, str] | None = None  # until when, and why
        self._arriving: asyncio.Task[Address] | None = None
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        state = "ready" if self._address else "away"
        return f"<Keeper {self.spec.source.name} {state}>"

    @property
    def log(self) -> Path:
        """Where the process writes what its libraries say."""
        return self._directory.absolute() / f"{self._key}.log"

    def address(self) -> Address | None:
        """Where it answers, when it does now."""
        place = self._place
        # Of two keepers one may have seen a death that the other has not, and be served by a new process already.
        if self._address is not None and place is not None and place.alive() and place.stamp() == self._stamp:
            return self._address
        self._address = None
        return None

    async def arrive(self) -> Address:
        """Where it answers, once it does; `Unloadable` if it will not. Whoever gives up waiting takes no one's turn."""
        task = self._arriving
        if task is None or task.done():
            task = self._arriving = asyncio.get_running_loop().create_task(self._arrive())
            task.add_done_callback(lambda done: done.cancelled() or done.exception())
        await asyncio.wait({task})
        return task.result()

    def wait(self, patience_s: float) -> Address:
        """The same for those without an event loop."""
        until = time.monotonic() + patience_s
        while (address := self._step()) is None:
            if time.monotonic() > until:
                raise Unloadable(f"{self.spec.source.name} did not load in {patience_s:g} s")
            time.sleep(_LOOK_S)
        return address

    def end(self) -> None:
        """Let it go, and end the process if this keeper started it."""
        with self._lock:
            if self._child is not None and not self._reaped():
                os.kill(self._child, signal.SIGTERM)
                until = time.monotonic() + _FAREWELL_S
                while not self._reaped() and time.monotonic() < until:
                    time.sleep(_LOOK_S)
                if self._child is not None:
                    os.kill(self._child, signal.SIGKILL)
                    os.waitpid(self._child, 0)
                    self._child = None
            self._address = None
            if self._place is not None:
                self._place.close()
                self._place = None

    async def _arrive(self) -> Address:
        while True:  # it is another process that gets on, and says so in a file
            address = await asyncio.to_thread(self._step)
            if address is not None:
                return address
            await asyncio.sleep(_LOOK_S)

    def _step(self) -> Address | None:
        """Look, and do what is to be done now: nothing while it loads, start it when nobody does."""
        with self._lock:
            if self._place is None:
                self._place = Place(self._directory, self._key)
                self._place.hold()
            place = self._place
            if place.alive():
                stamp, told = place.stamp(), place.told()
                if told is None or told.state != "ready" or not _is_there(told.pid):
                    return None
                base_url = f"http://127.0.0.1:{told.port}/v1"
                self._stamp = stamp
                self._address = Address(base_url, told.token, self.spec.source.name)
                return self._address
            if self._child is not None and not self._reaped():
                return None  # it is on its way, or another was faster and this one is about to see that
            self._refuse_for_now(place)
            refusal = self.spec.source.refusal()
            if refusal is not None:
                raise Unloadable(refusal)
            self._start(place)
            return None

    def _refuse_for_now(self, place: Place) -> None:
        """`Unloadable` while what failed a moment ago need not be tried again."""
        told = place.told()
        if told is not None and told.state == "failed" and 0 <= time.time() - told.at < _FAILED_PAUSE_S:
            raise Unloadable(told.message)
        if self._refused is not None:
            until, message = self._refused
            if time.monotonic() < until:
                raise Unloadable(message)
            self._refused = None

    def _reaped(self) -> bool:
        """Whether the process that was started here has ended; how it did decides when another may start."""
        assert self._child is not None
        pid, status = os.waitpid(self._child, os.WNOHANG)
        if pid == 0:
            return False
        self._child = None
        code = os.waitstatus_to_exitcode(status)
        if code == 0:
            return True
        self._deaths = 0 if time.monotonic() - self._began > _SETTLED_S else self._deaths
        pause = _PAUSES_S[min(self._deaths, len(_PAUSES_S) - 1)]
        self._deaths += 1
        how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        name = self.spec.source.name
        self._refused = (time.monotonic() + pause, f"the process of {name} ended with {how}; see {self.log.name}")
        return True

    def _start(self, place: Place) -> None:
        told = json.dumps({"spec": msgspec.to_builtins(self.spec), "hub_token": self._hub_token})
        log = os.open(place.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        ours, theirs = os.pipe()
        try:
            # Neither a fork of a threaded process nor the working directory's modules.
            self._child = os.posix_spawn(
                sys.executable,
                [sys.executable, "-P", *PROGRAM, str(place.directory), place.key],
                _environment(self.spec, os.environ),
                file_actions=[(os.POSIX_SPAWN_DUP2, ours, 0), *((os.POSIX_SPAWN_DUP2, log, out) for out in (1, 2))],
                setsid=True,  # Ctrl-C is meant for the gateway, which has answers to end first
            )
            self._began = time.monotonic()
            with suppress(BrokenPipeError):  # it has ended already, and is buried at the next look
                os.write(theirs, told.encode())
        finally:
            for descriptor in (log, ours, theirs):
                os.close(descriptor)


class Keepers:
    """The keepers of one process, for all that it may serve one after another: what was loaded once stays."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._kept: dict[Spec, Keeper] = {}

    def of(self, spec: Spec, hub_token: str | None) -> Keeper:
        """The keeper of these weights run in this way."""
        kept = self._kept.get(spec)
        if kept is None:
            kept = self._kept[spec] = Keeper(self._directory, spec, hub_token)
        return kept


@contextmanager
def host(
    source: str,
    *,
    device: str = "cpu",
    threads: int | None = None,
    parallel: int = 1,
    context: int = 4096,
    cache_dir: str | Path = "data/hf_models",
    download: bool = False,
    hub_token: str | None = None,
    patience_s: float = 600.0,
) -> Iterator[Address]:
    """Weights in a process of their own, for as long as the block lasts: `base_url` and `api_key` for any OpenAI client.

    `source` is a path or a repository's name. The process ends with the block, and with this program however it ends.
    `WeightsError` says why weights cannot be loaded.
    """
    cores = threads_for_weights() if threads is None else threads
    place = str(Path(cache_dir).expanduser().absolute())
    spec = Spec(Source.of(source), device, cores, parallel, context, place, download, linger_s=0.0)
    import tempfile  # which nobody waits for who has a state directory

    with tempfile.TemporaryDirectory(prefix="fastroute-weights-") as directory:
        keeper = Keeper(Path(directory), spec, hub_token)
        try:
            yield keeper.wait(patience_s)
        finally:
            keeper.end()


def spec_of(source: Source, said: Weights, *, linger_s: float = LINGER_S) -> Spec:
    """How the settings of `weights` have a source run."""
    return Spec(
        source,
        said.device,
        said.threads or threads_for_weights(),
        said.parallel,
        said.context,
        str(said.cache_dir.expanduser().absolute()),
        said.download,
        linger_s,
    )


def threads_for_weights() -> int:
    """One fewer than the cores this process may use: llama.cpp's threads wait for one another with busy hands, and one
    that shares its core with a gateway made all of them sixteen times slower (2 cores, 0.8 against 12 tokens a second).
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(cores - 1, 1)


def _is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _environment(spec: Spec, environ: os._Environ[str]) -> dict[str, str]:
    kept = {name: value for name, value in environ.items() if name.startswith(_ENVIRONMENT)}
    offline = "0" if spec.download else "1"
    kept |= {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "HF_HUB_OFFLINE": offline,
        "TRANSFORMERS_OFFLINE": offline,
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": str(spec.threads),
    }
    return kept
