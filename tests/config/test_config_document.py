"""The file: YAML 1.2 scalars with positions; what YAML would do behind one's back is refused with its place."""

from __future__ import annotations

import os
import socket
import time
from decimal import Decimal
from pathlib import Path

import pytest
import yaml

from fastroute.config import document, load
from fastroute.config.document import DEPTH_MAX, Section, read, scalar
from fastroute.config.values import Mistakes
from fastroute.errors import ConfigError

NESTED = "[" * 33 + "]" * 33
BOMB = """\
a: &a [x, x, x, x, x, x, x, x, x]
b: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]
c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b]
"""


@pytest.fixture(params=["c", "python"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both parsers of PyYAML, since a machine may have only the slow one."""
    loader = yaml.SafeLoader if request.param == "python" else document._LOADER
    monkeypatch.setattr(document, "_LOADER", loader)


CORPUS = [
    ("a tab that indents", "server:\n\tport: 1\n", ["fastroute.yaml:2: holds a tab"]),
    ("a tab between", "demo:\ttrue\n", ["fastroute.yaml:1: holds a tab"]),
    ("a key said twice", "demo: true\ndummy: true\ndemo: false\n", ["fastroute.yaml:3: says 'demo' again; line 1"]),
    (
        "a setting said twice in its section",
        "server:\n  port: 1\n  port: 2\n",
        ["fastroute.yaml:3: says 'port' again; line 2"],
    ),
    (
        "an anchor and an alias",
        "log: &l {level: INFO}\npricing: *l\n",
        ["fastroute.yaml:1: sets the anchor &l", "fastroute.yaml:2: uses the alias *l"],
    ),
    ("an anchor on a key", "&k demo: true\n", ["fastroute.yaml:1: sets the anchor &k"]),
    ("a tag", "demo: !!python/object/apply:os.system [id]\n", ["fastroute.yaml:1: uses a tag (!)"]),
    ("a tag of no type", "demo: ! true\n", ["fastroute.yaml:1: uses a tag (!)"]),
    ("a list for a key", "? [a]\n: 1\n", ["fastroute.yaml:1: has a key that is not text"]),
    ("33 levels", f"models: {NESTED}\n", ["fastroute.yaml:1: is nested deeper than 32 levels"]),
    ("a thousand levels", "\n" + "[" * 1000, ["fastroute.yaml:2: is nested deeper than 32 levels"]),
    ("two documents", "demo: true\n---\ndemo: false\n", ["fastroute.yaml:2: starts a second document"]),
    ("a list at the top", "- demo\n", ["fastroute.yaml:1: wanted sections such as `server:`"]),
    ("text at the top", "demo\n", ["fastroute.yaml:1: wanted sections such as `server:`"]),
    ("a bracket left open", "demo: true\nserver: {port: 1\nlog: {}\n", ["is not YAML"]),
    ("a quote left open", 'log:\n  path: "x\n', ["is not YAML"]),
    ("bytes that are not UTF-8", b"demo: true\n# \xff\n", ["fastroute.yaml:2: is not UTF-8 text"]),
    ("UTF-16", "demo: true\n".encode("utf-16"), ["fastroute.yaml:1: is not UTF-8 text"]),
    (
        "a control character",
        "demo: true\n# \u00e9\u00e9\nlog: \x07\n",
        ["fastroute.yaml:3: holds the control character U+0007"],
    ),
    (
        "a reference in braces without quotes",
        "demo: true\nauth: {admin_key: ${K}}\n",
        ["fastroute.yaml:2: is not YAML", '; inside { } and [ ] write "${NAME}" in quotes'],
    ),
    ("a merge key", "server: {<<: {port: 1}}\n", ["fastroute.yaml:1: server: unknown key"]),
]


@pytest.mark.usefixtures("parser")
@pytest.mark.parametrize(("text", "expected"), [row[1:] for row in CORPUS], ids=[row[0] for row in CORPUS])
def test_what_yaml_would_do_behind_ones_back_is_refused_with_its_line(refusals, text, expected):
    """The same refusal comes from either parser, and names the file and the line."""
    told = refusals(text)
    assert all(line.startswith("fastroute.yaml:") for line in told)
    for wanted in expected:
        assert any(wanted in line for line in told), told


@pytest.mark.usefixtures("parser")
def test_an_alias_bomb_is_refused_before_anything_expands(refusals):
    started = time.monotonic()
    told = refusals(BOMB)
    assert time.monotonic() - started < 2
    assert "fastroute.yaml:2: uses the alias *a; aliases are not read, write the value out" in told


def test_a_file_over_one_mebibyte_is_refused_unread(refusals):
    assert refusals(b"# " + b"x" * (2 << 20)) == [
        "fastroute.yaml: is longer than 1048576 bytes, which no configuration needs"
    ]


def test_a_hostile_file_makes_a_bounded_report(refusals):
    """A mistake every few bytes does not fill the terminal."""
    told = refusals("\n".join(f"x{number}: 1" for number in range(5000)))
    assert len(told) == 101
    assert told[-1].endswith("further mistakes are left out")


@pytest.mark.parametrize("depth", [DEPTH_MAX - 1, DEPTH_MAX])
def test_the_depth_limit_counts_the_top_level(elsewhere, depth):
    Path("x.yaml").write_text("a: " + "[" * (depth - 1) + "]" * (depth - 1))
    mistakes = Mistakes()
    read(Path("x.yaml"), {}, mistakes)
    assert not mistakes


def test_a_named_file_that_is_not_there_is_a_mistake():
    with pytest.raises(ConfigError, match=r"^gone\.yaml: does not exist$"):
        load(Path("gone.yaml"), {}, {})


def test_a_file_named_by_the_environment_that_is_not_there_names_the_variable():
    with pytest.raises(ConfigError, match=r"^gone\.yaml: does not exist; env FASTROUTE_CONFIG names it$"):
        load(None, {"FASTROUTE_CONFIG": "gone.yaml"}, {})


def test_a_directory_is_not_a_file(elsewhere):
    with pytest.raises(ConfigError, match="is a directory, wanted a YAML file"):
        load(elsewhere, {}, {})


@pytest.mark.parametrize("kind", ["loop", "beyond a file", "socket", "no name"])
def test_a_file_that_cannot_be_read_says_so(kind):
    """Whoever runs it: these fail for root as well."""
    path = Path("odd.yaml")
    if kind == "loop":
        path.symlink_to(path)
    elif kind == "beyond a file":
        path.write_text("")
        path = path / "x"
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(path))
    else:
        path = Path("a\0b")
    with pytest.raises(ConfigError, match="cannot be read: "):
        load(path, {}, {})


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_file_without_permission_says_so():
    path = Path("closed.yaml")
    path.write_text("demo: true")
    path.chmod(0)
    with pytest.raises(ConfigError, match="cannot be read: Permission denied"):
        load(path, {}, {})


def test_a_dangling_link_of_the_default_name_is_not_passed_over():
    """Somebody meant a file; starting without it would be a surprise."""
    Path("fastroute.yaml").symlink_to("gone.yaml")
    with pytest.raises(ConfigError, match="does not exist"):
        load(None, {}, {})


@pytest.mark.parametrize(
    "text", ["", "\n", "# nothing\n", "---\n", "null\n", "{}\n", "server:\n", "\ufeffdemo: false\n"]
)
def test_an_empty_file_or_section_says_nothing(loaded, text):
    assert loaded(text).server.host == "127.0.0.1"


SCALARS = [
    ("true", True),
    ("FALSE", False),
    ("null", None),
    ("~", None),
    ("", None),
    ("8000", 8000),
    ("-3", -3),
    ("012", 12),
    ("0.15", Decimal("0.15")),
    ("2.", Decimal(2)),
    (".5", Decimal("0.5")),
    ("1e3", Decimal("1e3")),
    ("0.1000000000000000055511151231257827", Decimal("0.1000000000000000055511151231257827")),
    *((text, text) for text in ("on", "yes", "no", "off", "Yes", "y", "n", "True!", "12:30:45", "1_000", "2024-01-01")),
    *((text, text) for text in (".inf", ".nan", "0x10", "0o7", "1e9999", "9" * 41, "nUll", "-", "=", "<<")),
]


@pytest.mark.parametrize(("text", "value"), SCALARS, ids=[row[0][:12] or "empty" for row in SCALARS])
def test_scalars_are_those_of_yaml_1_2(text, value):
    """`on` and `yes` are words, a time of day is no number of base 60, and no number is ever a float."""
    got = scalar(text)
    assert got == value
    assert type(got) is type(value)


def test_quoted_scalars_are_text_whatever_they_look_like(elsewhere):
    Path("x.yaml").write_text("a: 'true'\nb: \"8\"\nc: |\n  0.5\n")
    tree = read(Path("x.yaml"), {}, Mistakes())
    assert isinstance(tree, Section)
    assert [node.given.value for _, node in tree.entries.values()] == ["true", "8", "0.5\n"]


def test_references_read_the_environment_wherever_text_stands(loaded):
    config = loaded("policies_dir: ${BASE}/${NAME}\nlog: {path: 'x-${NAME}'}\n", {"BASE": "/srv", "NAME": "p"})
    assert (str(config.policies_dir), str(config.log.path)) == ("/srv/p", "x-p")


def test_a_reference_may_stand_for_any_type(loaded):
    config = loaded(
        "server: {port: '${P}'}\ndemo: ${D}\nauto: {cost_weight: '${W}'}\n", {"P": "9", "D": "true", "W": "0.5"}
    )
    assert (config.server.port, config.demo, config.auto.cost_weight) == (9, True, 500)


REFERENCES = [
    ("${NOPE}", "fastroute.yaml:2: reads ${NOPE}, and no such variable is in the environment"),
    ("${A:-b}", "fastroute.yaml:2: writes ${A...}: only ${NAME} is read, with no default"),
    ("${A-b}", "fastroute.yaml:2: writes ${A...}: only ${NAME} is read"),
    ("${}", "fastroute.yaml:2: opens `${` without a name and a closing brace"),
    ("${A", "fastroute.yaml:2: opens `${` without a name and a closing brace"),
    ("${ A }", "fastroute.yaml:2: opens `${` without a name and a closing brace"),
]


@pytest.mark.parametrize(("text", "expected"), REFERENCES)
def test_a_reference_that_cannot_be_read_names_its_line_and_variable(refusals, text, expected):
    """There is one message for it: the setting does not complain again about a value that was never read."""
    told = refusals(f"log:\n  path: '{text}'\n", {"A": "1"})
    assert len(told) == 1
    assert told[0].startswith(expected)


def test_what_a_reference_read_is_not_shown(refusals):
    """The environment holds secrets; a message repeats the file, not what the file read."""
    told = refusals("server: {port: '${KEY}'}\n", {"KEY": "sk-very-secret"})
    assert told == ["fastroute.yaml:1: server.port: found the text '${KEY}', wanted a whole number from 0 to 65535"]
