"""The file of a policy: what every field means, and the sentence that tells what is wrong with it."""

from __future__ import annotations

import pytest

from fastroute.policies import Budgets, Capture, Objectives, Parameters, Policy, Routing, Shadow, Strategy

LEAST = "policy: p\nrouting: {primary: [m]}\n"

SEED = """\
policy: balanced-helpdesk
objectives:
  p95_latency_ms: 1200
  max_cost_usd: 0.010
  max_tokens: 1200
routing:
  primary: ["openai/gpt-4o-mini"]
  backups: ["anthropic/claude-3-haiku", "mistral/small"]
strategy:
  stream: true
  retry_on: ["5xx","rate_limit"]
  fallback_on_latency_ms: 1500
tenancy:
  per_user_daily_tokens: 20000
  per_user_rpm: 30
quality:
  judge: null
"""

EVERYTHING = """\
policy: everything
policy_version: 3
notes: |
  why it is
  so
pinned: failover
objectives: {p95_latency_ms: 900, max_cost_usd: "0.000001", max_tokens: 4096, prefer: latency}
routing:
  primary: [a, b]
  backups: [c]
  p95_window_n: 100
  params:
    c: {temperature: 2, top_p: 0, stop: ["\\n"], json_mode: true}
strategy:
  stream: false
  retry_on: [rate_limit, connect_timeout, low_quality]
  fallback_on_latency_ms: 800
  max_retries: 4
  backoff_ms: 100
  first_chunk_gate_ms: 0
  escalate_after_fallbacks: 2
tenancy: {per_user_daily_tokens: 40000, per_user_rpm: 60, timezone: America/New_York}
gen: {system: "Dear ${NAME},", temperature: 0.25, top_p: 0.9, stop: [], json_mode: false}
quality: {judge: openai/gpt-4o}
capture: {prompts: true, answers: true, retention_days: 7}
shadow: {model: n, share: 0.125}
"""


def test_the_example_of_the_seed_is_read_as_it_stands(read):
    """A file written for RoutePilot means here what it meant there; money is whole microdollars."""
    assert read(SEED) == Policy(
        name="balanced-helpdesk",
        objectives=Objectives(1200, 10_000, 1200),
        routing=Routing(("openai/gpt-4o-mini",), ("anthropic/claude-3-haiku", "mistral/small")),
        strategy=Strategy(retry_on=("5xx", "rate_limit")),
        budgets=Budgets(20_000, 30, "Asia/Kolkata"),
    )


def test_a_name_and_one_model_are_enough(read):
    """Everything else has a default: 3 attempts, 100 then 300 ms, a gate of 250 ms, 20000 tokens a day in India."""
    policy = read(LEAST)
    assert policy == Policy(name="p", routing=Routing(("m",)))
    assert policy.strategy == Strategy(True, ("5xx",), 1500, 3, (100, 300), 250, 0)
    assert policy.budgets == Budgets(20_000, 30, "Asia/Kolkata")
    assert policy.objectives == Objectives(None, None, 1024, None)
    assert policy.routing.p95_window_n == 50
    assert policy.capture == Capture(prompts=False)
    assert (policy.pinned, policy.system, policy.judge) == ("stay", None, None)


def test_every_field_that_is_said_is_taken(read):
    assert read(EVERYTHING) == Policy(
        name="everything",
        version=3,
        notes="why it is\nso\n",
        pinned="failover",
        objectives=Objectives(900, 1, 4096, "latency"),
        routing=Routing(("a", "b"), ("c",), 100, {"c": Parameters(2000, 0, ("\n",), True)}),
        strategy=Strategy(False, ("rate_limit", "connect_timeout", "low_quality"), 800, 4, (100,), 0, 2),
        budgets=Budgets(40_000, 60, "America/New_York"),
        system="Dear ${NAME},",
        gen=Parameters(250, 900, (), False),
        judge="openai/gpt-4o",
        capture=Capture(True, 7, True),
        shadow=Shadow("n", 125),
    )


