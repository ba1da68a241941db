"""Which addresses a gateway may connect to when somebody else than its operator names them.

An agent may announce its own machine: the address it comes from, or loopback when it comes from there. Whatever else is
for the operator to list. Addresses that only a machine itself, its cloud or its link should be asked at are never allowed.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final
from urllib.parse import urlsplit

from fastroute.errors import FastrouteError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# Where clouds tell a machine its credentials, beyond the link-local ones.
_METADATA: Final = frozenset(
    map(ip_address, ("100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254"))
)
_NAT64: Final = tuple(map(IPv6Network, ("64:ff9b::/96", "64:ff9b:1::/48")))
_PORT_NONE: Final = 0


class NotPermitted(FastrouteError):
    """An address is none that may be connected to, or none at all."""


class Permits:
    """What an operator lists: networks, and names of hosts. `NotPermitted` for an entry that is neither."""

    def __init__(self, listed: Iterable[str] = ()) -> None:
        self._networks: list[Network] = []
        self._hosts: set[str] = set()
        for text in listed:
            try:
                self._networks.append(ip_network(text, strict=False))
            except ValueError:
                if "/" in text or ":" in text or text.replace(".", "").isdigit():
                    raise NotPermitted(
                        f"{text!r} is no network, address or name of a host; say 10.0.0.0/8 or gpu.internal"
                    ) from None
                self._hosts.add(text.lower().rstrip("."))

    def allows(self, address: str, host: str, peer: str) -> bool:
        """Whether an endpoint of that host, announced from `peer` ("" is unknown), may be at this address."""
        found = _read(address)
        if found is None or _never(found):
            return False
        if host.lower().rstrip(".") in self._hosts or any(found in network for network in self._networks):
            return True
        near = _read(peer)
        return near is not None and (found == near or (found.is_loopback and near.is_loopback))


def check(permits: Permits, endpoint: str, peer: str, resolved: Iterable[str]) -> None:
    """Refuse an endpoint of which no address may be connected to: `NotPermitted` says which, and what would mend it."""
    host = urlsplit(endpoint).hostname or ""
    addresses = list(resolved)
    if not any(permits.allows(address, host, peer) for address in addresses):
        shown = ", ".join(dict.fromkeys(addresses)) or "no address"
        raise NotPermitted(
            f"endpoint: {host!r} is {shown}, where no agent may be: it may announce the address it comes from"
            f"{f' ({peer})' if peer else ''}, and what the operator lists in agents.allowed"
        )


def check_elsewhere(endpoint: str, resolved: Iterable[str], host: str, port: int) -> None:
    """Refuse an endpoint that is the gateway itself, listening at a host and a port: requests would go round in a circle."""
    url = urlsplit(endpoint)
    own = _read(host)
    if (url.port or (443 if url.scheme == "https" else 80)) != port:
        return
    for text in resolved:
        address = _read(text)
        if address is not None and (address.is_loopback or address == own):
            raise NotPermitted(f"endpoint: {endpoint} is this gateway itself; announce where the agent listens")


def shape_problem(endpoint: str) -> str | None:
    """What is wrong with the URL of an endpoint, before anybody is asked where it leads."""
    if not endpoint.isascii() or not endpoint.isprintable() or " " in endpoint or "\\" in endpoint:
        return "endpoint: wanted an http(s) URL in plain ASCII without blanks"
    try:
        url = urlsplit(endpoint)
        host, port = url.hostname, url.port
    except ValueError:
        return "endpoint: wanted an http(s) URL, such as http://127.0.0.1:5000"
    if url.scheme not in ("http", "https") or not host or port == _PORT_NONE:
        return f"endpoint: {endpoint[:80]!r} is no http(s) URL with a host, such as http://127.0.0.1:5000"
    if "@" in url.netloc:
        return "endpoint: a URL here carries no user or password"
    if url.query or url.fragment or "?" in endpoint or "#" in endpoint:
        return "endpoint: wanted the address alone, without a query or a fragment"
    if "%" in url.netloc:
        return "endpoint: a host here has no zone and no escapes"
    return None


def resolve(endpoint: str) -> list[str]:
    """The addresses of an endpoint's host; none when it has none. It blocks, and is asked beside the event loop."""
    url = urlsplit(endpoint)
    try:
        found = socket.getaddrinfo(
            url.hostname, url.port or (443 if url.scheme == "https" else 80), type=socket.SOCK_STREAM
        )
    except (OSError, UnicodeError):
        return []
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def _read(text: str) -> Address | None:
    """An address; one that is another's in disguise is that other."""
    try:
        found = ip_address(text)
    except ValueError:
        return None
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped is not None:
            return found.ipv4_mapped
        if any(found in network for network in _NAT64):
            return IPv4Address(int(found) & 0xFFFFFFFF)
    return found


def _never(address: Address) -> bool:
    if isinstance(address, IPv6Address):
        if address.sixtofour is not None or address.teredo is not None or address.is_site_local:
            return True
        if int(address) >> 32 == 0 and not address.is_loopback:  # ::a.b.c.d, which some stacks connect to
            return True
    return (
        address.is_unspecified
        or address.is_multicast
        or address.is_link_local
        or (address.is_reserved and not address.is_loopback)
        or address in _METADATA
        or (isinstance(address, IPv4Address) and int(address) >> 24 == 0)
    )
