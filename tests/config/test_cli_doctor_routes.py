"""`fastroute doctor` follows the routes: to providers that cannot be asked, and to more targets than can be ranked."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner

from fastroute.cli.doctor import command

Warnings = Callable[..., list[str]]


@pytest.fixture
def warned(elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> Warnings:
    """The warnings for a file and an environment; the exit code is 0, for a warning keeps nothing from starting."""

    def _run(text: str = "", environ: Mapping[str, str] | None = None) -> list[str]:
        file = elsewhere / "fastroute.yaml"
        file.write_text(text)
        file.chmod(0o600)
        monkeypatch.setattr("os.environ", dict(environ or {}))
        result = CliRunner().invoke(command, ["--json"])
        assert result.exit_code == 0, result.output
        found = json.loads(result.output)["findings"]
        assert all(each["severity"] == "warning" and each["mend"] for each in found)
        return [each["what"] for each in found]

    return _run


def test_auto_that_leads_to_a_provider_without_a_key_is_told_once_for_each(warned):
    (told,) = warned("auto: {small: gpt-4o-mini, medium: gpt-4o}", {"ANTHROPIC_API_KEY": "sk-ant-1"})
    assert "auto leads to gpt-4o-mini of provider 'openai', which has no key" in told


def test_auto_with_its_keys_is_sound(warned):
    assert not warned("auto: {small: gpt-4o-mini, medium: gpt-4o}", {"OPENAI_API_KEY": "sk-1234567890"})


def test_a_server_of_ones_own_under_a_known_name_wants_no_key(warned):
    text = "providers: {openai: {base_url: 'http://127.0.0.1:9'}}\nauto: {small: gpt-4o-mini, medium: gpt-4o}"
    assert not warned(text)


def test_with_no_provider_at_all_auto_is_no_news(warned):
    assert not warned("auto: {small: gpt-4o-mini, medium: gpt-4o}")


@pytest.mark.parametrize(("targets", "warnings"), [(255, 0), (256, 1)])
def test_an_alias_has_only_so_many_targets(warned, targets, warnings):
    names = [f"local:m{number}" for number in range(targets)]
    told = warned(f"aliases: {{crowd: {json.dumps(names)}}}")
    assert len(told) == warnings
    assert all("alias 'crowd' has 256 targets and at most 255" in each for each in told)
