"""The face of the compiled core: money, decisions and leases, in integers.

It never awaits, logs or reads a clock; the GIL is held throughout, so a call is one indivisible step. Every number
has a bound, checked at the door. A number outside it raises `OverflowError` naming the argument, the bound and the
value; what is no integer raises `TypeError`; numbers that contradict each other raise `ValueError`. Then nothing has
changed.

Bounds, those of `domain` where it has them: tokens, characters and bytes 0..10**9; rates 0..2*10**9; amounts,
ceilings and tolerances 0..9*10**15; weights 0..10**9; p50 0..999_999_999; priorities -10**9..10**9; lanes 0..10**6;
rows and slots up to 10**6.
"""

from array import array
from collections.abc import Sequence
from typing import Final, final

VERSION: Final[str]
"""The version this core was built as; the package compares it at import and refuses a stale build."""

UNKNOWN: Final[int]
"""-1: stands for "not given" wherever a number below is optional."""

def cost_picodollars(
    input_tokens: int,
    output_tokens: int,
    cache_read_tokens: int,
    cache_write_tokens: int,
    input_rate: int,
    output_rate: int,
    cache_read_rate: int,
    cache_write_rate: int,
) -> int:
    """The exact price of one attempt: at most 8 * 10**18, which int64 holds."""

def ceil_microdollars(picodollars: int) -> int:
    """The one rounding of the house, upwards."""

def token_bound(text_bytes: int, messages: int, tools: int, media: int, context_window: int) -> int:
    """No tokenizer makes more input tokens of such a request than this.

    `text_bytes` is the UTF-8 of everything the template takes in, tool definitions included. Byte-level vocabularies
    never yield more tokens than bytes; around them a request adds 128, a message 16, a tool 64 and the first tool 1024
    more, for the template and for the instructions that some providers put in by themselves. `media` counts what its
    bytes do not bound: images, audio, files, and tools that a provider defines and a request only names. With any, and
    in every case where the sum is larger, the context window is the bound. Where no window is known (UNKNOWN),
    TOKENS_MAX stands for it.
    """

def estimate_tokens(characters: int) -> int:
    """The embedded router's guess: a quarter of the characters, a tenth of that, and 100; with no text at all, 1000."""

def estimate_message_tokens(characters: Sequence[int]) -> int:
    """The tiered router's guess over messages: max(1, characters // 4), 0 for none, plus 5 each; 10**9 at most."""

RANK_CHEAPEST: Final[int]
RANK_WEIGHTED: Final[int]
RANK_ORDERED: Final[int]

