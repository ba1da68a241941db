"""Paths that look like a door to one reader and like something else to another reach no door at all."""

from __future__ import annotations

from collections.abc import Callable

import gateway_kit as kit
import pytest

TRICKS = (
    "/v1%2fchat/completions", "/v1/chat%2Fcompletions", "/%76%31/chat/completions", "/v1/ch%61t/completions",
    "/v1%252fchat/completions", "/v1/chat%5ccompletions", "/v1\\chat\\completions", "/v1/chat%c0%afcompletions",
    "//v1/chat/completions", "/v1//chat/completions", "/v1/chat//completions", "///v1/chat/completions",
    "/./v1/chat/completions", "/v1/./chat/completions", "/v1/x/../chat/completions", "/v1/%2e/chat/completions",
    "/v1/%2e%2e/v1/chat/completions", "/../v1/chat/completions", "/healthz/../v1/chat/completions",
    "/healthz/%2e%2e/v1/chat/completions", "/v1/models/../chat/completions", "/v1/models/..%2fchat%2fcompletions",
    "/v1/chat/completions/", "/v1/chat/completions/.", "/v1/chat/completions//", "/v1/chat/completions/x",
    "/v1/chat/completions%00", "/v1/chat/completions%0a", "/v1/chat/completions%20", "/v1/chat/completions;a=b",
    "/v1/chat/completions%3fa=b", "/v1/chat/completions%23", "/V1/chat/completions", "/v1/Chat/Completions",
    "/v1/chat/completions..", "/v1/chat/.completions", "/v1/chat/completions~", "/v1/chat/completions:generateContent",
    "/v1/v1/chat/completions", "/chat/completions", "/openai/openai/v1/chat/completions", "/anthropic/v1/chat/completions",
    "/v1%2fmoderations", "/v1/mo%64erations", "/v1/moderations/", "/v1//moderations", "/v1/../v1/moderations",
    "/v1/moderations/../files", "/v1/moderations/%2e%2e/files", "/v1/moderations/..%2ffiles", "/v1/files", "/v1/Files",
    "/v1/%66iles", "/v1/organization/admin_api_keys", "/v1/models/x", "/v1/models%2fx:generateContent",
    "/v1beta%2fmodels/x:generateContent", "/v1beta/models/:generateContent", "/v1beta/models//:generateContent",
    "/v1beta/models/..:generateContent", "/v1beta/models/../../metrics:generateContent",
    "/v1beta/models/x:generateContent/", "/v1beta/models/x%3agenerateContent%2f", "/v1beta/models/x:generate%43ontent%00",
    "/metrics", "/metrics/", "/healthz%2f", "/admin", "/%2e%2e/%2e%2e/etc/passwd", "/..%2f..%2fetc%2fpasswd", "/%ff%fe", "/%",
    "/%zz", "/?/v1/chat/completions", "/*", "http://t", "http://evil/v1//chat/completions", "http://t/%2fv1/chat/completions",
)  # fmt: skip


def post(path: str, *headers: str) -> bytes:
    wire = kit.chat("up:tricked", path=path, contents=[{"parts": [{"text": "hi"}]}])
    return wire.replace(b"host: t\r\n", "".join(f"{line}\r\n" for line in ("host: t", *headers)).encode())


def test_the_corpus_is_as_large_as_promised():
    assert len(TRICKS) >= 70
    assert len(set(TRICKS)) == len(TRICKS)


@pytest.mark.parametrize("path", TRICKS)
def test_a_disguised_path_reaches_no_provider(gateway: kit.Gateway, upstream: kit.Upstream, path: str):
    """It is refused as unknown, whoever it looks like, and the connection goes on."""
    with gateway.connect() as sock:
        reader = kit.Reader(sock)
        sock.sendall(post(path))
        assert reader.reply().status in (400, 404, 405)
        sock.sendall(b"GET /healthz HTTP/1.1\r\nhost: t\r\n\r\n")
        assert reader.reply().body == b"ok"
    assert upstream.of("up:tricked") == []


@pytest.mark.parametrize("path", TRICKS)
def test_a_disguised_path_shows_nothing(gateway: kit.Gateway, path: str):
    """No redirect, no fault of ours, no page but the one that is spelled so."""
    with gateway.connect() as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nhost: t\r\n\r\n".encode())
        reply = kit.read_reply(sock)
    assert reply.status in ((200,) if path in ("/metrics", "/?/v1/chat/completions", "http://t") else (400, 404, 405))
    assert "location" not in reply.headers


@pytest.mark.parametrize("name", ["lab%2Fllama", "lab/llama", "a%20b", "%C3%A9", "x%3Ay"])
def test_a_models_name_may_be_escaped(gateway: kit.Gateway, name: str):
    """What clients do with names that have a slash in them is no disguise: the model is looked for by its real name."""
    reply = gateway.get(f"/v1/models/{name}")
    assert reply.status == 404
    assert reply.json["error"]["code"] == "model_not_found"


def test_without_the_key_no_path_is_worth_trying(serve: Callable[..., kit.Gateway], upstream: kit.Upstream):
    """Every door of the data plane, and every disguise of one, wants the key; what is open is named here."""
    gateway = serve(more="auth: {router_key: the-key-of-this-test}\n")
    doors = ("/v1/chat/completions", "/v1/messages", "/v1/responses", "/v1/embeddings", "/v1/completions", "/v1/moderations",
             "/openai/chat/completions", "/anthropic/v1/messages", "/v1beta/models/x:generateContent")  # fmt: skip
    for path in (*doors, *TRICKS):
        for headers in ((), ("authorization: Bearer wrong",), ("x-api-key: wrong",), ("x-original-url: /healthz",)):
            with gateway.connect() as sock:
                sock.sendall(post(path, *headers))
                status = kit.read_reply(sock).status
            assert status == 401 if path in doors else status in (400, 401, 404, 405), path
    for path in ("/v1/models", "/v1beta/models", "/v1/models/dummy"):
        assert gateway.get(path).status == 401
    assert upstream.of("up:tricked") == []
    with gateway.connect() as sock:
        sock.sendall(post("/v1/chat/completions", "authorization: Bearer the-key-of-this-test"))
        assert kit.read_reply(sock).status == 200
