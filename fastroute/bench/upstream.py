"""The fake provider as a process: `python -m fastroute.bench.upstream DESCRIPTOR`, a socket that listens already."""

from __future__ import annotations

import os
import signal
import sys

from fastroute.bench import _upstream
from fastroute.bench.traffic import (
    AFTER,
    ANSWER,
    BEFORE,
    END,
    EVENTS,
    MODELS,
    STREAM_HEAD,
    piece,
    whole,
)


def main(listener: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python is never asked again once it serves
    os.set_blocking(listener, False)
    _upstream.serve(
        listener,
        json=whole(ANSWER),
        burst=(STREAM_HEAD, *(piece(event) for event in EVENTS), END),
        models=whole(MODELS),
        stream_head=STREAM_HEAD,
        before=BEFORE,
        after=AFTER,
        end=b"".join((*(piece(event) for event in EVENTS[-3:]), END)),
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
