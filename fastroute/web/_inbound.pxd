"""The compiled face of a caller's connection."""

from fastroute._sweep cimport Sweep
from fastroute.upstreams._arrival cimport Arrival
from fastroute.web._asked cimport Asked

cdef class Visit(Asked):
    cdef Inbound line
    cdef Arrival waiter         # of who reads the body, or waits for the caller's leaving
    cdef int status
    cdef object told            # the answer's headers, until they are written
    cdef bint begun             # the application has begun its answer
    cdef bint sent              # its head is on its way
    cdef bint over              # and all of it
    cdef bint finished          # the application was told that the body is at its end
    cdef bint bodiless
    cdef bint chunked
    cdef bint closing           # the connection ends with this answer
    cdef long long left_to_send # of the length that was announced; -1 where none was

    cdef dict scope(self)
    cdef int wake(self) except -1
    cdef int open(self, int status, headers) except -1
    cdef int put(self, bytes body, bint more) except -1
    cdef bytes head(self, long long length)

cdef class Inbound:
    cdef House house
    cdef object loop, transport
    cdef tuple client, server
    cdef int fd
    cdef Visit visit            # the request under way
    cdef bytes waiting          # what came after it
    cdef Arrival room           # of who waits until the caller takes more
    cdef readonly bint gone     # the caller has left, or will say no more
    cdef bint lost              # there is no connection
    cdef bint held              # its transport may hold bytes that the socket did not take
    cdef bint stuck             # the caller does not read
    cdef bint paused            # we do not read
    cdef bint lingering         # the answer is over, and the caller still sends
    cdef Py_ssize_t passed_over # of what it sends then
    cdef bint begun             # a head has begun to arrive

    cdef int feed(self, bytes data) except -1
    cdef int start(self, Visit visit) except -1
    cdef int refuse(self, Visit visit) except -1
    cdef int say(self, Visit visit, int status, str code, str words) except -1
    cdef int cut(self, Visit visit) except -1
    cdef int write(self, bytes head, bytes body, Py_ssize_t size, bint chunked, bint last) except -1
    cdef int done(self, Visit visit) except -1
    cdef int resume(self) except -1
    cdef int end(self) except -1

cdef class House:
    cdef readonly object app, loop
    cdef readonly set lines
    cdef readonly set visits    # whose application is at work
    cdef readonly Sweep idle, slow, leaving
    cdef object left            # told of every connection that is no more
    cdef object refused         # told by which code what was no request was refused
    cdef readonly bint ending
