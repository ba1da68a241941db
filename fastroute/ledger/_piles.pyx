# cython: language_level=3
"""Rows put upon their pile: their bytes, and what they are found by; `_piles.pyi` is its face."""

import msgspec

from fastroute.ledger.store import EntryRow, ReceiptRow

from fastroute._fields cimport at, must_be, offset_of

cdef enum:
    ROWS = 128
    ATTEMPTS = 1024
LEAF = ROWS
BLOCK = ATTEMPTS

cdef object told_entry = msgspec.json.Encoder().encode_into, told_receipt = msgspec.msgpack.Encoder().encode_into
cdef object entries_of = msgspec.json.Decoder(list[EntryRow]).decode
cdef object receipts_of = msgspec.msgpack.Decoder(list[ReceiptRow]).decode
cdef Py_ssize_t ENTRY_HOLDER = offset_of(EntryRow, "holder")
cdef Py_ssize_t ENTRY_ATTEMPT = offset_of(EntryRow, "attempt")
cdef Py_ssize_t ENTRY_REQUEST = offset_of(EntryRow, "request")
cdef Py_ssize_t RECEIPT_SEQ = offset_of(ReceiptRow, "seq")
cdef Py_ssize_t RECEIPT_ID = offset_of(ReceiptRow, "id")
cdef Py_ssize_t RECEIPT_ACCOUNT = offset_of(ReceiptRow, "account")
cdef object the_entry = EntryRow, the_receipt = ReceiptRow


cpdef str name(str whole):
    return whole[:-1]


def entries(told):
    return entries_of(told)


def receipts(told):
    return receipts_of(told)


cdef class Leaf:
    cdef readonly object first
    cdef readonly bytearray body
    cdef readonly Py_ssize_t count
    cdef readonly set names, accounts

    def __init__(self, first, bytes beginning):
        self.first = first
        self.body = bytearray(beginning)
        self.names = set()
        self.accounts = set()


cdef class Pile:
    cdef readonly list leaves
    cdef readonly str fault
    cdef Leaf leaf

    def __cinit__(self):
        self.leaves = []
        self.fault = ""

    def __init__(self, rows=()):
        self.add(rows)

    def __len__(self):
        return sum([(<Leaf>leaf).count for leaf in self.leaves])

    def __contains__(self, row):
        return any([row == each for each in self])

    def __eq__(self, other):
        if not isinstance(other, (Pile, list)):
            return NotImplemented
        return len(self) == len(other) and list(self) == list(other)

    cdef Leaf open_leaf(self, first, bytes beginning):
        if self.leaf is None or self.leaf.count == ROWS:
            self.leaf = Leaf(first, beginning)
            self.leaves.append(self.leaf)
        return self.leaf


cdef class Entries(Pile):
    cdef readonly dict bits

    def __cinit__(self):
        self.bits = {}

    def add(self, rows):
        cdef Leaf leaf
        cdef bytearray bits
        cdef int place
        for row in rows:
            must_be(row, the_entry)
            leaf = self.open_leaf(0, b"[")
            told_entry(row, leaf.body, -1)
            leaf.body.append(c",")
            leaf.names.add(name(at(row, ENTRY_REQUEST)))
            leaf.count += 1
            holder, attempt = at(row, ENTRY_HOLDER), at(row, ENTRY_ATTEMPT)
            block = attempt // ATTEMPTS
            place = attempt % ATTEMPTS
            bits = self.bits.get((holder, block))
            if bits is None:
                bits = self.bits[holder, block] = bytearray(ATTEMPTS // 8)
            if bits[place >> 3] & 1 << (place & 7):
                self.fault = f"attempt {attempt} of holder {holder} is told a second time"
            bits[place >> 3] |= 1 << (place & 7)

    def __iter__(self):
        return iter([row for leaf in self.leaves for row in entries_of(self.told(leaf))])

    def of(self, str request not None):
        wanted = name(request)
        meant = [leaf for leaf in self.leaves if wanted in (<Leaf>leaf).names]
        return [row for leaf in meant for row in entries_of(self.told(leaf)) if row.request == request]

    def told(self, Leaf leaf not None):
        return leaf.body[:-1].decode() + "]"


cdef class Receipts(Pile):
    cdef object last

    def __cinit__(self):
        self.last = 0

    def add(self, rows):
        cdef Leaf leaf
        for row in rows:
            must_be(row, the_receipt)
            seq = at(row, RECEIPT_SEQ)
            leaf = self.open_leaf(seq, b"\xdc\0\0")  # a list of MessagePack, its length in two bytes
            told_receipt(row, leaf.body, -1)
            leaf.names.add(name(at(row, RECEIPT_ID)))
            leaf.accounts.add(at(row, RECEIPT_ACCOUNT))
            leaf.count += 1
            if seq <= self.last:
                self.fault = f"receipt {seq} cannot follow receipt {self.last}"
            self.last = seq

    def __iter__(self):
        return iter([row for leaf in self.leaves for row in receipts_of(self.told(leaf))])

    def told(self, Leaf leaf not None):
        leaf.body[1] = leaf.count >> 8
        leaf.body[2] = leaf.count & 0xFF
        return leaf.body
