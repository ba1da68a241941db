"""The compiled face of a call, for the relay and the doors that read it on every request."""

cdef class Call:
    cdef public object surface, receive, send, loop
    cdef public str id, decision_id, model, reason
    cdef public double started
    cdef public long long created, input_bound
    cdef public bytes body, usage_options, content_type
    cdef public dict decoded
    cdef public object words, scan, form, output_cap, choices, passed, entry, account, exchange, first_chunk_at, watcher
    cdef public object set_cap, permit, short, ended, details, rules
    cdef public list entries, attempts, upstream_ids
    cdef public bint stream, hide_usage, quality, wants_json, mistral, gone
    cdef public int status, answered

    cpdef int known_as(self, name) except -1
    cpdef object final_attempt(self)
    cpdef object cost(self)
    cpdef int unwatch(self) except -1
