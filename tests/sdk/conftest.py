"""One gateway process in front of fake providers of every dialect, and the official SDKs pointed at it.

A missing SDK is a failure, not a skip: these tests are what says that real clients work.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import anthropic
import httpx
import openai
import pytest

from tests.sdk.fake_providers import FakeProviders

KEY = "router-key-of-the-tests"
CONFIG = """
auth: {{router_key: "{key}"}}
providers:
  openai: {{dialect: openai, base_url: "http://127.0.0.1:{port}/oai", api_key: "sk-upstream-openai"}}
  lab: {{dialect: openai, base_url: "http://127.0.0.1:{port}/lab"}}
  anthropic: {{dialect: anthropic, base_url: "http://127.0.0.1:{port}/ant", api_key: "sk-upstream-anthropic"}}
  google: {{dialect: google, base_url: "http://127.0.0.1:{port}/goo", api_key: "AIza-upstream-google"}}
models:
  - {{id: gpt, model: "openai:gpt-4o-mini", price: {{input: 150000, output: 600000}}}}
  - {{id: "lab/llama:free", model: "lab:llama-3", price: {{input: 0, output: 0}}}}
  - {{id: claude, model: "anthropic:claude-sonnet-4-5", price: {{input: 3000000, output: 15000000}}}}
  - {{id: gemini, model: "google:gemini-2.5-flash", price: {{input: 300000, output: 2500000}}}}
  - {{id: shaky-500, model: "lab:llama-3", lane: shaky-500, price: {{input: 0, output: 0}}}}
  - {{id: sound-500, model: "anthropic:claude-sonnet-4-5", lane: sound-500, price: {{input: 0, output: 0}}}}
  - {{id: shaky-401, model: "lab:llama-3", lane: shaky-401, price: {{input: 0, output: 0}}}}
  - {{id: sound-401, model: "anthropic:claude-sonnet-4-5", lane: sound-401, price: {{input: 0, output: 0}}}}
  - {{id: shaky-html, model: "lab:llama-3", lane: shaky-html, price: {{input: 0, output: 0}}}}
  - {{id: sound-html, model: "anthropic:claude-sonnet-4-5", lane: sound-html, price: {{input: 0, output: 0}}}}
  - {{id: shaky-429, model: "lab:llama-3", lane: shaky-429, price: {{input: 0, output: 0}}}}
  - {{id: sound-429, model: "anthropic:claude-sonnet-4-5", lane: sound-429, price: {{input: 0, output: 0}}}}
  - {{id: first, model: "openai:gpt-4o-mini", lane: first, price: {{input: 1, output: 1}}}}
  - {{id: second, model: "anthropic:claude-sonnet-4-5", lane: second, price: {{input: 2, output: 2}}}}
  - {{id: embed, model: "openai:text-embedding-3-small", price: {{input: 20000, output: 0}}}}
  - {{id: embed-too, model: "lab:nomic-embed", price: {{input: 1, output: 0}}}}
  - {{id: moderation, model: "openai:omni-moderation-latest", price: {{input: 0, output: 0}}}}
  - {{id: voice, model: "openai:gpt-4o-mini-tts", price: {{input: 600000, output: 12000000}}}}
  - {{id: scribe, model: "openai:gpt-4o-transcribe", price: {{input: 2500000, output: 10000000}}}}
  - {{id: deaf, model: "lab:no-such-scribe", lane: deaf, price: {{input: 0, output: 0}}}}
  - {{id: painter, model: "openai:gpt-image-1", price: {{input: 5000000, output: 40000000}}}}
  - {{id: ranker, model: "lab:rerank-1", price: {{input: 20000, output: 0}}}}
aliases:
  either: [first, second]
  ether: [second, first]
  scribes: [deaf, scribe]
  vectors: [embed, embed-too]
  spare-500: [shaky-500, sound-500]
  spare-401: [shaky-401, sound-401]
  spare-html: [shaky-html, sound-html]
  spare-429: [shaky-429, sound-429]
health: {{threshold: 1000}}
"""


class Gateway:
    """A running gateway and what stands behind it."""

    def __init__(self, url: str, providers: Any) -> None:
        self.url = url
        self.key = KEY
        self.providers = providers

    @property
    def last(self) -> Any:
        """What reached a provider last."""
        return self.providers.last


@pytest.fixture(scope="session")
def providers() -> Iterator[Any]:
    providers = FakeProviders()
    yield providers
    providers.close()


@pytest.fixture(scope="session")
def gateway(providers: Any) -> Iterator[Gateway]:
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "fastroute.yaml"
        config.write_text(CONFIG.format(port=providers.port, key=KEY))
        process = subprocess.Popen(
            [sys.executable, "-m", "fastroute", "serve", "--config", str(config), "--port", "0", "--workers", "1",
             "--state-dir", f"{folder}/data"],
            env={"PATH": os.environ["PATH"], "HOME": folder},
            stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        with process:
            try:
                yield Gateway(_address(process), providers)
            finally:
                process.send_signal(signal.SIGTERM)
                try:
                    process.wait(10)
                except subprocess.TimeoutExpired:
                    process.kill()


def _address(process: subprocess.Popen[str]) -> str:
    """Where it listens, once it answers; a thread reads on, so that it never blocks on its own log."""
    assert process.stderr is not None
    log = []
    for line in process.stderr:
        log.append(line)
        found = re.search(r"listening on (http://\S+:[1-9]\d*)", line)
        if found:
            break
    else:
        pytest.fail("the gateway did not start:\n" + "".join(log))
    threading.Thread(target=_drain, args=(process.stderr,), daemon=True).start()
    patience = time.monotonic() + 15
    while time.monotonic() < patience:
        try:
            assert httpx.get(f"{found[1]}/healthz").status_code == 200
        except httpx.TransportError:
            time.sleep(0.02)  # a worker takes a moment from its fork to its first accept
        else:
            return found[1]
    pytest.fail("no worker of the gateway ever answered")


def _drain(log: IO[str]) -> None:
    for _ in log:
        pass


@pytest.fixture(scope="session")
def oai(gateway: Gateway) -> Iterator[openai.OpenAI]:
    """OpenAI's SDK, which here makes no second attempt of its own."""
    with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0, timeout=15) as client:
        yield client


@pytest.fixture(scope="session")
def ant(gateway: Gateway) -> Iterator[anthropic.Anthropic]:
    """Anthropic's SDK, likewise."""
    with anthropic.Anthropic(base_url=gateway.url, api_key=KEY, max_retries=0, timeout=15) as client:
        yield client


@pytest.fixture(scope="session")
def http(gateway: Gateway) -> Iterator[httpx.Client]:
    """What no SDK can say, with the key it needs."""
    with httpx.Client(base_url=gateway.url, headers={"authorization": f"Bearer {KEY}"}, timeout=15) as client:
        yield client


@pytest.fixture(params=["gpt", "lab/llama:free", "claude", "gemini"])
def model(request: pytest.FixtureRequest) -> str:
    """A model behind each kind of upstream: OpenAI itself, a compatible server, Anthropic, Google."""
    return str(request.param)
