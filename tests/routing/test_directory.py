"""Who answers to which name: entries, aliases, tiers, families, and nobody."""

import pytest

from fastroute import Entry, ModelRef, Price, Rates
from fastroute.errors import CatalogError, UnknownModel
from fastroute.routing.directory import Directory
from fastroute.routing.names import family_of, nearest, split
from fastroute.routing.rankers import Ordered, Pinned

KNOWN = {
    "openai",
    "anthropic",
    "google",
    "openrouter",
    "grok",
    "venice",
    "llm-d",
    "local",
    "mistral",
    "dummy",
    "ollama",
}
PRICE = Price(Rates(1, 2))


def entry(id, provider="openai", **rest):
    return Entry(id, ModelRef(provider, id), provider, **rest)


def directory(*entries, aliases=None, **rest):
    return Directory(entries, aliases or {}, KNOWN, lambda ref: PRICE, **rest)


@pytest.mark.parametrize(
    ("name", "provider", "model"),
    [
        ("ollama:qwen3:8b", "ollama", "qwen3:8b"),
        ("openrouter/meta/llama-3", "openrouter", "meta/llama-3"),
        ("gpt-4o", "openai", "gpt-4o"),
        ("chatgpt-4o-latest", "openai", "chatgpt-4o-latest"),
        ("o1", "openai", "o1"),
        ("o3-mini", "openai", "o3-mini"),
        ("claude-3", "anthropic", "claude-3"),
        ("google-x", "google", "google-x"),
        ("gemini-2.5-pro", "google", "gemini-2.5-pro"),
        ("grok-1", "grok", "grok-1"),
        ("venice-x", "venice", "venice-x"),
        ("llmd-x", "llm-d", "llmd-x"),
        ("local_mistral", "local", "local_mistral"),
        ("mistral-small-latest", "mistral", "mistral-small-latest"),
        ("dummy-model", "dummy", "dummy-model"),
    ],
)
def test_a_name_says_its_provider_or_its_family_does(name, provider, model):
    assert split(name, KNOWN) == ModelRef(provider, model)


@pytest.mark.parametrize("name", ["foo-1", "o1x", "o10", "gpt", "meta-llama/Llama-3", "http://x", "", "nobody:gpt-4"])
def test_any_other_name_leads_nowhere(name):
    assert split(name, KNOWN) is None


def test_the_longest_family_wins():
    assert family_of("gpt-4o-mini").capabilities == ("tools", "vision", "json")
    assert family_of("gpt-3.5-turbo").capabilities == ()


def test_an_entry_comes_before_an_alias_a_provider_and_a_family():
    target = directory(entry("gpt-4o", "local")).resolve("gpt-4o")
    assert target.route.ranker == Pinned("gpt-4o")
    assert target.catalog["gpt-4o"].ref.provider == "local"


def test_a_family_makes_an_entry_with_its_price_and_an_own_machine_is_free():
    made = directory().resolve("gpt-4o").catalog["gpt-4o"]
    assert (made.ref, made.lane, made.price) == (ModelRef("openai", "gpt-4o"), "openai", PRICE)
    assert directory().resolve("local_x").catalog["local_x"].price.rates == Rates(0, 0, 0, 0)


def test_an_alias_of_one_is_pinned_and_of_several_is_an_order():
    names = directory(entry("a"), entry("b"), aliases={"one": ("a",), "two": ("b", "a"), "deep": ("two", "gpt-4o")})
    assert names.resolve("one").route.ranker == Pinned("a")
    assert names.resolve("two").route.ranker == Ordered(("b", "a"))
    assert names.resolve("deep").route.ranker == Ordered(("b", "a", "gpt-4o"))


@pytest.mark.parametrize(
    ("aliases", "words"),
    [
        ({"a": ("b",), "b": ("a",)}, "in a circle: a -> b -> a"),
        ({"a": ("nobody-knows",)}, "nobody-knows"),
        ({"e": ("gpt-4o",)}, "both an alias and an entry"),
    ],
)
def test_an_alias_that_cannot_be_meant_is_refused(aliases, words):
    with pytest.raises(CatalogError, match=words):
        directory(entry("e"), aliases=aliases)


def test_an_unknown_name_is_told_with_the_nearest_there_is():
    with pytest.raises(UnknownModel, match="did you mean 'help-desk'"):
        directory(aliases={"help-desk": ("gpt-4o",)}).resolve("helpdesk")


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("gtp-4o", "gpt-4o"),
        ("gpt-4o-min", "gpt-4o-mini"),
        ("haiku", None),
        ("claude-haiku", "claude-haiku-4-5"),
        ("x" * 300, None),
    ],
)
def test_the_nearest_name_begins_or_ends_alike(name, found):
    assert nearest(name, ["gpt-4o", "gpt-4o-mini", "claude-haiku-4-5", "x" * 299]) == found


def test_a_name_that_nobody_has_is_compared_with_a_few_of_many():
    """A directory may have thousands, and comparing them all held the event loop for a quarter of a second."""
    names = (f"model-{number}-instruct" for number in range(10_000))
    assert str(nearest("model-x-instruct", names)).startswith("model-")
    assert next(names) == "model-32-instruct"


def test_a_gateway_behind_takes_every_other_name_with_a_slash_whole():
    made = directory(fallback_provider="gateway").resolve("meta-llama/Llama-3").catalog.entries[0]
    assert made.ref == ModelRef("gateway", "meta-llama/Llama-3")


def test_callers_cannot_fill_the_memory_with_names():
    names = directory()
    for number in range(5000):
        names.resolve(f"gpt-{number}")
    assert len(names._remembered) <= 1024


def test_every_name_that_can_be_asked_for_is_listed_and_a_route_can_what_all_its_targets_can():
    tools, both = entry("a", capabilities=("tools",)), entry("b", capabilities=("tools", "json"))
    listed = directory(tools, both, aliases={"either": ("a", "b")}).listed()
    assert [each.id for each in listed] == ["a", "b", "either"]
    assert listed[-1].capabilities == ("tools",)
