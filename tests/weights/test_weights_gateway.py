"""Weights behind a gateway: an upstream like any other, but for the time in which it is not there yet. No library needed."""

import contextlib
import json
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fastroute.config.places import place, place_of_row
from fastroute.config.sources import load
from fastroute.errors import CatalogError, ConfigError, RegistryError
from fastroute.ledger import migrations
from fastroute.ledger.registry import ModelRow, Registry
from fastroute.ledger.sqlite import Store
from fastroute.routing.build import directory_of

RELAY = "relay: {first_chunk_ms: 700, whole_ms: 700}\n"


@pytest.fixture(scope="module")
def gateway(kit, tmp_path_factory):
    """Two workers over four plays: one that is there soon, one that is slow, one that refuses, one nobody waits for."""
    plays = {
        "smol": {"load_s": 0.2},
        "slow": {"load_s": 2.5},
        "lead": {"refuses": "the weights are of lead"},
        "left": {"load_s": 1.0},
    }
    models = []
    state_dir = tmp_path_factory.mktemp("plays") / "data"
    for name, how in plays.items():
        path = state_dir.parent / f"{name}.gguf"
        path.write_text(json.dumps(how))
        models.append(f"{{id: {name}, weights: {path}}}")
    config = f"{RELAY}models: [{', '.join(models)}]\naliases: {{either: [slow, dummy]}}\n"
    constants = {
        "fastroute.weights.keeper.PROGRAM": [str(Path(__file__).with_name("stub_host.py"))],
        "fastroute.weights.source.NEEDED": {"gguf": [[], "gguf"]},
    }
    gateway = kit.start(state_dir, config=config, constants=constants, workers=2)
    yield gateway
    gateway.stop()


def answered(gateway, model: str, text: str = "one two three", within_s: float = 10.0):
    """The first good answer; until it comes only the load may be in its way."""
    deadline = time.monotonic() + within_s
    while True:
        assert time.monotonic() < deadline
        # A worker that was killed takes the connections along that it had not accepted yet.
        with contextlib.suppress(ConnectionResetError):
            reply = gateway.ask(model, text)
            if reply.status == 200:
                return reply
            assert reply.json["error"]["code"] == "model_loading", reply.body


def host_of(gateway, model: str) -> int:
    """The living process that has this play among its arguments' places."""
    told = [json.loads(path.read_bytes()) for path in (gateway.state_dir / "run" / "weights").glob("*.json")]
    ready = [one["pid"] for one in told if one["state"] == "ready"]
    assert len(ready) == 1, f"only {model} is loaded now"
    return ready[0]


def test_all_workers_ask_one_process_and_the_answer_is_free(gateway, end):
    for _ in range(6):
        reply = answered(gateway, "smol")
        assert reply.json["choices"][0]["message"]["content"] == "one two three"
        assert reply.headers["x-router-cost-usd"] == "0.0000000"
        assert reply.headers["x-router-tokens-input"] == "3"
    streamed = gateway.ask("smol", "one two three", stream=True)
    assert streamed.headers["content-type"].startswith("text/event-stream")
    assert b"[DONE]" in streamed.body
    # A worker that is killed takes nothing along: the process of weights is the house's.
    before = host_of(gateway, "smol")
    end(gateway.workers[0])
    answered(gateway, "smol")
    assert host_of(gateway, "smol") == before
    # And when that is killed, the next request has another.
    end(before)
    answered(gateway, "smol")
    assert host_of(gateway, "smol") != before


def test_while_weights_load_a_request_waits_and_then_is_told_to_come_again(gateway):
    for stream in (False, True):
        reply = gateway.ask("slow", stream=stream)
        assert (reply.status, reply.headers["retry-after"]) == (503, "5")
        assert reply.json["error"]["code"] == "model_loading"
    # Another that is there answers meanwhile; of the lane nothing bad is remembered.
    assert gateway.ask("either").json["choices"][0]["message"]["content"] == "Hello world"
    assert answered(gateway, "slow", "here now").json["choices"][0]["message"]["content"] == "here now"
    assert gateway.get("/health").json["lanes"].get("gguf@slow.gguf", "ok") == "ok"


