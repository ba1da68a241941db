"""The registry: rows come and go as wholes, mistakes are named, and the generation moves when something changed."""

import pytest

from fastroute.errors import RegistryError, StoreError
from fastroute.ledger.registry import MODEL_TYPES, ModelRow, Registry, Replaced, rows_from_json
from fastroute.ledger.sqlite import Store

LOCAL = ModelRow("local_m", "local", "http://127.0.0.1:5000", "weight")
OPENAI = ModelRow("gpt-old", "openai", "https://api.openai.com")


class TestRows:
    def test_a_row_is_added_found_updated_and_removed(self, registry: Registry) -> None:
        assert registry.add(LOCAL) == "added"
        assert registry.get("local_m") == LOCAL
        moved = ModelRow("local_m", "local", "http://127.0.0.1:5001")
        assert registry.add(moved) == "updated"
        assert registry.add(moved) == "unchanged"
        assert registry.list() == (moved,)
        assert registry.remove("local_m") == moved
        assert registry.get("local_m") is None

    def test_rows_are_listed_by_name(self, registry: Registry) -> None:
        registry.seed([LOCAL, OPENAI, ModelRow("a", "dummy", "")])
        assert [row.name for row in registry.list()] == ["a", "gpt-old", "local_m"]

    def test_removing_an_unknown_name_tells_the_nearest(self, registry: Registry) -> None:
        registry.add(LOCAL)
        with pytest.raises(RegistryError, match=r"'local_n' is not in the registry; did you mean 'local_m'"):
            registry.remove("local_n")
        with pytest.raises(RegistryError, match=r"'xyz' is not in the registry$"):
            registry.remove("xyz")
        assert registry.list() == (LOCAL,)

    @pytest.mark.parametrize("type_", MODEL_TYPES)
    @pytest.mark.parametrize("kind", ["api", "weight"])
    def test_every_type_and_kind_can_be_stored(self, registry: Registry, type_: str, kind: str) -> None:
        row = ModelRow("m", type_, "http://x", kind)
        registry.add(row)
        assert registry.get("m") == row

    def test_removing_an_agent_takes_its_models_along(self, store: Store, registry: Registry) -> None:
        """A model announced by an agent refers to it; one that names an agent nobody knows is refused."""
        owned = ModelRow("m", "local", "http://mac:5000", "weight", agent="mac")
        with pytest.raises(StoreError, match="FOREIGN KEY"):
            registry.add(owned)
        with store.write() as tx:
            tx.run("INSERT INTO agents (name, endpoint) VALUES ('mac', 'http://mac:5000')")
        registry.add(owned)
        assert registry.list() == (owned,)
        seen = registry.generation()
        with store.write() as tx:
            tx.run("DELETE FROM agents WHERE name = 'mac'")
        assert registry.list() == ()
        assert registry.generation() > seen


class TestRefusals:
    def test_a_bad_type_or_kind_lists_the_valid_ones(self, registry: Registry) -> None:
        with pytest.raises(RegistryError) as caught:
            registry.add(ModelRow("m", "alien", "http://x", "other"))
        type_, kind = str(caught.value).splitlines()
        assert type_ == f"type: 'alien' is not one of {', '.join(MODEL_TYPES)}"
        assert kind == "kind: 'other' is not one of api, weight"

    @pytest.mark.parametrize("name", ["", " m", "m ", "a\tb", "a\nb", "\udcff", "m" * 201])
    def test_a_name_is_printable_and_short(self, registry: Registry, name: str) -> None:
        with pytest.raises(RegistryError, match=r"^name: "):
            registry.add(ModelRow(name, "dummy", ""))

    @pytest.mark.parametrize(
        "endpoint",
        [
            "",
            "x",
            "ftp://x",
            "http://",
            "http:///v1",
            "http://x:port",
            "http://x:0",
            "http://[x",
            "http://a b",
            "http://x\n",
        ],
    )
    def test_an_endpoint_is_an_http_url(self, registry: Registry, endpoint: str) -> None:
        with pytest.raises(RegistryError, match=r"^endpoint: .*is not an http:// or https:// URL"):
            registry.add(ModelRow("m", "local", endpoint))

    def test_an_endpoint_carries_no_password_and_none_is_shown(self, registry: Registry) -> None:
        with pytest.raises(RegistryError) as caught:
            registry.add(ModelRow("m", "local", "http://me:hunter2@x"))
        assert "hunter2" not in str(caught.value)

    @pytest.mark.parametrize("endpoint", ["", "nowhere", "http://x"])
    def test_the_dummy_needs_no_endpoint(self, registry: Registry, endpoint: str) -> None:
        assert registry.add(ModelRow("dummy", "dummy", endpoint)) == "added"