@final
class Table:
    """The catalog packed into arrays of integers, made once and never changed.

    A row is (capabilities, runtime, lane, p50_ms, priority, context_window, priced, input_rate, output_rate, tiers):
    `capabilities` a bit per `domain.CAPABILITIES`, `runtime` the index in `domain.RUNTIMES`, `lane` a number that the
    health bytes are indexed by, `p50_ms` and `context_window` UNKNOWN when not known, `tiers` up to four of
    (above_tokens, input_rate, output_rate), ascending; the rates and tiers of a row without a price are not looked at.
    """

    def __init__(
        self, rows: Sequence[tuple[int, int, int, int, int, int, bool, int, int, Sequence[tuple[int, int, int]]]]
    ) -> None: ...
    def __len__(self) -> int: ...
    def decide(
        self,
        ranker: int,
        capabilities: int = 0,
        runtime: int = -1,
        ceiling: int = -1,
        input_tokens: int = -1,
        output_tokens: int = -1,
        tolerance_ms: int = -1,
        allowed: bytes | None = None,
        health: bytes | None = None,
        p50_ms: memoryview | array[int] | None = None,
        allow_unpriced: bool = False,
        keep: int = 4,
        cost_weight: int = 1000,
        latency_weight: int = 1000,
        flat_cost: int = -1,
        local_first: bool = False,
    ) -> tuple[tuple[int, ...], bytes]:
        """Filter, then rank: the indices of the best `keep` rows, best first, and a code for every row.

        Tokens are known when both counts are given. The microdollars of a ceiling are compared with exact picodollars.

        A code is 0 for a viable row, else 1 + the index in `domain.EXCLUSIONS` of the first filter that failed, tried
        in that order:

        1. capability: a wanted bit is missing.
        2. policy: `allowed` is given and its byte for this row is 0.
        3. runtime: `runtime` is given and differs.
        4. health: `health` is given and the byte of the row's lane is not 0 (a lane beyond its end is well).
        5. latency: both a tolerance and a p50 are known and p50 > tolerance. `p50_ms` (a buffer of int64, one a row,
           UNKNOWN allowed) takes the place of the rows' own figures.
        6. cost: the ceiling is 0, whatever the row costs; or it is given, tokens are known, the row is priced, and the
           exact cost is above it. The tier is chosen by the input tokens.
        7. unpriced: the row has no price and `allow_unpriced` is false.
        8. context: both the window and the input tokens are known and the input is longer.

        An allowed row with no price costs nothing in the ranking that follows. Rank keys, ascending, ties kept in table
        order:

        - RANK_CHEAPEST: (cost, p50, priority), or (input_rate, p50, priority) with unknown tokens, whatever the tiers;
          an unknown p50 ranks as 999_999_999.
        - RANK_WEIGHTED: (latency_weight * p50 + 1000 * cost_weight * cost, local before managed, priority), where
          weights are thousandths, an unknown p50 is 0, and cost is 0 for a local row, else `flat_cost` when given
          (priced or not), else the microdollars (rounded up) of the tokens, or the input rate when tokens are unknown.
          With `local_first` every local row comes before every managed one. Summed in 128 bits.
        - RANK_ORDERED: (the byte of `allowed`, priority); `allowed` is required (`ValueError`) and its bytes are
          places 1..255.
        """

    def cost(self, row: int, input_tokens: int, output_tokens: int) -> int:
        """The exact picodollars of so many tokens on one row, tier included; UNKNOWN when the row has no price."""

@final
class Leases:
    """What one worker may still spend, per account, in the account's own unit (microdollars, tokens, requests).

    For every slot at every instant: granted = released + spent + held + free, all of them >= 0 but free, which a breach
    (a settlement above its reservation) may drive below zero by exactly that excess. A slot below zero refuses even a
    reservation of 0. A slot that is not open is a `ValueError` everywhere.
    """

    def __init__(self, capacity: int) -> None: ...
    def __len__(self) -> int:
        """Open slots."""

    def open(self, granted: int = 0) -> int:
        """A slot for an account; slots are reused after `close`. `OverflowError` when all are in use."""

    def grant(self, slot: int, amount: int) -> None:
        """Add to what may be spent; `OverflowError` when a slot's grants would pass 9*10**15 in all."""

    def release(self, slot: int, amount: int) -> int:
        """Give back up to `amount` of what is free; returns how much."""

    def close(self, slot: int) -> tuple[int, int]:
        """(released, spent) of a slot that holds nothing; everything free is released first.

        `ValueError` while any reservation is open on it, one of 0 included.
        """

    def reserve(self, slots: tuple[int, ...], amounts: tuple[int, ...]) -> int:
        """Hold `amounts[i]` on `slots[i]`, all or nothing; UNKNOWN (-1) when held, else the first index that refused.

        A path has up to four slots, each named once (`ValueError`); an empty one has no budget and always holds.
        """

    def settle(self, slots: tuple[int, ...], reserved: tuple[int, ...], spent: tuple[int, ...]) -> bool:
        """Close a reservation with what was really spent; True when any spending was above its reservation (a breach).

        `ValueError` when a slot does not hold as much. Spending is charged in full: up to 9*10**18 for one slot.
        """

    def void(self, slots: tuple[int, ...], reserved: tuple[int, ...]) -> None:
        """Close a reservation with nothing spent; refuses as `settle` does."""

    def balance(self, slot: int) -> tuple[int, int, int, int, int]:
        """(granted, released, spent, held, free)."""
