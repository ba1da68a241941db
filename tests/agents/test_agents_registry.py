"""Agents in the registry: what they offer beside its rows, whose names are whose, and how they are forgotten."""

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from fastroute.errors import RegistryError
from fastroute.ledger.agents import AGENTS_MAX, OFFERS_ALL_MAX, OFFERS_MAX, Agents, Announced, NameTaken
from fastroute.ledger.book import Book, Refused
from fastroute.ledger.books import Books
from fastroute.ledger.registry import ModelRow, Registry
from fastroute.ledger.sqlite import Store
from fastroute.panel.agents import GONE_MS, LOOK_MS
from fastroute.panel.desk import Desk

NOW = 1_790_000_000_000
AT = "http://10.0.0.5:5000"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "fastroute.db") as store:
        yield store


@pytest.fixture
def agents(store: Store) -> Agents:
    return Agents(store)


def announced(name: str, *models: str, endpoint: str = AT, owner: int = 0) -> Announced:
    return Announced(name, endpoint, models, owner)


def test_several_agents_offer_one_model(agents: Agents, store: Store) -> None:
    agents.register(announced("a", "m", "n"), NOW)
    agents.register(announced("b", "m", endpoint="http://10.0.0.6:5000"), NOW)
    assert [(row.name, row.models) for row in agents.list()] == [("a", ("m", "n")), ("b", ("m",))]
    assert [(row.name, row.endpoint, row.kind, row.agent) for row in Registry(store).list()] == [
        ("m", AT, "weight", "a"),
        ("m", "http://10.0.0.6:5000", "weight", "b"),
        ("n", AT, "weight", "a"),
    ]


def test_i_a8_an_agent_that_registers_again_offers_what_it_says_now(agents: Agents, store: Store) -> None:
    """I-A8, I-B4: fewer models used to leave the old rows."""
    first = agents.register(announced("a", "local_a", "local_b"), NOW)
    again = agents.register(announced("a", "local_c", endpoint="http://10.0.0.9:1"), NOW + 5)
    assert (again.id, again.models, again.endpoint) == (first.id, ("local_c",), "http://10.0.0.9:1")
    assert (again.since_ms, again.heard_ms) == (NOW, NOW + 5)
    assert [row.name for row in Registry(store).list()] == ["local_c"]
    assert agents.once() == {"local_a", "local_b", "local_c"}


def test_i_b3_a_row_of_the_registry_is_never_taken(agents: Agents, store: Store) -> None:
    Registry(store).add(ModelRow("gpt-4o", "openai", "https://api.openai.com"))
    with pytest.raises(NameTaken, match="'gpt-4o' is owned by openai"):
        agents.register(announced("a", "mine", "gpt-4o"), NOW)
    assert agents.list() == ()


def test_who_serves_hears_of_what_matters_and_of_nothing_else(agents: Agents, store: Store) -> None:
    registry = Registry(store)
    generations = [registry.generation()]

    def moved() -> bool:
        generations.append(registry.generation())
        return generations[-1] != generations[-2]

    agents.register(announced("a", "m"), NOW)
    assert moved()
    agents.register(announced("a", "m"), NOW + 9)
    agents.heard("a", NOW + 10)
    assert not moved()
    agents.register(announced("a", "m", owner=4), NOW)
    assert moved()
    agents.register(announced("a", "m", endpoint="http://10.0.0.7:1", owner=4), NOW)
    assert moved()
    agents.remove("a")
    assert moved()
    assert agents.remove("a") is None


def test_a_place_is_not_given_away_while_others_are_unused(agents: Agents) -> None:
    assert [agents.register(announced(name, "m"), NOW).id for name in "abc"] == [1, 2, 3]
    agents.remove("b")
    assert agents.register(announced("d", "m"), NOW).id == 4


def test_places_are_used_again_and_run_out(agents: Agents, store: Store) -> None:
    with store.write() as tx:
        rows = [(number, f"a{number}", AT) for number in range(1, AGENTS_MAX + 1) if number != 7]
        tx.many("INSERT INTO agents (id, name, endpoint) VALUES (?, ?, ?)", rows)
    assert agents.register(announced("late", "m"), NOW).id == 7
    with pytest.raises(RegistryError, match="1023 agents already"):
        agents.register(announced("later", "m"), NOW)


def test_offers_run_out_and_who_offers_less_is_not_refused(agents: Agents) -> None:
    """One token that announces without end would have every worker make its directory anew, for seconds each time."""
    many = [f"m{number}" for number in range(OFFERS_MAX)]
    for number in range(OFFERS_ALL_MAX // OFFERS_MAX):
        agents.register(announced(f"a{number}", *many), NOW)
    with pytest.raises(RegistryError, match="models: agents offer 5000 models already"):
        agents.register(announced("late", "m"), NOW)
    assert agents.get("late") is None
    assert len(agents.register(announced("a0", *reversed(many)), NOW).models) == OFFERS_MAX
    agents.register(announced("a0", *many[1:]), NOW)
    assert agents.register(announced("late", "m"), NOW).models == ("m",)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (announced("", "m"), "name:"),
        (announced("a b", "m"), "name:"),
        (announced("a\n", "m"), "name:"),
        (announced("a" * 101, "m"), "name:"),
        (announced("a"), "at least one model"),
        (announced("a", *map(str, range(501))), "at most 500"),
        (announced("a", ""), "name:"),
        (announced("a", "auto"), "'auto' is the route"),
        (announced("a", "m" * 300), "longer than"),
        (announced("a", "m", endpoint="http://x:y@h"), "endpoint:"),
    ],
)
def test_what_cannot_be_kept_is_refused_whole(agents: Agents, said: Announced, words: str) -> None:
    with pytest.raises(RegistryError, match=words):
        agents.register(said, NOW)
    assert agents.list() == ()


