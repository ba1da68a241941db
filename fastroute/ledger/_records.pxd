"""The compiled face of the hot records' writer."""

from libc.stdint cimport int64_t

cpdef bytes send(
    long long attempt, str request, account, tuple windows, tuple reserved, str entry, str model, str lane, long long at_ms,
    microdollars
)
cpdef bytes settle(
    long long attempt, str basis, str outcome, status, tuple charged, tuple spent, tuple usage, picodollars, microdollars, ms
)
cpdef bytes finish(
    str request, account, str decision, str surface, str asked, str entry, str reason, int status, bint stream,
    long long started_ms, long long latency_ms, first_chunk_ms, dict details
)

# The same of the plain numbers that a path has.
cdef bytes send_plain(
    long long attempt, str request, account, tuple windows, int count, const int64_t *reserved, str entry, str model,
    str lane, long long at_ms, microdollars
)
cdef bytes settle_plain(
    long long attempt, str basis, str outcome, status, int count, const int64_t *charged, const int64_t *spent,
    input, output, cache_read, cache_write, reasoning, picodollars, microdollars, ms
)
