"""What tokens cost: the shipped table, the sums, and two other sources that must agree with them."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import Counter
from datetime import UTC, date, datetime, time
from decimal import Decimal
from fractions import Fraction
from importlib import metadata, resources
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from fastroute import settle
from fastroute.domain import RATE_MAX, TOKENS_MAX, Price, Rates, Tariff, Tier, Usage
from fastroute.money import rate_from_usd_per_mtok
from fastroute.routing.price_build import build, main
from fastroute.routing.prices import PriceTable, microdollars, misses_cache_rate, price, tariff, upper_bound

EXAMPLES = 5_000 if os.environ.get("FASTROUTE_TORTURE") == "1" else 100
OUTPUT_WHEN_UNKNOWN = 128_000
SHIPPED = resources.files("fastroute.routing").joinpath("price_table.json").read_bytes()
HEAD = json.loads(SHIPPED)["head"]
SECOND_SOURCE = json.loads((Path(__file__).parent / "data" / "second_source_prices.json").read_text())

# Where the second source says something else, and why the table is left as it is.
KNOWN_DIFFERENCES = {
    "groq:openai/gpt-oss-safeguard-20b": "their cache rate 0.037 is Groq's 0.0375 cut to three decimals",
    "mistral:magistral-medium-latest": "they follow the alias to medium 3.5; ours is the retired magistral's own price",
    "mistral:magistral-small-latest": "they follow the alias to small 4; ours is the retired magistral's own price",
    "mistral:mistral-large-4": "they hold the list price of 2026-10-20; the page has shown 0.70/2.10 since 2026-10-29",
    "mistral:mistral-large-4-0": "as mistral-large-4",
    "mistral:mistral-large-latest": "they follow the alias to large 3; ours is large 2, the dearer",
    "mistral:mistral-medium": "they read the bare name as medium 3.5, ours as medium 3.1",
    "mistral:open-mistral-nemo": "they hold the price before Mistral halved it",
}


@pytest.fixture(scope="module")
def table() -> PriceTable:
    return PriceTable.load()


@pytest.fixture(scope="module")
def genai_prices():
    """The table's own source, in the version the table was made from."""
    module = pytest.importorskip("genai_prices", reason="genai-prices is not installed")
    installed = metadata.version("genai-prices")
    if installed != HEAD["version"]:
        pytest.skip(f"the table is of genai-prices {HEAD['version']}, installed is {installed}")
    return module


class TestAcceptance:
    def test_m_a11_prices(self) -> None:
        """M-A11: exact sums, cache classes at their own rates."""
        sonnet = Price(Rates(rate_from_usd_per_mtok("3"), rate_from_usd_per_mtok("15"), 300_000, 3_750_000))
        assert microdollars(Usage(input=1000, output=500), sonnet) == 10_500
        assert microdollars(Usage(cache_read=1_000_000, cache_write=1_000_000), sonnet) == 4_050_000

    def test_m_a11_a_missing_cache_rate_is_the_input_rate_and_is_told(self) -> None:
        """M-A11: no cache rate prices at the input rate and can be counted as `no_cache_rate`."""
        rates = Rates(2_000_000, 8_000_000)
        cached = Usage(cache_read=1_000_000)
        assert microdollars(cached, Price(rates)) == 2_000_000
        assert misses_cache_rate(cached, rates)
        assert misses_cache_rate(Usage(cache_write=1), Rates(1, 1, cache_read=1))
        assert not misses_cache_rate(Usage(input=5, output=5), rates)

    def test_m_a11_a_configured_cache_rate_of_zero_is_free(self) -> None:
        """M-A11: absent and zero are two things."""
        rates = Rates(2_000_000, 8_000_000, cache_read=0)
        assert microdollars(Usage(cache_read=1_000_000), Price(rates)) == 0
        assert not misses_cache_rate(Usage(cache_read=1_000_000), rates)

    def test_r_a4_prices(self, table: PriceTable) -> None:
        """R-A4: the shipped gpt-5.1, a dear model, and a call so small that the seeds gave it away."""
        gpt = table.find("openai", "gpt-5.1")
        assert gpt is not None
        assert microdollars(Usage(input=1000, output=500), gpt) == 6250
        dear = Price(Rates(rate_from_usd_per_mtok("1000"), rate_from_usd_per_mtok("2000")))
        assert microdollars(Usage(input=1000, output=500), dear) == 2_000_000
        mini = table.find("openai", "gpt-4o-mini")
        assert mini is not None
        assert price(Usage(input=6, output=1), mini) == 1_500_000
        assert microdollars(Usage(input=6, output=1), mini) == 2

    def test_r_a4_an_unknown_longest_answer_is_held_in_full(self) -> None:
        """R-A4: no input, 128 000 tokens of output at 0.0001 dollars each."""
        rate = rate_from_usd_per_mtok("100")
        assert upper_bound(Price(Rates(rate, rate)), 0, OUTPUT_WHEN_UNKNOWN) == 12_800_000


