"""One prompt from a terminal, asked of a server: the twin of `prompting.ask` over HTTP, with a key instead of a user.

Whose budget pays is the key's affair; the user's name rides along for the provider.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

import httpx
import orjson

from fastroute import _scan
from fastroute.errors import MoneyError
from fastroute.evaluation.answers import Answer
from fastroute.evaluation.asking import body_of, said_in
from fastroute.evaluation.prompts import Prompt as Question
from fastroute.evaluation.running import Unreachable
from fastroute.money import picodollars_from_usd
from fastroute.prompting import Interrupted, Prompt, Refused, Told

CONNECT_S: Final = 5.0
# A server says within its own deadlines what became of a request; this is for one that is gone.
SILENCE_S: Final = 120.0
# The books learn of a request a moment after its caller does.
_RECEIPT_TRIES: Final = 20
_RECEIPT_PAUSE_S: Final = 0.05


def ask_server(url: str, key: str | None, prompt: Prompt, write: Callable[[str], object]) -> Told:
    """Ask, and `write` the text as it comes. `Refused`; `Interrupted` by Ctrl-C."""
    base = url.rstrip("/").removesuffix("/v1")
    stream = True if prompt.stream is None else prompt.stream
    name = prompt.policy if prompt.model is None else f"{prompt.policy}:{prompt.model}"
    body = {
        "model": name,
        "messages": [{"role": "user", "content": prompt.text}],
        "stream": stream,
        "user": prompt.user,
    }
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    answer = _Answer(write, prompt)
    timeout = httpx.Timeout(SILENCE_S, connect=CONNECT_S)
    try:
        with httpx.Client(base_url=base, headers=headers, timeout=timeout) as client:
            try:
                with client.stream("POST", "/v1/chat/completions", json=body) as response:
                    answer.read(response)
            except KeyboardInterrupt:
                raise Interrupted(answer.told(client)) from None
            told = answer.told(client)
    except httpx.InvalidURL as error:
        raise Refused("config", f"{url}: {error}", None) from None
    except httpx.HTTPError as error:
        raise Refused("upstream", f"{base} does not answer: {error}", None) from None
    if answer.error is not None:
        raise _refused(answer, told)
    return told


class _Answer:
    def __init__(self, write: Callable[[str], object], prompt: Prompt) -> None:
        self._write = write
        self._prompt = prompt
        self._parts: list[str] = []
        self._began = time.monotonic()
        self._first: float | None = None
        self._answered = False
        self.head: httpx.Headers = httpx.Headers()
        self.status = 499
        self.error: dict[str, Any] | None = None

    def read(self, response: httpx.Response) -> None:
        self.head, self.status = response.headers, response.status_code
        if response.headers.get("content-type", "").startswith("text/event-stream"):
            self._follow(response)
        else:
            self._take(response.read(), "message")
        if self.error is None and (self.status != 200 or not self._answered):
            self.error = {"message": f"the server answered {self.status} with something that is no answer of a chat"}

    def _follow(self, response: httpx.Response) -> None:
        events = _scan.EventSplitter()
        try:
            for data in response.iter_bytes():
                for _, said in events.feed(data):
                    if said != b"[DONE]":
                        self._take(said, "delta")
        except _scan.ScanError as error:
            self.error = {"message": f"the server's stream cannot be read: {error}"}

    def _take(self, data: bytes, part: str) -> None:
        try:
            said = orjson.loads(data)
        except orjson.JSONDecodeError:
            self.error = {"message": f"the server answered {self.status} with something that is not JSON"}
            return
        if not isinstance(said, dict):
            return
        error = said.get("error")
        if error:
            self.error = error if isinstance(error, dict) else {"message": str(error)}
        choices = said.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            found = choice.get(part) if isinstance(choice, dict) else None
            if not isinstance(found, dict):
                continue
            self._answered = True
            text = found.get("content")
            if isinstance(text, str) and text:
                self._first = self._first or time.monotonic()
                self._parts.append(text)
                self._write(text)

    def told(self, client: httpx.Client) -> Told:
        """As the receipt says it, where the server gives one; else as the headers and the clock do."""
        paper = self._receipt(client) or {}
        latency_ms = int((time.monotonic() - self._began) * 1000)
        first_ms = None if self._first is None else int((self._first - self._began) * 1000)
        fell = self.head.get("x-router-fallback") == "true"
        model = self.head.get("x-router-model")
        lines = paper.get("attempts") or ()
        attempts = tuple((each["entry"], each["outcome"], each["status"], each["ms"]) for each in lines)
        if not attempts and model is not None:
            attempts = ((model, "ok" if self.error is None else "failed", self.status, latency_ms),)
        usage = paper.get("usage") or {}
        return Told(
            id=str(self.head.get("x-router-receipt-id") or self.head.get("x-router-request-id") or "none"),
            policy=self._prompt.policy,
            user=self._prompt.user,
            route_primary=paper.get("route_primary") or self.head.get("x-router-original-model") or model,
            route_final=paper.get("route_final") or model,
            fallback_count=paper.get("fallback_count", int(fell)),
            reasons=tuple(each[1] for each in attempts[:-1]),
            latency_ms=paper.get("latency_ms", latency_ms),
            first_chunk_ms=paper.get("first_chunk_ms", first_ms),
            cost_picodollars=paper.get("cost_picodollars"),
            usage={name: usage.get(name, 0) for name in ("input", "output")},
            status=self.status,
            text="".join(self._parts),
            attempts=attempts,
        )

    def _receipt(self, client: httpx.Client) -> dict[str, Any] | None:
        name = self.head.get("x-router-receipt-id")
        if name is None or "authorization" not in client.headers:
            return None
        for _ in range(_RECEIPT_TRIES):
            response = client.get(f"/v1/receipts/{name}")
            if response.status_code == 200:
                paper: dict[str, Any] = orjson.loads(response.content)
                return paper
            if response.status_code != 404:
                return None
            time.sleep(_RECEIPT_PAUSE_S)  # its journal is read ten times a second, and nobody is told when
        return None


def _refused(answer: _Answer, told: Told) -> Refused:
    error = answer.error or {}
    message, code = str(error.get("message")), error.get("code")
    kind = "upstream"
    if not told.attempts:
        if answer.status in (402, 429) and code != "cost_ceiling":
            kind = "quota"
        elif code in ("cost_ceiling", "no_candidate", "model_not_found", "context_length_exceeded"):
            kind = "policy"
        elif answer.status in (401, 403) or code == "provider_not_configured":
            kind = "config"
    return Refused(kind, f"{answer.status}: {message}" if kind == "quota" else message, code, told)


class Server:
    """Who is asked by `fastroute eval --url`: an `Asker` over HTTP, for as long as it is entered."""

    def __init__(self, url: str, key: str | None) -> None:
        self._base = url.rstrip("/").removesuffix("/v1")
        # An answer that is told again costs nothing and took no time: it would flatter whoever is asked second.
        self._headers = {"cache-control": "no-store"}
        if key is not None:
            self._headers["authorization"] = f"Bearer {key}"
        try:
            self._client = httpx.AsyncClient(
                base_url=self._base, headers=self._headers, timeout=httpx.Timeout(SILENCE_S, connect=CONNECT_S)
            )
        except httpx.InvalidURL as error:
            raise Unreachable(f"{url}: {error}") from None

    async def __aenter__(self) -> Server:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def ask(self, name: str, prompt: Question) -> Answer:
        """Whatever came of it; `Unreachable` when nobody listens, or the key is none."""
        began = time.monotonic()
        error: str | None = None
        text: str | None = None
        head, status = httpx.Headers(), 0
        try:
            response = await self._client.post("/v1/chat/completions", json=body_of(name, prompt))
            head, status = response.headers, response.status_code
            body = orjson.loads(response.content)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.UnsupportedProtocol, httpx.InvalidURL) as fault:
            raise Unreachable(f"{self._base} does not answer: {fault}") from None
        except httpx.HTTPError as fault:
            error, body = f"the answer did not come: {type(fault).__name__}", None
        except orjson.JSONDecodeError:
            error, body = f"the server answered {status} with something that is not JSON", None
        if status in (401, 403):
            raise Unreachable(f"{self._base} refuses the key ({status}); give one with --key")
        if status == 200 and error is None:
            text = said_in(body)
        elif error is None:
            told = body.get("error") if isinstance(body, dict) else None
            error = str(told.get("message")) if isinstance(told, dict) else f"the server answered {status}"
        return Answer(
            asked=name,
            digest=prompt.digest,
            status=status,
            model=head.get("x-router-model"),
            reason=head.get("x-router-reason"),
            fallback=head.get("x-router-fallback") == "true",
            tokens_in=_count(head, "x-router-tokens-input"),
            tokens_out=_count(head, "x-router-tokens-output"),
            latency_ms=int((time.monotonic() - began) * 1000),
            picodollars=_cost(head.get("x-router-cost-usd")),
            text=text,
            error=error,
        )


def _count(head: httpx.Headers, name: str) -> int:
    value = head.get(name, "")
    return int(value) if value.isascii() and value.isdigit() else 0


def _cost(told: str | None) -> int | None:
    """What a header says it cost; None when it says nothing that is an amount."""
    try:
        return None if told is None else picodollars_from_usd(told)
    except MoneyError:
        return None