def test_removing_a_model_of_an_agent_says_whose_it_is(agents: Agents, store: Store) -> None:
    agents.register(announced("mac", "m"), NOW)
    with pytest.raises(RegistryError, match=r"offered by agent 'mac'.*agents remove"):
        Registry(store).remove("m")


class Office:
    """A desk over a real store, with a clock that is moved by hand."""

    def __init__(self, store: Store) -> None:
        self.books = Books(store)
        self.book = Book(self.books.load())
        self.desk = Desk(self.books, bytes(range(32)), Agents(store))
        self.now = NOW

    def ask(self, operation: str, **arguments: object) -> object:
        answer = self.desk(self.book, operation, arguments, self.now)
        changes = self.book.take()
        changes.records.update(self.desk.take())
        self.books.commit(changes)
        return msgspec.msgpack.decode(msgspec.msgpack.encode(answer))

    def token(self, name: str) -> int:
        made = self.ask("keys.create", name=name, kind="agent")
        assert isinstance(made, dict)
        row = self.book.by_public(made["id"])
        assert row is not None
        return row.id

    def register(self, name: str, owner: int, *models: str, **more: object) -> object:
        return self.ask(
            "agents.register", name=name, endpoint=AT, models=list(models), owner=owner, peer="10.0.0.5", **more
        )

    def refused(self, operation: str, **arguments: object) -> Refused:
        with pytest.raises(Refused) as refusal:
            self.ask(operation, **arguments)
        return refusal.value


@pytest.fixture
def office(store: Store) -> Office:
    return Office(store)


def test_i_b3_another_token_does_not_take_over_a_name(office: Office) -> None:
    mine, other = office.token("mine"), office.token("other")
    office.register("mac", mine, "m")
    with pytest.raises(Refused) as refusal:
        office.register("mac", other, "m")
    assert (refusal.value.status, refusal.value.code) == (409, "agent_name_taken")
    with pytest.raises(Refused):
        office.register("mac", 0, "m")
    office.register("mac", mine, "m", "n")


def test_a_name_is_free_again_once_its_token_is_revoked(office: Office) -> None:
    mine, other = office.token("mine"), office.token("other")
    office.register("mac", mine, "m")
    office.ask("keys.revoke", id="mine")
    office.register("mac", other, "m")


def test_the_agents_of_a_revoked_token_go_with_it_at_once(office: Office) -> None:
    """Somebody's stolen token: what was announced with it is asked no more, not even until it is found to be silent."""
    office.ask("keys.create", name="boss", kind="key")
    mine, other = office.token("mine"), office.token("other")
    office.register("one", mine, "m")
    office.register("two", mine, "n")
    office.register("left", other, "m")
    office.ask("keys.rotate", id="mine")
    office.ask("keys.revoke", id="boss")
    assert [row["name"] for row in office.ask("agents.list")] == ["left", "one", "two"]
    office.ask("keys.revoke", id="mine")
    assert [row["name"] for row in office.ask("agents.list")] == ["left"]


def test_what_was_announced_in_an_open_house_is_for_its_agent_to_claim(office: Office) -> None:
    office.register("mac", 0, "m")
    office.register("mac", office.token("mine"), "m")


def test_a_key_is_told_to_who_asks_and_hangs_on_name_and_place(office: Office) -> None:
    first, again = office.register("a", 0, "m", keyed=True), office.register("a", 0, "m", keyed=True)
    other = office.register("b", 0, "m", keyed=True)
    plain = office.register("c", 0, "m")
    assert isinstance(first, dict)
    assert isinstance(other, dict)
    assert isinstance(plain, dict)
    assert first == again
    assert first["key"].startswith("ag_")
    assert other["key"] != first["key"]
    assert plain["key"] is None


def test_nobody_is_found_heard_or_removed_by_a_wrong_name(office: Office) -> None:
    for operation in ("agents.find", "agents.heard", "agents.remove"):
        assert office.refused(operation, name="nobody").status == 404


def test_who_is_long_gone_is_forgotten_but_not_before_everybody_could_be_heard(office: Office) -> None:
    office.register("gone", 0, "m")
    office.register("here", 0, "m")
    office.now += GONE_MS + LOOK_MS
    office.desk.tick(office.book, office.now)  # the house has just come back itself
    assert len(office.ask("agents.list")) == 2
    office.ask("agents.heard", name="here")
    office.now += LOOK_MS
    office.desk.tick(office.book, office.now)
    assert [each["name"] for each in office.ask("agents.list")] == ["here"]
