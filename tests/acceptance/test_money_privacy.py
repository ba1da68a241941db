"""What leaves the house and what stays written in it: headers both ways (S17, S18, S20), limits of a head (S21), secrets
nowhere but where they belong (S22 to S25), labels from closed sets (S27), and nothing in the source that runs commands (S11).
"""

from __future__ import annotations

import ast
import re
import socket
from pathlib import Path
from typing import Any

import pytest
from acceptance_kit import chat, chat_events, error, reset, streamed, whole
from money_desk_kit import ADMIN, ANTHROPIC_KEY, CONFIG, PROVIDER_KEY, House, Key, chat_body, until

pytestmark = pytest.mark.usefixtures("clean")

PACKAGE = Path(__file__).parents[2] / "fastroute"
PROMPT = "canary-prompt-7f3a91"
ANSWER = "canary-answer-c04e55"
STEP = {
    "task_class": "x",
    "budget_ceiling_microdollars": 9000,
    "latency_tolerance_ms": 30_000,
    "expected_tokens": {"in": 100, "out": 100},
}


@pytest.fixture(scope="module")
def key(house: House) -> Key:
    return house.key(budget_usd=100)


# --- S17, S18, S20: headers -----------------------------------------------------------------------------------------


def test_s17_a_provider_sees_its_own_key_and_nothing_of_the_caller(house: House, lab: Any, key: Key) -> None:
    sent = {
        "cookie": "session=canary-cookie",
        "x-forwarded-for": "203.0.113.9",
        "forwarded": "for=203.0.113.9",
        "via": "1.1 canary",
        "proxy-authorization": "Basic canary",
        "x-api-key": key.token,
        "traceparent": "00-canarycanarycanarycanarycanary00-1234567890123456-01",
        "referer": "https://canary.example",
        "origin": "https://canary.example",
        "x-secret": "canary",
        "te": "trailers",
        "connection": "keep-alive, x-secret",
        "idempotency-key": "canary-idem",
        "openai-organization": "org-mine",
    }
    assert house.ask(key, headers=sent).status == 200
    seen = lab.last
    assert seen.header("authorization") == f"Bearer {PROVIDER_KEY}"
    assert "canary" not in seen.everything.replace(PROMPT, "")
    assert key.token not in seen.everything
    assert "203.0.113.9" not in seen.everything
    names = {name for name, _ in seen.headers}
    assert names <= {
        "host",
        "content-type",
        "content-length",
        "authorization",
        "accept",
        "accept-encoding",
        "user-agent",
        "openai-organization",
    }, names
    del sent["idempotency-key"]
    assert house.ask(key, "claude", headers=sent).status == 200
    assert lab.last.header("x-api-key") == ANTHROPIC_KEY
    assert lab.last.header("authorization") is None
    assert "canary" not in lab.last.everything
    assert house.ask(key, "cheap", headers=sent).status == 200
    assert {lab.last.header("authorization"), lab.last.header("x-api-key")} == {None}, "this one has no key"


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_s18_of_a_providers_headers_only_its_ids_come_back(house: House, lab: Any, key: Key, stream: bool) -> None:
    theirs = {
        "set-cookie": "provider=canary",
        "openai-organization": "canary-org",
        "openai-project": "canary-project",
        "server": "canary",
        "via": "canary",
        "access-control-allow-origin": "*",
        "x-ratelimit-remaining-requests": "canary",
        "anthropic-organization-id": "canary",
        "alt-svc": "canary",
        "x-request-id": "req_theirs",
        "strict-transport-security": "canary",
        "location": "http://canary",
        "x-router-cost-usd": "canary",
    }
    answer = streamed(chat_events("a"), headers=theirs) if stream else whole(chat("a"), headers=theirs)
    lab.say("gpt-4o-mini", answer)
    told = house.ask(key, stream=stream)
    assert told.status == 200
    assert "canary" not in str(told.headers.raw)
    assert "access-control-allow-origin" not in told.headers
    lab.say("gpt-4o-mini", whole(error("server_error"), 500, headers=theirs))
    assert "canary" not in str(house.ask(key, stream=stream).headers.raw)


