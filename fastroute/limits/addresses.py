"""Who an anonymous caller is: the address it comes from, as far as it can be believed.

A peer says its own address; what a proxy says of others counts only where the proxy is one of ours. Each of ours added
whom it heard from at the end of `X-Forwarded-For`, so the client is the last there that is not one of ours; all
before it is only what the client says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

Network = IPv4Network | IPv6Network

UNKNOWN = "unknown"
# A household has a /64 or more, and all of its addresses at once.
_PREFIX = 64
# Accounts' ids are below this, so an address never shares a slot with one.
_ANONYMOUS = 1 << 61
_FORWARDED_MAX = 1024


class Addresses:
    """Clients' addresses, by the proxies that are believed, and their keys, by the host's secret."""

    def __init__(self, trusted: Sequence[Network | str] = (), *, secret: bytes = b"") -> None:
        self._trusted = tuple(ip_network(network) if isinstance(network, str) else network for network in trusted)
        self._secret = secret
        # Bounded: a caller who comes from many addresses only makes itself slower.
        self._believed = lru_cache(maxsize=4096)(self._believes)
        self._keys = lru_cache(maxsize=4096)(self._key)

    def client(self, scope: Mapping[str, Any]) -> str:
        """An IPv4 address, or the /64 of an IPv6 one; `unknown` for a peer without an address."""
        return self._client(*self._said(scope))

    def key(self, scope: Mapping[str, Any]) -> int:
        """The client's key in the table of limits: a keyed hash above every account's id."""
        return self._keys(*self._said(scope))

    def _said(self, scope: Mapping[str, Any]) -> tuple[str, bytes]:
        """The peer, and what it says of others if it is one of ours."""
        peer = scope.get("client")
        if not peer:
            return "", b""
        text: str = peer[0]
        if not self._trusted or not self._believed(text):
            return text, b""
        values = [value for name, value in scope["headers"] if name == b"x-forwarded-for"]
        return text, b",".join(values)[-_FORWARDED_MAX:]  # several lines are one list, and only its end is ours

    def _believes(self, peer: str) -> bool:
        address = _address(peer)
        return address is not None and any(address in network for network in self._trusted)

    def _client(self, peer: str, said: bytes) -> str:
        client = _address(peer)
        if client is None:
            return UNKNOWN
        for text in reversed(said.decode("latin-1").split(",")) if said else ():
            address = _address(text.strip())
            if address is None:
                break  # nobody can say who stands behind it; the proxy that passed it on answers for it
            client = address
            if not any(address in network for network in self._trusted):
                break
        if isinstance(client, IPv6Address):
            return str(IPv6Network((client, _PREFIX), strict=False))
        return str(client)

    def _key(self, peer: str, said: bytes) -> int:
        digest = hashlib.blake2b(self._client(peer, said).encode(), digest_size=8, key=self._secret).digest()
        return int.from_bytes(digest, "little") % _ANONYMOUS | _ANONYMOUS


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """With or without a port, in brackets or not; an IPv4 address written as an IPv6 one is the IPv4 address."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address
