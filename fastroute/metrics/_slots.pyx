# cython: language_level=3
"""Counters over raw memory: an update is one plain 64-bit store that a reader in another process never sees torn.

Each slot has one writing process, and the GIL keeps that process's threads apart, so no update needs a lock. The memory
belongs to whoever made it; every handle keeps it alive.
"""

from cpython.buffer cimport PyBUF_SIMPLE, PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdint cimport int64_t, uint64_t

cdef extern from *:
    """
    /* Relaxed is a plain move on every machine we know; it only forbids the compiler to split the store. */
    #define fr_get(p) __atomic_load_n((p), __ATOMIC_RELAXED)
    #define fr_set(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
    #define fr_acquire(p) __atomic_load_n((p), __ATOMIC_ACQUIRE)
    #define fr_release(p, v) __atomic_store_n((p), (v), __ATOMIC_RELEASE)
    """
    uint64_t fr_get(const uint64_t *p) nogil
    void fr_set(uint64_t *p, uint64_t v) nogil
    uint64_t fr_acquire(const uint64_t *p) nogil
    void fr_release(uint64_t *p, uint64_t v) nogil

WIDTH_MAX = BOUNDS_MAX + 2


cdef inline void add(Counter counter, uint64_t by) noexcept:  # moves a C number
    fr_set(counter.cell, fr_get(counter.cell) + by)


cdef inline void add_value(Histogram histogram, uint64_t value) noexcept:  # as above
    cdef Py_ssize_t i = 0
    cdef uint64_t *bucket
    while i < histogram.count and value > histogram.bounds[i]:
        i += 1
    # The sum first: a process killed between the two has then a sum too large, never a count without its value.
    fr_set(histogram.cells, fr_get(histogram.cells) + value)
    bucket = histogram.cells + 1 + i
    fr_set(bucket, fr_get(bucket) + 1)


cdef class Slots:
    """A writable buffer of 64-bit words."""

    def __cinit__(self, memory):
        PyObject_GetBuffer(memory, &self.buffer, PyBUF_WRITABLE)
        if self.buffer.len % 8 or <size_t>self.buffer.buf % 8:
            raise ValueError("the memory is whole words of 8 bytes")
        self.words = <uint64_t *>self.buffer.buf
        self.size = self.buffer.len // 8

    def __dealloc__(self):
        PyBuffer_Release(&self.buffer)  # nothing happens when it was never taken

    cdef uint64_t *at(self, Py_ssize_t word, Py_ssize_t count) except NULL:
        if word < 0 or count < 1 or word > self.size - count:
            raise IndexError(f"words {word} to {word + count} of {self.size}")
        return self.words + word

    def publish(self, Py_ssize_t word, uint64_t value):
        """Store a word so that whoever sees it also sees everything written before it."""
        fr_release(self.at(word, 1), value)

    def counter(self, Py_ssize_t word):
        cdef Counter counter = Counter.__new__(Counter)
        counter.cell = self.at(word, 1)
        counter.slots = self
        return counter

    def gauge(self, Py_ssize_t word):
        cdef Gauge gauge = Gauge.__new__(Gauge)
        gauge.cell = self.at(word, 1)
        gauge.slots = self
        return gauge

    def histogram(self, Py_ssize_t word, bounds):
        """A sum and one bucket more than there are bounds, in `len(bounds) + 2` words."""
        cdef Histogram histogram = Histogram.__new__(Histogram)
        cdef Py_ssize_t i
        if not 0 < len(bounds) <= BOUNDS_MAX or list(bounds) != sorted(set(bounds)):
            raise ValueError(f"bounds are 1 to {BOUNDS_MAX} rising numbers")
        histogram.count = len(bounds)
        for i in range(histogram.count):
            histogram.bounds[i] = bounds[i]
        histogram.cells = self.at(word, histogram.count + 2)
        histogram.slots = self
        return histogram


cdef class Counter:
    """A count that only rises."""

    def __init__(self):
        raise TypeError("a counter is made by its slots")

    cpdef int inc(self, uint64_t by=1) except -1:
        add(self, by)
        return 0

    @property
    def value(self):
        return fr_get(self.cell)

    def __repr__(self):
        return f"Counter({fr_get(self.cell)})"


cdef class Gauge:
    """A number that rises and falls."""

    def __init__(self):
        raise TypeError("a gauge is made by its slots")

    cpdef int inc(self) except -1:
        fr_set(self.cell, fr_get(self.cell) + 1)
        return 0

    cpdef int dec(self) except -1:
        fr_set(self.cell, fr_get(self.cell) - 1)
        return 0

    def set(self, int64_t value):
        fr_set(self.cell, <uint64_t>value)

    @property
    def value(self):
        return <int64_t>fr_get(self.cell)

    def __repr__(self):
        return f"Gauge({<int64_t>fr_get(self.cell)})"


