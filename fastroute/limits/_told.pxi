# The headers that tell of a limit. Included by `_table.pyx`.

cdef tuple PLAIN = (b"x-ratelimit-limit", b"x-ratelimit-remaining", b"x-ratelimit-reset")
cdef tuple OF_REQUESTS = tuple([name + b"-requests" for name in PLAIN])
cdef tuple OF_TOKENS = tuple([name + b"-tokens" for name in PLAIN])


cdef bytes digits(int64_t number):
    cdef char text[24]
    return PyBytes_FromStringAndSize(text, snprintf(text, 24, b"%lld", <long long>number))


cdef bytes span(int64_t ms):
    """As OpenAI writes a time: 350ms, 1.5s, 6m0s."""
    cdef char text[48]
    cdef int size = 0
    if ms < 1000:
        return PyBytes_FromStringAndSize(text, snprintf(text, 48, b"%lldms", <long long>ms))
    if ms >= 60_000:
        size = snprintf(text, 24, b"%lldm", <long long>(ms // 60_000))
        ms %= 60_000
    size += snprintf(text + size, 16, b"%lld.%03lld", <long long>(ms // 1000), <long long>(ms % 1000))
    while text[size - 1] == c"0":
        size -= 1
    if text[size - 1] == c".":
        size -= 1
    text[size] = c"s"
    return PyBytes_FromStringAndSize(text, size + 1)


cdef void tell(list told, tuple names, int64_t *said, bint as_span) except *:
    told.append((names[0], digits(said[0])))
    told.append((names[1], digits(said[1])))
    if said[2] >= 0:
        told.append((names[2], span(said[2]) if as_span else digits((said[2] + 999) // 1000)))


def headers(kind, int64_t limit, int64_t remaining, reset_ms):
    cdef list told = []
    cdef int64_t said[3]
    said[0], said[1], said[2] = limit, remaining, -1 if reset_ms is None else reset_ms
    tell(told, PLAIN, said, False)
    if kind != "concurrency":
        tell(told, OF_REQUESTS if kind == "rpm" else OF_TOKENS, said, True)
    return told
