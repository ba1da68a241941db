"""The face of the counting of names."""

class Counted:
    """Names with a beginning of their own, counted from there."""

    def __init__(self, prefix: str, request_prefix: str) -> None: ...
    def decision(self) -> str:
        """`rd_` and 26 characters of lower-case base32."""

    def request(self) -> str:
        """`req_` and at least nine characters."""
