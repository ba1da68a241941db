"""What the books tell a worker of an account: the windows of its path, as tests of a worker's side write them."""

from fastroute.ledger.protocol import Facts, PathWindow


def window(number, limit=10**9, unit="microdollar", ends_in_ms=None):
    return PathWindow(number, unit, limit, "2026-11", "Europe/Oslo", ends_in_ms, f"key-{number}", "key")


def facts(*windows, account=1, expires_in_ms=None):
    return Facts(account, f"key-{account}", "key", "", windows, expires_in_ms)
