"""What doors to the desk share: who asks, a question put to the bookkeeper, and bodies read as plain JSON objects."""

from __future__ import annotations

import hmac
from typing import Any

import msgspec
import orjson
from starlette.requests import Request

from fastroute import _scan
from fastroute.ledger.accounts import Account
from fastroute.ledger.teller import BooksUnreachable, Declined
from fastroute.relay import Failed
from fastroute.web import reading

BODY_MAX = 1024 * 1024
_SCANNER = _scan.RequestScanner()


async def ask(request: Request, operation: str, **arguments: Any) -> Any:
    """An operation of the desk; what it refuses, and books that cannot be reached, are a `Failed`."""
    teller = request.app.gateway.teller
    if teller is None:
        raise Failed(503, "server_error", "books_unavailable", "this gateway keeps no books: it serves without a state")
    try:
        return await teller.ask(operation, **arguments)
    except Declined as refused:
        kind = "server_error" if refused.status >= 500 else "invalid_request_error"
        raise Failed(refused.status, kind, refused.code, refused.message, param=refused.field or None) from None
    except BooksUnreachable as error:
        raise Failed(503, "server_error", "books_unavailable", str(error), retry_after_s=1) from None


async def asker(request: Request, *kinds: str) -> Account:
    """Whose token came with the request; `Failed` 401 without one, 403 when its kind may not ask here."""
    account: Account = await request.app.data.who(request.scope)
    if account.id == 0:
        raise Failed(401, "authentication_error", "missing_api_key", "send your key as a bearer token or x-api-key")
    if kinds and account.facts.kind not in kinds:
        message = f"a {account.facts.kind} may not ask for this; {' or '.join(kinds)} may"
        raise Failed(403, "permission_error", "insufficient_scope", message)
    request.app.data.doorman.admit_asker(account)
    return account


def administrator(request: Request) -> None:
    """Only who brings the admin key gets past here; to everybody else there is nothing at the path.

    A wrong one counts as a caller's wrong key does: `Failed` 429 for an address with too many.
    """
    key = request.app.gateway.config.auth.admin_key
    given = reading.credential(reading.look(request.scope["headers"]), b"")
    if key is None or given is None or not hmac.compare_digest(given.encode("latin-1"), key.reveal().encode()):
        if key is not None and given is not None:
            request.app.data.doorman.mind(request.scope)
        hint = " (set FASTROUTE_ADMIN_KEY to have one)" if key is None else ""
        raise Failed(404, "invalid_request_error", "not_found", f"nothing is served at {request.scope['path']}{hint}")


async def fields(request: Request) -> dict[str, Any]:
    """The body as a JSON object, checked as strictly as a request's; numbers with a point stay the text they are."""
    body = await body_of(request)
    if not body:
        return {}
    try:
        _SCANNER.scan(body)
        found = msgspec.json.decode(body, strict=True)
        if isinstance(found, dict):
            # A dollar amount must not pass through a float on its way.
            if isinstance(found.get("budget_usd"), float):
                found["budget_usd"] = bytes(msgspec.json.decode(body, type=_Dollars).budget_usd).decode()
            if _fits(found):
                return found
            raise Failed(400, "invalid_request_error", "invalid_request", "a number in the body is beyond 64 bits")
    except (_scan.ScanError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Failed(400, "invalid_request_error", "invalid_json", f"the body cannot be read: {error}") from None
    raise Failed(400, "invalid_request_error", "invalid_json", "the body is a JSON object")


def _fits(value: object) -> bool:
    """Whether every number can be written down where the books are kept."""
    if isinstance(value, dict):
        return all(map(_fits, value.values()))
    if isinstance(value, list):
        return all(map(_fits, value))
    return not isinstance(value, int) or -(2**63) <= value < 2**63


class _Dollars(msgspec.Struct):
    budget_usd: msgspec.Raw


async def body_of(request: Request, most: int = BODY_MAX) -> bytes:
    return await reading.whole(reading.look(request.scope["headers"]), request.receive, most)


def plain(value: Any) -> Any:
    """A value of ours as JSON's own types."""
    return orjson.loads(msgspec.json.encode(value))
