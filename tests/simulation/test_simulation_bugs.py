"""Whether the simulator would notice: mistakes planted in the shipped code must be found within 200 seeds each."""

import logging

import pytest

from tests.simulation.bugs import BUGS
from tests.simulation.world import World

SEEDS = 200


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.__name__)
def test_a_planted_bug_is_found(bug, monkeypatch):
    """A world with this mistake in it breaks a promise, or breaks down, and the same world without it does not."""
    logging.disable(logging.CRITICAL)
    try:
        bug(monkeypatch.setattr)
        for seed in range(SEEDS):
            try:
                World(seed, BUGS[bug]).run()
            except Exception as fault:  # noqa: BLE001  breaking down is being found as well
                monkeypatch.undo()
                World(seed, BUGS[bug]).run()  # and nothing is found where there is nothing
                print(f"{bug.__name__}: seed {seed}: {fault}")  # noqa: T201  shown with -s
                return
    finally:
        logging.disable(logging.NOTSET)
    pytest.fail(f"{SEEDS} seeds passed though: {bug.__doc__}")
