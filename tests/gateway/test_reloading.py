"""A running server takes in what changes: its registry by itself, its configuration on SIGHUP, and neither when unsound."""

from __future__ import annotations

import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest

from fastroute.ledger.registry import ModelRow, Registry
from fastroute.ledger.sqlite import Store

PATIENCE_S = 8.0


def until(true: Callable[[], Any]) -> None:
    """The server looks once a second; nothing here takes longer than two looks."""
    patience = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < patience
        time.sleep(0.02)


def config(upstream: Any, name: str, more: str = "") -> str:
    provider = f'providers: {{up: {{dialect: openai, base_url: "{upstream.url}"}}}}\n'
    return f"{provider}pricing: {{allow_unpriced: true}}\nmodels: [{{id: {name}, model: 'up:{name}'}}]\n{more}"


@pytest.fixture(scope="module")
def gateway(serve: Any, upstream: Any) -> Any:
    return serve(config(upstream, "old"), workers=2)


def rewrite(gateway: Any, text: str) -> None:
    (gateway.log.parent / "fastroute.yaml").write_text(text)
    gateway.process.send_signal(signal.SIGHUP)


def served(gateway: Any, model: str) -> bool:
    """By whichever worker answers: connections are spread over both, so several are asked."""
    return all(gateway.ask(model).status == 200 for _ in range(6))


def unknown(gateway: Any, model: str) -> bool:
    return all(gateway.ask(model).status == 404 for _ in range(6))


def test_a_hangup_serves_the_configuration_as_it_is_now(gateway, upstream):
    assert served(gateway, "old")
    rewrite(gateway, config(upstream, "new"))
    until(lambda: served(gateway, "new") and unknown(gateway, "old"))


def test_a_configuration_that_cannot_be_served_changes_nothing(gateway, upstream):
    rewrite(gateway, config(upstream, "fine"))
    until(lambda: served(gateway, "fine"))
    for told, text in enumerate(("modells: []\n", "aliases: {a: b, b: a}\n", "server: {port: many}\n"), 1):
        rewrite(gateway, config(upstream, "bad", text))
        until(lambda told=told: gateway.log.read_text().count("the configuration cannot be served") == told)
        assert served(gateway, "fine")
        assert unknown(gateway, "bad")


def test_what_needs_a_restart_says_so_and_stays(gateway, upstream):
    rewrite(gateway, config(upstream, "moved", "server: {drain_ms: 1234}\n"))
    until(lambda: served(gateway, "moved"))
    until(lambda: "until a restart: server.drain_ms" in gateway.log.read_text())


def test_what_other_processes_hold_as_it_was_needs_a_restart_too(gateway, upstream):
    """A worker that began with another window would count in a table of its own, and let each limit through twice."""
    rewrite(gateway, config(upstream, "counted", "limits: {window_s: 7}\nreceipts: {mirror: true}\n"))
    until(lambda: served(gateway, "counted"))
    until(lambda: "until a restart: receipts, limits.window_s" in gateway.log.read_text())


def test_a_hangup_ends_nobody(gateway, upstream, say):
    """A closed terminal hangs up on the whole group, workers included; a stream under way keeps what it began with."""
    rewrite(gateway, config(upstream, "streamed"))
    until(lambda: served(gateway, "streamed"))
    go = threading.Event()
    events = say.openai_events("hel", "lo")
    upstream.script("streamed", [say.head() + say.chunk(events[0] + events[1]), upstream.wait(go),
                                 b"".join(map(say.chunk, events[2:])) + say.LAST])  # fmt: skip
    replies: list[Any] = []
    asking = threading.Thread(target=lambda: replies.append(gateway.ask("streamed", stream=True)))
    asking.start()
    until(lambda: upstream.asked("streamed"))
    rewrite(gateway, config(upstream, "after"))
    until(lambda: served(gateway, "after") and unknown(gateway, "streamed"))
    go.set()
    asking.join(PATIENCE_S)
    assert (replies[0].text, replies[0].done) == ("hello", True)
    assert gateway.process.poll() is None


def test_a_registry_that_changes_is_served_by_itself(gateway, upstream):
    database = gateway.log.parent / "state" / "fastroute.db"
    with Store.open(database) as store:
        Registry(store).add(ModelRow("added-later", "local", f"{upstream.url}/v1"))
    until(lambda: all(b"added-later" in gateway.get("/v1/models") for _ in range(6)))
    with Store.open(database) as store:
        Registry(store).remove("added-later")
    until(lambda: not any(b"added-later" in gateway.get("/v1/models") for _ in range(6)))


def test_a_registry_that_cannot_be_read_changes_nothing_and_is_told_once(gateway, upstream):
    """A newer program's file is refused whole; what was served before stays until the file is sound again."""
    rewrite(gateway, config(upstream, "kept"))
    until(lambda: served(gateway, "kept"))
    database = gateway.log.parent / "state" / "fastroute.db"
    with Store.open(database) as store:
        Registry(store).add(ModelRow("stays", "local", f"{upstream.url}/v1"))
    until(lambda: all(b"stays" in gateway.get("/v1/models") for _ in range(6)))
    with closing(sqlite3.connect(database)) as raw:
        version = raw.execute("PRAGMA user_version").fetchone()[0]
        raw.execute("PRAGMA user_version = 9999")
        until(lambda: gateway.log.read_text().count("the registry cannot be served") >= 2)  # once for each worker
        assert all(b"stays" in gateway.get("/v1/models") for _ in range(6))
        raw.execute(f"PRAGMA user_version = {version}")
    assert gateway.log.read_text().count("the registry cannot be served") == 2
    with Store.open(database) as store:
        Registry(store).remove("stays")
    until(lambda: not any(b"stays" in gateway.get("/v1/models") for _ in range(6)))


def test_a_worker_that_is_asked_how_it_is_says_well(gateway):
    assert gateway.get("/healthz") == b"ok"
    assert gateway.metric("fastroute_loop_lag_seconds_count") > 0
