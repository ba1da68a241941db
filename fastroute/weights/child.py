"""The process that owns weights: `python -m fastroute.weights.child DIRECTORY KEY`, with what to load on its input.

It listens on a port of loopback with a key made at its start, says so in its place, and ends when nobody holds it.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import secrets
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from fastroute.weights.place import Place, Told
from fastroute.weights.source import Running, Spec, WeightsError

_LOOK_S: Final = 0.25
_SPEC_MAX: Final = 65_536
# When memory runs out the weights go first: they come back by themselves, and nobody's money is in them.
_OOM_SCORE: Final = "500"
# Who relays answers comes before who makes them.
_NICE: Final = 5


class _Input(Struct, frozen=True):
    spec: Spec
    hub_token: str | None = None


def main(arguments: list[str]) -> int:
    """Serve until nobody is left; 0 then, or when another host was faster, 1 when the weights cannot be loaded."""
    given = msgspec.json.decode(os.read(0, _SPEC_MAX), type=_Input)
    place = Place(Path(arguments[0]), arguments[1])
    if not place.claim():
        return 0
    os.ftruncate(2, 0)
    os.nice(_NICE)
    with contextlib.suppress(OSError):  # elsewhere than on Linux there is no such file
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
    threading.Thread(target=_end_when_alone, args=(place, given.spec.linger_s), daemon=True).start()
    place.tell(Told("loading", os.getpid(), time.time()))
    token = secrets.token_urlsafe(32)
    try:
        missing = given.spec.source.missing_extra()
        if missing is not None:
            raise WeightsError(missing)
        engine = importlib.import_module(f"fastroute.weights.{given.spec.source.engine}")
        running: Running = engine.serve(given.spec, token, given.hub_token)
    except WeightsError as error:
        place.tell(Told("failed", os.getpid(), time.time(), message=str(error)))
        sys.stderr.write(f"{error}\n")
        return 1
    place.tell(Told("ready", os.getpid(), time.time(), port=running.port, token=token))
    while True:
        signal.pause()


def _end_when_alone(place: Place, linger_s: float) -> None:
    """End this process once nobody has held it for so long."""
    since: float | None = None
    while True:
        now = time.monotonic()
        if not place.alone():
            since = None
        else:
            since = now if since is None else since
            if now - since >= linger_s:
                place.forget()
                os._exit(0)  # libraries' threads are in mid-sentence, and nobody listens
            place.shared()
        time.sleep(_LOOK_S)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