class TestSeed:
    def test_a_seed_is_all_or_nothing(self, registry: Registry) -> None:
        registry.add(LOCAL)
        rows = [
            OPENAI,
            ModelRow("x", "alien", "http://x"),
            ModelRow("y", "local", "y"),
            ModelRow("gpt-old", "dummy", ""),
        ]
        with pytest.raises(RegistryError) as caught:
            registry.seed(rows)
        starts = [line[:16] for line in str(caught.value).splitlines()]
        assert starts == ["row 1: type: 'al", "row 2: endpoint:", "row 3: name: 'gp"]
        assert registry.list() == (LOCAL,)

    def test_a_fault_between_two_rows_keeps_neither(self, store: Store, registry: Registry) -> None:
        """The database itself refuses the second row."""
        with pytest.raises(StoreError):
            registry.seed([LOCAL, ModelRow("m", "local", "http://x", agent="nobody")])
        assert registry.list() == ()

    def test_a_seed_updates_rows_of_the_same_name(self, registry: Registry) -> None:
        registry.add(ModelRow("gpt-old", "local", "http://x"))
        assert registry.seed([OPENAI, LOCAL]) == 2
        assert registry.list() == (OPENAI, LOCAL)

    def test_a_seed_files_rows_without_a_kind_are_api(self) -> None:
        data = b"""[{"name": "a", "type": "openai", "endpoint": "http://x"},
                   {"name": "b", "type": "local", "endpoint": "http://x", "kind": "weight"}]"""
        assert [row.kind for row in rows_from_json(data)] == ["api", "weight"]

    def test_a_seed_file_names_every_mistake_by_row_and_field(self) -> None:
        data = b"""[{"name": "a", "type": "dummy", "endpoint": ""}, {"name": 5, "knd": "api", "endpoint": "x"}, 7,
                   {"name": "b", "type": "alien", "endpoint": ""}]"""
        with pytest.raises(RegistryError) as caught:
            rows_from_json(data)
        assert str(caught.value).splitlines() == [
            "row 1: type: is missing",
            "row 1: name: is text, not 5",
            "row 1: knd: is not a field; there are name, type, endpoint, kind",
            "row 2: is {name, type, endpoint, kind?}, not 7",
            f"row 3: type: 'alien' is not one of {', '.join(MODEL_TYPES)}",
        ]

    @pytest.mark.parametrize("data", [b"", b"[", b"{}", b"null", b"\xff", b'["\xff"]', b"[" * 100_000])
    def test_a_seed_file_that_is_no_list_is_refused(self, data: bytes) -> None:
        with pytest.raises(RegistryError, match="a seed file is"):
            rows_from_json(data)


class TestReplacingAProvider:
    def test_only_its_own_rows_are_touched(self, registry: Registry) -> None:
        registry.seed([LOCAL, OPENAI, ModelRow("gpt-both", "openai", "https://old")])
        replaced = registry.replace_provider("openai", ["gpt-new", "gpt-both", "gpt-new"], "https://api.openai.com")
        assert replaced == Replaced(("gpt-new", "gpt-both"), ("gpt-old",), ())
        assert registry.list() == (
            ModelRow("gpt-both", "openai", "https://api.openai.com"),
            ModelRow("gpt-new", "openai", "https://api.openai.com"),
            LOCAL,
        )

    def test_a_name_that_another_type_holds_is_kept_and_told(self, registry: Registry) -> None:
        mine = ModelRow("gpt-4", "local", "http://127.0.0.1:5000", "weight")
        registry.add(mine)
        replaced = registry.replace_provider("openai", ["gpt-4", "gpt-5"], "https://api.openai.com")
        assert replaced == Replaced(("gpt-5",), (), (mine,))
        assert registry.get("gpt-4") == mine

    def test_a_bad_name_changes_nothing(self, registry: Registry) -> None:
        registry.add(OPENAI)
        with pytest.raises(RegistryError, match="name: "):
            registry.replace_provider("openai", ["fine", "not\tfine"], "https://api.openai.com")
        assert registry.list() == (OPENAI,)


class TestGeneration:
    def test_it_moves_with_every_change_and_with_nothing_else(self, registry: Registry) -> None:
        """I-B13."""
        seen = [registry.generation()]

        def moved() -> bool:
            seen.append(registry.generation())
            return seen[-1] > seen[-2]

        registry.add(LOCAL)
        assert moved()
        registry.add(LOCAL)
        registry.seed([LOCAL])
        registry.list()
        assert not moved()
        registry.seed([LOCAL, OPENAI])
        assert moved()
        registry.replace_provider("openai", ["gpt-old"], "https://api.openai.com")
        assert not moved()
        registry.replace_provider("openai", ["gpt-new"], "https://api.openai.com")
        assert moved()
        registry.remove("gpt-new")
        assert moved()