def test_s20_no_name_breaks_out_of_a_header(house: House, key: Key) -> None:
    for model in ("cheap\r\nx-evil: 1", "cheap\n\n", "cheap\0", "chéap", "x" * 300):
        told = house.ask(key, model)
        assert told.status in (400, 404)
        assert "x-evil" not in told.headers
        assert "x-router-model-logical" not in told.headers or told.headers["x-router-model-logical"].isascii()


# --- S21: the head of a request -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head",
    [
        b"".join(b"x-many-%d: 1\r\n" % number for number in range(101)),
        b"x-long: " + b"a" * 1_000_000 + b"\r\n",
    ],
    ids=["101 lines", "1 MB"],
)
def test_s21_a_head_has_its_limits(house: House, lab: Any, key: Key, head: bytes) -> None:
    before = len(lab.asked())
    told = say(house, b"POST /v1/chat/completions HTTP/1.1\r\nhost: t\r\n" + head, key)
    assert told == b"" or re.match(rb"HTTP/1\.1 4\d\d ", told), told[:80]
    assert len(lab.asked()) == before
    assert house.ask(key, "cheap").status == 200


def test_s21_a_path_of_nine_thousand_is_answered_or_refused_and_nothing_else(house: House, key: Key) -> None:
    told = say(house, b"GET /v1/models/" + b"a" * 9000 + b" HTTP/1.1\r\nhost: t\r\n", key)
    assert re.match(rb"HTTP/1\.1 4\d\d ", told), told[:80]


