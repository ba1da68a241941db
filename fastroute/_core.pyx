# cython: language_level=3, overflowcheck=True, autotestdict=False, auto_pickle=False
"""Money, decisions and leases, in integers: the part of fastroute that runs for every request and every candidate.

Two parts, one module: this file prices and decides, `_leases.pxi` keeps what a worker was lent. `_core.pyi` states the
contracts. Nothing here awaits, logs or reads a clock, and the GIL is held throughout, so a call is one indivisible step.
Numbers are checked at the door of each public function; past it, plain arrays.
"""

cimport cython
from cpython.buffer cimport PyBUF_FORMAT, PyBUF_ND, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.mem cimport PyMem_Calloc, PyMem_Free, PyMem_Malloc
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t, uint64_t

cdef extern from *:
    """
    #ifndef FASTROUTE_VERSION
    #define FASTROUTE_VERSION "0.0.0+inplace"
    #endif
    typedef unsigned __int128 fastroute_uint128;

    enum { TIERS_MAX = 4, KEPT_ON_STACK = 8, ROWS_MAX = 1000000, SLOTS_MAX = 1000000 };

    // As in domain: four products of a token count and a rate sum to at most 8 * 10**18 < 2**63.
    static const int64_t TOKENS_MAX = 1000000000, RATE_MAX = 2000000000, AMOUNT_MAX = 9000000000000000;
    static const int64_t WEIGHT_MAX = 1000000000, PRIORITY_MAX = 1000000000, P50_UNKNOWN = 999999999;
    static const int64_t PICO_PER_MICRO = 1000000;
    // A thousand breaches of the largest amount; a settlement is refused only where int64 itself would end.
    static const int64_t SPENT_MAX = 9000000000000000000;

    // Room for what no caller sends: a default system prompt that a template adds by itself, the markers around a
    // message, the instructions put before the first tool (Anthropic documents up to 804 tokens), a tool's own frame.
    static const int64_t REQUEST_OVERHEAD = 128, MESSAGE_OVERHEAD = 16, TOOLS_OVERHEAD = 1024, TOOL_OVERHEAD = 64;
    """
    const char *FASTROUTE_VERSION
    # Cython only has to know that it is unsigned and no narrower than 64 bits; the C compiler knows the width.
    ctypedef unsigned long long uint128_t "fastroute_uint128"
    enum: TIERS_MAX, KEPT_ON_STACK, ROWS_MAX, SLOTS_MAX
    int64_t TOKENS_MAX, RATE_MAX, AMOUNT_MAX, WEIGHT_MAX, PRIORITY_MAX, P50_UNKNOWN, PICO_PER_MICRO, SPENT_MAX
    int64_t REQUEST_OVERHEAD, MESSAGE_OVERHEAD, TOOLS_OVERHEAD, TOOL_OVERHEAD

cdef extern from "Python.h":
    bint PyIndex_Check(object value)
    long long PyLong_AsLongLongAndOverflow(object value, int *overflow) except? -1

# A code is 1 + the place in domain.EXCLUSIONS, or 0; LOCAL is the place in domain.RUNTIMES, which has two.
cdef enum:
    VIABLE, LACKS_CAPABILITY, NOT_ALLOWED, WRONG_RUNTIME, UNWELL, TOO_SLOW, TOO_DEAR, UNPRICED, TOO_LONG
cdef enum:
    CHEAPEST, WEIGHTED, ORDERED
cdef enum:
    LOCAL = 1

cdef tuple WORDS = ("input", "output", "cache_read", "cache_write")
VERSION = (<bytes>FASTROUTE_VERSION).decode("ascii")
UNKNOWN = -1
RANK_CHEAPEST = CHEAPEST
RANK_WEIGHTED = WEIGHTED
RANK_ORDERED = ORDERED


cdef object refused(object value, str name, int64_t low, int64_t high, int64_t row):
    # Python refuses to print an integer of thousands of digits, and nobody would read it.
    shown = value if value.bit_length() < 128 else f"an integer of {value.bit_length()} bits"
    return OverflowError(f"{f'row {row}: ' if row >= 0 else ''}{name} is {low}..{high}, not {shown}")


cdef inline int64_t within(object value, str name, int64_t low, int64_t high, int64_t row=-1) except? -2:
    """The door: an integer of stated bounds, or an error that names it."""
    cdef int overflow = 0
    cdef int64_t number
    if not PyIndex_Check(value):
        raise TypeError(f"{name} is an integer, not {type(value).__name__}")
    number = PyLong_AsLongLongAndOverflow(value, &overflow)
    if overflow != 0 or number < low or number > high:
        raise refused(value.__index__(), name, low, high, row)
    return number


