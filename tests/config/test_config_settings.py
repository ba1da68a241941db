"""The settings table: who wins, what each type refuses, and that the table, the structs and the reference agree."""

from __future__ import annotations

import pickle
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from fastroute.config import KNOWN_PROVIDERS, SETTINGS, Secret, load, reference
from fastroute.config.sources import cores
from fastroute.domain import Price, Rates
from fastroute.errors import ConfigError

KEY = "k" * 32


def test_with_nothing_said_the_defaults_hold():
    config = load(None, {}, {})
    assert (config.server.host, config.server.port, config.server.workers) == ("127.0.0.1", 8000, cores())
    assert (config.server.backpressure, config.server.drain_ms, config.server.body_limit_bytes) == (
        8192,
        60000,
        4194304,
    )
    assert config.state_dir == Path("data")
    assert (config.auth.admin_key, config.auth.router_key) == (None, None)
    assert msgspec.structs.astuple(config.relay) == (2000, 10000, 60000, 30000, 600000, 3)
    assert (config.auto.ranker, config.auto.small, config.auto.medium) == (
        "tiers",
        "mistral-small-latest",
        "mistral-medium-latest",
    )
    assert (config.auto.length_threshold, config.auto.token_threshold, config.auto.conversation_threshold) == (
        120,
        150,
        6,
    )
    assert config.auto.max_input_tokens is None
    assert (config.auto.cost_weight, config.auto.latency_weight) == (1000, 1000)
    assert (config.auto.cost_threshold, config.auto.cost_threshold_microdollars) == (1000, None)
    assert config.auto.targets == ()
    assert config.auto.small_price == Price(Rates(100_000, 300_000))
    assert config.auto.medium_price == Price(Rates(400_000, 2_000_000))
    assert msgspec.structs.astuple(config.health) == (3, 5000)
    assert (config.pricing.allow_unpriced, config.demo, config.dummy) == (False, False, True)
    assert (config.log.level, config.log.path, config.policies_dir) == (
        "INFO",
        Path("logs/router.log"),
        Path("policies"),
    )
    assert (config.providers, config.models, config.aliases, config.file) == ({}, (), {}, None)
    assert {each.source for each in config.effective} == {"default"}


PRECEDENCE = [
    # file, environment, flag -> value, source
    (None, None, None, 8000, "default"),
    (1, None, None, 1, "fastroute.yaml:2"),
    (1, "2", None, 2, "env FASTROUTE_PORT"),
    (1, "2", 3, 3, "flag --port"),
    (None, "2", None, 2, "env FASTROUTE_PORT"),
    (1, None, 3, 3, "flag --port"),
    (1, "  ", None, 1, "fastroute.yaml:2"),  # an empty variable is not set
    (1, "2", 0, 0, "flag --port"),  # a zero is said, and null is not
]


@pytest.mark.parametrize(("file", "variable", "flag", "value", "source"), PRECEDENCE)
def test_flags_win_over_the_environment_over_the_file_over_the_default(loaded, file, variable, flag, value, source):
    config = loaded(
        "" if file is None else f"server:\n  port: {file}\n",
        {} if variable is None else {"FASTROUTE_PORT": variable},
        {"port": flag},
    )
    shown = next(each for each in config.effective if each.name == "server.port")
    assert (config.server.port, shown.value, shown.source) == (value, value, source)


