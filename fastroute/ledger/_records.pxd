"""The hot records' writer: its arguments are the fields of `records`' structs, and its bytes are those of their encoder.

What a path holds or was charged comes as so many plain numbers, a usage as its five; a tariff is known to be one.
"""

from libc.stdint cimport int64_t

cdef bytes send(
    long long attempt, str request, account, tuple windows, int count, const int64_t *reserved, str entry, str model,
    str lane, long long at_ms, microdollars
)
cdef bytes settle(
    long long attempt, str basis, str outcome, status, int count, const int64_t *charged, const int64_t *spent,
    input, output, cache_read, cache_write, reasoning, picodollars, microdollars, ms, tariff
)
cdef bytes finish(
    str request, account, str decision, str surface, str asked, str entry, str reason, int status, bint stream,
    long long started_ms, long long latency_ms, first_chunk_ms, dict details
)
