"""How tests share two cores, and the figures they measure, told together at the end whichever process ran them."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest
from xdist.remote import Producer
from xdist.scheduler.loadscope import LoadScopeScheduling

# Nine thousand tests stay from the time they are found: what looks for garbage would look through them again and again.
gc.disable()

# Houses of many processes under load: one after the other, beside whatever is quiet.
CROWDED = ("tests/money/", "tests/bench/", "tests/server/test_server_processes", "tests/server/test_server_streams")
LONGEST = (*CROWDED, "tests/simulation/", "tests/weights/", "tests/agents/")


class ByFile(LoadScopeScheduling):
    """A file is run by one process, for what its tests share; those that crowd a machine are run by the same one."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "crowded" if file.startswith(CROWDED) else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    """Ours, as what deals tests out by a mark of their group is told nothing by pytest 9.2 and deals them one by one."""
    return ByFile(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first."""
    items.sort(key=lambda item: next(n for n, path in enumerate((*LONGEST, "")) if item.nodeid.startswith(path)))


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop() -> None:
    """From here on garbage is looked for, among what the tests make."""
    gc.freeze()
    gc.enable()


@pytest.fixture
def figure(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Shows a measured figure to whoever runs the tests."""
    return lambda text: record_property("figure", text)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    told = [
        text
        for outcome in ("passed", "failed")
        for report in terminalreporter.stats.get(outcome, ())
        for name, text in report.user_properties
        if name == "figure"
    ]
    if told:
        terminalreporter.section("figures")
        for text in told:
            terminalreporter.line(text)
