"""The house itself: which way imports point, what is public, how large a room may grow."""

import ast
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import fastroute
from fastroute import errors

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "fastroute"

GROUND = {
    "_core",
    "_domain",
    "_made",
    "_now",
    "_heads",
    "_lines",
    "_scan",
    "_sweep",
    "domain",
    "errors",
    "clock",
    "money",
    "config",
    "redaction",
    "mapped",
}
ROOMS = {
    "beats",
    "weights",
    "routing",
    "lanes",
    "ledger",
    "upstreams",
    "callers",
    "metrics",
    "logs",
    "receipts",
    "limits",
    "policies",
    "cache",
    "capture",
}
CONDUCTORS = {
    "_call",
    "_gateway",
    "_relay",
    "gateway",
    "relay",
    "outcomes",
    "opaque",
    "mending",
    "pipes",
    "bodies",
    "caching",
    "standalone",
    "settle",
    "call",
    "ids",
    "assembly",
    "visiting",
    "prompting",
    "ruling",
    "_settle",
    "_ids",
    "estimating",
    "supervisor",
    "asked",
    "counting",
    "forms",
    "plausibility",
    "reloading",
    "watchdog",
    "paying",
    "_keeping",
    "keeping",
    "reaching",
    "hearing",
    "errand",
    "judging",
    "shadowing",
    "aside",
    "capturing",
    "replaying",
    "weighing",
    "panel",
    "fleet",
    "evaluation",
}
EDGES = {"agent", "bench", "cli", "web", "embed", "client", "routed", "guard", "sessions", "__main__", "__init__"}
LEVEL = dict.fromkeys(GROUND, 0) | dict.fromkeys(ROOMS, 1) | dict.fromkeys(CONDUCTORS, 2) | dict.fromkeys(EDGES, 3)

# A file beyond 600 lines hides two concepts; these are older than the rule they break, and may only shrink.
LONGEST = 600
LONGER: dict[str, int] = {}

SOURCES = sorted(path for pattern in ("*.py", "*.pyx", "*.pxi") for path in PACKAGE.rglob(pattern))
MODULES = [path for path in SOURCES if path.suffix == ".py"]


