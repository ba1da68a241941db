"""The one way a receipt is written as bytes: JSON with sorted keys, no spaces, UTF-8 and integers only.

What is signed is this form, so that a receipt whose keys were put in another order, or that was indented, still verifies.
"""

from __future__ import annotations

import json
from typing import Any, Final, NoReturn

import orjson

from fastroute.errors import FastrouteError

BODY_MAX: Final = 1 << 20
_DEPTH_MAX: Final = 64
_INT64: Final = 1 << 63


class ReceiptError(FastrouteError):
    """A value has no canonical form, or bytes are no receipt."""


def canonical(value: Any) -> bytes:
    """A JSON value in its one form; `ReceiptError` for a float, a key that is no text, a number beyond 64 bits."""
    require_plain(value)
    return written(value)


def written(value: Any) -> bytes:
    """The same for a value that is known to be plain."""
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError as error:
        raise ReceiptError(f"this has no canonical form: {error}") from None


def require_plain(value: Any, depth: int = 0) -> None:
    """Refuse whatever JSON readers do not agree upon; floats first of all."""
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return
    if kind is int:
        if not -_INT64 <= value < _INT64:
            raise ReceiptError("a receipt holds integers of 64 bits, not longer ones")
        return
    if depth >= _DEPTH_MAX:
        raise ReceiptError(f"a receipt is at most {_DEPTH_MAX} levels deep")
    if kind is dict:
        for key, inner in value.items():
            if type(key) is not str:
                raise ReceiptError(f"a receipt's keys are text, not {type(key).__name__}")
            require_plain(inner, depth + 1)
    elif kind is list or kind is tuple:
        for inner in value:
            require_plain(inner, depth + 1)
    else:
        raise ReceiptError(f"a receipt holds text, integers, true, false and null, not {kind.__name__}")


def parse(body: bytes) -> dict[str, Any]:
    """The fields of a receipt in whatever order and spacing; `ReceiptError` when two readers might read it differently."""
    if len(body) > BODY_MAX:
        raise ReceiptError(f"a receipt is at most {BODY_MAX} bytes, not {len(body)}")
    fields = _as_we_write(body)
    if fields is None:
        fields = _as_others_write(body)
    if not isinstance(fields, dict):
        raise ReceiptError("a receipt is a JSON object")
    require_plain(fields)
    return fields


def _as_we_write(body: bytes) -> Any:
    """What is in its one form already holds no key twice, which a quick reader would not see; None when it is not."""
    try:
        fields = orjson.loads(body)
        return fields if written(fields) == body else None
    except (orjson.JSONDecodeError, ReceiptError):
        return None


def _as_others_write(body: bytes) -> Any:
    try:
        fields = json.loads(
            body.decode("utf-8"), object_pairs_hook=_once, parse_float=_no_float, parse_constant=_no_float
        )
    except UnicodeDecodeError:
        raise ReceiptError("this is not UTF-8") from None
    except RecursionError:
        raise ReceiptError(f"a receipt is at most {_DEPTH_MAX} levels deep") from None
    except ValueError:
        raise ReceiptError("this is not JSON") from None
    written(fields)  # refuses half a surrogate pair, which the other reader lets pass
    return fields


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ReceiptError("a key stands twice, and readers differ on which one counts")
    return fields


def _no_float(text: str) -> NoReturn:
    raise ReceiptError("a receipt holds whole numbers only")
