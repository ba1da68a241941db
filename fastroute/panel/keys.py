"""Virtual keys at the desk: made, listed, changed, rotated, revoked. A token is told once, when it is made."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from fastroute.domain import MICRODOLLARS_MAX, TOKENS_MAX
from fastroute.ledger.book import Budget, Refused
from fastroute.ledger.store import AccountKind, AccountRow, BudgetRow, Unit, WindowKind
from fastroute.panel import agents, views
from fastroute.panel.counter import ALLOCATED, Counter
from fastroute.panel.wording import INSTANT_MAX_MS

NAME_MAX = 200
MODELS_MAX = 1000
METADATA_MAX = 16
# A key that was rotated may be used a while longer, so that its users can be told.
GRACE_MAX_MS = 7 * 86_400_000
KINDS = ("key", "agent", "user")
# The largest number is how the books say "no limit".
LIMIT_MAX = MICRODOLLARS_MAX - 1
_LIMITS: tuple[str, ...] = ("rpm", "tpm", "concurrency")
_BUDGETS: tuple[tuple[str, Unit], ...] = (("budget_microdollars", "microdollar"), ("daily_tokens", "token"))


class Create(Struct, forbid_unknown_fields=True):
    """A new account with a token; what is left out is not limited."""

    name: str
    kind: Literal["key", "agent", "user"] = "key"
    budget_microdollars: int | None = None
    window: Literal["total", "daily", "monthly"] = "total"
    zone: str = "UTC"
    daily_tokens: int | None = None
    rpm: int | None = None
    tpm: int | None = None
    concurrency: int | None = None
    models: list[str] = []
    parent: str | None = None
    expires_ms: int | None = None
    metadata: dict[str, str] = {}
    prefer: Literal["cost", "latency"] | None = None


class Change(Struct, forbid_unknown_fields=True):
    """New limits for a key; a field that is left out stays, a null takes the limit away.

    A limit that is there keeps its window; a new one is over everything (money) or a day (tokens).
    """

    id: str
    changes: dict[str, Any]


class Named(Struct, forbid_unknown_fields=True):
    id: str


class List(Struct, forbid_unknown_fields=True):
    """Accounts in the order they were opened; `after` is the id of the last that was told, to go on from."""

    kinds: tuple[AccountKind, ...] = ("key",)
    live: bool = False  # only those
    limit: int | None = None
    after: str | None = None


class Rotate(Struct, forbid_unknown_fields=True):
    """A new token for the same account; the old one is good for `grace_ms` more."""

    id: str
    grace_ms: int = 0


def create(counter: Counter, asked: Create) -> dict[str, Any]:
    name = asked.name
    if not name or len(name) > NAME_MAX or not name.isprintable() or name != name.strip():
        raise Refused(400, "invalid_request", f"a name is printable and has 1 to {NAME_MAX} characters", "name")
    taken = counter.called(asked.kind, name)
    if taken is not None and taken.state == "live":
        raise Refused(
            409, "name_taken", f"a live {asked.kind} is already called {name!r}; revoke it or choose another", "name"
        )
    check_limits({"rpm": asked.rpm, "tpm": asked.tpm, "concurrency": asked.concurrency})
    check_models(asked.models)
    check_metadata(asked.metadata)
    check_expiry(asked.expires_ms)
    if asked.expires_ms is not None and asked.expires_ms <= counter.now_ms:
        raise Refused(400, "invalid_request", "it would have expired already", "expires")
    parent = None if asked.parent is None else _parent(counter, asked.parent)
    budgets = []
    if asked.budget_microdollars is not None:
        amount(asked.budget_microdollars, LIMIT_MAX, "budget_microdollars")
        budgets.append(Budget("microdollar", asked.budget_microdollars, asked.window, asked.zone))
    if asked.daily_tokens is not None:
        amount(asked.daily_tokens, LIMIT_MAX, "daily_tokens")
        budgets.append(Budget("token", asked.daily_tokens, "daily", asked.zone))
    token, digest = counter.token("agent" if asked.kind == "agent" else "key")
    row = counter.book.open_account(
        public_id=f"{asked.kind}_{token.id}",
        kind=asked.kind,
        name=name,
        digest=None if asked.kind == "user" else digest,
        hint="" if asked.kind == "user" else token.hint,
        created_ms=counter.now_ms,
        parent=None if parent is None else parent.id,
        expires_ms=asked.expires_ms,
        models=tuple(asked.models),
        rpm=asked.rpm,
        tpm=asked.tpm,
        concurrency=asked.concurrency,
        metadata=dict(asked.metadata),
        prefer=asked.prefer,
        budgets=budgets,
    )
    counter.note_name(row)
    shown = views.account(counter, row)
    return shown if asked.kind == "user" else {**shown, "key": token.text}


def list_(counter: Counter, asked: List) -> list[dict[str, Any]]:
    if asked.limit is not None and asked.limit < 1:
        raise Refused(400, "invalid_request", "a limit is 1 or more", "limit")
    after = 0
    if asked.after is not None:
        last = counter.book.by_public(asked.after)
        if last is None:
            raise Refused(404, "key_not_found", f"no account has the id {asked.after!r}", "after")
        after = last.id
    rows = [
        row
        for kind in dict.fromkeys(asked.kinds)
        for row in counter.book.accounts(kind)
        if row.id > after and not (asked.live and row.state != "live")
    ]
    rows.sort(key=lambda row: row.id)
    return [views.account(counter, row) for row in rows[: asked.limit]]


def show(counter: Counter, asked: Named) -> dict[str, Any]:
    return views.account(counter, find(counter, asked.id))


def change(counter: Counter, asked: Change) -> dict[str, Any]:
    row = live(find(counter, asked.id))
    wanted = dict(asked.changes)
    # Everything is checked before anything is changed: what is refused leaves no half behind.
    limits = {unit: wanted.pop(field) for field, unit in _BUDGETS if field in wanted}
    for field, unit in _BUDGETS:
        if limits.get(unit) is not None:
            amount(limits[unit], LIMIT_MAX, field)
    fields: dict[str, Any] = {field: wanted.pop(field) for field in _LIMITS if field in wanted}
    check_limits(fields)
    if "models" in wanted:
        models = [] if wanted["models"] is None else wanted["models"]
        del wanted["models"]
        check_models(models)
        fields["models"] = tuple(models)
    if "metadata" in wanted:
        metadata = {} if wanted["metadata"] is None else wanted["metadata"]
        del wanted["metadata"]
        check_metadata(metadata)
        fields["metadata"] = dict(metadata)
    if "expires_ms" in wanted:
        fields["expires_ms"] = wanted.pop("expires_ms")
        check_expiry(fields["expires_ms"])
    if "prefer" in wanted:
        fields["prefer"] = wanted.pop("prefer")
        check_preference(fields["prefer"])
    if wanted:
        known = "budget_microdollars, daily_tokens, rpm, tpm, concurrency, models, metadata, prefer, expires"
        raise Refused(400, "invalid_request", f"{min(wanted)!r} cannot be changed; there are {known}", min(wanted))
    _set_budgets(counter, row, limits)
    if fields:
        row = counter.book.change_account(row.id, **fields)
    return views.account(counter, row)


def _set_budgets(counter: Counter, row: AccountRow, limits: dict[Unit, int | None]) -> None:
    own: dict[str, BudgetRow] = {each.unit: each for each in counter.book.budgets(row.id)}
    zone = next((each.zone for each in own.values()), "UTC")
    done: list[tuple[Unit, int | None, WindowKind, str]] = []
    try:
        for unit, limit in limits.items():
            before = own.get(unit)
            window: WindowKind = "total" if unit == "microdollar" else "daily"
            if before is not None:
                window, zone = before.window, before.zone
            counter.book.set_budget(row.id, unit, limit, window, zone)
            done.append((unit, None if before is None else before.amount, window, zone))
    except Refused:  # a second new limit may be one too many for somebody's path
        for undone in done:
            counter.book.set_budget(row.id, *undone)
        raise


def rotate(counter: Counter, asked: Rotate) -> dict[str, Any]:
    row = live(find(counter, asked.id))
    if row.kind == "user":
        raise Refused(400, "invalid_request", "a user has no key that could be rotated", "id")
    if not 0 <= asked.grace_ms <= GRACE_MAX_MS:
        raise Refused(400, "invalid_request", f"a grace is 0 to {GRACE_MAX_MS // 1000} seconds", "grace")
    token, digest = counter.token("agent" if row.kind == "agent" else "key")
    until = counter.now_ms + asked.grace_ms
    row = counter.book.change_account(
        row.id,
        digest=digest,
        hint=token.hint,
        replaced=row.digest if asked.grace_ms else None,
        replaced_until_ms=until if asked.grace_ms else None,
    )
    return {**views.account(counter, row), "key": token.text}


def revoke(counter: Counter, asked: Named) -> dict[str, Any]:
    """With all that hang on it, and the agents that announced themselves with it."""
    row = end(counter, find(counter, asked.id))
    for one in counter.family(row):
        if one.kind == "agent":
            agents.leave(counter, one.id)
    return views.account(counter, row)


def end(counter: Counter, row: AccountRow) -> AccountRow:
    """No more for this account and all that hang on it; what an allocation did not spend goes back where it came from."""
    for one in reversed(counter.family(row)):
        if one.state != "live":
            continue
        if one.kind in ALLOCATED:
            counter.book.end_allocation(one.id, "revoked")
        else:
            counter.book.change_account(one.id, state="revoked")
    return counter.account(row.id)


def find(counter: Counter, text: str) -> AccountRow:
    """By id, or by name: of the one that is live, else of the last that was."""
    row = counter.book.by_public(text)
    if row is not None and row.kind in KINDS:
        return row
    named = [row for kind in KINDS if (row := counter.called(kind, text)) is not None]
    found = [row for row in named if row.state == "live"] or named
    if not found:
        raise Refused(404, "key_not_found", f"no key has the id or the name {text!r}", "id")
    if len(found) > 1:
        several = " and ".join(row.public_id for row in found)
        raise Refused(409, "name_ambiguous", f"{several} are called {text!r}; ask by id", "id")
    return found[0]


def live(row: AccountRow) -> AccountRow:
    if row.state != "live":
        raise Refused(409, "key_revoked", f"{row.public_id} is {row.state} and takes no changes")
    return row


def _parent(counter: Counter, text: str) -> AccountRow:
    row = find(counter, text)
    if row.kind != "key":
        raise Refused(
            400, "invalid_request", f"{row.public_id} is a {row.kind}; only a key has others below it", "parent"
        )
    if counter.standing(row) != "live":
        raise Refused(409, "key_revoked", f"{row.public_id} is {counter.standing(row)}", "parent")
    return row


def amount(value: object, most: int, field: str) -> None:
    if type(value) is not int or not 0 <= value <= most:
        raise Refused(400, "invalid_request", f"wanted a whole number from 0 to {most}, found {value!r}", field)


def check_limits(limits: dict[str, Any]) -> None:
    for field, value in limits.items():
        if value is not None:
            amount(value, TOKENS_MAX, field)


def check_expiry(ms: object) -> None:
    if ms is not None:
        amount(ms, INSTANT_MAX_MS, "expires")


def check_models(models: object) -> None:
    if not isinstance(models, list) or not all(isinstance(name, str) and 0 < len(name) <= NAME_MAX for name in models):
        raise Refused(400, "invalid_request", f"models are a list of names of 1 to {NAME_MAX} characters", "models")
    if len(models) > MODELS_MAX:
        raise Refused(400, "invalid_request", f"at most {MODELS_MAX} models are named", "models")


def check_preference(prefer: object) -> None:
    if prefer not in (None, "cost", "latency"):
        raise Refused(
            400, "invalid_request", f"a key prefers cost or latency, or null for neither, not {prefer!r}", "prefer"
        )


def check_metadata(metadata: object) -> None:
    if isinstance(metadata, dict) and len(metadata) <= METADATA_MAX and all(map(_is_pair, metadata.items())):
        return
    message = f"metadata is at most {METADATA_MAX} pairs of text, names of 1 to 64 and values to 512 characters"
    raise Refused(400, "invalid_request", message, "metadata")


def _is_pair(pair: tuple[object, object]) -> bool:
    name, value = pair
    return isinstance(name, str) and isinstance(value, str) and 0 < len(name) <= 64 and len(value) <= 512