VARIABLES = [
    ("FASTROUTE_STATE_DIR", "/srv/x", "state_dir", "/srv/x"),
    ("FASTROUTE_ADMIN_KEY", KEY, "auth.admin_key", "***"),
    ("ROUTER_API_KEY", KEY, "auth.router_key", "***"),
    ("ROUTER_SHARED_SECRET", KEY, "auth.router_key", "***"),
    ("MODEL_SMALL", "a", "auto.small", "a"),
    ("MODEL_MEDIUM", "b", "auto.medium", "b"),
    ("PRICE_SMALL_INPUT", "0", "auto.price_small_input", "0.00"),
    ("PRICE_MEDIUM_OUTPUT", "2.125", "auto.price_medium_output", "2.125"),
    ("ROUTER_LENGTH_THRESHOLD", "0", "auto.length_threshold", 0),
    ("ROUTER_TOKEN_THRESHOLD", "7", "auto.token_threshold", 7),
    ("ROUTER_CONVERSATION_THRESHOLD", "8", "auto.conversation_threshold", 8),
    ("ROUTER_MAX_INPUT_TOKENS", "4096", "auto.max_input_tokens", 4096),
    ("ROUTER_COST_WEIGHT", "0.125", "auto.cost_weight", "0.125"),
    ("ROUTER_LATENCY_WEIGHT", "2", "auto.latency_weight", "2.0"),
    ("ROUTER_COST_THRESHOLD", "9", "auto.cost_threshold", 9),
    ("ROUTER_COST_THRESHOLD_MICRODOLLARS", "0", "auto.cost_threshold_microdollars", 0),
    ("ROUTER_CLIENT_TIMEOUT_S", "15", "relay.whole_ms", 15_000),
    ("ROUTER_CLIENT_TIMEOUT_S", "0.25", "relay.whole_ms", 250),
    ("CACHE_TTL", "300", "cache.ttl_s", 300),
    ("CACHE_ENDPOINT", "http://cache:8600/", "cache.endpoint", "http://cache:8600"),
    ("CACHE_REDIS_URL", "redis://:secret@cache:6379/0", "cache.redis_url", "***"),
    ("LOG_LEVEL", "debug", "log.level", "DEBUG"),
    ("LOG_PATH", "x.log", "log.path", "x.log"),
]


@pytest.mark.parametrize(("variable", "text", "name", "value"), VARIABLES)
def test_every_variable_of_the_seeds_is_honoured(variable, text, name, value):
    config = load(None, {variable: text}, {})
    shown = next(each for each in config.effective if each.name == name)
    assert (shown.value, shown.source) == (value, f"env {variable}")


def test_of_two_variables_the_first_in_the_table_wins():
    config = load(None, {"ROUTER_SHARED_SECRET": "b" * 16, "ROUTER_API_KEY": "a" * 16}, {})
    assert config.auth.router_key == Secret("a" * 16)


def test_a_null_in_the_file_is_no_limit_and_a_zero_is_a_closed_one(loaded):
    config = loaded("auto: {max_input_tokens: null, cost_threshold_microdollars: 0}")
    assert (config.auto.max_input_tokens, config.auto.cost_threshold_microdollars) == (None, 0)


@pytest.mark.parametrize("workers", ["0", "null", "~"])
def test_no_number_of_workers_is_one_for_each_core(loaded, workers):
    assert loaded(f"server: {{workers: {workers}}}").server.workers == cores() >= 1


def test_the_dotted_name_fills_a_setting_without_a_flag():
    config = load(None, {}, {"relay.idle_ms": 5, "state_dir": Path("x"), "demo": True, "auto.targets": ["a", "b"]})
    assert (config.relay.idle_ms, config.state_dir, config.demo, config.auto.targets) == (
        5,
        Path("x"),
        True,
        ("a", "b"),
    )


def test_a_flag_that_no_setting_has_is_our_own_mistake():
    with pytest.raises(TypeError, match="no setting is filled by 'prot'"):
        load(None, {}, {"prot": 1})


