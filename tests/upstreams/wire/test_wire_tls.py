"""TLS to an upstream: verified against the name, offered HTTP/1.1 only, and an unclean end is a cut."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess

import pytest

from fastroute.upstreams.faults import UpstreamFault
from fastroute.upstreams.pool import trusted_tls
from fastroute.upstreams.resolver import Resolver

pytestmark = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="certificates are made with the openssl command"
)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory):
    """A root, and what it signed: `good` for model.test, `wrong` for other.test, `expired` for model.test."""
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True, timeout=30)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    openssl("req", "-x509", *key, "-keyout", "root.key", "-out", "root.pem", "-subj", "/CN=root", "-days", "30")
    for name, host, days in (
        ("good", "model.test", "30"),
        ("wrong", "other.test", "30"),
        ("expired", "model.test", "-1"),
    ):
        (folder / f"{name}.ext").write_text(f"subjectAltName=DNS:{host}\nbasicConstraints=CA:FALSE\n")
        openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={host}")
        signing = ("-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial", "-extfile", f"{name}.ext", "-days", days)
        openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *signing)
    return folder


@pytest.fixture
def serving(certificates):
    def serving(name):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates / f"{name}.pem", certificates / f"{name}.key")
        context.set_alpn_protocols(["h2", "http/1.1"])
        return context

    return serving


@pytest.fixture
def trust(certificates):
    return trusted_tls(str(certificates / "root.pem"))


async def here(host, port):
    return ["127.0.0.1"]


def test_a_trusted_upstream_is_spoken_to_and_its_connection_kept(run, scripted, wired, serving, trust):
    """Kept connections stay usable although a TLS peer sends session tickets of its own accord."""
    upstream = scripted(scripted.serve(scripted.answer(b"secret" * 100_000)), tls=serving("good"))

    async def case():
        async with wired(upstream, host="model.test", resolver=Resolver(here), tls=trust) as wire:
            for _ in range(4):
                assert await (await wire.post(bytes(300_000))).read() == b"secret" * 100_000
            assert repr(wire.pool) == "<Pool opened=1 reused=3 in_use=0 idle=1 waiting=0>"

    run(case)


def test_a_stream_over_tls_is_held_back_and_stopped_like_any_other(run, scripted, wired, serving, trust):
    size = 8 * 1024 * 1024
    head = scripted.head("connection: close", f"content-length: {size}")
    flood = [scripted.request, head, scripted.send(bytes(size)), scripted.hold]
    upstream = scripted(flood, tls=serving("good"))

    async def case():
        async with wired(upstream, host="model.test", resolver=Resolver(here), tls=trust) as wire:
            exchange = await wire.post()
            await asyncio.sleep(0.05)
            assert exchange.turn.unread < 1024 * 1024
            seen = 0
            while chunk := await exchange.chunk():
                seen += len(chunk)
            assert seen == size
            stopped = await wire.post()
            await stopped.chunk()
            stopped.stop()
            assert wire.state[0] == 0
            assert await asyncio.to_thread(upstream.wait_gone, 1, 0.5)

    run(case)


@pytest.mark.parametrize("name", ["expired", "wrong"])
def test_a_certificate_that_is_not_right_is_a_tls_fault(run, scripted, wired, serving, trust, name):
    upstream = scripted(scripted.serve(scripted.answer()), tls=serving(name))

    async def case():
        async with wired(upstream, host="model.test", resolver=Resolver(here), tls=trust) as wire:
            with pytest.raises(UpstreamFault) as raised:
                await wire.post()
            assert (raised.value.kind, raised.value.sent, raised.value.timed_out) == ("tls", False, False)
            assert "certificate" in raised.value.message
            assert upstream.requests == []

    run(case)


def test_a_root_nobody_trusts_is_a_tls_fault(run, scripted, wired, serving):
    upstream = scripted(scripted.serve(scripted.answer()), tls=serving("good"))

    async def case():
        async with wired(upstream, host="model.test", resolver=Resolver(here)) as wire:
            with pytest.raises(UpstreamFault, match="tls"):
                await wire.post()

    run(case)


def test_a_peer_without_tls_or_that_goes_in_the_handshake_is_a_tls_fault(run, scripted, wired, trust):
    for script in ([scripted.send(b"HTTP/1.1 400 Bad\r\n\r\n"), scripted.hold], [scripted.fin]):
        upstream = scripted(script)

        async def case(upstream=upstream):
            options = {"scheme": "https", "host": "model.test", "resolver": Resolver(here), "tls": trust}
            async with wired(upstream, **options) as wire:
                with pytest.raises(UpstreamFault) as raised:
                    await wire.post()
                assert (raised.value.kind, raised.value.sent) == ("tls", False)

        run(case)


def test_a_handshake_that_stalls_ends_with_the_connect_deadline(run, scripted, wired, trust):
    upstream = scripted([scripted.hold])

    async def case():
        options = {"scheme": "https", "host": "model.test", "resolver": Resolver(here), "tls": trust}
        async with wired(upstream, **options) as wire:
            with pytest.raises(UpstreamFault) as raised:
                await wire.post(connect_ms=60)
            assert (raised.value.kind, raised.value.sent, raised.value.timed_out) == ("tls", False, True)
            assert wire.state == (0, 0, 0, 0)
            assert await asyncio.to_thread(upstream.wait_gone, 0, 0.5)

    run(case)


def test_an_old_version_is_refused(run, scripted, wired, serving, trust):
    old = serving("good")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    upstream = scripted(scripted.serve(scripted.answer()), tls=old)

    async def case():
        async with wired(upstream, host="model.test", resolver=Resolver(here), tls=trust) as wire:
            with pytest.raises(UpstreamFault, match="tls"):
                await wire.post()

    run(case)


def test_an_end_without_a_tls_farewell_is_a_cut(run, scripted, wired, serving, trust):
    """Anyone on the way can close a socket; only the peer can say that its message was whole."""
    half = [scripted.request, scripted.head("connection: close"), scripted.send(b"half")]
    cut = scripted([*half, scripted.fin], tls=serving("good"))
    whole = scripted([*half, scripted.farewell, scripted.fin], tls=serving("good"))

    async def case():
        async with wired(cut, host="model.test", resolver=Resolver(here), tls=trust) as wire:
            with pytest.raises(UpstreamFault, match="cut"):
                await (await wire.post()).read()
        async with wired(whole, host="model.test", resolver=Resolver(here), tls=trust) as wire:
            assert await (await wire.post()).read() == b"half"

    run(case)


def test_the_systems_trust_is_strict_and_heeds_no_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    context = trusted_tls()
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    assert context.keylog_filename is None
