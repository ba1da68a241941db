"""An open house on loopback, and the pages in a browser on the same machine that would use it up."""

from __future__ import annotations

import sys

import pytest

kit = sys.modules["gateway_kit"]

BODY = b'{"model":"up:visited","messages":[{"role":"user","content":"hi"}]}'


def visits(*told: tuple[bytes, ...]) -> pytest.MarkDecorator:
    """Each visit by the headers that tell where it comes from."""
    return pytest.mark.parametrize("headers", told, ids=lambda headers: b" ".join(headers).decode())


def asked(gateway: kit.Gateway, *headers: bytes, head: bytes = b"POST /v1/chat/completions HTTP/1.1") -> kit.Reply:
    lines = (head, *headers, b"content-length: %d" % len(BODY), b"", BODY)
    with gateway.connect() as sock:
        sock.sendall(b"\r\n".join(lines))
        return kit.read_reply(sock)


@visits(
    (b"host: localhost:8000", b"origin: https://evil.example"),
    (b"host: 127.0.0.1:8000", b"origin: http://127.0.0.1.evil.example"),
    (b"host: 127.0.0.1:8000", b"origin: http://192.168.1.7:3000"),
    (b"host: 127.0.0.1:8000", b"origin: null"),
    (b"host: evil.example:8000",),
    (b"host: 127.0.0.1.evil.example",),
    (b"host: localhost.evil.example.", b"origin: http://localhost:3000"),
)
def test_a_page_from_elsewhere_is_refused_before_anybody_is_asked(
    gateway: kit.Gateway, upstream: kit.Upstream, headers: tuple[bytes, ...]
) -> None:
    before = len(upstream.of("up:visited"))
    reply = asked(gateway, *headers)
    assert (reply.status, reply.json["error"]["code"]) == (403, "browser_refused")
    assert "fastroute keys create" in reply.json["error"]["message"]
    assert len(upstream.of("up:visited")) == before


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/up:x"])
def test_nor_does_it_learn_what_is_here(gateway: kit.Gateway, path: str) -> None:
    assert asked(gateway, b"host: evil.example", head=f"GET {path} HTTP/1.1".encode()).status == 403


@visits(
    (b"host: 127.0.0.1:8000",),
    (b"host: [::1]:8000",),
    (b"host: LOCALHOST.:8000",),
    (b"host: chat.localhost", b"origin: http://chat.localhost:3000"),
    (b"host: localhost:8000", b"origin: http://localhost:3000"),
    (b"host: localhost:8000", b"origin: https://[::1]:3000"),
    (b"host: host.docker.internal:8000",),
    (b"host: gateway:8000",),
    (b"host: localhost:8000", b"origin: app://obsidian.md"),
    (b"host: localhost:8000", b"origin: vscode-webview://1b2c"),
)
def test_what_runs_on_this_machine_is_served(gateway: kit.Gateway, headers: tuple[bytes, ...]) -> None:
    assert asked(gateway, *headers).status == 200
