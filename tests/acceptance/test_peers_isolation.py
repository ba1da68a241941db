"""Headers, secrets and callers kept apart, and what security advisories of other gateways teach (PEERS C1e, C2)."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
from typing import Any

import httpx
import pytest
from acceptance_kit import (
    ROOT,
    Asked,
    chat,
    chat_events,
    claude,
    claude_events,
    error,
    event,
    gemini,
    gemini_events,
    streamed,
    whole,
)

CANARY = "sk-upstream-canary-0badcafe"
PLAIN_KEY = "x7Qm3ZpL9vT2kR8sW4nB6yD1hJ5cF0gA"
ROUTER_KEY = "router-key-0123456789-the-right-one"
CONFIG = """
auth: {{router_key: "{key}"}}
health: {{threshold: 1000}}
providers:
  openai: {{dialect: openai, base_url: "{openai}", api_key: "{canary}"}}
  anthropic: {{dialect: anthropic, base_url: "{anthropic}", api_key: "{canary}"}}
  google: {{dialect: google, base_url: "{google}", api_key: "{canary}"}}
  plain: {{dialect: openai, base_url: "{openai}", api_key: "{plain}"}}
"""
KEYED = {"authorization": f"Bearer {ROUTER_KEY}"}
NATIVE = {"gpt-x": "openai", "claude-x": "anthropic", "google-x": "google"}
EVERY = pytest.mark.parametrize("model", NATIVE)


@pytest.fixture(scope="module")
def providers(stubs: Any) -> dict[str, Any]:
    return {name: stubs.open() for name in ("openai", "anthropic", "google")}


@pytest.fixture(scope="module")
def config(providers: dict[str, Any]) -> str:
    urls = {name: stub.url for name, stub in providers.items()}
    return CONFIG.format(key=ROUTER_KEY, canary=CANARY, plain=PLAIN_KEY, **urls)


@pytest.fixture(scope="module")
def gateway(serve: Any, config: str) -> Any:
    gateway = serve(config)
    gateway.always.update(KEYED)
    return gateway


@pytest.fixture(autouse=True)
def _clean(providers: dict[str, Any]) -> None:
    for stub in providers.values():
        stub.forget()


def raw(gateway: Any, request: bytes) -> tuple[int, bytes]:
    """The status and body of what no client library would send."""
    with socket.create_connection(("127.0.0.1", int(gateway.url.rsplit(":", 1)[1])), 5) as caller:
        caller.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer:
            piece = caller.recv(65536)
            if not piece:
                break
            answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ")[1]), body


# --- headers, both ways ---------------------------------------------------------------------------------------------


def test_row_57_headers_a_provider_knows_are_passed_to_it(gateway: Any, providers: dict[str, Any]) -> None:
    """Peers dropped `anthropic-beta` and its like, and features silently stayed off."""
    given = {"anthropic-beta": "context-1m-2025-08-07", "anthropic-version": "2023-06-01"}
    gateway.ask("claude-x", path="/v1/messages", max_tokens=5, headers=given)
    asked = providers["anthropic"].last
    assert asked.header("anthropic-beta") == "context-1m-2025-08-07"
    assert asked.header("anthropic-version") == "2023-06-01"
    gateway.ask("gpt-x", headers={"openai-beta": "assistants=v2"})
    assert providers["openai"].last.header("openai-beta") == "assistants=v2"
    assert providers["openai"].last.header("anthropic-beta") is None


@EVERY
def test_row_57_nothing_else_of_a_caller_reaches_a_provider(
    gateway: Any, providers: dict[str, Any], model: str
) -> None:
    """Cookies, addresses, trace ids and the caller's own key are not a provider's business."""
    private = {
        "cookie": "session=private",
        "x-forwarded-for": "10.1.2.3-private",
        "x-custom": "private",
        "x-stainless-os": "private",
        "traceparent": "00-private",
        "referer": "https://private.example",
        "user-agent": "private/1.0",
        "idempotency-key": f"private-{model}",
    }
    assert gateway.ask(model, headers=private).status == 200
    (asked,) = providers[NATIVE[model]].asked()
    assert "private" not in asked.everything
    assert ROUTER_KEY not in asked.everything


@EVERY
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("good", [True, False], ids=["answer", "error"])
def test_headers_of_a_provider_end_here(
    gateway: Any, providers: dict[str, Any], model: str, stream: bool, good: bool
) -> None:
    """Cookies, organisations, server names and limits of the shared account are not a caller's to see."""
    private = {
        "set-cookie": "__cf_bm=private; path=/",
        "server": "private-edge",
        "openai-organization": "org-private",
        "openai-processing-ms": "77",
        "anthropic-organization-id": "private",
        "x-ratelimit-remaining-requests": "4242",
        "via": "private",
        "alt-svc": "private",
    }
    stub = providers[NATIVE[model]]
    if good:
        words = {
            "gpt-x": (chat, chat_events),
            "claude-x": (claude, claude_events),
            "google-x": (gemini, gemini_events),
        }
        said = words[model][stream]("hi")
        stub.say(model, streamed(said, private) if stream else whole(said, 200, private))
    else:
        stub.say(model, whole(error("server_error"), 500, private))
    told = gateway.ask(model, stream=stream)
    assert told.status == (200 if good else 502)
    text = str(told.headers)
    assert "private" not in text
    assert "4242" not in text
    assert not {"set-cookie", "openai-processing-ms", "via", "alt-svc"} & set(told.headers)


