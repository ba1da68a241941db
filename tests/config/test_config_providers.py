"""Providers: which can be asked, where they live, whose key they get, and what is said of the others."""

from __future__ import annotations

import pytest

from fastroute.config import KNOWN_PROVIDERS, Secret, load

ADDRESSES = [
    # C27: normalised once, at load
    ("openai", "https://api.openai.com", "https://api.openai.com"),
    ("openai", " https://api.openai.com/v1/ ", "https://api.openai.com"),
    ("openai", "https://api.openai.com//", "https://api.openai.com"),
    ("openai", "HTTPS://API.OpenAI.com/v1", "https://api.openai.com"),
    ("openai", "http://[::1]:9000/v1", "http://[::1]:9000"),
    ("openai", "http://127.0.0.1:9000/base/v1", "http://127.0.0.1:9000/base"),
    ("openai", "http://127.0.0.1:9000/v1beta", "http://127.0.0.1:9000/v1beta"),
    ("openai", "http://127.0.0.1:9000/xv1", "http://127.0.0.1:9000/xv1"),
    ("mistral", "https://api.mistral.ai/v1", "https://api.mistral.ai"),
    # the path in front of /v1 is the provider's own
    ("openrouter", "https://openrouter.ai", "https://openrouter.ai/api"),
    ("openrouter", "https://openrouter.ai/", "https://openrouter.ai/api"),
    ("openrouter", "https://openrouter.ai/api/v1", "https://openrouter.ai/api"),
    ("openrouter", "http://127.0.0.1:9000", "http://127.0.0.1:9000/api"),
    ("openrouter", "http://127.0.0.1:9000/v1", "http://127.0.0.1:9000"),
    ("grok", "https://api.groq.com", "https://api.groq.com/openai"),
    ("grok", "https://api.groq.com/openai/v1", "https://api.groq.com/openai"),
    ("venice", "https://api.venice.ai", "https://api.venice.ai/api"),
    ("venice", "https://api.venice.ai/api/v1", "https://api.venice.ai/api"),
    ("venice", "http://127.0.0.1:9000", "http://127.0.0.1:9000"),
    ("gateway", "https://gw.example.com/api/openai", "https://gw.example.com/api/openai"),
]


@pytest.mark.parametrize(("name", "given", "kept"), ADDRESSES)
def test_an_address_is_normalised_once_wherever_it_was_given(loaded, name, given, kept):
    """The variable and the file mean the same by the same text."""
    known = KNOWN_PROVIDERS[name]
    environ = {known.base_env[0]: given, **dict.fromkeys(known.key_env[:1], "k")}
    assert load(None, environ, {}).providers[name].base_url == kept
    assert loaded(f"providers: {{{name}: {{base_url: '{given}'}}}}").providers[name].base_url == kept


BAD_ADDRESSES = [
    ("api.openai.com", "found the text 'api.openai.com', wanted an http(s) address with a host"),
    ("ftp://x.com", "found the text 'ftp://x.com', wanted an http(s) address with a host"),
    ("file:///etc/passwd", "wanted an http(s) address with a host"),
    ("https://", "wanted an http(s) address with a host"),
    ("https://:80", "wanted an http(s) address with a host"),
    ("https://x.com:99999", "wanted an http(s) address such as"),
    ("https://x.com:0", "wanted an http(s) address with a host"),
    ("https://[x", "wanted an http(s) address such as"),
    ("https://me:word@x.com", "found an address with a user or a password in it"),
    ("https://x.com/?a=b", "found an address with a query or a fragment"),
    ("https://x.com/#a", "found an address with a query or a fragment"),
    ("https://x.com/a b", "in plain ASCII without blanks"),
    ("https://x.com/a\\nHost: b", "in plain ASCII without blanks"),
    ("https://bücher.example", "in plain ASCII without blanks"),
    ("", "wanted an http(s) address with a host"),
]


@pytest.mark.parametrize(("given", "expected"), BAD_ADDRESSES)
def test_an_address_that_cannot_be_asked_is_refused(refusals, given, expected):
    told = refusals(f'providers:\n  openai:\n    base_url: "{given}"\n')
    assert len(told) == 1
    assert told[0].startswith("fastroute.yaml:3: providers.openai.base_url: ")
    assert expected in told[0]


def test_a_key_in_the_environment_is_enough():
    config = load(None, {"OPENAI_API_KEY": "a", "GEMINI_API_KEY": "b", "EXTERNAL_GROK_KEY": "c"}, {})
    assert {each.name: (each.dialect, each.base_url, each.api_key_source) for each in config.providers.values()} == {
        "openai": ("openai", "https://api.openai.com", "env OPENAI_API_KEY"),
        "google": ("google", "https://generativelanguage.googleapis.com", "env GEMINI_API_KEY"),
        "grok": ("openai", "https://api.groq.com/openai", "env EXTERNAL_GROK_KEY"),
    }


@pytest.mark.parametrize("name", [name for name, known in KNOWN_PROVIDERS.items() if known.key_env and known.base_url])
def test_every_known_provider_takes_the_first_of_its_keys(name):
    known = KNOWN_PROVIDERS[name]
    config = load(None, {variable: f"key-{variable}" for variable in known.key_env}, {})
    provider = config.providers[name]
    assert provider.api_key == Secret(f"key-{known.key_env[0]}")
    assert provider.api_key_source == f"env {known.key_env[0]}"
    assert (provider.base_url, provider.base_url_source, provider.dialect) == (known.base_url, "default", known.dialect)