cdef class Histogram:
    """Counts of values by size, and their sum, in whole units; its count is the sum of its buckets, so they never differ."""

    def __init__(self):
        raise TypeError("a histogram is made by its slots")

    def observe(self, uint64_t value):
        add_value(self, value)

    @property
    def value(self):
        """(sum, buckets), the last bucket being what is above every bound."""
        return fr_get(self.cells), tuple([fr_get(self.cells + 1 + i) for i in range(self.count + 1)])

    def __repr__(self):
        return f"Histogram({self.value})"


cdef inline uint64_t microseconds(double ms):
    # A clock that stepped back, or nonsense, is no reason to fail a request that is over.
    if not ms > 0:
        return 0
    return <uint64_t>(ms * 1000) if ms < 1e12 else <uint64_t>1e15


cdef class Finished:
    """Every series one finished request touches, so that it costs one call."""

    def __init__(
        self,
        Counter requests not None,
        Histogram latency_ms not None,
        Histogram cost_usd not None,
        Counter tokens_in not None,
        Counter tokens_out not None,
        Histogram latency_seconds,
        Counter backend_requests,
    ):
        self.requests = requests
        self.latency_ms = latency_ms
        self.cost_usd = cost_usd
        self.tokens_in = tokens_in
        self.tokens_out = tokens_out
        self.latency_seconds = latency_seconds
        self.backend_requests = backend_requests

    cpdef int record(self, double ms, picodollars, uint64_t tokens_in, uint64_t tokens_out) except -1:
        cdef uint64_t us = microseconds(ms)
        if picodollars is not None:
            add_value(self.cost_usd, picodollars)
        add(self.requests, 1)
        add_value(self.latency_ms, us)
        add(self.tokens_in, tokens_in)
        add(self.tokens_out, tokens_out)
        if self.latency_seconds is not None:
            add_value(self.latency_seconds, us)
        if self.backend_requests is not None:
            add(self.backend_requests, 1)
        return 0


cdef class Tried:
    """Every series one attempt touches."""

    def __init__(self, Counter attempts not None, Counter settle, Histogram first_chunk not None):
        self.attempts = attempts
        self.settle = settle
        self.first_chunk = first_chunk

    cpdef int record(self, first_chunk_ms) except -1:
        if first_chunk_ms is not None:
            add_value(self.first_chunk, microseconds(first_chunk_ms))
        add(self.attempts, 1)
        if self.settle is not None:
            add(self.settle, 1)
        return 0


cdef class Verdicts:
    """What became of the candidates of one decision, counted from the core's codes."""

    cdef Counter chosen, ranked
    cdef tuple excluded

    def __init__(self, Counter chosen not None, Counter ranked not None, tuple excluded not None):
        assert len(excluded) < 16 and all(isinstance(counter, Counter) for counter in excluded)
        self.chosen = chosen
        self.ranked = ranked
        self.excluded = excluded

    def record(self, bytes codes not None):
        cdef const unsigned char *code = codes
        cdef Py_ssize_t i, classes = len(self.excluded)
        cdef uint64_t seen[16]
        for i in range(16):
            seen[i] = 0
        for i in range(len(codes)):
            if code[i] > classes:
                raise ValueError(f"verdict {code[i]} is none of {classes}")
            seen[code[i]] += 1
        if seen[0]:
            add(self.chosen, 1)
            add(self.ranked, seen[0] - 1)
        for i in range(classes):
            if seen[i + 1]:
                add(<Counter>self.excluded[i], seen[i + 1])


cdef class Groups:
    """The groups of series that every request touches, by what makes them."""

    def __init__(self):
        self._finished = {}
        self._tried = {}

    def finished(
        self,
        model,
        int status,
        double latency_ms,
        picodollars=None,
        uint64_t tokens_in=0,
        uint64_t tokens_out=0,
        backend=None,
    ):
        self.group(model, status, backend).record(latency_ms, picodollars, tokens_in, tokens_out)

    cdef Finished group(self, model, int status, backend):
        group = self._finished.get((model, status, backend))
        return <Finished?>(self.finished_group(model, status, backend) if group is None else group)

    cdef bint kept(self, Finished group, model, int status, backend) except -1:
        return self._finished.get((model, status, backend)) is group

    cpdef int attempt(self, lane, outcome, basis=None, first_chunk_ms=None) except -1:
        group = self._tried.get((lane, outcome, basis))
        if group is None:
            group = self.tried_group(lane, outcome, basis)
        return (<Tried?>group).record(first_chunk_ms)


def acquire(memory, Py_ssize_t word):
    """A word another process publishes; what it wrote before publishing is seen from here on."""
    cdef Py_buffer buffer
    PyObject_GetBuffer(memory, &buffer, PyBUF_SIMPLE)
    try:
        if word < 0 or word >= buffer.len // 8:
            raise IndexError(f"word {word} of {buffer.len // 8}")
        return fr_acquire(<const uint64_t *>buffer.buf + word)
    finally:
        PyBuffer_Release(&buffer)
