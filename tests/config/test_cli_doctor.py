"""`fastroute doctor`: tells what holds and what is insecure, never a secret, and exits as documented."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from fastroute.cli.doctor import command
from fastroute.config import SETTINGS, load
from fastroute.config.findings import findings, is_loopback

KEY = "0123456789abcdef0123456789abcdef"
Doctor = Callable[..., Result]


@pytest.fixture
def doctor(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> Doctor:
    """The command, run in a directory and an environment of the test's own."""

    def _run(*words: str, environ: Mapping[str, str] | None = None) -> Result:
        monkeypatch.setattr("os.environ", dict(environ or {}))
        return CliRunner().invoke(command, words)

    return _run


def whats(
    text: str = "", environ: Mapping[str, str] | None = None, flags: Mapping[str, Any] | None = None
) -> list[str]:
    file = Path("fastroute.yaml")
    file.write_text(text)
    file.chmod(0o600)
    found = findings(load(None, environ or {}, flags or {}))
    assert all(each.severity == "warning" and each.mend for each in found)
    return [each.what for each in found]


def test_a_sound_configuration_exits_0_with_nothing_found(doctor):
    result = doctor()
    assert result.exit_code == 0
    assert result.output.startswith("file: none\n")
    assert result.output.endswith("Findings\n  none\n")
    assert all(each.name in result.output for each in SETTINGS)


def test_warnings_do_not_change_the_exit_code(doctor):
    result = doctor(environ={"FASTROUTE_ADMIN_KEY": "changeme"})
    assert result.exit_code == 0
    assert "warning: auth.admin_key is a secret that stands in examples" in result.output
    assert "mend: make another" in result.output


def test_json_is_one_object_with_values_sources_and_findings(doctor):
    Path("my.yaml").write_text("server:\n  port: 9\nproviders: {alpha: {dialect: demo}}\n")
    result = doctor("--config", "my.yaml", "--json", environ={"OPENAI_API_KEY": KEY, "ROUTER_API_KEY": "short"})
    assert result.exit_code == 0
    body = json.loads(result.stdout)
    assert list(body) == ["settings", "providers", "policies", "findings"]
    assert {"name": "server.port", "value": 9, "source": "my.yaml:2"} in body["settings"]
    assert {"name": "auth.router_key", "value": "***", "source": "env ROUTER_API_KEY"} in body["settings"]
    assert {"name": "auth.admin_key", "value": None, "source": "default"} in body["settings"]
    assert body["providers"] == [
        {
            "name": "alpha",
            "dialect": "demo",
            "base_url": None,
            "base_url_source": "none",
            "api_key": None,
            "api_key_source": None,
        },
        {
            "name": "openai",
            "dialect": "openai",
            "base_url": "https://api.openai.com",
            "base_url_source": "default",
            "api_key": "***",
            "api_key_source": "env OPENAI_API_KEY",
        },
    ]
    assert [each["what"] for each in body["findings"]] == [
        "auth.router_key is shorter than 16 characters",
        "auto leads to mistral-small-latest of provider 'mistral', which has no key",
    ]
    assert {"severity", "what", "mend"} == set(body["findings"][0])


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_a_configuration_that_cannot_be_used_exits_78_with_every_mistake(doctor, words):
    Path("fastroute.yaml").write_text("sever: {}\nserver: {port: x}\n")
    result = doctor(*words)
    assert result.exit_code == 78
    assert "fastroute.yaml:1: unknown key 'sever'" in result.output
    assert "fastroute.yaml:2: server.port" in result.output
    if words:
        body = json.loads(result.stdout)
        assert [each["severity"] for each in body["findings"]] == ["error", "error"]
        assert body["findings"][1]["mend"] == "correct fastroute.yaml:2"


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_no_secret_is_ever_printed(doctor, words):
    Path("fastroute.yaml").write_text(
        "auth: {admin_key: hidden-admin-key-1}\nproviders: {openai: {api_key: hidden-2}}\n"
    )
    result = doctor(*words, environ={"ROUTER_API_KEY": "hidden-3"})
    assert result.exit_code == 0
    assert "***" in result.output
    assert "hidden" not in result.output