def test_weights_that_cannot_be_loaded_are_503_with_the_reason(gateway):
    for _ in range(10):
        reply = gateway.ask("lead")
        assert reply.status == 503
        if reply.json["error"]["code"] == "model_unavailable":
            break
    assert reply.json["error"]["message"] == "the weights are of lead"


def test_a_caller_who_leaves_during_the_load_leaves_nothing_behind(gateway, kit):
    with gateway.connect() as sock:
        sock.sendall(kit.chat("left"))
        time.sleep(0.3)
    answered(gateway, "left")
    assert gateway.metric("router_active_requests") == 0


def test_a_missing_library_refuses_the_start_and_names_the_extra(monkeypatch, play):
    from fastroute.assembly import directory_for
    from fastroute.weights import source

    monkeypatch.setitem(source.NEEDED, "gguf", (("no_such_library",), "gguf"))
    config = configured(play().parent, f"models: [{{id: smol, weights: {play()}}}]\n")
    with pytest.raises(
        CatalogError, match=r"model 'smol': play.gguf needs no_such_library: pip install 'fastroute\[gguf\]'"
    ):
        directory_for(config)


# --- names and places -------------------------------------------------------------------------------------------------


def configured(directory: Path, text: str):
    (directory / "fastroute.yaml").write_text(text)
    return load(directory / "fastroute.yaml", {}, {"state_dir": directory / "data"})