@cython.overflowcheck(False)
cdef inline int64_t cost_of(const int64_t *tokens, const int64_t *rates) noexcept nogil:  # below 2**63, as derived above
    return tokens[0] * rates[0] + tokens[1] * rates[1] + tokens[2] * rates[2] + tokens[3] * rates[3]


def cost_picodollars(
    input_tokens, output_tokens, cache_read_tokens, cache_write_tokens,
    input_rate, output_rate, cache_read_rate, cache_write_rate,
):
    """The exact price of one attempt."""
    cdef int64_t tokens[4]
    cdef int64_t rates[4]
    counts = input_tokens, output_tokens, cache_read_tokens, cache_write_tokens
    for place, rate in enumerate((input_rate, output_rate, cache_read_rate, cache_write_rate)):
        tokens[place] = within(counts[place], WORDS[place] + "_tokens", 0, TOKENS_MAX)
        rates[place] = within(rate, WORDS[place] + "_rate", 0, RATE_MAX)
    return cost_of(tokens, rates)


cdef int charge(Cost *cost, const int64_t *tokens, const int64_t *rates) except -1:  # of C numbers, with its one rounding
    for place in range(4):
        if not (0 <= tokens[place] <= TOKENS_MAX and 0 <= rates[place] <= RATE_MAX):
            raise OverflowError(f"{tokens[place]} tokens at a rate of {rates[place]} are beyond what is priced")
    cost.picodollars = cost_of(tokens, rates)
    cost.microdollars = rounded_up(cost.picodollars)


@cython.cdivision(True)  # only non-negative amounts arrive here
cdef inline int64_t rounded_up(int64_t picodollars) noexcept nogil:  # a millionth of an int64, and 1, is one
    return picodollars // PICO_PER_MICRO + (picodollars % PICO_PER_MICRO != 0)


def ceil_microdollars(picodollars):
    """The one rounding of the house, upwards."""
    return rounded_up(within(picodollars, "picodollars", 0, INT64_MAX))


cdef int64_t bound_of(int64_t text_bytes, int64_t messages, int64_t tools, int64_t media, int64_t window) except -1:
    cdef int64_t bound = text_bytes + MESSAGE_OVERHEAD * messages + TOOL_OVERHEAD * tools + REQUEST_OVERHEAD
    cdef int64_t most = window if window >= 0 else TOKENS_MAX
    bound += TOOLS_OVERHEAD if tools else 0
    return most if media or bound > most else bound


cdef int64_t amount_of(object value, str name) except -2:
    return within(value, name, 0, AMOUNT_MAX)


def token_bound(text_bytes, messages, tools, media, context_window):
    """No tokenizer makes more input tokens of such a request than this."""
    text, count = within(text_bytes, "text_bytes", 0, TOKENS_MAX), within(messages, "messages", 0, TOKENS_MAX)
    tool_count, shown = within(tools, "tools", 0, TOKENS_MAX), within(media, "media", 0, TOKENS_MAX)
    return bound_of(text, count, tool_count, shown, within(context_window, "context_window", -1, TOKENS_MAX))


def estimate_tokens(characters):
    """The embedded router's guess at the tokens of so many characters."""
    cdef int64_t count = within(characters, "characters", 0, TOKENS_MAX)
    cdef int64_t quarter = count // 4
    return quarter + quarter // 10 + 100 if count else 1000