REFUSED = [
    # text, what the message says
    ("server: {port: '8000'}", "server.port: found the text '8000', wanted a whole number from 0 to 65535"),
    ("server: {port: 8000.0}", "server.port: found the decimal number 8000.0, wanted a whole number"),
    ("server: {port: true}", "server.port: found true, wanted a whole number"),
    ("server: {port: 65536}", "server.port: found the whole number 65536, wanted a whole number from 0 to 65535"),
    ("server: {port: -1}", "server.port: found the whole number -1, wanted"),
    ("server: {port: [1]}", "server.port: found a list, wanted a whole number"),
    ("server: {port: {a: 1}}", "server.port: found a section, wanted a whole number"),
    ("server: {port: null}", "server.port: found nothing (null), wanted a whole number"),
    ("server: 8000", "server: found one value, wanted a section of `name: value`"),
    ("server: [port]", "server: found a list, wanted a section of `name: value`"),
    ("server: {host: ''}", "server.host: found the text '', wanted a name, not empty"),
    (
        "server: {host: 'a b'}",
        "server.host: found the text 'a b', wanted a name of at most 200 characters without blanks",
    ),
    ("demo: yes", "demo: found the text 'yes', wanted true or false"),
    ("demo: 1", "demo: found the whole number 1, wanted true or false"),
    ("policies_dir: 7", "policies_dir: found the whole number 7, wanted a path in quotes"),
    (
        "auto: {ranker: fastest}",
        "auto.ranker: found the text 'fastest', wanted one of tiers, cheapest, weighted, ordered",
    ),
    (
        "auto: {cost_weight: 1.0005}",
        "auto.cost_weight: found the decimal number 1.0005, wanted a decimal number from 0 to",
    ),
    ("auto: {cost_weight: -1}", "auto.cost_weight: found the whole number -1, wanted"),
    ("auto: {cost_weight: 1e99}", "auto.cost_weight: found the decimal number 1e99, wanted"),
    ("auto: {price_small_input: -0.1}", "auto.price_small_input: found the decimal number -0.1, wanted a price"),
    ("auto: {targets: a}", "auto.targets: found the text 'a', wanted a list of names"),
    ("auto: {targets: [a, 1]}", "auto.targets[1]: found the whole number 1, wanted a name in quotes"),
    ("auto: {targets: [a, a]}", "auto.targets[1]: 'a' is in the list already"),
    ("health: {threshold: 0}", "health.threshold: found the whole number 0, wanted a whole number from 1"),
    ("auth: {admin_key: 12345}", "auth.admin_key: found something that is not text, wanted a secret"),
    ("auth: {admin_key: ''}", "auth.admin_key: found an empty secret"),
]


@pytest.mark.parametrize(("text", "expected"), REFUSED, ids=[row[0] for row in REFUSED])
def test_a_wrong_value_is_told_with_what_was_found_and_what_is_wanted(refusals, text, expected):
    told = refusals(text)
    assert len(told) == 1
    assert told[0].startswith(f"fastroute.yaml:1: {expected}")


ENVIRONMENT_REFUSED = [
    ("FASTROUTE_PORT", "eighty", "env FASTROUTE_PORT: server.port: found the text 'eighty', wanted a whole number"),
    ("FASTROUTE_PORT", "1_0", "env FASTROUTE_PORT: server.port: found the text '1_0'"),
    ("FASTROUTE_PORT", "9" * 5000, "env FASTROUTE_PORT: server.port: found the text '999"),
    ("ROUTER_COST_WEIGHT", "1e3", "env ROUTER_COST_WEIGHT: auto.cost_weight: found the text '1e3'"),
    ("ROUTER_COST_WEIGHT", "nan", "env ROUTER_COST_WEIGHT: auto.cost_weight: found the text 'nan'"),
    ("ROUTER_CLIENT_TIMEOUT_S", "0.0005", "env ROUTER_CLIENT_TIMEOUT_S: relay.whole_ms: found the text '0.0005'"),
    ("PRICE_SMALL_INPUT", "-1", "env PRICE_SMALL_INPUT: auto.price_small_input: found the text '-1', wanted a price"),
    ("PRICE_SMALL_INPUT", "0.0000001", "env PRICE_SMALL_INPUT: auto.price_small_input: found the text '0.0000001'"),
    ("LOG_LEVEL", "loud", "env LOG_LEVEL: log.level: found the text 'loud', wanted one of DEBUG, INFO"),
]


