"""Who an anonymous caller is: the last address that is not one of our own proxies'."""

import pytest

from fastroute.limits import KEY_MAX, Addresses

PROXIES = ("10.0.0.0/8", "fd00::/8")


def scope(peer, *forwarded: str) -> dict:
    headers = [(b"host", b"here"), *((b"x-forwarded-for", value.encode("latin-1")) for value in forwarded)]
    return {"type": "http", "client": (peer, 4711) if peer else None, "headers": headers}


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.9", (), "203.0.113.9"),
        ("203.0.113.9", ("198.51.100.1",), "203.0.113.9"),  # not a proxy of ours: what it says is its own affair
        ("10.1.1.1", ("198.51.100.1",), "198.51.100.1"),
        ("10.1.1.1", ("1.2.3.4, 198.51.100.1",), "198.51.100.1"),  # what the client made up is before it
        ("10.1.1.1", ("1.2.3.4", "198.51.100.1, 10.2.2.2"), "198.51.100.1"),
        ("10.1.1.1", ("10.3.3.3, 10.2.2.2",), "10.3.3.3"),
        ("10.1.1.1", (), "10.1.1.1"),
        ("10.1.1.1", ("",), "10.1.1.1"),
        ("10.1.1.1", ("1.2.3.4, unknown, 10.2.2.2",), "10.2.2.2"),
        ("10.1.1.1", ("1.2.3.4, \xff\xfe",), "10.1.1.1"),
        ("10.1.1.1", ("198.51.100.1:8080",), "198.51.100.1"),
        ("10.1.1.1", ("[2001:db8:1:2::9]:443",), "2001:db8:1:2::/64"),
        ("fd00::1", ("2001:db8:1:2:3:4:5:6",), "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::1", (), "2001:db8:1:2::/64"),
        ("::ffff:203.0.113.9", (), "203.0.113.9"),
        ("::ffff:10.1.1.1", ("198.51.100.1",), "198.51.100.1"),
        ("fe80::1%eth0", (), "fe80::/64"),
        (None, ("198.51.100.1",), "unknown"),
        ("no address", ("198.51.100.1",), "unknown"),
    ],
)
def test_the_client_is_the_last_that_is_not_one_of_our_proxies(peer, forwarded, client):
    assert Addresses(PROXIES).client(scope(peer, *forwarded)) == client


def test_nobody_is_believed_unless_configured():
    assert Addresses().client(scope("127.0.0.1", "198.51.100.1")) == "127.0.0.1"


def test_a_header_of_any_length_is_read_from_its_end():
    said = ", ".join(["1.2.3.4"] * 10_000 + ["198.51.100.1", "10.9.9.9"])
    assert Addresses(PROXIES).client(scope("10.1.1.1", said)) == "198.51.100.1"


def test_keys_are_those_of_every_worker_and_of_no_account():
    """They hang on the host's secret: nobody outside can choose addresses that crowd one place of the table."""
    one, two, other = (Addresses(PROXIES, secret=secret) for secret in (b"s" * 16, b"s" * 16, b"t" * 16))
    asked = scope("10.1.1.1", "198.51.100.1")
    assert one.key(asked) == two.key(asked) != other.key(asked)
    assert all(1 << 61 <= addresses.key(asked) <= KEY_MAX for addresses in (one, other))
    assert one.key(scope("2001:db8::1")) == one.key(scope("2001:db8::2")) != one.key(scope("2001:db8:0:1::2"))


def test_a_network_that_is_none_is_refused():
    with pytest.raises(ValueError):
        Addresses(["10.0.0.1/8"])