def estimate_message_tokens(characters):
    """The tiered router's guess over messages, given the characters of each."""
    cdef int64_t total = 0
    cdef int64_t count
    for each in characters:
        count = within(each, "characters", 0, TOKENS_MAX)
        total += 5 + (max(count // 4, 1) if count else 0)
        if total > TOKENS_MAX:
            raise OverflowError(f"the estimate over all messages is 0..{TOKENS_MAX}, not {total} or more")
    return total


cdef struct Tier:
    int64_t above_tokens, input_rate, output_rate


cdef struct Row:
    int64_t capabilities, input_rate, output_rate
    int32_t lane, p50_ms, priority, context_window
    uint8_t runtime, priced, tier_count


cdef struct Query:
    int64_t capabilities, runtime, ceiling_picodollars, input_tokens, output_tokens, tolerance_ms
    int64_t cost_weight, latency_weight, flat_cost
    int ranker
    bint closed, tokens_known, allow_unpriced, local_first
    const uint8_t *allowed
    const uint8_t *health
    const int64_t *p50_ms
    Py_ssize_t health_length


# The smaller key ranks first. `minor` ends in the row's number, so no two are equal and table order breaks ties.
cdef struct Key:
    uint128_t major
    uint64_t minor


cdef inline bint precedes(Key *one, Key *other) noexcept nogil:  # C numbers, compared
    return one.major < other.major or (one.major == other.major and one.minor < other.minor)


cdef void sift_down(Key *heap, Py_ssize_t size) noexcept nogil:  # places below ROWS_MAX: none overflows
    """Put the root of a heap whose worst key is on top where it belongs."""
    cdef Py_ssize_t at = 0
    cdef Py_ssize_t child = 1
    cdef Key moving = heap[0]
    while child < size:
        if child + 1 < size and precedes(&heap[child], &heap[child + 1]):
            child += 1
        if not precedes(&moving, &heap[child]):
            break
        heap[at] = heap[child]
        at = child
        child = 2 * at + 1
    heap[at] = moving


cdef void sift_up(Key *heap, Py_ssize_t at) noexcept nogil:  # places below ROWS_MAX: none overflows
    cdef Key moving = heap[at]
    while at > 0 and precedes(&heap[(at - 1) >> 1], &moving):
        heap[at] = heap[(at - 1) >> 1]
        at = (at - 1) >> 1
    heap[at] = moving


cdef void sort(Key *heap, Py_ssize_t size) noexcept nogil:  # places below ROWS_MAX: none overflows
    """Turn the heap into a row, best first."""
    cdef Py_ssize_t end
    cdef Key worst
    for end in range(size - 1, 0, -1):
        worst = heap[0]
        heap[0] = heap[end]
        heap[end] = worst
        sift_down(heap, end)


cdef inline int64_t priced(
    const Row *row, const Tier *tiers, int64_t input_tokens, int64_t output_tokens
) noexcept nogil:  # at most 4 * 10**18, two products of a token count and a rate: nothing overflows
    cdef int64_t input_rate = row.input_rate
    cdef int64_t output_rate = row.output_rate
    cdef int each
    for each in range(row.tier_count):
        if input_tokens <= tiers[each].above_tokens:
            break
        input_rate = tiers[each].input_rate
        output_rate = tiers[each].output_rate
    return input_tokens * input_rate + output_tokens * output_rate


cdef inline uint8_t verdict(
    const Query *query, const Row *row, Py_ssize_t index, int64_t p50, int64_t cost
) noexcept nogil:  # C numbers are compared, and nothing is computed
    if query.capabilities & ~row.capabilities:
        return LACKS_CAPABILITY
    if query.allowed != NULL and query.allowed[index] == 0:
        return NOT_ALLOWED
    if query.runtime >= 0 and query.runtime != row.runtime:
        return WRONG_RUNTIME
    if row.lane < query.health_length and query.health[row.lane] != 0:
        return UNWELL
    if query.tolerance_ms >= 0 and p50 > query.tolerance_ms:
        return TOO_SLOW
    if query.closed or cost > query.ceiling_picodollars:
        return TOO_DEAR
    if not row.priced and not query.allow_unpriced:
        return UNPRICED
    if row.context_window >= 0 and query.input_tokens > row.context_window:
        return TOO_LONG
    return VIABLE


@cython.overflowcheck(False)  # it knows no 128-bit type and would abort
cdef inline Key rank(
    const Query *query, const Row *row, Py_ssize_t index, int64_t p50, int64_t cost
) noexcept nogil:  # within bounds proven at the door: a weighted sum is below 2**94, a cost below 2**62
    cdef Key key
    cdef uint128_t wide
    cdef int64_t weighed
    if query.ranker == CHEAPEST:
        wide = <uint128_t>(cost if query.tokens_known else row.input_rate)
        key.major = wide << 32 | <uint128_t>(p50 if p50 >= 0 else P50_UNKNOWN)
    elif query.ranker == WEIGHTED:
        if row.runtime == LOCAL:
            weighed = 0
        elif query.flat_cost >= 0:
            weighed = query.flat_cost
        elif query.tokens_known:
            weighed = rounded_up(cost)
        else:
            weighed = row.input_rate
        wide = <uint128_t>query.cost_weight * <uint128_t>1000 * <uint128_t>weighed
        if p50 > 0:
            wide = wide + <uint128_t>query.latency_weight * <uint128_t>p50
        wide = wide << 1
        if row.runtime != LOCAL:
            wide = wide | <uint128_t>1
            if query.local_first:
                wide = wide | <uint128_t>1 << 127
        key.major = wide
    else:
        key.major = <uint128_t>query.allowed[index]
    key.minor = <uint64_t>(row.priority + PRIORITY_MAX) << 32 | <uint64_t>index
    return key


@cython.final
cdef class Table:
    """The catalog packed into arrays of integers, made once and never changed."""

    cdef Row *rows
    cdef Tier *tiers
    cdef Py_ssize_t length

    def __cinit__(self, rows):
        cdef Py_ssize_t index = 0
        rows = tuple(rows)
        self.length = within(len(rows), "the number of rows", 0, ROWS_MAX)
        self.rows = <Row *>PyMem_Calloc(self.length, sizeof(Row))
        self.tiers = <Tier *>PyMem_Calloc(self.length * TIERS_MAX, sizeof(Tier))
        if self.rows == NULL or self.tiers == NULL:
            raise MemoryError()
        for row in rows:
            self.pack(index, row)
            index += 1

    def __dealloc__(self):
        PyMem_Free(self.rows)
        PyMem_Free(self.tiers)

    cdef int pack(self, Py_ssize_t index, object given) except -1:
        cdef Row *row = &self.rows[index]
        cdef Tier *tier
        cdef int64_t above_before = -1
        capabilities, runtime, lane, p50_ms, priority, context_window, has_price, input_rate, output_rate, tiers = given
        row.capabilities = within(capabilities, "capabilities", 0, INT64_MAX, index)
        row.runtime = within(runtime, "runtime", 0, LOCAL, index)
        row.lane = within(lane, "lane", 0, ROWS_MAX, index)
        row.p50_ms = within(p50_ms, "p50_ms", -1, P50_UNKNOWN, index)
        row.priority = within(priority, "priority", -PRIORITY_MAX, PRIORITY_MAX, index)
        row.context_window = within(context_window, "context_window", -1, TOKENS_MAX, index)
        row.priced = bool(has_price)
        # Rates without a price mean nothing, and a zero is what the ranking counts for such a row.
        row.input_rate = within(input_rate, "input_rate", 0, RATE_MAX, index) if has_price else 0
        row.output_rate = within(output_rate, "output_rate", 0, RATE_MAX, index) if has_price else 0
        if len(tiers) > TIERS_MAX:
            raise ValueError(f"row {index}: at most {TIERS_MAX} tiers, not {len(tiers)}")
        for above_tokens, tier_input_rate, tier_output_rate in tiers if has_price else ():
            tier = &self.tiers[index * TIERS_MAX + row.tier_count]
            tier.above_tokens = within(above_tokens, "above_tokens of a tier", 0, TOKENS_MAX, index)
            tier.input_rate = within(tier_input_rate, "input_rate of a tier", 0, RATE_MAX, index)
            tier.output_rate = within(tier_output_rate, "output_rate of a tier", 0, RATE_MAX, index)
            if tier.above_tokens <= above_before:
                raise ValueError(f"row {index}: tiers ascend, but {tier.above_tokens} follows {above_before}")
            above_before = tier.above_tokens
            row.tier_count += 1
        return 0

    def __len__(self):
        return self.length

    def decide(
        self, ranker, capabilities=0, runtime=-1, ceiling=-1, input_tokens=-1, output_tokens=-1, tolerance_ms=-1,
        bytes allowed=None, bytes health=None, p50_ms=None, bint allow_unpriced=False, keep=4,
        cost_weight=1000, latency_weight=1000, flat_cost=-1, bint local_first=False,
    ):
        """Filter, then rank: the indices of the best rows, best first, and a code for every row."""
        cdef Query query
        cdef Py_buffer latencies
        cdef int64_t ceiling_microdollars = within(ceiling, "ceiling", -1, AMOUNT_MAX)
        cdef int64_t keep_most = within(keep, "keep", 0, INT64_MAX)
        query.ranker = within(ranker, "ranker", CHEAPEST, ORDERED)
        query.capabilities = within(capabilities, "capabilities", 0, INT64_MAX)
        query.runtime = within(runtime, "runtime", -1, LOCAL)
        query.input_tokens = within(input_tokens, "input_tokens", -1, TOKENS_MAX)
        query.output_tokens = within(output_tokens, "output_tokens", -1, TOKENS_MAX)
        query.tolerance_ms = within(tolerance_ms, "tolerance_ms", -1, AMOUNT_MAX)
        query.cost_weight = within(cost_weight, "cost_weight", 0, WEIGHT_MAX)
        query.latency_weight = within(latency_weight, "latency_weight", 0, WEIGHT_MAX)
        query.flat_cost = within(flat_cost, "flat_cost", -1, AMOUNT_MAX)
        query.tokens_known = query.input_tokens >= 0 and query.output_tokens >= 0
        query.closed = ceiling_microdollars == 0
        # No cost is as much as INT64_MAX picodollars, so that stands for no ceiling and for every one beyond it.
        query.ceiling_picodollars = INT64_MAX
        if 0 <= ceiling_microdollars <= INT64_MAX // PICO_PER_MICRO:
            query.ceiling_picodollars = ceiling_microdollars * PICO_PER_MICRO
        query.allow_unpriced = allow_unpriced
        query.local_first = local_first
        if allowed is None and query.ranker == ORDERED:
            raise ValueError("RANK_ORDERED reads the places in allowed, which is None")
        if allowed is not None and len(allowed) != self.length:
            raise ValueError(f"allowed has a byte for each of {self.length} rows, not {len(allowed)}")
        query.allowed = NULL if allowed is None else <uint8_t *>PyBytes_AS_STRING(allowed)
        query.health = NULL if health is None else <uint8_t *>PyBytes_AS_STRING(health)
        query.health_length = 0 if health is None else len(health)
        query.p50_ms = NULL
        if p50_ms is None:
            return self.decided(&query, min(keep_most, self.length))
        # A typed memoryview says this in one line, but costs 190 ns a call instead of 30 and 140 KB of machine code.
        PyObject_GetBuffer(p50_ms, &latencies, PyBUF_FORMAT | PyBUF_ND)
        try:
            if latencies.ndim != 1 or latencies.itemsize != 8 or latencies.format[0] not in (b"q", b"l"):
                raise ValueError(f"p50_ms is a row of int64, not {latencies.ndim} dimensions of {latencies.format!r}")
            if latencies.len != 8 * self.length:
                raise ValueError(f"p50_ms has a figure for each of {self.length} rows, not {latencies.len // 8}")
            query.p50_ms = <const int64_t *>latencies.buf
            return self.decided(&query, min(keep_most, self.length))
        finally:
            PyBuffer_Release(&latencies)

    cdef object decided(self, const Query *query, Py_ssize_t keep):
        cdef bytes codes = PyBytes_FromStringAndSize(NULL, self.length)
        cdef Key few[KEPT_ON_STACK]
        cdef Key *kept = few
        cdef Py_ssize_t size
        if keep > KEPT_ON_STACK:
            kept = <Key *>PyMem_Malloc(keep * sizeof(Key))
            if kept == NULL:
                raise MemoryError()
        try:
            size = self.choose(query, <uint8_t *>PyBytes_AS_STRING(codes), kept, keep)
            sort(kept, size)
            return tuple([<int64_t>(kept[place].minor & 0xFFFFFFFF) for place in range(size)]), codes
        finally:
            if kept != few:
                PyMem_Free(kept)

    cdef Py_ssize_t choose(self, const Query *query, uint8_t *codes, Key *kept, Py_ssize_t keep) except -1:
        """Fill in every row's code and the keys of the best `keep`, the worst of them on top; returns how many."""
        cdef const Row *row
        cdef Key key
        cdef int64_t p50
        cdef int64_t cost
        cdef Py_ssize_t size = 0
        cdef Py_ssize_t index
        for index in range(self.length):
            row = &self.rows[index]
            p50 = row.p50_ms if query.p50_ms == NULL else query.p50_ms[index]
            if p50 < -1 or p50 > P50_UNKNOWN:
                raise refused(p50, "p50_ms", -1, P50_UNKNOWN, index)
            cost = 0
            if query.tokens_known and row.priced:
                cost = priced(row, &self.tiers[index * TIERS_MAX], query.input_tokens, query.output_tokens)
            codes[index] = verdict(query, row, index, p50, cost)
            if codes[index] != VIABLE or keep == 0:
                continue
            key = rank(query, row, index, p50, cost)
            if size < keep:
                kept[size] = key
                sift_up(kept, size)
                size += 1
            elif precedes(&key, kept):
                kept[0] = key
                sift_down(kept, size)
        return size

    def cost(self, row, input_tokens, output_tokens):
        """The exact picodollars of so many tokens on one row; UNKNOWN when it has no price."""
        cdef int64_t index = within(row, "row", 0, self.length - 1)
        cdef int64_t sent = within(input_tokens, "input_tokens", 0, TOKENS_MAX)
        cdef int64_t received = within(output_tokens, "output_tokens", 0, TOKENS_MAX)
        if not self.rows[index].priced:
            return UNKNOWN
        return priced(&self.rows[index], &self.tiers[index * TIERS_MAX], sent, received)


include "_leases.pxi"
