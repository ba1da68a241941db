"""The compiled face of the lines, for whoever ends requests."""

cdef class Sheet:
    cdef char *text
    cdef Py_ssize_t size, room
    cdef readonly Py_ssize_t lines
    cdef bint taken

    cdef int add(self, const char *text, Py_ssize_t size) except -1

cdef class Lines:
    cdef public object _queue
    cdef public dict _forms
    cdef public bint _requests
    cdef public bint awake          # the thread was told that there is something
    cdef public Py_ssize_t most     # that wait, of everything
    cdef readonly Py_ssize_t held   # lines in sheets that nobody has taken
    cdef Sheet sheet
    cdef long long instant, second
    cdef char stamp[24]

    cdef int look(self) except -1
    cpdef tuple form(self, tuple kind)
    cpdef int answered(self, str request_id, tuple form, long long latency_ms, cost) except -1