def test_a_policy_reads_no_environment(read, monkeypatch):
    """`${NAME}` is plain text, so that one file means the same on every machine."""
    monkeypatch.setenv("SECRET_OF_THE_MACHINE", "sk-1")
    assert read(LEAST + "gen: {system: '${SECRET_OF_THE_MACHINE}'}\n").system == "${SECRET_OF_THE_MACHINE}"


@pytest.mark.parametrize("section", ["objectives", "strategy", "tenancy", "gen", "quality", "capture"])
def test_a_section_left_empty_is_as_if_left_out(read, section):
    """As where every line below it is a comment."""
    assert read(f"{LEAST}{section}:\n  # nothing yet\n") == read(LEAST)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("per_user_daily_tokens: null", Budgets(daily_tokens=None)),
        ("per_user_daily_tokens: 0", Budgets(daily_tokens=0)),
        ("per_user_rpm: ~", Budgets(rpm=None)),
        ("per_user_rpm: 0", Budgets(rpm=0)),
        ("timezone: UTC", Budgets(zone="UTC")),
    ],
)
def test_absent_null_and_zero_are_three_limits(read, text, expected):
    """C4: left out is the default, null no limit, 0 closed."""
    assert read(f"{LEAST}tenancy: {{{text}}}\n").budgets == expected


@pytest.mark.parametrize(
    ("written", "microdollars"),
    [("0.010", 10_000), ("'0.01'", 10_000), ("1", 1_000_000), ("0.000001", 1), ("1e-2", 10_000), ("12.5", 12_500_000)],
)
def test_dollars_become_whole_microdollars(read, written, microdollars):
    """P-B15: from decimal text, never through a float."""
    policy = read(f"{LEAST}objectives: {{max_cost_usd: {written}}}\n")
    assert policy.objectives.max_cost_microdollars == microdollars


@pytest.mark.parametrize(
    ("text", "backoff"), [("250", (250,)), ("[100, 250, 500]", (100, 250, 500)), ("[]", ()), ("0", (0,))]
)
def test_a_pause_is_a_number_or_a_list(read, text, backoff):
    assert read(f"{LEAST}strategy: {{backoff_ms: {text}}}\n").strategy.backoff_ms == backoff


def test_an_empty_list_of_reasons_is_not_the_default(read):
    assert read(LEAST + "strategy: {retry_on: []}\n").strategy.retry_on == ()


def test_max_retries_is_another_word_for_max_attempts(read):
    assert read(LEAST + "strategy: {max_retries: 2}\n").strategy.max_attempts == 2