@pytest.mark.parametrize(("variable", "text", "expected"), ENVIRONMENT_REFUSED)
def test_a_wrong_variable_is_told_by_its_name(variable, text, expected):
    with pytest.raises(ConfigError) as fault:
        load(None, {variable: text}, {})
    assert str(fault.value).startswith(expected)
    assert len(str(fault.value)) < 300


@pytest.mark.parametrize("value", [1.5, float("nan"), "x", -1])
def test_a_float_never_becomes_a_weight(value):
    with pytest.raises(ConfigError, match=r"^flag auto.cost_weight: auto.cost_weight: found "):
        load(None, {}, {"auto.cost_weight": value})
    assert load(None, {}, {"auto.cost_weight": Decimal("1.5")}).auto.cost_weight == 1500


UNKNOWN = [
    ("sever: {}", "fastroute.yaml:1: unknown key 'sever'; did you mean 'server'?"),
    ("server:\n  prot: 1", "fastroute.yaml:2: server: unknown key 'prot'; did you mean 'port'?"),
    ("port: 1", "fastroute.yaml:1: unknown key 'port'; did you mean 'server.port'?"),
    ("relay: {port: 1}", "fastroute.yaml:1: relay: unknown key 'port'; did you mean 'server.port'?"),
    ("on: 1", "fastroute.yaml:1: unknown key 'on'; "),
    ("zzz: 1", "fastroute.yaml:1: unknown key 'zzz'; valid here: agents, aliases, auth, auto, cache, database,"),
    (
        "providers: {openai: {api_kee: x}}",
        "fastroute.yaml:1: providers.openai: unknown key 'api_kee'; did you mean 'api_key'?",
    ),
    ("models: [{id: a, pricee: free}]", "fastroute.yaml:1: models[0]: unknown key 'pricee'; did you mean 'price'?"),
]


@pytest.mark.parametrize(("text", "expected"), UNKNOWN, ids=[row[0] for row in UNKNOWN])
def test_an_unknown_key_is_told_with_the_nearest_valid_one(refusals, text, expected):
    told = refusals(text)
    assert len(told) == 1
    assert told[0].startswith(expected)


def test_all_mistakes_are_told_together_in_the_order_of_their_places(refusals):
    told = refusals(
        "zzz: 1\nserver:\n  port: x\n  host: 1\nproviders:\n  openai: {dialect: x}\nmodels:\n- {id: a, price: -1}\n",
        {"LOG_LEVEL": "x", "FASTROUTE_PORT": "y"},
        {"workers": -1},
    )
    assert [line.rsplit(": found", 1)[0] for line in told[1:]] == [
        "fastroute.yaml:3: server.port",
        "fastroute.yaml:4: server.host",
        "fastroute.yaml:6: providers.openai.dialect",
        "fastroute.yaml:8: models[0].price",
        "env FASTROUTE_PORT: server.port",
        "env LOG_LEVEL: log.level",
        "flag --workers: server.workers",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "cache: {redis_url: 'http://secret@here'}",
            "fastroute.yaml:1: cache.redis_url: found an address of another kind",
        ),
        (
            "cache: {endpoint: 'here:8600'}",
            "fastroute.yaml:1: cache.endpoint: found the text 'here:8600', wanted an http",
        ),
        ("cache: {ttl_s: -1}", "fastroute.yaml:1: cache.ttl_s: found the whole number -1"),
        ("cache: {max_bytes: 5}", "fastroute.yaml:1: cache.max_bytes: found the whole number 5"),
    ],
)
def test_what_a_cache_cannot_be_is_told(refusals, text, expected):
    (told,) = refusals(text)
    assert told.startswith(expected)
    assert "secret" not in told


def test_a_cache_has_one_shared_store_or_none(refusals):
    (told,) = refusals("cache: {endpoint: 'http://a:1'}", {"CACHE_REDIS_URL": "redis://b"})
    assert told == (
        "env CACHE_REDIS_URL: cache.redis_url: cache.endpoint is set too (fastroute.yaml:1); wanted one of the two"
    )


