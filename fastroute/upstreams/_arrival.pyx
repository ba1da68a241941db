# cython: language_level=3, nonecheck=True
"""What the reader of an exchange awaits. `_arrival.pyi` states the contract."""

cimport cython

from asyncio import CancelledError

from fastroute._now cimport task_of

cdef extern from "Python.h":
    int PyContext_Enter(object context) except -1
    int PyContext_Exit(object context) except -1


@cython.freelist(64)
cdef class Arrival:
    """What the reader of a turn awaits; a future to its task, except for when the task goes on.

    It goes on inside the arrival of the bytes: a future would have it wait for the loop's next round, and that round and
    its handle made 4 us of a request.
    """

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        if not self.over:
            self._asyncio_future_blocking = True
            return self
        if self.lost:
            raise CancelledError
        raise StopIteration

    def get_loop(self):
        return self.loop

    def done(self):
        return self.over

    def cancelled(self):
        return self.lost

    def result(self):
        if self.lost:
            raise CancelledError
        if not self.over:
            raise RuntimeError("nothing has arrived")

    def exception(self):
        self.result()

    def add_done_callback(self, callback, *, context=None):
        if self.callback is not None:
            raise RuntimeError("an exchange has one reader at a time")
        self.callback = callback
        self.context = context
        if self.over:
            self.later()

    def remove_done_callback(self, callback):
        if self.callback is None or self.callback != callback:
            return 0
        self.callback = None
        return 1

    def cancel(self, msg=None):
        if self.over:
            return False
        self.over = self.lost = True
        self.later()
        return True

    cdef int later(self) except -1:
        callback = self.callback
        if callback is not None:
            self.callback = None
            self.loop.call_soon(callback, self, context=self.context)
        return 0

    cdef int finish(self, bint at_once) except -1:
        """Let the reader go on: at once where that is allowed, which it is not inside another task."""
        if self.over:
            return 0
        self.over = True
        if not at_once or self.callback is None or self.context is None or task_of(self.loop) is not None:
            return self.later()
        callback = self.callback
        self.callback = None
        PyContext_Enter(self.context)
        try:
            callback(self)
        finally:
            PyContext_Exit(self.context)
        return 0
