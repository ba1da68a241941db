"""The face of the teller's hot half: whose token it is."""

from collections import OrderedDict

from fastroute.ledger._accounts import TillCore
from fastroute.ledger.accounts import Account
from fastroute.ledger.teller import Unknown

class Digester:
    """`tokens.digest` under one pepper: keyed once it takes 0.8 us, where keying it each time takes 2.0."""

    def __init__(self, pepper: bytes) -> None: ...
    def digest(self, token: bytes) -> bytes: ...

def siphash(secret: bytes, data: bytes) -> bytes:
    """SipHash-2-4 of 128 bits, with a secret of 16 bytes."""

class TellerCore(TillCore):
    """A till that knows tokens."""

    _digester: Digester
    _generation: memoryview[int]
    """The number that the bookkeeper moves with every change of an account."""
    _seen: int
    _cache: OrderedDict[bytes, Account]
    """By the digest of a token; one that was asked for lately comes late. The latest few are found without a digest."""
    _unknown: dict[bytes, Unknown]

    def forget(self) -> None:
        """Whose tokens there are is to be asked anew."""

    def known(self, token: bytes) -> Account | Unknown | None:
        """Whose token it is, as far as it is remembered; None when `find` must be awaited."""
