"""A receipt's bytes, written piece by piece in their one order."""

from collections.abc import Callable
from typing import Any

from fastroute.receipts.told import Particulars

def written(
    told: Particulars,
    name: str,
    kid: str,
    model: str,
    details: dict[str, Any],
    previous: bytes,
    seq: int,
    ts: str,
    version: int,
    sign: Callable[[bytes], bytes],
) -> tuple[bytes, bytes]:
    """The receipt's bytes and its signature, which `sign` makes of those without it.

    `model` and `details` are told instead of the particulars' own: nothing in them looks like a key.
    """

def receipt_id(request_id: str) -> str:
    """`rcpt_` and 26 characters of base32, told from the request's id alone, so that a reply can name it beforehand.

    One to one for the ids this house makes; any other text is hashed.
    """
