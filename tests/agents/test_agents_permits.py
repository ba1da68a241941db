"""Where an agent may be: at the address it speaks from, and where the operator says; never where clouds keep secrets."""

import pytest

from fastroute.upstreams.permits import NotPermitted, Permits, check, check_elsewhere, resolve, shape_problem

ANYWHERE = Permits(["0.0.0.0/0", "::/0", "gpu.internal"])


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254", "169.254.0.1", "fe80::1", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254",
        "0.0.0.0",  # noqa: S104  looked at, not bound
        "0.1.2.3", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "240.0.0.1",
        "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "64:ff9b:1::a9fe:a9fe", "2002:a9fe:a9fe::1",
        "2001:0:a9fe:a9fe::1", "::169.254.169.254", "fec0::1", "nonsense", "",
    ],
)  # fmt: skip
def test_some_addresses_nobody_can_list(address: str) -> None:
    """S13: a metadata service, a link, a multicast group, and every disguise of one."""
    assert not ANYWHERE.allows(address, "gpu.internal", address)


@pytest.mark.parametrize(
    ("address", "peer", "allowed"),
    [
        ("127.0.0.1", "127.0.0.1", True),
        ("::1", "127.0.0.1", True),
        ("127.8.9.1", "::1", True),
        ("::ffff:127.0.0.1", "127.0.0.1", True),
        ("10.1.2.3", "10.1.2.3", True),
        ("::ffff:10.1.2.3", "10.1.2.3", True),
        ("10.1.2.4", "10.1.2.3", False),
        ("127.0.0.1", "10.1.2.3", False),  # the gateway's own machine is not the agent's
        ("10.1.2.3", "127.0.0.1", False),
        ("127.0.0.1", "", False),  # behind a proxy nobody knows who speaks
        ("8.8.8.8", "127.0.0.1", False),
    ],
)
def test_by_itself_an_agent_is_where_it_speaks_from(address: str, peer: str, allowed: bool) -> None:
    assert Permits().allows(address, "host", peer) is allowed


def test_the_operator_lists_networks_addresses_and_hosts() -> None:
    permits = Permits(["10.0.0.0/8", "192.168.7.7", "fd12::/16", "GPU.internal."])
    assert permits.allows("10.200.3.4", "x", "")
    assert permits.allows("192.168.7.7", "x", "")
    assert permits.allows("fd12::9", "x", "")
    assert permits.allows("172.16.0.9", "gpu.internal", "")
    assert not permits.allows("172.16.0.9", "other.internal", "")
    assert not permits.allows("192.168.7.8", "x", "")


@pytest.mark.parametrize("entry", ["10.0.0.0/33", "10.0.0", "fd12::/129", "::g", "http://x"])
def test_an_entry_that_means_nothing_is_refused(entry: str) -> None:
    with pytest.raises(NotPermitted, match="no network, address or name"):
        Permits([entry])


@pytest.mark.parametrize(
    "endpoint",
    [
        "", "x", "ftp://127.0.0.1/", "file:///etc/passwd", "http://", "http:///x", "http://user:pw@127.0.0.1/", "http://a@b",
        "http://127.0.0.1:0", "http://127.0.0.1:99999", "http://127.0.0.1/?a=b", "http://127.0.0.1/#x", "http://[fe80::1%eth0]/",
        "http://127.0.0.1\\@evil/", "http://127.0.0.1 /", "http://exämple/", "http://a\r\nb", "http://127.0.0.1:5000?", "gopher://x",
        "http://%31%32%37.0.0.1/", "//127.0.0.1", "http://[::1",
    ],
)  # fmt: skip
def test_an_endpoint_is_a_plain_url(endpoint: str) -> None:
    assert shape_problem(endpoint)


def test_a_plain_endpoint_has_nothing_wrong() -> None:
    for endpoint in ("http://127.0.0.1:5000", "https://gpu.internal/base", "http://[::1]:5000/v1"):
        assert shape_problem(endpoint) is None


@pytest.mark.parametrize(
    "disguise", ["http://2130706433:5000", "http://0x7f.1:5000", "http://0177.0.0.1:5000", "http://127.1:5000"]
)
def test_a_number_in_disguise_is_judged_by_where_it_leads(disguise: str) -> None:
    """What a resolver makes of it is what is checked, here and when it is connected to."""
    for address in resolve(disguise):
        assert not Permits().allows(address, "x", "10.1.2.3")


def test_a_refusal_names_the_address_and_what_would_mend_it() -> None:
    with pytest.raises(NotPermitted, match=r"'meta' is 169\.254\.169\.254.*10\.0\.0\.9.*agents\.allowed"):
        check(Permits(), "http://meta/", "10.0.0.9", ["169.254.169.254"])
    with pytest.raises(NotPermitted, match="no address"):
        check(ANYWHERE, "http://nowhere/", "10.0.0.9", [])
    check(
        Permits(), "http://host/", "10.0.0.9", ["10.0.0.8", "10.0.0.9"]
    )  # connected to where it may be, and nowhere else


def test_the_gateway_is_no_agent_of_its_own() -> None:
    with pytest.raises(NotPermitted, match="this gateway itself"):
        check_elsewhere("http://localhost:8000", ["127.0.0.1"], "127.0.0.1", 8000)
    with pytest.raises(NotPermitted, match="this gateway itself"):
        check_elsewhere("http://gw:8000", ["10.0.0.1"], "10.0.0.1", 8000)
    check_elsewhere("http://other:8000", ["10.0.0.2"], "10.0.0.1", 8000)
    check_elsewhere("http://localhost:5000", ["127.0.0.1"], "127.0.0.1", 8000)
