"""What must hold in the book at every instant, told as sentences where it does not.

It looks at what the book is made of and recomputes; the arithmetic that it checks is not used to check it. The names
I1 to I10 are those of the invariants that the ledger promises.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fastroute.ledger.balances import Account, Budget, Holder, Window


def faults(
    accounts: Mapping[int, Account],
    budgets: Mapping[int, Budget],
    windows: Mapping[int, Window],
    holders: Mapping[int, Holder],
) -> list[str]:
    """Every sentence of every check, in the order of the invariants."""
    return [
        *(fault for window in windows.values() for fault in _window(window)),
        *(fault for holder in holders.values() for fault in _holder(holder, windows)),
        *(fault for account in accounts.values() for fault in _account(account)),
        *(fault for budget in budgets.values() for fault in _budget(budget)),
    ]


def _window(window: Window) -> Iterator[str]:
    out = sum(max(lease.granted - lease.released, lease.spent) for lease in window.leases.values())
    if out != window.out:
        yield f"I1: window {window.id} has {out} out with its leases and counts {window.out}"
    left = window.budget.row.amount - window.closed - out
    if left < -window.excused:
        yield f"I1: window {window.id} has {left} left, and nothing explains more than {-window.excused}"
    for lease in window.leases.values():
        name = f"lease of holder {lease.holder.id} on window {window.id}"
        if not 0 <= lease.released <= lease.granted:
            yield f"I2: {name} released {lease.released} of {lease.granted}"
        if not 0 <= lease.spent <= lease.granted - lease.released + lease.breached:
            yield f"I2: {name} spent {lease.spent} of {lease.granted - lease.released}"
        if lease.done or lease.holder.leases.get(window.id) is not lease or not lease.holder.live:
            yield f"I9: {name} is over, yet out"


def _holder(holder: Holder, windows: Mapping[int, Window]) -> Iterator[str]:
    if holder.live is False and (holder.leases or holder.attempts or holder.requests):
        yield f"I9: holder {holder.id} is dead and holds something"
    held: dict[int, int] = {}
    for _, _, send in holder.attempts.values():
        for window, reserved in zip(send.windows, send.reserved, strict=True):
            held[window] = held.get(window, 0) + reserved
    for number, lease in holder.leases.items():
        if windows.get(number) is not lease.window:
            yield f"I9: holder {holder.id} holds a lease on window {number}, which is not kept"
        if lease.spent + held.get(number, 0) > lease.granted + lease.breached:
            yield f"I3: holder {holder.id} spent {lease.spent} and holds {held[number]} of {lease.granted} on {number}"
    open_ = {
        send.attempt: place
        for underway in holder.requests.values()
        for place, (send, settle) in enumerate(zip(underway.sends, underway.settles, strict=True))
        if settle is None
    }
    if open_ != {attempt: place for attempt, (_, place, _) in holder.attempts.items()}:
        yield f"I4: holder {holder.id} has attempts {sorted(holder.attempts)} open, its requests {sorted(open_)}"


def _account(account: Account) -> Iterator[str]:
    name = account.row.public_id
    if account.allocated:
        window = account.budgets[0].windows[-1]
        if account.allocation is None:
            if account.row.state == "live":
                yield f"I10: {name} is live and holds nothing of its parent's"
            if window.leases:
                yield f"I9: {name} went home while something of it was out"
        elif set(window.up) != set(account.allocation.leases.values()):
            yield f"I10: {name} spends from other leases than it holds"
        spent = window.closed + sum(lease.spent for lease in window.leases.values())
        for lease in window.up:
            if lease.spent != spent:
                yield f"I10: {name} spent {spent}, and {lease.spent} of its parent's window {lease.window.id}"
    elif account.allocation is not None:
        yield f"I10: {name} is no allocation and holds one"


def _budget(budget: Budget) -> Iterator[str]:
    names = [window.name for window in budget.windows]
    if names != sorted(set(names)):
        yield f"windows of budget {budget.row.id} go back or come twice: {names}"