WORDS = "5xx, rate_limit, connect, connect_timeout, stall, low_quality, cut, protocol, auth"
DOLLARS = "wanted an amount in US dollars above 0 such as 0.010, with at most six decimals"
BAD = [
    ("", "policy is missing; it is the name callers use"),
    ("policy: [x]\n", "policy: found a list, wanted the name callers use"),
    ("policy: 7\n", "policy: found the whole number 7, wanted the name callers use in quotes"),
    ("policy: 'a b'\n", "policy: found the text 'a b', wanted the name callers use of at most 200 characters"),
    ("policy: auto\n", "policy: found 'auto', which is the name of the route that chooses; call it otherwise"),
    ("policy_version: 0\n", "policy_version: found the whole number 0, wanted a whole number from 1"),
    ("notes: ''\n", "notes: found text of 0 characters, wanted 1 to 100000"),
    ("notes: '  '\n", "notes: found blanks alone, wanted text; or leave it out"),
    ("pinned: maybe\n", "pinned: found the text 'maybe', wanted one of stay, failover"),
    ("objectives: 5\n", "objectives: found one value, wanted a section of `name: value`"),
    ("objectives: {p95_latency_ms: 0}\n", "objectives.p95_latency_ms: found the whole number 0, wanted a whole"),
    ("objectives: {p95_latency_ms: 1.5}\n", "objectives.p95_latency_ms: found the decimal number 1.5, wanted a whole"),
    (
        "objectives: {max_tokens: -1}\n",
        "objectives.max_tokens: found the whole number -1, wanted a whole number from 1",
    ),
    ("objectives: {max_tokens: null}\n", "objectives.max_tokens: found nothing (null), wanted a whole number from 1"),
    ("objectives: {max_cost_usd: 0}\n", f"objectives.max_cost_usd: found the whole number 0, {DOLLARS}"),
    ("objectives: {max_cost_usd: -1}\n", f"found the whole number -1, {DOLLARS}"),
    ("objectives: {max_cost_usd: 0.0000015}\n", f"found the decimal number 0.0000015, {DOLLARS}"),
    ("objectives: {max_cost_usd: 1e-300}\n", f"found the decimal number 1e-300, {DOLLARS}"),
    ("objectives: {max_cost_usd: 1e300}\n", f"found the decimal number 1e300, {DOLLARS}"),
    ("objectives: {max_cost_usd: '1_0'}\n", f"found the text '1_0', {DOLLARS}"),
    ("objectives: {max_cost_usd: ''}\n", f"found the text '', {DOLLARS}"),
    ("objectives: {max_cost_usd: $1}\n", f"found the text '$1', {DOLLARS}"),
    ("objectives: {max_cost_usd: NaN}\n", f"found the text 'NaN', {DOLLARS}"),
    ("objectives: {max_cost_usd: true}\n", f"found true, {DOLLARS}"),
    ("objectives: {prefer: speed}\n", "objectives.prefer: found the text 'speed', wanted one of order, cost, latency"),
    ("strategy: {stream: 1}\n", "strategy.stream: found the whole number 1, wanted true or false"),
    ("strategy: {retry_on: 5xx}\n", "strategy.retry_on: found the text '5xx', wanted a list of words"),
    ("strategy: {retry_on: [5x]}\n", f"strategy.retry_on[0]: found the text '5x', wanted one of {WORDS}"),
    (
        "strategy: {retry_on: [stall, 429]}\n",
        f"strategy.retry_on[1]: found the whole number 429, wanted one of {WORDS}",
    ),
    ("strategy: {retry_on: [5xx, 5XX]}\n", "strategy.retry_on[1]: '5xx' is in the list already"),
    ("strategy: {fallback_on_latency_ms: 0}\n", "strategy.fallback_on_latency_ms: found the whole number 0, wanted"),
    (
        "strategy: {max_attempts: 11}\n",
        "strategy.max_attempts: found the whole number 11, wanted a whole number from 1 to 10",
    ),
    (
        "strategy: {max_retries: 0}\n",
        "strategy.max_retries: found the whole number 0, wanted a whole number from 1 to 10",
    ),
    (
        "strategy:\n  max_retries: 2\n  max_attempts: 2\n",
        "strategy.max_retries: is another word for max_attempts, which line 3 says; keep one of them",
    ),
    ("strategy: {backoff_ms: soon}\n", "strategy.backoff_ms: found the text 'soon', wanted a whole number from 0 to"),
    ("strategy: {backoff_ms: [1, -1]}\n", "strategy.backoff_ms[1]: found the whole number -1, wanted a whole number"),
    ("strategy: {first_chunk_gate_ms: -1}\n", "strategy.first_chunk_gate_ms: found the whole number -1, wanted"),
    ("strategy: {escalate_after_fallbacks: x}\n", "strategy.escalate_after_fallbacks: found the text 'x', wanted"),
    ("tenancy: {per_user_daily_tokens: -1}\n", "tenancy.per_user_daily_tokens: found the whole number -1, wanted"),
    ("tenancy: {per_user_rpm: many}\n", "tenancy.per_user_rpm: found the text 'many', wanted a whole number from 0"),
    (
        "tenancy: {timezone: Asia/Calcuta}\n",
        "tenancy.timezone: this machine knows no time zone 'Asia/Calcuta'; did you mean 'Asia/Calcutta'?",
    ),
    ("tenancy: {timezone: ../UTC}\n", "tenancy.timezone: this machine knows no time zone '../UTC'"),
    ("tenancy: {timezone: Asia}\n", "tenancy.timezone: this machine knows no time zone 'Asia'"),
    ("tenancy: {timezone: +05:30}\n", "tenancy.timezone: this machine knows no time zone '+05:30'"),
    ("gen: {temperature: 2.1}\n", "gen.temperature: found the decimal number 2.1, wanted a decimal number from 0 to 2"),
    ("gen: {top_p: 1.001}\n", "gen.top_p: found the decimal number 1.001, wanted a decimal number from 0 to 1"),
    ("gen: {top_p: 0.1234}\n", "gen.top_p: found the decimal number 0.1234, wanted a decimal number from 0 to 1 with"),
    ("gen: {stop: end}\n", "gen.stop: found the text 'end', wanted a list of texts"),
    ("gen: {stop: ['']}\n", "gen.stop[0]: found text of 0 characters, wanted 1 to 1000"),
    ("gen: {stop: [7]}\n", "gen.stop[0]: found the whole number 7, wanted text that ends an answer in quotes"),
    (f"gen: {{stop: [{'a,' * 17}]}}\n", "gen.stop: found 17, wanted at most 16"),
    ("gen: {json_mode: 1}\n", "gen.json_mode: found the whole number 1, wanted true or false"),
    ("gen: {system: 7}\n", "gen.system: found the whole number 7, wanted text in quotes"),
    ("quality: {judge: 7}\n", "quality.judge: found the whole number 7, wanted text in quotes"),
    ("capture: {prompts: maybe}\n", "capture.prompts: found the text 'maybe', wanted true or false"),
    ("capture: {prompts: true, retention_days: 0}\n", "capture.retention_days: found the whole number 0, wanted"),
    (
        "capture: {retention_days: 7}\n",
        "capture.retention_days: nothing is kept without `prompts: true`; say it, or leave this out",
    ),
    ("capture: {answers: true}\n", "capture.answers: nothing is kept without `prompts: true`"),
    ("capture: {prompts: false, answers: true}\n", "capture.answers: nothing is kept without `prompts: true`"),
    ("shadow: {share: 0.5}\n", "shadow.model is missing; it is the model that is asked again"),
    ("shadow: {model: n, share: 1.5}\n", "shadow.share: found the decimal number 1.5, wanted a decimal number from 0"),
    ("shadow: {model: 7}\n", "shadow.model: found the whole number 7, wanted"),
]


