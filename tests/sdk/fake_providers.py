"""Three providers in one thread: OpenAI under `/oai` and `/lab`, Anthropic under `/ant`, Google under `/goo`.

They answer from what they are asked, each dialect in a file of its own: tools are called with arguments made from their
schemas, a schema is answered with a value of it, everything else with `TEXT`. A word in the prompt makes them fail:
`fault:429`, `fault:cut` and so on; an `odd:` word makes the OpenAI one sloppy in the way of a server that exists. What
reached them is in `seen`.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
from dataclasses import dataclass

from tests.sdk import fake_anthropic, fake_google, fake_openai
from tests.sdk.fake_words import Body, Reply, failure


@dataclass
class Seen:
    """One request as it arrived at a provider."""

    method: str
    path: str
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> Body:
        return json.loads(self.raw)


class FakeProviders:
    """The thread, its port and what it has seen."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.port = 0
        self._loop = asyncio.new_event_loop()
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._up.wait(5)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)

    @property
    def last(self) -> Seen:
        return self.seen[-1]

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._up.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.01))
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode("latin-1").split("\r\n")[:-2]
                method, path, _ = first.split(" ")
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                raw = await reader.readexactly(int(headers.get("content-length", "0")))
                seen = Seen(method, path, headers, raw)
                self.seen.append(seen)
                if not await _send(writer, answer(seen)):
                    return
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


async def _send(writer: asyncio.StreamWriter, reply: Reply) -> bool:
    """Whether the connection can be used again."""
    headers = {"content-type": "application/json", **reply.headers}
    if reply.events is None:
        headers["content-length"] = str(len(reply.body))
    else:
        headers |= {"content-type": "text/event-stream", "transfer-encoding": "chunked"} | reply.headers
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"HTTP/1.1 {reply.status} Whatever\r\n{lines}\r\n".encode("latin-1"))
    if reply.events is None:
        writer.write(reply.body)
    else:
        for place, event in enumerate(reply.events):
            if reply.pause and place == len(reply.events) - 1:
                await asyncio.sleep(0.05)
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await writer.drain()
            await asyncio.sleep(0)
        if reply.end == "cut":
            return False
        writer.write(b"0\r\n\r\n")
    await writer.drain()
    return True


# --- what is answered ----------------------------------------------------------------------------------------------


def answer(seen: Seen) -> Reply:
    provider, _, path = seen.path.removeprefix("/").partition("/")
    prompt = seen.raw.decode("utf-8", "replace")
    found = re.search(r"fault:(\w+)", prompt)
    fault = found[1] if found else ""
    odd = set(re.findall(r"odd:(\w+)", prompt))
    dialect = {"oai": "openai", "lab": "openai", "ant": "anthropic", "goo": "google"}[provider]
    if fault.isdigit():
        return failure(dialect, int(fault))
    if fault == "html":
        return Reply(502, b"<html><body>Bad gateway</body></html>", {"content-type": "text/html"})
    if fault == "detail":
        return Reply(400, b'{"detail":"the weather is bad"}')
    if seen.headers["content-type"].startswith("multipart/"):
        return failure("openai", 503) if "no-such-scribe" in prompt else fake_openai.form(path, prompt)
    if fault == "created":
        return Reply(201, b"made", {"content-type": "text/x-made"})
    if fault == "accepted":
        return Reply(202, b'{"id": "job-1"}')
    if fault == "nothing":
        return Reply(204)
    body = json.loads(prompt)
    if dialect == "anthropic":
        return fake_anthropic.answer(body, fault)
    if dialect == "google":
        return fake_google.answer(body, fault, "streamGenerateContent" in path)
    if path.removeprefix("v1/") == "responses" and provider != "oai":
        return failure(dialect, 404)
    return fake_openai.answer(path, body, fault, odd)