def say(house: House, head: bytes, key: Key) -> bytes:
    host, _, port = house.url.removeprefix("http://").partition(":")
    body = chat_body("cheap") if head.startswith(b"POST") else b""
    with socket.create_connection((host, int(port)), timeout=5) as line:
        line.sendall(head + f"authorization: Bearer {key.token}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body)
        try:
            return line.recv(4096)
        except ConnectionError:
            return b""


# --- S22 to S25: canaries -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def aftermath(serve: Any, lab: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, str], Path, list[str]]:
    """Secrets went through everything that can happen here; the secrets, where it was, and every error body."""
    place = tmp_path_factory.mktemp("canaries")
    config = CONFIG.format(lab=lab.url) + 'receipts: {mirror: true}\nlog: {level: DEBUG, path: "%s"}\n' % (
        place / "router.log"
    )
    jwt = "jwt_3Zx8Vb1Nm6Qw0Er5Ty2Ui9Op4As7Df"
    gateway = serve(config, {"FASTROUTE_ADMIN_KEY": ADMIN, "JWT_SECRET": jwt}, place, workers=2)
    house = House(gateway)
    key, poor, agent = house.key(budget_usd=50), house.key(budget_usd=0), house.agent(budget_usd=50)
    rotated = house.admin("POST", f"/keys/{key.id}/rotate", json={"grace_s": 60}).json()["key"]
    placed = house.fetch("POST", "/v1/route", key.token, json=STEP, headers={"idempotency-key": "canary"}).json()
    grant = Key(placed["grant"]["id"], "", placed["grant"]["key"])
    lease = house.fetch("POST", "/api/v1/budget/handshake", agent.token, json={"ic_token": agent.token}).json()
    said: list[str] = []
    prompt = [{"role": "user", "content": PROMPT}]
    scripts = [
        whole(chat(ANSWER)),
        streamed(chat_events(ANSWER, ANSWER)),
        whole(error("server_error", f"we broke at {PROMPT}"), 500),
        whole(error("invalid_request_error", f"bad prompt {PROMPT} with {PROVIDER_KEY}"), 400),
        whole(error("authentication_error", f"Incorrect API key provided: {PROVIDER_KEY}"), 401),
        whole(error("rate_limit", PROMPT), 429),
        whole(f"<html>{PROMPT}</html>".encode()),
        whole(f'{{"choices": [{{"message": "{ANSWER}"'.encode()),
        streamed(chat_events(ANSWER, usage=None, done=False, finish=None), end="cut"),
        streamed([b'data: {"error": {"message": "' + PROMPT.encode() + b'"}}\n\n']),
        streamed([b"data: {" + ANSWER.encode() + b"\n\n"]),
        reset,
    ]
    for act in scripts:
        for stream in (False, True):
            lab.say("gpt-4o-mini", act)
            for who in (key, Key("", "", rotated), grant, Key("", "", lease["ip_token"]), poor, agent):
                told = house.gateway.ask(
                    "gpt-4o-mini",
                    headers={**who.bearer, "cookie": "canary-cookie-5d"},
                    messages=prompt,
                    max_tokens=40,
                    stream=stream,
                    user="canary-user-11",
                )
                if told.status != 200:
                    said.append(told.body.decode())
    lab.forget()
    bodies = (b'{"messages": "' + PROMPT.encode(), chat_body(PROMPT), b'{"model": "cheap", "messages": 5}')
    said += [house.ask(key, "", content=body).body.decode() for body in bodies]
    tokens = (key.token[:-1] + "!", key.token + PROMPT, ADMIN[:-1])
    said += [house.ask(Key("", "", token), "cheap").body.decode() for token in tokens]
    house.ask(key, "cheap", messages=None, headers={"idempotency-key": "canary-idem"})
    said.append(house.fetch("GET", f"/v1/nothing/{PROMPT}?key={key.token}").text.replace(PROMPT, ""))
    house.admin("DELETE", f"/keys/{agent.id}")
    until(lambda: len(house.fetch("GET", "/v1/receipts?limit=1000", key.token).json()["data"]) >= len(scripts))
    metrics = house.fetch("GET", "/metrics").text
    (place / "metrics").write_text(metrics)
    pepper = (house.state_dir / "secrets" / "pepper").read_bytes()
    secrets = {
        "a key": key.token,
        "a rotated key": rotated,
        "a grant": grant.token,
        "a lease": lease["ip_token"],
        "an agent's token": agent.token,
        "the admin key": ADMIN,
        "OpenAI's key": PROVIDER_KEY,
        "Anthropic's key": ANTHROPIC_KEY,
        "the receipts' secret": jwt,
        "the pepper": pepper.decode("latin-1"),
        "the pepper in hex": pepper.hex(),
        "a prompt": PROMPT,
        "an answer": ANSWER,
        "a cookie": "canary-cookie-5d",
    }
    return secrets, place, said


def test_s24_no_secret_is_written_down_anywhere(aftermath: tuple[dict[str, str], Path, list[str]]) -> None:
    """Database, its log, journals, receipts, logs, metrics, counters: one answer that was kept to be told again apart."""
    secrets, place, _ = aftermath
    searched = [path for path in place.rglob("*") if path.is_file() and path.name != "fastroute.yaml"]
    names = {path.name for path in searched}
    assert {"fastroute.db", "router.log", "metrics", "log"} <= names
    assert any(path.suffix == ".json" for path in searched), "receipts are mirrored"
    hits = []
    for path in searched:
        data = path.read_bytes()
        hits += [
            f"{name} in {path.relative_to(place)}"
            for name, secret in secrets.items()
            if secret.encode("latin-1") in data and not (path.name == "pepper" and name == "the pepper")
        ]
    assert hits == []


def test_s25_no_error_tells_a_secret_a_path_or_an_address(aftermath: tuple[dict[str, str], Path, list[str]]) -> None:
    secrets, place, said = aftermath
    hidden = {name: secret for name, secret in secrets.items() if name not in ("a prompt", "an answer")}
    assert len(said) > 50
    for body in said:
        assert not [name for name, secret in hidden.items() if secret in body], body
        for leak in (str(place), "Traceback", ".py", "sqlite", "127.0.0.1", "SELECT "):
            assert leak not in body, body


def test_s23_no_secret_stands_in_the_arguments_of_a_process(house: House) -> None:
    pid = house.gateway.process.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    assert len(children) == 3
    for one in [str(pid), *children]:
        line = Path(f"/proc/{one}/cmdline").read_bytes().decode()
        for secret in (ADMIN, PROVIDER_KEY, ANTHROPIC_KEY):
            assert secret not in line


def test_s43_what_is_written_is_its_owners_alone(house: House) -> None:
    for name in ("secrets", "journal"):
        assert (house.state_dir / name).stat().st_mode & 0o077 == 0, name
    for path in (*house.state_dir.glob("fastroute.db*"), *(house.state_dir / "secrets").iterdir()):
        assert path.stat().st_mode & 0o077 == 0, path


# --- S27 ------------------------------------------------------------------------------------------------------------


def test_s27_no_caller_makes_a_label(house: House, lab: Any, key: Key) -> None:
    for number in range(60):
        house.ask(key, f"made-up-{number}")
        house.ask(key, f"lab:made-up-{number}", max_tokens=1)
        house.fetch("GET", f"/made-up-{number}")
    text = house.fetch("GET", "/metrics").text
    assert "made-up" not in text
    assert key.token not in text
    assert key.name not in text
    assert len(text.splitlines()) < 10_000


# --- S11 ------------------------------------------------------------------------------------------------------------

BANNED_MODULES = {
    "subprocess",
    "pickle",
    "marshal",
    "shelve",
    "dill",
    "jinja2",
    "mako",
    "pty",
    "code",
    "commands",
    "runpy",
    "imp",
    "ctypes.util",
    "xml.etree.ElementTree",
    "telnetlib",
    "ftplib",
}
BANNED_CALLS = {"eval", "exec", "compile", "__import__", "input", "breakpoint"}
BANNED_NAMES = {
    "os.system",
    "os.popen",
    "os.execv",
    "os.execve",
    "os.spawnv",
    "os.posix_spawn",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "yaml.Loader",
    "yaml.UnsafeLoader",
    "pickle.loads",
    "asyncio.create_subprocess_exec",
    "asyncio.create_subprocess_shell",
    "ssl._create_unverified_context",
    "tempfile.mktemp",
    "random.seed",
}
# Modules that are loaded by a name: of our own tables alone.
IMPORTERS = {"cli/__init__.py", "__init__.py", "weights/child.py"}
# Who starts a program of ours or a peer of the bench, by a list of words and never by a shell.
STARTERS = {
    "bench/load.py": "subprocess",
    "bench/own.py": "subprocess",
    "bench/processes.py": "subprocess",
    "bench/peers/nginx.py": "subprocess",
    "bench/peers/peer.py": "subprocess",
    "weights/keeper.py": "os.posix_spawn",
}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_s11_no_file_runs_commands_or_loads_what_it_is_told(path: Path) -> None:
    where = str(path.relative_to(PACKAGE))
    banned_modules, banned_names = BANNED_MODULES - {STARTERS.get(where)}, BANNED_NAMES - {STARTERS.get(where)}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            assert not {alias.name for alias in node.names} & banned_modules
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            assert node.module not in banned_modules
            assert not {f"{node.module}.{alias.name}" for alias in node.names} & banned_names
        elif isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name):
                assert node.func.id not in BANNED_CALLS
            name = ast.unparse(node.func)
            assert name not in banned_names
            assert name != "importlib.import_module" or where in IMPORTERS, name
            assert not any(each.arg == "shell" for each in node.keywords)
        elif isinstance(node, ast.Attribute):
            assert ast.unparse(node) not in banned_names