@pytest.mark.parametrize(("text", "expected"), BAD)
def test_a_bad_value_is_told_with_what_was_found_and_what_is_wanted(refusals, text, expected):
    name = "" if not text or text.startswith("policy:") else "policy: p\n"
    told = refusals(f"{text}{name}routing: {{primary: [m]}}\n")
    assert len(told) == 1
    assert expected in told[0]
    assert told[0].startswith("p.yaml:")


ROUTING = [
    ("", "routing.primary is missing; wanted a list of at least one model"),
    ("routing: {}\n", "routing.primary is missing"),
    ("routing: {primary: []}\n", "routing.primary is missing"),
    ("routing: {primary: null}\n", "routing.primary is missing"),
    ("routing: {primary: m}\n", "routing.primary: found the text 'm', wanted a list of names"),
    ("routing: {primary: [7]}\n", "routing.primary[0]: found the whole number 7, wanted a name in quotes"),
    ("routing: {primary: [m, m]}\n", "routing.primary[1]: 'm' is in the list already"),
    ("routing: {primary: [m], backups: [n, m]}\n", "routing.backups: 'm' is in routing.primary already"),
    ("routing: {primary: [p]}\n", "routing: 'p' is the policy itself; wanted models"),
    ("routing: {primary: [m], p95_window_n: 0}\n", "routing.p95_window_n: found the whole number 0, wanted"),
    ("routing: {primary: [m], params: [m]}\n", "routing.params: found a list, wanted a section"),
    ("routing: {primary: [m], params: {m: 1}}\n", "routing.params['m']: found one value, wanted a section"),
    (
        "routing: {primary: [gpt-4o], params: {gpt-4: {}}}\n",
        "routing.params['gpt-4']: no model of this policy has that name; did you mean 'gpt-4o'?",
    ),
    ("routing: {primary: [m], params: {x: {}}}\n", "no model of this policy has that name; the models are m"),
    ("routing: {primary: [m], params: {m: {temperature: 3}}}\n", "routing.params['m'].temperature: found the whole"),
    ("routing: {primary: [m], params: {m: {system: x}}}\n", "unknown key 'system'; did you mean 'gen.system'?"),
    (
        f"routing: {{primary: [{', '.join(f'm{n}' for n in range(256))}]}}\n",
        "routing: found 256 models, wanted at most 255",
    ),
]


