"""Whether a row of receipts is the whole story: each is linked to the one before, so none can be changed, taken out,
moved or put in unseen.

The end of a chain holds itself: that the last ones are missing can only be told by who knows the last link, the books.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from msgspec import Struct

from fastroute.receipts.canonical import ReceiptError, parse
from fastroute.receipts.seal import GENESIS
from fastroute.receipts.verify import Proof, prove

FaultKind = Literal["altered", "unknown_key", "dropped", "reordered", "inserted", "forked"]


class ChainFault(Struct, frozen=True):
    """One thing wrong with a chain, at a number or at all from `seq` to `until`."""

    kind: FaultKind
    seq: int
    until: int
    detail: str

    def __str__(self) -> str:
        where = f"receipt {self.seq}" if self.seq == self.until else f"receipts {self.seq} to {self.until}"
        return f"{where}: {self.kind}: {self.detail}"


class ChainReport(Struct, frozen=True):
    """What became of checking a chain, and the place a further piece of it goes on from."""

    count: int  # of receipts that were given
    faults: tuple[ChainFault, ...]
    seq: int
    link: bytes | None  # None when the last receipt is not to be believed

    @property
    def ok(self) -> bool:
        return not self.faults


def verify_chain(
    bodies: Iterable[bytes],
    keys: Mapping[str, bytes],
    *,
    after: tuple[int, bytes] = (0, GENESIS),
    head: tuple[int, bytes] | None = None,
) -> ChainReport:
    """Check receipts in the order in which they are kept, in one pass and without holding them.

    `after` is the number and link of what came before, `head` those of the last one as the books know it.
    """
    walk = _Walk(after)
    count = 0
    for body in bodies:
        count += 1
        walk.step(body, keys)
    return walk.end(count, head)


class _Walk:
    """Where a pass through a chain stands. What it keeps grows with the disorder it meets, not with the chain."""

    def __init__(self, after: tuple[int, bytes]) -> None:
        self._expected = after[0] + 1
        self._links: dict[int, bytes] = {after[0]: after[1]}  # of receipts whose successor was not seen yet
        self._wanted: dict[int, str] = {}  # what a successor that came first says of the link of a number
        self._gaps: list[tuple[int, int]] = []
        self._doubtful: list[Proof] = []  # those that do not verify, since the last that did
        self._faults: list[ChainFault] = []

    def step(self, body: bytes, keys: Mapping[str, bytes]) -> None:
        try:
            fields = parse(body)
        except ReceiptError as error:
            self._doubtful.append(Proof("unreadable", detail=str(error)))
            return
        proof = prove(fields, keys)
        if not proof.ok or proof.seq is None:
            self._doubtful.append(proof)
            return
        seq = proof.seq
        if seq >= self._expected:
            self._pass(seq)
            self._expected = seq + 1
        elif not self._fill(seq):
            self._fault("inserted", seq, f"a second receipt of this number, {proof.id}")
            return
        self._join(seq, fields)

    def end(self, count: int, head: tuple[int, bytes] | None) -> ChainReport:
        last = self._expected + len(self._doubtful) - 1
        if head is not None:
            last = max(head[0], self._expected - 1)
        self._pass(last + 1)
        self._expected = last + 1
        for first, until in self._gaps:
            self._fault("dropped", first, "missing from the chain", until)
        link = self._links.get(last)
        if head is not None:
            if last > head[0]:
                self._fault("inserted", head[0] + 1, f"the books end at {head[0]}", last)
            elif link is not None and link != head[1]:
                self._fault("forked", last, "the books know another receipt of this number")
        return ChainReport(count, tuple(sorted(self._faults, key=lambda fault: fault.seq)), last, link)

    def _pass(self, seq: int) -> None:
        """Everything before `seq` should have come: the doubtful ones stand in its place, the rest is a gap."""
        doubtful, self._doubtful = self._doubtful, []
        free = range(self._expected, seq)
        placed: dict[int, Proof] = {}
        homeless = []
        for proof in doubtful:  # what claims a number that is free has it
            if proof.seq is not None and proof.seq in free and proof.seq not in placed:
                placed[proof.seq] = proof
            else:
                homeless.append(proof)
        number = self._expected
        for proof in homeless:
            while number < seq and number in placed:
                number += 1
            if number < seq:
                placed[number] = proof
            else:
                self._fault("inserted", proof.seq or self._expected, str(proof))
        first = self._expected
        for number in sorted(placed):
            proof = placed[number]
            self._fault("unknown_key" if proof.state == "unknown_key" else "altered", number, str(proof))
            self._gap(first, number - 1)
            first = number + 1
        self._gap(first, seq - 1)

    def _gap(self, first: int, until: int) -> None:
        if first <= until:
            self._gaps.append((first, until))

    def _fill(self, seq: int) -> bool:
        """Whether a number that comes late was missing."""
        for place, (first, until) in enumerate(self._gaps):
            if first <= seq <= until:
                pieces = [(first, seq - 1), (seq + 1, until)]
                self._gaps[place : place + 1] = [piece for piece in pieces if piece[0] <= piece[1]]
                self._fault("reordered", seq, f"stands behind receipt {self._expected - 1}")
                return True
        return False

    def _join(self, seq: int, fields: Mapping[str, Any]) -> None:
        link = bytes.fromhex(fields["signature"])  # which was verified
        previous = str(fields.get("previous"))
        before = self._links.pop(seq - 1, None)
        if before is None:
            self._wanted[seq - 1] = previous
        elif before.hex() != previous:
            self._fault("forked", seq, "linked to another receipt than the one before it")
        after = self._wanted.pop(seq, None)
        if after is not None and after != link.hex():
            self._fault("forked", seq + 1, "linked to another receipt than the one before it")
        if after is None:
            self._links[seq] = link

    def _fault(self, kind: FaultKind, seq: int, detail: str, until: int | None = None) -> None:
        self._faults.append(ChainFault(kind, seq, seq if until is None else until, detail))
