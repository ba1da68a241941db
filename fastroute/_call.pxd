"""The compiled face of a call, for the relay and the doors that read it on every request."""

cdef class Surface:
    cdef readonly str name, operation, native
    cdef readonly bint opaque, talks, chats
    cdef readonly object caller

cdef class Call:
    cdef public Surface surface
    cdef public object receive, send, loop
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

    @staticmethod
    cdef Call made(Surface surface, receive, send, str name, double started, loop)
    cdef int begin(self, Surface surface, receive, send, str name, double started, loop) except -1
    cdef bint free(self) except -1
    cpdef int known_as(self, name) except -1
    cpdef object final_attempt(self)
    cpdef object cost(self)
    cpdef int unwatch(self) except -1