def test_a_file_is_checked_even_where_it_is_overruled(refusals):
    assert len(refusals("server: {port: x}", {"FASTROUTE_PORT": "1"})) == 1


def test_the_file_may_be_named_by_the_environment_and_the_command_line_wins():
    Path("a.yaml").write_text("server: {port: 1}")
    Path("b.yaml").write_text("server: {port: 2}")
    environ = {"FASTROUTE_CONFIG": "a.yaml"}
    assert load(None, environ, {}).server.port == 1
    assert load(Path("b.yaml"), environ, {}).server.port == 2
    assert load(Path("b.yaml"), environ, {}).file == Path("b.yaml")


def test_every_setting_has_help_and_a_name_a_flag_and_variables_of_its_own():
    names = [each.name for each in SETTINGS]
    variables = [variable.name for each in SETTINGS for variable in each.env]
    variables += [variable for known in KNOWN_PROVIDERS.values() for variable in (*known.base_env, *known.key_env)]
    flags = [each.flag for each in SETTINGS if each.flag]
    assert all(each.help and not each.help.endswith(".") for each in SETTINGS)
    for words in (names, variables, flags):
        assert len(words) == len(set(words))


def test_the_reference_names_every_setting_default_and_variable():
    rows = {line.split(" | ")[0].strip("| `"): line for line in reference().splitlines()}
    for each in SETTINGS:
        row = rows[each.name]
        assert row.endswith(f"| {each.help} |")
        assert all(f"`{variable.name}`" in row for variable in each.env)
        assert row.replace(r"\|", "").count("|") == 7
    for known in KNOWN_PROVIDERS.values():
        assert all(f"`{variable}`" in rows[known.name] for variable in (*known.base_env, *known.key_env))


@pytest.mark.parametrize("show", [repr, str, "{}".format, "{!r}".format, lambda each: f"{[each]}"])
def test_a_secret_shows_itself_to_nobody_who_does_not_ask(show):
    secret = Secret("sk-very-secret")
    assert "very" not in show(secret)
    assert "***" in show(secret)
    assert secret.reveal() == "sk-very-secret"


def test_secrets_compare_by_value_and_travel_to_workers():
    assert Secret("a") == Secret("a") != Secret("b")
    assert Secret("a") != "a"
    assert pickle.loads(pickle.dumps(Secret("a"))) == Secret("a")  # noqa: S301 - our own bytes, a line ago
    assert len({Secret("a"), Secret("a")}) == 1
    with pytest.raises(TypeError):
        msgspec.json.encode(Secret("a"))


def test_a_whole_configuration_prints_no_secret(loaded):
    config = loaded(
        "auth: {admin_key: hidden-one}\nproviders: {openai: {api_key: hidden-two}}\n",
        {"ROUTER_API_KEY": "hidden-three"},
    )
    assert "hidden" not in repr(config) + str(config)
    assert config.literal_secrets == ("fastroute.yaml:1", "fastroute.yaml:2")


LEAKS = [
    "auth: {admin_key: [hidden]}",
    "auth: {admin_key: {hidden: 1}}",
    "auth: {admin_key: 'hid\\u0007den hidden\u00e9'}",
    "auth: {admin_key:hidden}",
    "auth: admin_key:hidden",
    "auth: hidden",
    "providers: {openai: hidden}",
    "providers: {openai: {api_key:hidden: 1}}",
    "providers: {openai: {base_url: 'https://me:hidden@x.com'}}",
    "providers: {openai: {base_url: 'https://x.com?key=hidden'}}",
    "providers: {openai: {base_url: 'x.com?key=hidden'}}",
    "providers: {openai: {dialect: '${OPENAI_API_KEY}'}}",
    "auth: {admin_key: 'hidden",
]


@pytest.mark.parametrize("text", LEAKS)
def test_no_mistake_shows_a_secret(refusals, text):
    told = refusals(text, {"OPENAI_API_KEY": "hidden"})
    assert told
    assert "hidden" not in "\n".join(told)
