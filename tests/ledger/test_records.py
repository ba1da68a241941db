"""The hot records as compiled code writes them: byte for byte what the encoder of `records` makes of their structs."""

import random

import pytest

from fastroute.ledger import _records, records
from fastroute.ledger.records import Finish, Send, Settle

NUMBERS = (
    0,
    1,
    127,
    128,
    255,
    256,
    65535,
    65536,
    (1 << 32) - 1,
    1 << 32,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - 1,
    -1,
    -200,
)
TEXTS = ("", "a", "x" * 31, "x" * 32, "é" * 100, "y" * 255, "z" * 256, "gpt-4o/中", "long " * 1000)
DETAILS = ({}, {"policy": "p"}, {"cache": {"hit": True}, "note": "n" * 5000})


def anything(chance, count=None):
    if count is None:
        return chance.choice(NUMBERS)
    return tuple(chance.choice(NUMBERS) for _ in range(count))


@pytest.mark.parametrize("seed", range(300))
def test_what_is_written_is_what_the_encoder_of_its_struct_writes(seed):
    """Whatever the numbers and texts are, beyond what the compiled writer has room for as well."""
    chance = random.Random(seed)
    small = abs(anything(chance)) & ((1 << 63) - 1)

    def text():
        return chance.choice(TEXTS)

    depth = chance.choice((0, 1, 2, 4, 15, 16, 20))
    send = (small, text(), anything(chance), anything(chance, depth), anything(chance, depth), text(), text(), text())
    send += (small, chance.choice((None, *NUMBERS)))
    assert _records.send(*send) == records.encode(Send(*send))

    settle = (small, text(), text(), chance.choice((None, 200, 503)), anything(chance, depth), anything(chance, depth))
    settle += (anything(chance, 5), chance.choice((None, *NUMBERS)), chance.choice((None, *NUMBERS)), anything(chance))
    assert _records.settle(*settle) == records.encode(Settle(*settle))

    finish = (text(), anything(chance), text(), text(), text(), text(), text(), 200, chance.random() < 0.5)
    finish += (small, small, chance.choice((None, *NUMBERS)), chance.choice(DETAILS))
    assert _records.finish(*finish) == records.encode(Finish(*finish))


def test_what_no_encoder_takes_is_refused():
    """A number that no record can hold is an error, never a record of something else."""
    with pytest.raises(OverflowError):
        _records.send(1, "r", 1, (1 << 64,), (1,), "e", "m", "l", 1, 1)
    with pytest.raises(UnicodeEncodeError):
        _records.send(1, "\ud800", 1, (1,), (1,), "e", "m", "l", 1, 1)