def test_a_public_address_wants_a_key_and_an_admin_key():
    told = whats("server: {host: 0.0.0.0}")
    assert [each.rpartition(", and ")[2] for each in told] == [
        "auth.router_key is not set",
        "auth.admin_key is not set",
    ]
    assert whats("server: {host: 0.0.0.0}", {"ROUTER_API_KEY": KEY, "FASTROUTE_ADMIN_KEY": KEY[::-1]}) == []


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),  # noqa: S104 - the address this test is about
        ("::", False),
        ("10.0.0.1", False),
        ("example.com", False),
        ("localhost.example.com", False),
        ("", False),
    ],
)
def test_only_this_machine_is_loopback(host, loopback):
    assert is_loopback(host) is loopback


def test_a_shared_cache_without_a_time_is_told():
    told = whats("cache: {endpoint: 'http://cache:8600'}")
    assert told == ["cache.endpoint is set and cache.ttl_s is 0, so no answer is kept anywhere"]
    assert whats("cache: {endpoint: 'http://cache:8600', ttl_s: 60}") == []


@pytest.mark.parametrize("secret", ["dev-secret", "sk-1234", "changeme", "ChangeMe", "secret"])
def test_secrets_of_examples_are_told_wherever_they_stand(secret):
    told = whats("", {"FASTROUTE_ADMIN_KEY": secret, "ROUTER_API_KEY": KEY, "OPENAI_API_KEY": secret})
    assert told == [
        "auth.admin_key is a secret that stands in examples",
        "providers.openai.api_key is a secret that stands in examples",
    ]


def test_a_secret_of_ours_is_16_characters_long_and_a_providers_is_its_own_affair():
    assert whats("", {"FASTROUTE_ADMIN_KEY": "x" * 16, "OPENAI_API_KEY": "short"}) == []
    assert whats("", {"FASTROUTE_ADMIN_KEY": "x" * 15}) == ["auth.admin_key is shorter than 16 characters"]


def test_one_key_for_callers_and_administrators_is_told():
    (told,) = whats("", {"FASTROUTE_ADMIN_KEY": KEY, "ROUTER_API_KEY": KEY})
    assert told.endswith("every caller is an administrator")


def test_a_key_sent_without_encryption_is_told_unless_it_stays_here():
    base = "providers: {mine: {dialect: openai, base_url: 'http://%s', api_key: '${K}'}}"
    assert whats(base % "h.example.com", {"K": KEY}) == [
        "providers.mine.base_url http://h.example.com carries a key without encryption"
    ]
    assert whats(base % "127.0.0.1:9000", {"K": KEY}) == []
    model = "providers: {openai: {}}\nmodels: [{id: a, model: 'openai:a', endpoint: 'http://10.0.0.1'}]"
    assert whats(model) == []
    assert whats(model, {"OPENAI_API_KEY": KEY}) == [
        "endpoint of model a http://10.0.0.1 carries a key without encryption"
    ]


def test_a_provider_that_is_this_server_itself_is_told():
    """A client's OPENAI_BASE_URL in the server's environment would send every request round in a circle."""
    environ = {"OPENAI_API_KEY": KEY, "OPENAI_BASE_URL": "http://localhost:8000/v1"}
    (told,) = whats("", environ)
    assert "is this server itself (env OPENAI_BASE_URL)" in told
    assert whats("server: {port: 8001}", environ) == []


@pytest.mark.parametrize(("mode", "count"), [(0o700, 0), (0o500, 0), (0o750, 1), (0o701, 1), (0o777, 1)])
def test_a_state_directory_open_to_others_is_told(mode, count):
    Path("data").mkdir()
    Path("data").chmod(mode)
    told = whats()
    assert len(told) == count
    assert all(f"state_dir data is open to others (mode {mode:04o})" in each for each in told)


@pytest.mark.parametrize(
    ("text", "mode", "count"),
    [
        ("providers: {openai: {api_key: sk-live-1}}", 0o644, 1),
        ("providers: {openai: {api_key: sk-live-1}}", 0o640, 1),
        ("providers: {openai: {api_key: sk-live-1}}", 0o600, 0),
        ("providers: {openai: {api_key: '${K}'}}", 0o644, 0),
        ("demo: true", 0o644, 0),
    ],
)
def test_a_file_with_secrets_written_out_is_for_its_owner_alone(text, mode, count):
    file = Path("fastroute.yaml")
    file.write_text(text)
    file.chmod(mode)
    found = findings(load(None, {"K": KEY}, {}))
    assert len(found) == count
    for each in found:
        assert "fastroute.yaml:1" in each.what
        assert each.mend.startswith("chmod 0600 fastroute.yaml, or write ${NAME}")
