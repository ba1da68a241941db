"""The registry from the command line: its own commands, the older spellings, and the refresh from a real server."""

import json
import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from fastroute.cli import exits, models
from fastroute.errors import ConfigError, FastrouteError, FetchError, Problem, StoreCorrupt, UnknownModel
from fastroute.ledger import migrations
from fastroute.ledger.registry import MODEL_TYPES, ModelRow, Registry
from fastroute.ledger.sqlite import Store

Run = Callable[..., Result]

LOCAL = ModelRow("local_m", "local", "http://127.0.0.1:5000", "weight")
UNSET = ("SQLITE_DB_PATH", "FASTROUTE_STATE_DIR", "EXTERNAL_OPENAI_KEY", "OPENAI_API_KEY", "OPENAI_BASE_URL")


@pytest.fixture
def run(database: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command (an object, or words of `models`) on the state directory, with nothing in the environment."""
    for name in UNSET:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FASTROUTE_STATE_DIR", str(database.parent))

    def run(command: click.Command | str, *arguments: str, **settings: str | bytes) -> Result:
        stdin = settings.pop("stdin", None)
        for name, value in settings.items():
            monkeypatch.setenv(name, str(value))
        if isinstance(command, str):
            command, arguments = models.command, (command, *arguments)
        return CliRunner().invoke(command, arguments, input=stdin)

    return run


def rows(database: Path) -> tuple[ModelRow, ...]:
    with Store.open(database, readonly=True) as store:
        return Registry(store).list()


class TestIA9:
    """I-A9: what is stored, how it is listed, what is refused."""

    FOO = ModelRow("foo", "local", "http://x", "weight")

    @pytest.mark.parametrize("kind", [["weight"], ["--kind", "weight"], ["weight", "--kind", "weight"]])
    @pytest.mark.parametrize("words", [["add"], ["add-model"]])
    def test_i_a9_a_kind_may_be_an_argument_or_an_option(
        self, run: Run, database: Path, words: list[str], kind: list[str]
    ) -> None:
        command = models.add_model if words == ["add-model"] else "add"
        result = run(command, "foo", "local", "http://x", *kind)
        assert (result.exit_code, result.stdout) == (0, "Added foo\n")
        assert rows(database) == (self.FOO,)

    def test_i_a9_two_different_kinds_are_a_usage_error(self, run: Run, database: Path) -> None:
        result = run("add", "foo", "local", "http://x", "api", "--kind", "weight")
        assert result.exit_code == 2
        assert "KIND is given twice" in result.stderr
        assert not database.exists()

    @pytest.mark.parametrize("bad", [["foo", "invalid", "http://x", "api"], ["foo", "local", "http://x", "invalid"]])
    def test_i_a9_a_bad_type_or_kind_exits_1_and_lists_the_valid_ones(self, run: Run, bad: list[str]) -> None:
        result = run(models.add_model, *bad)
        assert (result.exit_code, result.stdout) == (1, "")
        assert "'invalid' is not one of " in result.stderr
        assert (MODEL_TYPES[0] if bad[1] == "invalid" else "weight") in result.stderr

    def test_i_a9_the_list_has_tabs(self, run: Run) -> None:
        run("add", "foo", "local", "http://x", "weight")
        run("add", "bar", "dummy", "")
        for result in (run("list"), run(models.list_models)):
            assert (result.exit_code, result.stdout) == (0, "bar\tdummy\t\tapi\nfoo\tlocal\thttp://x\tweight\n")

    def test_i_a9_migrating_twice_is_a_no_op(self, run: Run, database: Path) -> None:
        applied = "".join(f"Applied {migration}\n" for migration in migrations.MIGRATIONS)
        assert run(models.migrate).stdout == applied
        before = database.read_bytes()
        assert run(models.migrate).stdout == f"Up to date at schema {migrations.LATEST}\n"
        assert json.loads(run(models.migrate, "--json").stdout) == {"applied": [], "schema": migrations.LATEST}
        assert database.read_bytes() == before

    def test_i_a9_a_seed_item_without_a_kind_is_api(self, run: Run, database: Path, tmp_path: Path) -> None:
        file = tmp_path / "seed.json"
        file.write_text('[{"name": "foo", "type": "openai", "endpoint": "https://api.openai.com"}]')
        assert run(models.seed, str(file)).stdout == "Seeded 1 models\n"
        assert rows(database) == (ModelRow("foo", "openai", "https://api.openai.com", "api"),)


class TestCommands:
    def test_a_second_add_updates_and_says_so(self, run: Run) -> None:
        run("add", "foo", "local", "http://x")
        assert run("add", "foo", "local", "http://y").stdout == "Updated foo\n"
        assert run("add", "foo", "local", "http://y").stdout == "Unchanged foo\n"

    def test_every_command_prints_json(self, run: Run) -> None:
        foo = {"name": "foo", "type": "local", "endpoint": "http://x", "kind": "api"}
        assert json.loads(run("add", "foo", "local", "http://x", "--json").stdout) == foo
        assert json.loads(run("list", "--json").stdout) == [foo]
        assert json.loads(run("seed", "--json", "-", stdin=json.dumps([foo])).stdout) == [foo]
        assert json.loads(run("remove", "foo", "--json").stdout) == foo
        assert json.loads(run("list", "--json").stdout) == []

    def test_listing_makes_nothing(self, run: Run, database: Path) -> None:
        result = run("list")
        assert (result.exit_code, result.stdout) == (0, "")
        assert not database.parent.exists()

    def test_removing_an_unknown_name_exits_1(self, run: Run) -> None:
        run("add", "foo", "local", "http://x")
        result = run("remove", "fo")
        assert (result.exit_code, result.stderr) == (1, "model 'fo' is not in the registry; did you mean 'foo'?\n")

    def test_a_seed_with_a_bad_row_stores_none(self, run: Run, database: Path) -> None:
        run("add", "foo", "local", "http://x")
        good = {"name": "good", "type": "dummy", "endpoint": ""}
        result = run("seed", "-", stdin=json.dumps([good, {**good, "name": "bad", "kind": "odd"}]))
        assert result.exit_code == 1
        assert result.stderr.startswith("row 1: kind: 'odd' is not one of")
        assert [row.name for row in rows(database)] == ["foo"]

    def test_a_seed_file_that_is_not_there_is_a_usage_error(self, run: Run, tmp_path: Path) -> None:
        assert run("seed", str(tmp_path / "none.json")).exit_code == 2

    def test_a_store_that_cannot_be_used_exits_74(self, run: Run, database: Path) -> None:
        database.parent.mkdir()
        database.write_bytes(os.urandom(5000))
        for result in (run("list"), run("add", "m", "dummy", ""), run(models.migrate)):
            assert result.exit_code == 74
            assert f"{database} is damaged" in result.stderr

    def test_the_older_variable_names_the_file(self, run: Run, database: Path, tmp_path: Path) -> None:
        path = tmp_path / "older" / "models.db"
        assert run("add", "foo", "dummy", "", "--state-dir", str(tmp_path), SQLITE_DB_PATH=str(path)).exit_code == 0
        assert [row.name for row in rows(path)] == ["foo"]
        assert not database.exists()

    def test_the_option_names_the_directory(self, run: Run, tmp_path: Path) -> None:
        run("add", "foo", "dummy", "", "--state-dir", str(tmp_path / "mine"), SQLITE_DB_PATH="")
        assert [row.name for row in rows(tmp_path / "mine" / "fastroute.db")] == ["foo"]


class Provider:
    """A real HTTP server on the loopback that answers every request with what the test set, and remembers them."""

    def __init__(self) -> None:
        self.status = 200
        self.body = b'{"object":"list","data":[{"id":"gpt-test","object":"model"}]}'
        self.headers: dict[str, str] = {}
        self.seen: list[tuple[str, str | None]] = []
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.seen.append((self.path, self.headers["authorization"]))
                self.send_response(provider.status)
                for name, value in {"content-length": str(len(provider.body)), **provider.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(provider.body)

            def log_message(self, *_: object) -> None:
                """Not to stderr."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def provider() -> Iterator[Provider]:
    provider = Provider()
    thread = threading.Thread(target=provider.server.serve_forever, args=(0.01,))
    thread.start()
    yield provider
    provider.server.shutdown()
    thread.join(5)
    provider.server.server_close()


@pytest.fixture
def old(database: Path) -> tuple[ModelRow, ...]:
    """I-A10's registry before the refresh."""
    before = (ModelRow("gpt-old", "openai", "https://api.openai.com"), LOCAL)
    with Store.open(database) as store:
        Registry(store).seed(before)
    return before


class TestIA10:
    """I-A10: a refresh replaces what the provider listed, whole, or changes nothing."""

    @pytest.mark.parametrize("base", ["", "/", "/v1", "/v1/"])
    @pytest.mark.parametrize("alias", [False, True])
    def test_i_a10_the_providers_rows_are_replaced_and_others_kept(
        self, run: Run, database: Path, old: object, provider: Provider, base: str, alias: bool
    ) -> None:
        words = (models.refresh_openai,) if alias else ("refresh", "openai")
        result = run(*words, EXTERNAL_OPENAI_KEY="sk-1", OPENAI_BASE_URL=provider.url + base)
        assert (result.exit_code, result.output) == (0, "Inserted 1 models\n")
        assert rows(database) == (ModelRow("gpt-test", "openai", provider.url), LOCAL)
        assert provider.seen == [("/v1/models", "Bearer sk-1")]

    @pytest.mark.parametrize("status", [500, 401, 302, 204])
    def test_i_a10_an_error_changes_nothing_and_exits_1(
        self, run: Run, database: Path, old: tuple[ModelRow, ...], provider: Provider, status: int
    ) -> None:
        """A redirect is an error too: the key goes nowhere else."""
        provider.status, provider.headers = status, {"location": f"{provider.url}/elsewhere"}
        provider.body = b"" if status == 204 else provider.body
        result = run("refresh", "openai", EXTERNAL_OPENAI_KEY="sk-secret", OPENAI_BASE_URL=provider.url)
        assert (result.exit_code, result.stdout) == (1, "")
        assert f"/v1/models answered {status}; nothing was changed" in result.stderr
        assert "sk-secret" not in result.output
        assert rows(database) == old
        assert len(provider.seen) == 1

    @pytest.mark.parametrize(
        "body",
        [
            *(b"", b"<html>", b"[]", b"null", b"{}", b"[" * 100_000),
            *(b'{"data":7}', b'{"data":[7]}', b'{"data":[{}]}', b'{"data":[{"id":5}]}'),
            *(b'{"data":[]}', b'{"data":[{"id":""}]}', b'{"data":[{"id":"a"},{"id":"b\\n"}]}'),
        ],
    )
    def test_i_a10_nonsense_changes_nothing_and_exits_1(
        self, run: Run, database: Path, old: tuple[ModelRow, ...], provider: Provider, body: bytes
    ) -> None:
        provider.body = body
        result = run("refresh", "openai", EXTERNAL_OPENAI_KEY="sk-1", OPENAI_BASE_URL=provider.url)
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr.strip()
        assert rows(database) == old

    def test_i_a10_an_answer_cut_short_changes_nothing(
        self, run: Run, database: Path, old: tuple[ModelRow, ...], provider: Provider
    ) -> None:
        provider.headers = {"content-length": str(len(provider.body) + 10)}
        result = run("refresh", "openai", EXTERNAL_OPENAI_KEY="sk-1", OPENAI_BASE_URL=provider.url)
        assert result.exit_code == 1
        assert "gave no answer" in result.stderr
        assert rows(database) == old


class TestRefreshing:
    def test_a_refused_connection_exits_1(self, run: Run, database: Path, old: tuple[ModelRow, ...]) -> None:
        result = run("refresh", "openai", EXTERNAL_OPENAI_KEY="sk-1", OPENAI_BASE_URL="http://127.0.0.1:1")
        assert result.exit_code == 1
        assert "http://127.0.0.1:1/v1/models gave no answer" in result.stderr
        assert rows(database) == old

    def test_an_endless_answer_is_given_up(
        self, run: Run, database: Path, old: tuple[ModelRow, ...], provider: Provider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(models, "LIST_BYTES_MAX", 10)
        result = run("refresh", "openai", EXTERNAL_OPENAI_KEY="sk-1", OPENAI_BASE_URL=provider.url)
        assert result.exit_code == 1
        assert "more than 10 bytes" in result.stderr
        assert rows(database) == old

    def test_an_answer_past_its_deadline_is_given_up(
        self, run: Run, database: Path, old: tuple[ModelRow, ...], provider: Provider, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """However it dribbles: the deadline is one for the whole answer. Here the clock runs by a minute each time."""

        class Racing:
            now = 0

            def monotonic_ms(self) -> int:
                self.now += 60_000
                return self.now

        monkeypatch.setattr(models, "SystemClock", Racing)
        result = run("refresh", "openai", EXTERNAL_OPENAI_KEY="sk-1", OPENAI_BASE_URL=provider.url)
        assert result.exit_code == 1
        assert "took more than 10000 ms" in result.stderr
        assert rows(database) == old

    def test_a_missing_key_is_told_as_ever(self, run: Run, database: Path) -> None:
        for result in (run("refresh", "openai"), run(models.refresh_openai, EXTERNAL_OPENAI_KEY="")):
            assert (result.exit_code, result.stdout) == (1, "")
            assert result.stderr == "EXTERNAL_OPENAI_KEY not set\n"
        assert not database.exists()

    def test_the_usual_variable_is_the_second_choice(self, run: Run, provider: Provider) -> None:
        run("refresh", "openai", OPENAI_API_KEY="sk-usual", OPENAI_BASE_URL=provider.url)
        run("refresh", "openai", EXTERNAL_OPENAI_KEY="sk-own")
        assert [key for _, key in provider.seen] == ["Bearer sk-usual", "Bearer sk-own"]

    @pytest.mark.parametrize("key", ["sk-caf\u00e9", "sk-two\nlines"])
    def test_a_key_that_no_header_may_carry_is_refused_unseen(self, run: Run, provider: Provider, key: str) -> None:
        result = run("refresh", "openai", EXTERNAL_OPENAI_KEY=key, OPENAI_BASE_URL=provider.url)
        assert (result.exit_code, result.stdout) == (78, "")
        assert "EXTERNAL_OPENAI_KEY" in result.stderr
        assert key not in result.stderr
        assert provider.seen == []

    @pytest.mark.parametrize("base", ["api.openai.com", "ftp://x", "http://me:hunter2@127.0.0.1:1"])
    def test_a_base_that_is_no_url_is_refused(self, run: Run, base: str) -> None:
        result = run("refresh", "openai", EXTERNAL_OPENAI_KEY="sk-1", OPENAI_BASE_URL=base)
        assert result.exit_code == 78
        assert "OPENAI_BASE_URL" in result.stderr
        assert "hunter2" not in result.stderr

    def test_the_environments_proxies_are_not_for_keys(self, run: Run, provider: Provider) -> None:
        proxies = {"HTTP_PROXY": "http://127.0.0.1:1", "ALL_PROXY": "http://127.0.0.1:1"}
        result = run("refresh", "openai", EXTERNAL_OPENAI_KEY="sk-1", OPENAI_BASE_URL=provider.url, **proxies)
        assert result.exit_code == 0

    def test_a_name_another_type_holds_is_kept_and_told(self, run: Run, database: Path, provider: Provider) -> None:
        run("add", "gpt-test", "local", "http://x")
        provider.body = b'{"data":[{"id":"gpt-test"},{"id":"gpt-5"}]}'
        result = run("refresh", "openai", "--json", EXTERNAL_OPENAI_KEY="sk-1", OPENAI_BASE_URL=provider.url)
        kept = {"name": "gpt-test", "type": "local", "endpoint": "http://x", "kind": "api"}
        assert json.loads(result.stdout) == {"inserted": ["gpt-5"], "removed": [], "kept": [kept]}
        assert result.stderr == "Kept gpt-test of type local\n"
        assert [row.type for row in rows(database)] == ["openai", "local"]

    def test_an_unknown_provider_is_a_usage_error(self, run: Run) -> None:
        assert run("refresh", "nobody", EXTERNAL_OPENAI_KEY="sk-1").exit_code == 2


class TestExits:
    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (FastrouteError("x"), 1),
            (FetchError("x"), 1),
            (UnknownModel("x"), 65),
            (StoreCorrupt("x"), 74),
            (ConfigError([Problem("fastroute.yaml:3", "x")]), 78),
        ],
    )
    def test_a_fault_is_told_on_stderr_and_leaves_with_its_code(
        self, error: FastrouteError, code: int, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as caught:
            exits.fail(error)
        assert caught.value.code == exits.code_of(error) == code
        assert capsys.readouterr().err == f"{error}\n"
