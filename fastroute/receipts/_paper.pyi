"""A receipt's bytes, written piece by piece in their one order, and signed."""

from fastroute.receipts.told import Particulars, Sealed

class Signer:
    """HMAC-SHA256 under one key, which is taken in once: half the time of a call that begins with the key."""

    def __init__(self, key: bytes) -> None: ...
    def sign(self, message: bytes) -> bytes:
        """The 32 bytes of its signature."""

class Sealer:
    """Signs one receipt after another. `seq` and `link` are those of the last one made, 0 and GENESIS when there is none.

    The same particulars in the same place give the same bytes, so a batch that could not be stored is made again by a
    sealer set back to the last stored receipt.
    """

    seq: int
    link: bytes
    kid: str

    def __init__(self, key: bytes, kid: str, seq: int = 0, link: bytes = ...) -> None: ...
    def use(self, key: bytes, kid: str) -> None:
        """Sign with another key from here on; the chain goes on."""

    def seal(self, told: Particulars) -> Sealed:
        """The next receipt. Details that have no canonical form are left out and named: the request has its receipt."""

def receipt_id(request_id: str) -> str:
    """`rcpt_` and 26 characters of base32, told from the request's id alone, so that a reply can name it beforehand.

    One to one for the ids this house makes; any other text is hashed.
    """
