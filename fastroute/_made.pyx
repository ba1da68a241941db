# cython: language_level=3, auto_pickle=False
"""What was made of objects that stay the same (a price, an entry, deadlines), found by the object itself.

An object's own hash takes in all of its fields, and most requests ask for what the one before asked for.
"""

cdef class Made:
    def __cinit__(self, Py_ssize_t most):
        self.found = {}
        self.most = most

    cdef object of(self, source):
        """None where nothing was made of it, or too much was since."""
        if self.source is not source:
            found = self.found.get(<size_t><void *>source)
            if found is None:
                return None
            self.source, self.last = <tuple>found
        return self.last

    cdef object keep(self, source, made):
        if len(self.found) >= self.most:
            self.found.clear()
        self.found[<size_t><void *>source] = (source, made)
        self.source, self.last = source, made
        return made