# --- secrets --------------------------------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("status", [400, 401, 403, 429, 500])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_rows_59_and_60_a_providers_key_is_in_no_answer_log_or_metric(
    gateway: Any, providers: dict[str, Any], model: str, status: int, stream: bool
) -> None:
    """Providers repeat the key they refuse, and peers passed that on, or logged it."""
    words = f"Incorrect API key provided: {CANARY}. Find it at https://x/?key={CANARY}"
    kind = "invalid_request_error" if status == 400 else "authentication_error"
    providers[NATIVE[model]].say(model, whole(error(kind, words), status))
    told = gateway.ask(model, stream=stream)
    assert told.status >= 400
    assert CANARY not in told.body.decode()
    assert CANARY not in str(told.headers)
    assert CANARY not in gateway.log.read_text()
    assert ROUTER_KEY not in gateway.log.read_text()
    assert CANARY not in gateway.http.get("/metrics").text


@pytest.mark.parametrize("words", ["the key {} is not ours", "{}", "x" * 485 + " {} and more " + "y" * 100])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_row_59_a_key_without_a_tell_tale_prefix_is_known_all_the_same(
    gateway: Any, providers: dict[str, Any], words: str, stream: bool
) -> None:
    """Keys of some providers look like any word; what is taken out of their errors is the key itself."""
    providers["openai"].say("m", whole(error("invalid_request_error", words.format(PLAIN_KEY)), 400))
    told = gateway.ask("plain:m", stream=stream)
    assert told.status == 400
    assert providers["openai"].last.header("authorization") == f"Bearer {PLAIN_KEY}"
    assert PLAIN_KEY[:6] not in told.body.decode()


def test_a_providers_key_inside_a_stream_is_not_told_either(gateway: Any, providers: dict[str, Any]) -> None:
    head = chat_events("hi", usage=None, finish=None, done=False)
    said = event(error("server_error", f"key {CANARY} was revoked"))
    providers["openai"].say("gpt-x", streamed([*head, said], gap_s=0.05))
    told = gateway.ask("gpt-x", stream=True)
    assert CANARY not in told.body.decode()


# --- one caller and another -----------------------------------------------------------------------------------------


