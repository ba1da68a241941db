"""The compiled face of the moment: what time it is, and whose turn."""

cdef long long now_ms(clock) except? -1
cdef object task_of(loop)
cdef double moment(loop) except? -1
