# cython: language_level=3
"""Rows put upon their pile: their bytes, and what they are found by; `_piles.pyi` is its face."""

import msgspec

from fastroute.ledger.store import EntryRow, ReceiptRow

from cpython.bytearray cimport PyByteArray_GET_SIZE

from fastroute._fields cimport at, must_be, offset_of

cdef enum:
    FULL = 67_000
    ATTEMPTS = 1024
LEAF_BYTES = FULL
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
    cdef readonly object first, last
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
    cdef Leaf leaf

    def __cinit__(self):
        self.leaves = []

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

    cdef Leaf put(self, first, row, told, bytes beginning, bytes end):
        """The leaf that has the row now: the last one, or where it is full a new one."""
        cdef Leaf leaf = self.leaf, fresh
        cdef Py_ssize_t start
        if leaf is None:
            leaf = self.leaf = Leaf(first, beginning)
            self.leaves.append(leaf)
        start = PyByteArray_GET_SIZE(leaf.body)
        try:
            told(row, leaf.body, -1)
        except:  # whatever it was goes on; half a row does not stay
            del leaf.body[start:]
            raise
        leaf.body += end
        if leaf.count and PyByteArray_GET_SIZE(leaf.body) > FULL:
            fresh = Leaf(first, beginning)
            fresh.body += leaf.body[start:]
            del leaf.body[start:]
            leaf = self.leaf = fresh
            self.leaves.append(leaf)
        leaf.count += 1
        return leaf


cdef class Entries(Pile):
    cdef readonly dict bits
    cdef readonly tuple twice

    def __cinit__(self):
        self.bits = {}

    def add(self, rows):
        cdef Leaf leaf
        cdef bytearray bits
        cdef int place
        for row in rows:
            must_be(row, the_entry)
            leaf = self.put(0, row, told_entry, b"[", b",")
            leaf.names.add(name(at(row, ENTRY_REQUEST)))
            holder, attempt = at(row, ENTRY_HOLDER), at(row, ENTRY_ATTEMPT)
            block = attempt // ATTEMPTS
            place = attempt % ATTEMPTS
            bits = self.bits.get((holder, block))
            if bits is None:
                bits = self.bits[holder, block] = bytearray(ATTEMPTS // 8)
            if bits[place >> 3] & 1 << (place & 7):
                self.twice = holder, attempt
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
    cdef readonly str fault
    cdef object last

    def __cinit__(self):
        self.fault = ""
        self.last = 0

    def add(self, rows):
        cdef Leaf leaf
        for row in rows:
            must_be(row, the_receipt)
            seq = at(row, RECEIPT_SEQ)
            leaf = self.put(seq, row, told_receipt, b"\xdc\0\0", b"")  # a list of MessagePack, its length in two bytes
            leaf.last = seq
            leaf.names.add(name(at(row, RECEIPT_ID)))
            leaf.accounts.add(at(row, RECEIPT_ACCOUNT))
            if seq <= self.last:
                self.fault = f"receipt {seq} cannot follow receipt {self.last}"
            self.last = seq

    def __iter__(self):
        return iter([row for leaf in self.leaves for row in receipts_of(self.told(leaf))])

    def told(self, Leaf leaf not None):
        leaf.body[1] = leaf.count >> 8
        leaf.body[2] = leaf.count & 0xFF
        return leaf.body