def test_concurrent_callers_get_their_own_answers(gateway: Any, providers: dict[str, Any]) -> None:
    """In peers answers and headers crossed between requests under load; here everyone reads what was meant for it."""

    async def echo(asked: Asked, out: asyncio.StreamWriter) -> None:
        said = asked.json["messages"][-1]["content"]
        await asyncio.sleep(0.001 * (hash(said) % 20))
        act = streamed(chat_events(said, f" {said}"), gap_s=0.002) if asked.stream else whole(chat(said))
        await act(asked, out)

    providers["openai"].say("gpt-x", echo)

    async def one(client: httpx.AsyncClient, number: int) -> tuple[str, str]:
        said, stream = f"caller {number} of many", number % 2 == 1
        body = {"model": "gpt-x", "messages": [{"role": "user", "content": said}], "stream": stream}
        reply = await client.post("/v1/chat/completions", json=body)
        assert reply.status_code == 200
        if not stream:
            assert reply.json()["choices"][0]["message"]["content"] == said
        else:
            chunks = [json.loads(line[6:]) for line in reply.text.split("\n") if line.startswith("data: {")]
            text = "".join(choice["delta"].get("content", "") for chunk in chunks for choice in chunk["choices"])
            assert text == f"{said} {said}"
        return reply.headers["x-router-request-id"], reply.headers["x-router-decision-id"]

    async def everybody() -> list[tuple[str, str]]:
        limits = httpx.Limits(max_connections=40)
        async with httpx.AsyncClient(base_url=gateway.url, headers=KEYED, limits=limits, timeout=20) as client:
            return await asyncio.gather(*(one(client, number) for number in range(160)))

    ids = asyncio.run(everybody())
    assert len({request for request, _ in ids}) == len(ids)
    assert len({decision for _, decision in ids}) == len(ids)


def test_a_callers_passed_headers_stay_with_its_own_request(gateway: Any, providers: dict[str, Any]) -> None:
    """Heads are made once and kept; one caller's organisation must not be kept with them."""
    gateway.ask("gpt-x", headers={"openai-organization": "org-of-somebody"})
    gateway.ask("gpt-x")
    first, second = providers["openai"].asked()
    assert first.header("openai-organization") == "org-of-somebody"
    assert second.header("openai-organization") is None


# --- who may come in ------------------------------------------------------------------------------------------------


DOORS = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/responses",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/openai/chat/completions",
    "/openai/v1/responses",
    "/anthropic/v1/messages",
    "/v1beta/models/google-x:generateContent",
    "/v1beta/models/google-x:streamGenerateContent",
    "/v1beta/models/google-x:countTokens",
]
WRONG = {
    "none": {},
    "empty": {"authorization": "Bearer"},
    "no scheme": {"authorization": ROUTER_KEY},
    "basic": {"authorization": f"Basic {ROUTER_KEY}"},
    "same start": {"authorization": f"Bearer {ROUTER_KEY[:20]}-somebody-else"},
    "longer": {"authorization": f"Bearer {ROUTER_KEY}x"},
    "shorter": {"authorization": f"Bearer {ROUTER_KEY[:-1]}"},
    "other case": {"x-api-key": ROUTER_KEY.upper()},
    "sql": {"authorization": "Bearer ' OR '1'='1' --"},
    "sql in x-api-key": {"x-api-key": "'; DROP TABLE keys; --"},
    "long": {"authorization": "Bearer " + "A" * 6000},
    "not ascii": {"authorization": "Bearer schl\u00fcssel"},
    "the provider's": {"authorization": f"Bearer {CANARY}"},
    "templating": {"authorization": "Bearer ${ROUTER_API_KEY}"},
}


def stranger(gateway: Any, path: str, headers: dict[str, str], body: Any = None) -> httpx.Response:
    encoded = {name: value.encode("latin-1") for name, value in headers.items()}
    return gateway.http.post(path, json=body or {"model": "gpt-x", "messages": []}, headers=encoded)


@pytest.mark.parametrize("path", DOORS)
def test_every_door_asks_for_the_key(gateway: Any, providers: dict[str, Any], path: str) -> None:
    """Advisories on forgotten role checks: a door that exists is a door that is closed to strangers."""
    reply = stranger(gateway, path, {})
    assert reply.status_code == 401
    assert not [one for stub in providers.values() for one in stub.asked()]


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_key_is_401_whatever_is_in_it(gateway: Any, providers: dict[str, Any], kind: str) -> None:
    """Injection through the header, caches keyed on a key's first characters: only the whole right key opens."""
    reply = stranger(gateway, "/v1/chat/completions", WRONG[kind])
    assert reply.status_code == 401
    assert reply.json()["error"]["type"] == "authentication_error"
    assert ROUTER_KEY not in reply.text
    assert not providers["openai"].asked()


@pytest.mark.parametrize("path", ["/v1/models", "/v1beta/models", "/openai/v1/models", "/v1/models/gpt-x"])
def test_models_are_shown_to_callers_alone(gateway: Any, path: str) -> None:
    assert gateway.http.get(path).status_code == 401
    assert gateway.http.get(path, headers=KEYED).status_code in (200, 404)