@pytest.mark.parametrize(("text", "expected"), ROUTING)
def test_a_route_names_at_least_one_model_and_each_only_once(refusals, text, expected):
    told = refusals(f"policy: p\n{text}")
    assert len(told) == 1
    assert expected in told[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("objectivs: {}\n", "p.yaml:3: unknown key 'objectivs'; did you mean 'objectives'?"),
        ("max_attempts: 3\n", "p.yaml:3: unknown key 'max_attempts'; did you mean 'strategy.max_attempts'?"),
        ("gen: {temprature: 1}\n", "p.yaml:3: gen: unknown key 'temprature'; did you mean 'temperature'?"),
        ("tenancy:\n  rpm: 3\n", "p.yaml:4: tenancy: unknown key 'rpm'; did you mean 'per_user_rpm'?"),
        ("strategy: {zzzzz: 3}\n", "p.yaml:3: strategy: unknown key 'zzzzz'; valid here: backoff_ms, escalate_after"),
    ],
)
def test_an_unknown_key_is_told_with_its_line_and_the_nearest_valid_one(refusals, text, expected):
    (told,) = refusals(LEAST + text)
    assert told.startswith(expected)


def test_every_mistake_is_told_at_once_and_in_the_order_of_lines(refusals):
    told = refusals(
        "policy: 'a b'\nrouting:\n  primary: []\nstrategy:\n  max_attempts: 0\n  retry_on: [x]\ncolour: red\n"
    )
    assert [line.split(":")[1] for line in told] == ["1", "2", "5", "6", "7"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("policy: &a p\nrouting: {primary: [m]}\n", "p.yaml:1: sets the anchor &a"),
        ("policy: p\nrouting: {primary: [*a]}\n", "p.yaml:2: uses the alias *a"),
        ("policy: !!str p\nrouting: {primary: [m]}\n", "p.yaml:1: uses a tag"),
        ("policy: p\npolicy: q\nrouting: {primary: [m]}\n", "p.yaml:2: says 'policy' again; line 1 said it first"),
        ("policy: p\nrouting:\n\tprimary: [m]\n", "p.yaml:3: holds a tab"),
        ("# " + "x" * (1 << 20), "p.yaml: is longer than 1048576 bytes"),
        (b"policy: \xff\n", "p.yaml:1: is not UTF-8 text"),
        ("policy: {p\n", "is not YAML"),
    ],
)
def test_what_yaml_would_do_behind_ones_back_is_refused(refusals, text, expected):
    assert any(expected in line for line in refusals(text))


def test_a_file_with_one_section_twice_is_refused(refusals):
    """As one of the seed's own starters was written; one of the two would have been forgotten in silence."""
    (told,) = refusals(f"{LEAST}gen: {{}}\nrouting: {{primary: [n]}}\n")
    assert told == "p.yaml:4: says 'routing' again; line 2 said it first"


def test_a_file_that_cannot_be_read_is_told_once(refusals):
    """That it names no policy either is not worth a line."""
    assert refusals("policy:\tp\n") == [
        "p.yaml:1: holds a tab; indent with spaces, and write \\t in quotes where one is meant"
    ]
