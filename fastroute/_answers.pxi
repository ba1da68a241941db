# Whole chat answers: whether they may pass as they are, and what they say was used. Included by `_scan.pyx`.

cdef struct Told:
    int64_t prompt, completion, total, cached, written, reasoning
    bint odd


cdef inline int64_t tokens_at(bptr start, bptr end) noexcept nogil:  # C memory, read
    """A plain count of at most ten digits; -1 for anything else."""
    cdef int64_t total = 0
    if end - start > 10:
        return -1
    while start < end:
        if not 48 <= start[0] <= 57:
            return -1
        total = total * 10 + start[0] - 48
        start += 1
    return total


cdef bptr details(Doc* d, bptr p, Told* out) noexcept nogil:  # a fault is NULL and a note
    """Past `prompt_tokens_details` or `completion_tokens_details`."""
    cdef Text key
    cdef bint first = True
    cdef bptr start
    p += 1
    while True:
        p = member(d, p, first, NULL, &key)
        if p == NULL or key.raw == NULL:
            return p
        first = False
        start = p
        p = value(d, p, 4, 0)
        if p == NULL:
            return NULL
        if start[0] == 110:  # null says nothing
            continue
        if equals(&key, "cached_tokens", 13):
            out.cached = tokens_at(start, p)
        elif equals(&key, "cache_write_tokens", 18):
            out.written = tokens_at(start, p)
        elif equals(&key, "reasoning_tokens", 16):
            out.reasoning = tokens_at(start, p)


cdef bptr used(Doc* d, bptr p, Told* out) noexcept nogil:  # a fault is NULL and a note
    """Past the `usage` object."""
    cdef Text key
    cdef bint first = True
    cdef bptr start
    p += 1
    while True:
        p = member(d, p, first, NULL, &key)
        if p == NULL or key.raw == NULL:
            return p
        first = False
        start = p
        if p[0] == 123 and (equals(&key, "prompt_tokens_details", 21) or equals(&key, "completion_tokens_details", 25)):
            p = details(d, p, out)
            if p == NULL:
                return NULL
            continue
        p = value(d, p, 3, 0)
        if p == NULL:
            return NULL
        if equals(&key, "prompt_tokens", 13):
            out.prompt = tokens_at(start, p)
        elif equals(&key, "completion_tokens", 17):
            out.completion = tokens_at(start, p)
        elif equals(&key, "total_tokens", 12):
            out.total = tokens_at(start, p)


cdef bint sums(Told* told) noexcept nogil:  # C numbers, compared
    """Whether what is told adds up."""
    if told.prompt < 0 or told.completion < 0 or told.cached < 0 or told.reasoning < 0 or told.written:
        return False
    if told.total != told.prompt + told.completion or told.total > 1_000_000_000:
        return False
    return told.cached <= told.prompt and told.reasoning <= told.completion


def plain_answer(bytes body not None):
    """(prompt, completion, cached, reasoning) tokens of a whole chat answer that may pass byte for byte, else None.

    None is no verdict: a field is missing, a finish reason is odd, something else is told of the usage, there is an
    error, or this is not quite JSON. Whoever asks takes the long way then.
    """
    cdef int64_t told[4]
    return (told[0], told[1], told[2], told[3]) if plain_tokens(body, told) else None


cdef bint plain_tokens(bytes body, int64_t *tokens) except -1:
    cdef Doc d
    cdef Chunk found
    cdef Told told
    cdef Text key
    cdef bptr p, start
    cdef bint first = True
    cdef int seen = 0
    memset(&d, 0, sizeof(Doc))
    memset(&found, 0, sizeof(Chunk))
    memset(&told, 0, sizeof(Told))
    told.prompt = told.completion = told.total = -1
    d.base = <bptr> PyBytes_AS_STRING(body)
    d.end = d.base + PyBytes_GET_SIZE(body)
    d.max_depth = C_DEPTH
    try:
        p = space(&d, d.base)
        if p[0] != 123:
            return False
        p += 1
        while True:
            p = member(&d, p, first, NULL, &key)
            if p == NULL:
                return False
            if key.raw == NULL:
                break
            first = False
            start = p
            if p[0] == 91 and equals(&key, "choices", 7):
                p = choices(&d, p, &found)
                seen |= HAS_CHOICES
            elif p[0] == 123 and equals(&key, "usage", 5):
                p = used(&d, p, &told)
                seen |= HAS_USAGE
            else:
                p = value(&d, p, 2, 0)
                if p == NULL:
                    return False
                if start[0] == 0x22 and p - start > 2:
                    if equals(&key, "id", 2):
                        seen |= HAS_ID
                    elif equals(&key, "model", 5):
                        seen |= HAS_MODEL
                    elif equals(&key, "object", 6) and p - start == 17 and memcmp(start, b'"chat.completion"', 17) == 0:
                        seen |= HAS_OBJECT
                elif equals(&key, "created", 7) and tokens_at(start, p) >= 0:
                    seen |= HAS_CREATED
                elif equals(&key, "error", 5) and start[0] != 110:
                    return False
            if p == NULL:
                return False
        p = space(&d, p)
        if p < d.end or seen != HAS_ALL or found.odd or not found.filled:
            return False
    finally:
        free(d.scratch[0])
        free(d.scratch[1])
    if not sums(&told):
        return False
    tokens[0], tokens[1], tokens[2], tokens[3] = told.prompt, told.completion, told.cached, told.reasoning
    return True


def plain_usage(bytes usage not None):
    """The same of a `usage` object alone."""
    cdef Doc d
    cdef Told told
    cdef bptr p
    memset(&d, 0, sizeof(Doc))
    memset(&told, 0, sizeof(Told))
    told.prompt = told.completion = told.total = -1
    d.base = <bptr> PyBytes_AS_STRING(usage)
    d.end = d.base + PyBytes_GET_SIZE(usage)
    d.max_depth = C_DEPTH
    try:
        if d.base[0] != 123:
            return None
        p = used(&d, d.base, &told)
        if p != d.end:
            return None
    finally:
        free(d.scratch[0])
        free(d.scratch[1])
    return (told.prompt, told.completion, told.cached, told.reasoning) if sums(&told) else None
