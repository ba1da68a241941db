"""A key may name the models that its callers may ask for: everything else is, to them, a name that nobody has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from fastroute import config as configuration
from fastroute.assembly import assemble
from fastroute.call import Call, Failed
from fastroute.gateway import SURFACES, Gateway

CONFIG = (
    'providers: {up: {dialect: openai, base_url: "http://127.0.0.1:9", api_key: secret}}\n'
    "pricing: {allow_unpriced: true}\n"
    "models: [{id: little, model: 'up:small-1'}, {id: big, model: 'up:large-1'}, {id: huge, model: 'up:large-2'}]\n"
    "aliases: {tiny: little, either: [big, little]}\n"
    "auto: {small: little, medium: big}\n"
)

Plan = Callable[..., tuple[str, ...]]


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterable[Gateway]:
    place = tmp_path_factory.mktemp("allowed")
    file = place / "fastroute.yaml"
    file.write_text(CONFIG)
    gateway = assemble(configuration.load(file, {"FASTROUTE_STATE_DIR": str(place)}, {}), 0)
    yield gateway
    gateway.metrics.close()


@pytest.fixture
def plan(gateway: Gateway) -> Plan:
    """The ids of the entries that may answer a name, for who may use these models."""

    async def nothing(*_: Any) -> Any:
        raise AssertionError("nothing is read or sent here")

    def plan(name: str, *models: str) -> tuple[str, ...]:
        loop = asyncio.new_event_loop()
        call = Call(SURFACES["chat"], nothing, nothing, "req_1", loop.time(), loop)
        loop.close()
        gateway.read(call, b'{"model": "%b", "messages": [{"role": "user", "content": "hi"}]}' % name.encode())
        if models:
            call.account = SimpleNamespace(models=frozenset(models), prefer=None)  # type: ignore[assignment]  # a plan asks no more
        gateway.plan(call)
        return tuple(entry.id for entry in call.entries)

    return plan


@pytest.mark.parametrize("allowed", ["little", "up:small-1", "small-1"])
def test_a_model_is_allowed_by_its_id_its_full_name_or_the_providers(plan, allowed):
    assert plan("little", allowed) == ("little",)
    assert plan("tiny", allowed) == ("little",)


def test_a_name_that_is_allowed_passes_whatever_it_leads_to(plan):
    assert plan("either", "either") == ("big", "little")
    assert plan("up:large-9", "up:large-9") == ("up:large-9",)


def test_of_a_name_that_is_not_allowed_what_is_allowed_behind_it_is_left(plan):
    assert plan("either", "little") == ("little",)
    assert plan("auto", "little") == ("little",)


def test_without_a_list_everything_may_be_asked_for(plan):
    assert plan("huge") == ("huge",)
    assert plan("either") == ("big", "little")


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("name", ["big", "either", "up:large-1", "up:never-seen"])
def test_what_is_not_allowed_reads_as_a_name_that_nobody_has(plan, name, before):
    """Whether somebody else asked for it before or not, the words are those of a name that does not exist."""
    if before:
        plan(name)
    with pytest.raises(Failed) as refused:
        plan(name, "huge")
    with pytest.raises(Failed) as unknown:
        plan("qq-" + name, "huge")
    assert (refused.value.status, refused.value.code) == (404, "model_not_found")
    assert (refused.value.kind, refused.value.param) == (unknown.value.kind, unknown.value.param)
    assert refused.value.message == unknown.value.message.replace("qq-", "") == f"model {name!r} is not known here"


def test_the_nearest_name_is_one_that_may_be_asked_for(plan):
    with pytest.raises(Failed, match="did you mean 'little'"):
        plan("littl")
    with pytest.raises(Failed) as refused:
        plan("littl", "huge")
    assert "little" not in refused.value.message


def test_only_what_may_be_asked_for_is_listed(gateway):
    everything = {entry.id for entry in gateway.listed()}
    assert everything >= {"little", "big", "huge", "tiny", "either", "auto"}
    assert {entry.id for entry in gateway.listed(frozenset({"huge"}))} == {"huge"}
    assert {entry.id for entry in gateway.listed(frozenset({"small-1"}))} == {
        "little",
        "tiny",
        "either",
        "auto",
        "small",
    }