def test_importing_the_door_needs_none_of_the_libraries():
    code = (
        "import fastroute.weights, sys; assert not {'torch', 'transformers', 'xllamacpp', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


PLACES = [
    ("/models/a b.gguf", "file:///models/a%20b.gguf"),
    ("file:///models/qwen", "file:///models/qwen"),
    ("Qwen/Qwen3-0.6B", "https://huggingface.co/Qwen/Qwen3-0.6B"),
    ("https://huggingface.co/Qwen/Qwen3-0.6B/", "https://huggingface.co/Qwen/Qwen3-0.6B"),
    ("gpt2", "https://huggingface.co/gpt2"),
]


@pytest.mark.parametrize(("said", "meant"), PLACES)
def test_a_place_is_a_path_or_a_repository(said, meant):
    assert place(said) == meant
    assert place(meant) == meant


@pytest.mark.parametrize(
    "said", ["http://elsewhere/x", "a/b/c", "../..", "org/../x", "https://huggingface.co/a/b.gguf"]
)
def test_what_is_no_place_is_refused(said):
    if said == "../..":
        assert place(said).startswith("file:///")  # a directory is what somebody says it is
    else:
        with pytest.raises(ValueError):
            place(said)


def test_a_model_of_the_file_is_local_free_and_a_lane_of_its_own(tmp_path):
    config = configured(tmp_path, "models: [{id: qwen, weights: Qwen/Qwen3-0.6B, context_window: 4096}]\n")
    entry = directory_of(config).resolve("qwen").catalog["qwen"]
    assert (str(entry.ref), entry.lane) == ("huggingface:qwen", "huggingface@Qwen3-0.6B")
    assert (entry.runtime, entry.kind, entry.endpoint) == ("local", "weight", "https://huggingface.co/Qwen/Qwen3-0.6B")
    assert entry.price.rates.input == entry.price.rates.output == 0


def test_files_of_one_name_in_several_places_are_lanes_of_their_own(tmp_path):
    """They are processes of their own: what one cannot do says nothing of the other."""
    models = [
        f"{{id: {id}, weights: {path}}}" for id, path in (("a", "/a/m.gguf"), ("b", "/b/m.gguf"), ("c", "/b/m.gguf"))
    ]
    models += ["{id: d, weights: org/m}", "{id: e, weights: other/m}", "{id: f, weights: other/n}"]
    models += ["{id: g, weights: /c/m.gguf, lane: mine}"]
    catalog = directory_of(configured(tmp_path, f"models: [{', '.join(models)}]\n")).catalog
    lanes = {id: catalog[id].lane for id in "abcdefg"}
    assert lanes["b"] == lanes["c"]
    assert len(set(lanes.values())) == 6
    assert (lanes["f"], lanes["g"]) == ("huggingface@n", "mine")
    assert all(lanes[id].startswith("gguf@m.gguf#") and "/" not in lanes[id] for id in "ab")


REFUSED = [
    ("{id: a, weights: http://x/y}", "no place of weights"),
    ("{id: a, weights: /x.gguf, endpoint: 'http://x'}", "endpoint: weights say where the model is"),
    ("{id: a, weights: /x.gguf, model: 'openai:b'}", "model: weights say where the model is"),
]


@pytest.mark.parametrize(("entry", "why"), REFUSED)
def test_weights_and_a_server_are_not_both(tmp_path, entry, why):
    with pytest.raises(ConfigError, match=why):
        configured(tmp_path, f"models: [{entry}]\n")


ROWS = [
    (
        ("meta-llama/Llama-3", "huggingface", "https://huggingface.co", "weight"),
        "https://huggingface.co/meta-llama/Llama-3",
    ),
    (("mine", "huggingface", "https://huggingface.co/org/x", "weight"), "https://huggingface.co/org/x"),
    (("mine", "gguf", "/models/x.gguf", "weight"), "file:///models/x.gguf"),
    (("mine", "gguf", "http://127.0.0.1:8080", "weight"), None),
    (("mine", "huggingface", "https://huggingface.co/org/x", "api"), None),
    (("mine", "local", "http://127.0.0.1:5000", "weight"), None),
]


@pytest.mark.parametrize(("row", "leads_to"), ROWS)
def test_a_row_of_the_registry_leads_to_weights_by_its_kind_and_place(tmp_path, row, leads_to):
    assert place_of_row(row[1], row[0], row[2], row[3]) == leads_to
    with Store.open(tmp_path / "r.db") as store:
        registry = Registry(store)
        registry.add(ModelRow(*row))
        directory = directory_of(configured(tmp_path, ""), registry.list())
    entry = directory.resolve(row[0]).catalog[row[0]]
    if leads_to:
        assert (entry.endpoint, entry.runtime, entry.kind) == (leads_to, "local", "weight")


def test_a_row_with_a_path_is_checked(tmp_path):
    with Store.open(tmp_path / "r.db") as store:
        for row, why in (
            (ModelRow("a", "gguf", "/x.bin", "weight"), "is no GGUF file"),
            (ModelRow("a", "gguf", "/x.gguf", "api"), "kind: weights on this machine"),
            (ModelRow("a", "openai", "/x.gguf", "weight"), "is not an http"),
        ):
            with pytest.raises(RegistryError, match=why):
                Registry(store).add(row)


def test_a_registry_of_before_takes_the_new_type_with_its_rows_and_their_triggers(tmp_path, monkeypatch):
    path = tmp_path / "r.db"
    before = [step for step in migrations.MIGRATIONS if step.number < _step("gguf")]
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "MIGRATIONS", tuple(before))
        patch.setattr(migrations, "LATEST", len(before))
        with Store.open(path) as store:
            Registry(store).add(ModelRow("old", "local", "http://x", "weight"))
    with Store.open(path) as store:
        registry = Registry(store)
        seen = registry.generation()
        registry.add(ModelRow("new", "gguf", "/x.gguf", "weight"))
        assert [row.name for row in registry.list()] == ["new", "old"]
        assert registry.generation() > seen
        registry.remove("old")
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
        names = {name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE tbl_name = 'models'")}
    db.close()
    assert {"models_inserted", "models_deleted", "models_updated", "models_by_agent"} <= names


def _step(name: str) -> int:
    return next(step.number for step in migrations.MIGRATIONS if step.name == name)
