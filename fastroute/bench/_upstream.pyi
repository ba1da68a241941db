"""The compiled fake provider."""

from typing import NoReturn

def serve(
    listener: int,
    *,
    json: bytes,
    burst: tuple[bytes, ...],
    models: bytes,
    stream_head: bytes,
    before: bytes,
    after: bytes,
    end: bytes,
) -> NoReturn:
    """Answer on a listening, non-blocking descriptor until the process ends.

    A POST whose body has no `"stream":true` gets `json`; with it the pieces of `burst`, each in a write of
    its own, as a model's tokens come; or, when the body has
    `pace=WAIT,EVERY,EVENTS` (microseconds), `stream_head`, then events made of `before`, the instant of their writing
    in nanoseconds of the monotonic clock (19 digits) and `after`, then `end`. Anything but a POST gets `models`.
    """