class TestTheTable:
    @pytest.mark.parametrize(
        ("provider", "name", "same_as"),
        [
            ("openai", "gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
            ("openai", "GPT-4o-Mini", "gpt-4o-mini"),
            ("openai", "gpt-6-sol-2026-09-01", "gpt-6-sol"),
            ("anthropic", "claude-3-5-haiku-20241022", "claude-3-5-haiku-latest"),
            ("anthropic", "claude-opus-5-20260601", "claude-opus-5"),
            ("google", "gemini-2.5-pro-preview-06-05", "gemini-2.5-pro"),
        ],
    )
    def test_dated_names_find_their_model(self, table: PriceTable, provider: str, name: str, same_as: str) -> None:
        """Exact names first, then the longest prefix; case does not count."""
        found = table.find(provider, name)
        assert found is not None
        assert found == table.find(provider, same_as)
        assert found.source == "table"

    @pytest.mark.parametrize(
        ("provider", "name"),
        [
            ("openai", "gpt-audio"),
            ("openai", "gpt-image-1.5"),
            ("openai", "no-such-model"),
            ("nobody", "gpt-4o"),
            ("openrouter", "gpt-4o"),
            ("openrouter", "openai/gpt-oss-20b:free"),
            ("perplexity", "sonar-pro"),
            ("google", "gemini-3-pro-image-preview"),
            ("openai", ""),
        ],
    )
    def test_what_text_rates_do_not_say_is_unknown_and_never_zero(
        self, table: PriceTable, provider: str, name: str
    ) -> None:
        """Unknown names, other media, fees per request and free offers have no price here."""
        assert table.find(provider, name) is None

    def test_the_longest_prefix_wins(self) -> None:
        """A longer prefix is the closer description."""
        text = {
            "head": HEAD,
            "providers": {
                "p": {
                    "models": {
                        "a": {"rates": [1, 1, None, None], "prefixes": ["m-"]},
                        "b": {"rates": [2, 2, None, None], "prefixes": ["m-1"], "names": ["m-2"]},
                        "c": {"prefixes": ["m-1-voice"]},
                    }
                },
                "q": {"models": {}, "fallbacks": ["p"]},
            },
        }
        table = PriceTable(json.dumps(text).encode())
        inputs = {
            name: found and found.rates.input
            for name in ("m-0", "m-1x", "m-2", "m-1-voice-2", "n")
            for found in [table.find("p", name)]
        }
        assert inputs == {"m-0": 1, "m-1x": 2, "m-2": 2, "m-1-voice-2": None, "n": None}
        assert table.find("q", "m-0") == table.find("p", "m-0")
        assert len(table) == 2

    def test_grok_is_groq_here(self, table: PriceTable) -> None:
        """The seeds' provider `grok` is Groq; xAI's Grok models stand under x-ai."""
        assert table.find("grok", "llama-3.1-8b-instant") == table.find("groq", "llama-3.1-8b-instant") is not None
        assert table.find("x-ai", "grok-4.5") is not None
        assert table.find("grok", "grok-4.5") is None

    def test_openrouter_prices_the_vendors_models_itself(self, table: PriceTable) -> None:
        """`vendor/model` under openrouter is openrouter's own id, not the vendor's price."""
        assert table.find("openrouter", "anthropic/claude-haiku-4.5") is not None

    def test_context_windows(self, table: PriceTable) -> None:
        """Known where the source knows."""
        assert table.context_window("openai", "gpt-4o-mini-2024-07-18") == 128_000
        assert table.context_window("mistral", "mistral-small-latest") is None
        assert table.context_window("openai", "no-such-model") is None

    def test_every_rate_keeps_the_core_s_bounds(self, table: PriceTable) -> None:
        """Integers in range, tiers ascending and few, nothing free of charge."""
        seen = 0
        for provider in table.providers():
            for model, found in table.models(provider):
                seen += 1
                above = [tier.above_tokens for tier in found.tiers]
                assert above == sorted(set(above)), model
                assert len(above) <= 4, model
                for rates in (found.rates, *(tier.rates for tier in found.tiers)):
                    assert all(rate is None or 0 < rate <= RATE_MAX for rate in (rates.cache_read, rates.cache_write))
                    assert 0 <= rates.input <= RATE_MAX
                    assert 0 <= rates.output <= RATE_MAX
                    assert rates.input or rates.output, model
        assert seen == len(table) > 1500

    def test_the_version_says_source_and_day(self, table: PriceTable) -> None:
        """Receipts name it."""
        assert table.version == f"genai-prices {HEAD['version']} {HEAD['date']}"
        assert table is PriceTable.load()
        assert table.version in repr(table)

    def test_a_tariff_says_whose_prices_it_has(self, table: PriceTable) -> None:
        listed = table.find("openai", "gpt-4o-mini")
        assert listed is not None
        assert tariff(listed).source == table.version
        assert tariff(Price(Rates(0, 0), source="free")).source == "free"
        own = settle.exact(Price(Rates(3, 4, 1)), Usage(5, 6)).tariff
        assert own == Tariff(3, 4, 1, None, "config")
        assert settle.exact(listed, Usage(1, 1)).tariff == tariff(listed)
        assert settle.exact(None, Usage(1, 1)).tariff is settle.void(listed).tariff is None

    def test_it_is_small_and_has_a_model_a_line(self) -> None:
        """Diffs of a refresh can be read."""
        assert len(SHIPPED) < 400_000
        assert b'\n"gpt-4o-mini":{' in SHIPPED

    def test_reading_it_needs_no_genai_prices(self) -> None:
        """The source is for the build step alone: it would cost each worker half a second."""
        code = (
            "import sys; from fastroute.routing.prices import PriceTable; "
            "assert PriceTable.load().find('openai', 'gpt-4o'); sys.exit('genai_prices' in sys.modules)"
        )
        assert subprocess.run([sys.executable, "-c", code], timeout=30, check=False).returncode == 0


class TestAgainstItsSource:
    def test_the_shipped_table_is_what_the_build_makes(self, genai_prices) -> None:
        """The same source, the same day, the same bytes."""
        text, counts = build(date.fromisoformat(HEAD["date"]))
        assert text.encode() == SHIPPED
        assert counts["models"] == len(PriceTable.load())

    def test_five_hundred_usages_cost_what_the_source_says(self, genai_prices, table: PriceTable) -> None:
        """To the picodollar; at most one picodollar a token above where a rate had to be rounded up."""
        chance = random.Random(20261121)
        names = self._names(genai_prices)
        exact = 0
        for _ in range(500 * (20 if EXAMPLES > 100 else 1)):
            provider, name, model = chance.choice(names)
            usage = Usage(*(chance.choice((0, 1, chance.randrange(3000), chance.randrange(400_000))) for _ in range(4)))
            found = table.find(provider, name)
            assert found is not None, (provider, name)
            ours = price(usage, found)
            theirs = self._dearest(genai_prices, provider, name, usage)
            if _fractional(model):
                assert theirs <= ours < theirs + usage.input_total + usage.output + 1, (provider, name, usage)
            else:
                assert ours == theirs, (provider, name, usage)
                exact += 1
        assert exact >= 450

    def _names(self, genai_prices):
        """Every name in the table that the source knows too, prefixes with a date behind them."""
        from genai_prices.data import providers

        file = json.loads(SHIPPED)["providers"]
        names = []
        for provider in providers:
            for model_id, line in file.get(provider.id, {"models": {}})["models"].items():
                if "rates" not in line:
                    continue
                dated = [
                    prefix + ("260101" if prefix.endswith("20") else "-20260101") for prefix in line.get("prefixes", ())
                ]
                for name in (model_id, *line.get("names", ()), *dated):
                    model = provider.find_model(name)
                    if model is not None:
                        names.append((provider.id, name, model))
        return names

    def _dearest(self, genai_prices, provider: str, name: str, usage: Usage) -> Fraction:
        """The source's picodollars in the dearest hour of the table's day."""
        day = datetime.fromisoformat(HEAD["date"]).replace(tzinfo=UTC)
        asked = genai_prices.Usage(
            input_tokens=usage.input_total,
            output_tokens=usage.output,
            cache_read_tokens=usage.cache_read,
            cache_write_tokens=usage.cache_write,
        )
        hours = range(24) if provider == "deepseek" else (12,)
        return max(
            Fraction(
                genai_prices.calc_price(
                    asked, model_ref=name, provider_id=provider, genai_request_timestamp=day.replace(hour=hour)
                ).total_price
            )
            * 10**12
            for hour in hours
        )


def _fractional(model) -> bool:
    """Whether a model of the source has a rate finer than a picodollar a token."""
    each = [model.prices] if not isinstance(model.prices, list) else [one.prices for one in model.prices]
    values = [value for prices in each for value in vars(prices).values() if value is not None]
    flat = [
        rate
        for value in values
        for rate in [getattr(value, "base", value), *(t.price for t in getattr(value, "tiers", ()))]
    ]
    return any(rate.scaleb(6) % 1 for rate in flat)


class TestTheBuild:
    """What the offline step makes of a source we wrote ourselves."""

    DAY = date(2026, 6, 15)

    @pytest.fixture
    def built(self, monkeypatch: pytest.MonkeyPatch) -> tuple[PriceTable, Counter[str]]:
        pytest.importorskip("genai_prices", reason="genai-prices is not installed")
        from genai_prices import data
        from genai_prices import types as t

        def per_mtok(**usd: str) -> t.ModelPrice:
            return t.ModelPrice(**{f"{name}_mtok": Decimal(text) for name, text in usd.items()})

        def model(model_id: str, prices: object, match: object = None) -> t.ModelInfo:
            return t.ModelInfo(model_id, match or t.ClauseEquals(model_id), prices=prices)

        def tiered(base: str, **above: str) -> t.TieredPrices:
            return t.TieredPrices(Decimal(base), [t.Tier(int(at[1:]), Decimal(text)) for at, text in above.items()])

        dated = [
            t.ConditionalPrice(prices=per_mtok(input="1", output="2")),
            t.ConditionalPrice(t.StartDateConstraint(date(2026, 6, 15)), prices=per_mtok(input="3", output="4")),
            t.ConditionalPrice(t.StartDateConstraint(date(2026, 6, 16)), prices=per_mtok(input="5", output="6")),
        ]
        hourly = [
            t.ConditionalPrice(prices=per_mtok(input="1", output="2")),
            t.ConditionalPrice(t.TimeOfDateConstraint(time(22), time(2)), prices=per_mtok(input="3", output="4")),
        ]
        crossed = [
            t.ConditionalPrice(prices=per_mtok(input="1", output="9")),
            t.ConditionalPrice(t.TimeOfDateConstraint(time(8), time(9)), prices=per_mtok(input="3", output="4")),
        ]
        steps = t.ModelPrice(input_mtok=tiered("1", _100="2", _300="3"), output_mtok=tiered("5", _200="6"))
        speech = t.ModelPrice(input_mtok=Decimal(1), output_mtok=Decimal(2), output_audio_mtok=Decimal(9))
        family = t.ClauseOr([t.ClauseStartsWith("Fam-"), t.ClauseContains("kin"), t.ClauseEndsWith("fam-x")])
        source = t.Provider(
            "p",
            "P",
            "",
            models=[
                model("fam-voice", speech),
                model("dated", dated, t.ClauseRegex(r"^dated-\d{8}$")),
                model("hourly", hourly),
                model("crossed", crossed),
                model("steps", steps),
                model("fine", per_mtok(input="0.1234561", output="2", cache_read="0", cache_write="4")),
                model("embed", per_mtok(input="0.02")),
                model("gift", per_mtok(input="0", output="0")),
                model("huge", per_mtok(input="2000.000001", output="1")),
                model("fee", t.ModelPrice(input_mtok=Decimal(1), output_mtok=Decimal(1), requests_kcount=Decimal(5))),
                model("family", per_mtok(input="7", output="8"), family),
            ],
        )
        monkeypatch.setattr(data, "providers", [source])
        text, counts = build(self.DAY)
        return PriceTable(text.encode()), counts

    def test_prices_are_those_of_the_day_and_of_its_dearest_hour(self, built: tuple[PriceTable, Counter[str]]) -> None:
        """A price by the hour that no hour tops is none."""
        table, counts = built
        assert table.find("p", "dated-20260101") == Price(Rates(3_000_000, 4_000_000), source="table")
        assert table.find("p", "hourly") == Price(Rates(3_000_000, 4_000_000), source="table")
        assert table.find("p", "crossed") is None
        assert counts["left out: no hour is the dearest"] == 1

    def test_columns_with_tiers_of_their_own_share_one_staircase(self, built: tuple[PriceTable, Counter[str]]) -> None:
        """At every start each column has the rate that is in force there."""
        assert built[0].find("p", "steps") == Price(
            Rates(1_000_000, 5_000_000),
            (
                Tier(100, Rates(2_000_000, 5_000_000)),
                Tier(200, Rates(2_000_000, 6_000_000)),
                Tier(300, Rates(3_000_000, 6_000_000)),
            ),
            source="table",
        )

    def test_rates_are_rounded_up_and_a_cache_rate_of_zero_is_not_known(
        self, built: tuple[PriceTable, Counter[str]]
    ) -> None:
        """Never down, and never free by accident."""
        table, counts = built
        assert table.find("p", "fine") == Price(Rates(123_457, 2_000_000, None, 4_000_000), source="table")
        assert table.find("p", "embed") == Price(Rates(20_000, 0), source="table")
        assert counts["rates rounded up"] == 1

    @pytest.mark.parametrize("name", ["gift", "huge", "fee", "fam-voice"])
    def test_what_cannot_be_said_is_left_out(self, built: tuple[PriceTable, Counter[str]], name: str) -> None:
        """Not priced too low: not priced, not even by another model's prefix."""
        assert built[0].find("p", name) is None

    @pytest.mark.parametrize("name", ["family", "FAM-1", "fam-x", "kin-2"])
    def test_clauses_become_names_and_prefixes(self, built: tuple[PriceTable, Counter[str]], name: str) -> None:
        """A clause that is not simple is kept as far as it is."""
        assert built[0].find("p", name) == Price(Rates(7_000_000, 8_000_000), source="table")
        assert built[0].find("p", "akin") is None

    def test_the_command_writes_the_file_and_says_what_it_did(
        self, built: tuple[PriceTable, Counter[str]], tmp_path: Path
    ) -> None:
        """Every departure from the source is counted and printed."""
        out = tmp_path / "table.json"
        result = CliRunner().invoke(main, ["--out", str(out), "--date", "2026-06-16"])
        assert result.exit_code == 0, result.output
        assert PriceTable(out.read_bytes()).find("p", "dated-20260101") == Price(
            Rates(5_000_000, 6_000_000), source="table"
        )
        for line in ("1  rates rounded up", "1  left out: dearer than a rate may be", f"{out}: "):
            assert line in result.output


class TestAgainstASecondSource:
    def test_it_differs_only_where_we_know(self, table: PriceTable) -> None:
        """Of 231 chat models 172 agree in every rate both know, 8 differ as written above, 51 are only there."""
        agree, differ, only_there = set(), set(), set()
        for provider, models in SECOND_SOURCE["providers"].items():
            for name, rates in models.items():
                found = table.find(provider, name)
                if found is None:
                    only_there.add(f"{provider}:{name}")
                    continue
                ours = {field: getattr(found.rates, field) for field in rates}
                same = all(
                    ours[field] is None or ours[field] == Decimal(dollars) * 10**12 for field, dollars in rates.items()
                )
                (agree if same else differ).add(f"{provider}:{name}")
        assert differ == KNOWN_DIFFERENCES.keys()
        assert (len(agree), len(only_there)) == (172, 51)


tokens = st.one_of(st.integers(0, 3000), st.integers(0, TOKENS_MAX // 4))
rate = st.one_of(st.integers(0, 50_000_000), st.integers(0, RATE_MAX // 4))
rates = st.builds(Rates, rate, rate, st.none() | rate, st.none() | rate)
usages = st.builds(Usage, tokens, tokens, tokens, tokens)


@st.composite
def prices(draw: st.DrawFn) -> Price:
    """Any price at all, with tiers that may be cheaper than the base."""
    starts = sorted(draw(st.sets(st.integers(0, 400_000), max_size=3)))
    return Price(draw(rates), tuple(Tier(start, draw(rates)) for start in starts))


@st.composite
def rising_prices(draw: st.DrawFn) -> Price:
    """Prices as providers set them: every tier at least as dear as the one before, in every class."""
    row = [draw(rate) for _ in range(4)]
    starts = sorted(draw(st.sets(st.integers(0, 400_000), max_size=3)))
    rows = [[value * (2 + step) // 2 for value in row] for step in range(len(starts) + 1)]
    return Price(Rates(*rows[0]), tuple(Tier(at, Rates(*each)) for at, each in zip(starts, rows[1:], strict=True)))


bounded = settings(max_examples=EXAMPLES, deadline=None)


@bounded
@given(
    usages, rising_prices(), st.sampled_from(["input", "output", "cache_read", "cache_write"]), st.integers(1, 10**6)
)
def test_more_tokens_never_cost_less(usage: Usage, asked: Price, field: str, more: int) -> None:
    """Monotone in each token count, as long as no tier is cheaper than the one below it."""
    longer = msgspec.structs.replace(usage, **{field: getattr(usage, field) + more})
    assert price(longer, asked) >= price(usage, asked)


def test_no_shipped_tier_is_cheaper_than_the_one_below_it(table: PriceTable) -> None:
    """So the shipped prices are monotone too."""
    for provider in table.providers():
        for model, found in table.models(provider):
            steps = [found.rates, *(tier.rates for tier in found.tiers)]
            for low, high in pairwise(steps):
                assert (high.input, high.output) >= (low.input, low.output), (provider, model)
                for field in ("input", "output", "cache_read", "cache_write"):
                    below, above = getattr(low, field), getattr(high, field)
                    assert (below is None) == (above is None), (provider, model, field)
                    assert below is None or below <= above, (provider, model, field)


@bounded
@given(usages, usages, rates)
def test_without_tiers_two_usages_cost_the_sum_of_their_prices(one: Usage, other: Usage, flat: Rates) -> None:
    """Additive, exactly."""
    both = Usage(
        *(getattr(one, field) + getattr(other, field) for field in ("input", "output", "cache_read", "cache_write"))
    )
    assert price(both, Price(flat)) == price(one, Price(flat)) + price(other, Price(flat))


@bounded
@given(usages, prices())
def test_a_tier_holds_for_the_whole_request(usage: Usage, asked: Price) -> None:
    """The rates at the total input, cached tokens included, price every token; reasoning is inside the output."""
    held = asked.rates
    for tier in asked.tiers:
        if usage.input + usage.cache_read + usage.cache_write > tier.above_tokens:
            held = tier.rates
    read = held.input if held.cache_read is None else held.cache_read
    write = held.input if held.cache_write is None else held.cache_write
    exact = usage.input * held.input + usage.output * held.output + usage.cache_read * read + usage.cache_write * write
    assert price(usage, asked) == exact
    assert price(msgspec.structs.replace(usage, reasoning=usage.output), asked) == exact
    assert settle.exact(asked, usage).tariff == tariff(asked, usage.input_total)
    assert price(usage, Price(tariff(asked, usage.input_total))) == exact


@bounded
@given(usages, prices())
def test_an_attempt_is_rounded_up_once(usage: Usage, asked: Price) -> None:
    """Charged minus exact is at least nothing and less than a microdollar."""
    assert 0 <= microdollars(usage, asked) * 1_000_000 - price(usage, asked) < 1_000_000


@bounded
@given(usages, prices(), st.integers(0, 5000), st.integers(0, 5000))
def test_no_split_of_the_input_costs_more_than_the_upper_bound(
    usage: Usage, asked: Price, unused_input: int, unused_output: int
) -> None:
    """Nor does using less than the bound, even where a longer tier is the cheaper one."""
    bound = upper_bound(asked, usage.input_total + unused_input, usage.output + unused_output)
    assert microdollars(usage, asked) <= bound


def test_the_upper_bound_takes_the_dearest_class_of_the_dearest_tier_in_reach() -> None:
    """Cache writes are the dearest input here, and the tier counts only once the input can reach it."""
    asked = Price(
        Rates(3_000_000, 15_000_000, 300_000, 3_750_000),
        (Tier(200_000, Rates(6_000_000, 22_500_000, 600_000, 7_500_000)),),
    )
    assert upper_bound(asked, 200_000, 1000) == 765_000
    assert upper_bound(asked, 200_001, 1000) == 1_522_508
    assert upper_bound(asked, 0, 0) == 0
    assert upper_bound(Price(Rates(0, 0), source="free"), 10_000, 10_000) == 0


@pytest.mark.parametrize("usage", [Usage(input=-1), Usage(output=TOKENS_MAX + 1), Usage(cache_read=2**63)])
def test_absurd_counts_are_refused_not_wrapped(usage: Usage) -> None:
    """A token count has a width."""
    with pytest.raises((OverflowError, ValueError)):
        price(usage, Price(Rates(1, 1)))