@pytest.mark.parametrize(
    "path",
    ["/config/update", "/admin/keys", "/key/generate", "/v1/proxy", "/mcp/test", "/docs", "/openapi.json", "/.env"],
)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE"])
def test_what_is_not_on_the_list_of_routes_is_not_there(gateway: Any, path: str, method: str) -> None:
    """Denied by default: configuration, tests of tools and other people's paths do nothing without a key."""
    reply = gateway.http.request(method, path)
    assert reply.status_code in (401, 404, 405)


def test_a_public_address_without_a_key_is_refused_at_the_start(tmp_path: Any) -> None:
    """Open proxies are hunted for free tokens; the message says how to mend it."""
    command = [sys.executable, "-m", "fastroute", "serve", "--host", "0.0.0.0", "--port", "0"]  # noqa: S104  # the case
    command += ["--state-dir", str(tmp_path / "data")]
    ended = subprocess.run(command, cwd=ROOT, env={"HOME": str(tmp_path)}, capture_output=True, timeout=20, check=False)
    assert ended.returncode != 0
    assert b"ROUTER_API_KEY" in ended.stderr
    assert b"Traceback" not in ended.stderr


# --- where a request may go -----------------------------------------------------------------------------------------


def test_a_caller_never_chooses_the_host(gateway: Any, providers: dict[str, Any], stubs: Any) -> None:
    """Advisories on `api_base` in bodies and `x-...-custom-host` in headers: the operator's key left for a stranger's."""
    stranger = stubs.open()
    headers = {
        "x-portkey-custom-host": stranger.url,
        "x-forwarded-host": stranger.url.removeprefix("http://"),
        "x-base-url": stranger.url,
    }
    told = gateway.ask("gpt-x", headers=headers, api_base=stranger.url, base_url=stranger.url)
    assert told.status == 200
    assert len(providers["openai"].asked()) == 1
    for model in (f"{stranger.url}/v1", f"openai:{stranger.url}", f"openai/{stranger.url}@x", f"google:{stranger.url}"):
        gateway.ask(model)
    assert not stranger.asked()


@pytest.mark.parametrize("model", ["../../v1/admin", "x#y", "x?key=1", "x%23y", "x/../../y", "a b", "x\r\nhost: evil"])
def test_a_models_name_stays_one_segment_of_the_path(gateway: Any, providers: dict[str, Any], model: str) -> None:
    """An advisory on addresses put together as text: a name with a `#` or `..` moved the request elsewhere."""
    gateway.ask(f"google:{model}")
    for asked in providers["google"].asked():
        path = asked.path.removeprefix("/v1beta/models/").removesuffix(":generateContent")
        assert len(path) < len(asked.path) - 20
        assert not set("/?#\r\n ") & set(path)
        assert asked.header("host") == providers["google"].url.removeprefix("http://")


@pytest.mark.parametrize(
    "host",
    ["evil/healthz?", "evil/healthz#", "a@b", "a b", "evil\\healthz", "", "x\x00y", "[::1", "a,b"],
)
def test_an_odd_host_changes_nothing(gateway: Any, providers: dict[str, Any], host: str) -> None:
    """BadHost: a framework made the path anew from Host, and the check of the key looked at another one."""
    body = json.dumps({"model": "gpt-x", "messages": []}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}\r\ncontent-length: {len(body)}\r\n\r\n".encode(
        "latin-1"
    )
    status, answer = raw(gateway, head + body)
    assert status in (400, 401)
    assert answer != b"ok"
    status, _ = raw(gateway, f"GET /v1/models HTTP/1.1\r\nhost: {host}\r\n\r\n".encode("latin-1"))
    assert status in (400, 401)
    assert not providers["openai"].asked()


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions/../../healthz", "/healthz/../v1/chat/completions", "//v1/models"]
)
def test_a_path_is_what_it_says(gateway: Any, providers: dict[str, Any], path: str) -> None:
    """Nothing is resolved, decoded twice or taken from elsewhere: an odd path is a path that does not exist."""
    body = json.dumps({"model": "gpt-x", "messages": []}).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    status, _ = raw(gateway, head + body)
    assert status in (400, 401, 404, 405)
    assert not providers["openai"].asked()