@pytest.mark.parametrize(
    ("variable", "name"), [("LLMD_ENDPOINT", "llm-d"), ("LOCAL_AGENT_URL", "local"), ("AI_GATEWAY_BASE_URL", "gateway")]
)
def test_some_providers_are_switched_on_by_their_address(variable, name):
    config = load(None, {variable: "http://127.0.0.1:5000/v1"}, {})
    assert list(config.providers) == [name]
    assert config.providers[name].base_url == "http://127.0.0.1:5000"
    assert (config.providers[name].base_url_source, config.providers[name].api_key) == (f"env {variable}", None)


def test_an_address_alone_does_not_switch_on_a_provider_that_wants_a_key():
    assert load(None, {"OPENAI_BASE_URL": "https://x.com"}, {}).providers == {}


def test_a_key_without_any_address_does_not_switch_on_the_gateway():
    assert load(None, {"AI_GATEWAY_API_KEY": "k"}, {}).providers == {}


def test_an_empty_key_is_no_key():
    assert load(None, {"OPENAI_API_KEY": "", "ANTHROPIC_API_KEY": " \n"}, {}).providers == {}


def test_the_newline_a_file_leaves_behind_a_key_is_dropped():
    provider = load(None, {"OPENAI_API_KEY": "sk-a\n"}, {}).providers["openai"]
    assert provider.api_key is not None
    assert provider.api_key.reveal() == "sk-a"


def test_the_environment_wins_over_the_file_and_says_so(loaded):
    config = loaded(
        "providers:\n  openai:\n    base_url: https://a.com\n    api_key: from-file\n",
        {"OPENAI_BASE_URL": "https://b.com", "OPENAI_API_KEY": "from-env"},
    )
    provider = config.providers["openai"]
    assert (provider.base_url, provider.base_url_source) == ("https://b.com", "env OPENAI_BASE_URL")
    assert (provider.api_key, provider.api_key_source) == (Secret("from-env"), "env OPENAI_API_KEY")


def test_a_key_read_through_the_file_names_line_and_variable(loaded):
    config = loaded(
        "providers:\n  mine:\n    {dialect: openai, base_url: 'http://h', api_key: '${TEAM}'}", {"TEAM": "k"}
    )
    provider = config.providers["mine"]
    assert (provider.api_key_source, provider.display) == ("fastroute.yaml:3 (${TEAM})", "mine")
    assert config.literal_secrets == ()


def test_a_provider_of_ones_own_comes_in_the_order_of_the_file(loaded):
    text = "providers:\n  zeta: {dialect: anthropic, base_url: 'https://z'}\n  alpha: {dialect: demo}\n  local: {}\n"
    config = loaded(text, {"OPENAI_API_KEY": "k"})
    assert list(config.providers) == ["zeta", "alpha", "local", "openai"]
    assert (config.providers["alpha"].base_url, config.providers["alpha"].dialect) == (None, "demo")
    assert (config.providers["local"].base_url, config.providers["local"].base_url_source) == (
        "http://localhost:5000",
        "default",
    )


PROVIDERS_REFUSED = [
    ("mine: {base_url: 'http://h'}", "providers.mine.dialect is missing; wanted one of openai, anthropic, google"),
    ("mine: {dialect: openai}", "providers.mine.base_url is missing; wanted an http(s) address"),
    ("mine: {dialect: openai, base_url: null}", "providers.mine.base_url is missing; wanted an http(s) address"),
    ("gateway: {}", "providers.gateway.base_url is missing; give it, or set AI_GATEWAY_BASE_URL"),
    ("mine: {dialect: cohere, base_url: 'http://h'}", "providers.mine.dialect: found the text 'cohere', wanted one of"),
    ("mine: {dialect: demo, api_key: x}", "providers.mine.api_key: the demo dialect answers by itself; leave it out"),
    ("'a:b': {dialect: demo}", "providers: 'a...' is no name of a provider; wanted letters, digits, . _ -"),
    ("openai: https://x.com", "providers.openai: found one value, wanted a section"),
    ("openai: {api_key: 5}", "providers.openai.api_key: found something that is not text, wanted a secret"),
    ("openai: {api_key: ''}", "providers.openai.api_key: found an empty secret"),
]


@pytest.mark.parametrize(("text", "expected"), PROVIDERS_REFUSED)
def test_a_provider_that_cannot_be_used_is_told_with_what_it_lacks(refusals, text, expected):
    told = refusals(f"providers:\n  {text}\n")
    assert len(told) == 1
    assert told[0].startswith(f"fastroute.yaml:2: {expected}")


REFUSALS = [
    ("openai", "OpenAI key not configured"),
    ("anthropic", "Anthropic key not configured"),
    ("openrouter", "OpenRouter key not configured"),
    ("llm-d", "LLMD_ENDPOINT not configured"),
    ("gateway", "AI_GATEWAY_BASE_URL not configured"),
]


@pytest.mark.parametrize(("name", "words"), REFUSALS)
def test_i_a5_a_known_provider_nobody_configured_has_its_refusal_ready(name, words):
    known = load(None, {}, {}).unconfigured(name)
    assert known is not None
    assert known.refusal == words


def test_a_configured_or_unknown_provider_has_no_such_refusal():
    config = load(None, {"OPENAI_API_KEY": "k"}, {})
    assert config.unconfigured("openai") is None
    assert config.unconfigured("nobody") is None