def room(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[0]


def imports(path):
    """Every `fastroute` module a file imports, as dotted names below the package, wherever in the file it stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "fastroute":
            below = node.module.split(".")[1:]
            found |= {".".join(below)} if below else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.partition(".")[2] for a in node.names if a.name.startswith("fastroute.")}
    return found - {"__version__"}


def test_every_file_belongs_to_a_floor():
    assert {room(path) for path in MODULES} <= set(LEVEL)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down_and_rooms_do_not_know_one_another(path):
    if path == PACKAGE / "__init__.py":
        return  # the public face names what it shows
    own = room(path)
    for module in imports(path):
        other = module.split(".")[0]
        if other == own:
            continue
        assert LEVEL[other] <= LEVEL[own], f"{path.name} imports {module}, which stands above it"
        if own in ROOMS:
            assert other in GROUND, f"the room {own} imports the room {other}"


def test_no_import_cycle():
    graph = {}
    for path in MODULES:
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")
        graph[name] = {module for module in top_level_imports(path) if module != name}
    done, path_here = set(), []

    def visit(name):
        if name in done or name not in graph:
            return
        assert name not in path_here, f"imports go in a circle: {' -> '.join([*path_here, name])}"
        path_here.append(name)
        for other in graph[name]:
            visit(other)
        path_here.pop()
        done.add(name)

    for name in graph:
        visit(name)


def top_level_imports(path):
    """What importing the file imports: the module itself and, from a package, the submodule a name may be."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "fastroute":
            below = ".".join(node.module.split(".")[1:])
            for alias in node.names:
                inner = f"{below}.{alias.name}" if below else alias.name
                found.add(inner if is_module(inner) else below)
    return found


def is_module(dotted):
    place = PACKAGE.joinpath(*dotted.split("."))
    return place.with_suffix(".py").exists() or (place / "__init__.py").exists()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_file_outgrows_a_room(path):
    name = str(path.relative_to(PACKAGE))
    assert len(path.read_text().splitlines()) <= LONGER.get(name, LONGEST)


def test_what_may_not_raise_says_why_it_cannot():
    """What a `noexcept` function raised would only be printed: its line, or the one above, says why there is nothing."""
    silent = []
    for path in sorted(PACKAGE.rglob("*.p[yx][xdi]")):
        above = ""
        for number, line in enumerate(path.read_text().splitlines(), 1):
            code, _, reason = line.partition("#")
            if re.search(r"\bnoexcept\b", code) and not reason.strip() and not above.lstrip().startswith("#"):
                silent.append(f"{path.relative_to(PACKAGE)}:{number}: {line.strip()}")
            above = line
    assert silent == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_file_opens_with_its_purpose(path):
    assert ast.get_docstring(ast.parse(path.read_text())), "a file opens with a sentence or two giving its purpose"


PUBLIC = """
    Agent AsyncRouteClient Catalog Cheapest Descriptor Entry ExpectedTokens FastrouteError LatencyFact LlmRouter ModelRef
    NoCandidate Ordered Pinned Placement Price PriceTable Rates Route RouteClient RouteError RouteHTTPError RouteResponse
    RouteResponseError RouteTransportError Snapshot Tier Tiers Usage Verdict Weighted microdollars parse_descriptor place
    price
"""


def test_public_names_are_those_that_are_said():
    assert list(fastroute.__all__) == PUBLIC.split()
    for name in fastroute.__all__:
        thing = getattr(fastroute, name)
        assert inspect.getdoc(thing), f"{name} has no docstring"


def test_every_error_is_in_the_family_and_in_its_tree():
    drawn = re.findall(r"^ *\* (\w+)", errors.__doc__, re.MULTILINE)
    family = {
        name
        for name, thing in vars(errors).items()
        if inspect.isclass(thing) and issubclass(thing, Exception) and thing.__module__ == errors.__name__
    }
    assert set(drawn) == family
    for name in family:
        assert issubclass(getattr(errors, name), errors.FastrouteError)
        assert getattr(errors, name).__doc__


def test_every_fault_anywhere_descends_from_the_family():
    for info in pkgutil.walk_packages(fastroute.__path__, "fastroute."):
        if info.name == "fastroute.__main__":
            continue
        for name, thing in vars(importlib.import_module(info.name)).items():
            if inspect.isclass(thing) and issubclass(thing, Exception) and thing.__module__ == info.name:
                assert issubclass(thing, errors.FastrouteError) or name.startswith("_"), f"{info.name}.{name}"


def test_importing_fastroute_has_no_effects():
    """No file, no socket, no thread, no environment: importing says nothing to anybody."""
    watch = """
import sys, threading
before = set(sys.modules)
events = []
WATCHED = ("socket.connect", "socket.bind", "os.putenv", "subprocess.Popen", "os.mkdir")
sys.addaudithook(lambda event, args: events.append((event, args)) if event in WATCHED else None)
opened = []
def watch(event, args):
    if event == "open" and isinstance(args[1], str) and set("wax+") & set(args[1]):
        opened.append(args[0])
sys.addaudithook(watch)
import fastroute
assert not events, events
assert not opened, opened
assert threading.active_count() == 1
heavy = {"httpx", "granian", "starlette", "sqlite3", "yaml", "click", "genai_prices"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-B", "-c", watch], check=True, timeout=30, cwd=ROOT)


def test_a_stale_core_says_so():
    code = (
        "import sys, importlib, types\n"
        "import fastroute._core as core\n"
        "from fastroute.errors import StaleBuild\n"
        "old = types.ModuleType('fastroute._core')\n"
        "old.__dict__.update({n: getattr(core, n) for n in dir(core)} | {'VERSION': '0.0.1'})\n"
        "sys.modules['fastroute._core'] = old\n"
        "sys.modules['fastroute']._core = old\n"
        "try:\n"
        "    importlib.reload(sys.modules['fastroute'])\n"
        "except StaleBuild as error:\n"
        "    assert '0.0.1' in str(error) and 'pip install' in str(error)\n"
        "else:\n"
        "    raise SystemExit('a stale core was accepted')\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30, cwd=ROOT)


def test_the_version_is_said_once_and_everywhere_the_same():
    written = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert written[1] == fastroute.__version__ == fastroute._core.VERSION


def test_no_file_promises_to_be_finished_later():
    for path in SOURCES:
        assert not re.search(r"\b(TODO|FIXME|XXX)\b", path.read_text()), path


def test_only_one_file_knows_what_keys_look_like():
    """Whoever masks a text asks `redaction`: a shape that was added in one of two places would be missing in the other."""
    shapes = re.compile(r"AKIA|AIza|gsk_|xai-|\(\?:sk|\[?&\]key=")
    assert [str(path.relative_to(PACKAGE)) for path in MODULES if shapes.search(path.read_text())] == ["redaction.py"]


def test_only_one_file_knows_each_foreign_thing():
    """One door for each: the HTTP client, SQLite, the server, the YAML reader."""
    doors = {
        # The terminal asks a provider once, with no pool; the client stands in another's process; the bench has a
        # gateway as others write it, to be compared with.
        "httpx": {
            "upstreams/transport.py",
            "cli/models.py",
            "client.py",
            "cli/remote.py",
            "bench/peers/plain_app.py",
        },
        "sqlite3": {"ledger/sqlite.py"},
        "granian": {"web/serving.py"},
        "yaml": {"config/document.py"},
        "redis": {"cache/redis.py"},
        "cryptography": {"capture/vault.py"},
        "xllamacpp": {"weights/gguf.py"},
        "torch": {"weights/huggingface.py"},
        "transformers": {"weights/huggingface.py"},
    }
    for path in MODULES:
        name = str(path.relative_to(PACKAGE))
        for foreign, allowed in doors.items():
            if re.search(rf"^\s*(import|from) {foreign}\b|import_module\(.{foreign}\b", path.read_text(), re.MULTILINE):
                assert name in allowed, f"{name} imports {foreign}"
