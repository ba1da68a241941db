"""Bytes that lie in several places, given to a socket by one call of the system."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.string cimport memcpy

cdef extern from *:
    """
    #include <sys/socket.h>
    #include <sys/uio.h>
    #ifndef MSG_NOSIGNAL
    #define MSG_NOSIGNAL 0  /* there the socket itself is told, by whoever made it */
    #endif
    typedef struct iovec fr_piece;
    /* What of some pieces a socket takes at once; -1 where it takes nothing. */
    static inline ssize_t fr_send(int fd, fr_piece *pieces, int count)
    {
        struct msghdr message = {0};
        message.msg_iov = pieces;
        message.msg_iovlen = count;
        return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    """
    ctypedef struct fr_piece:
        void *iov_base
        size_t iov_len
    ssize_t fr_send(int fd, fr_piece *pieces, int count) nogil


cdef inline char *hexadecimal(char *end, Py_ssize_t size) noexcept nogil:  # writes into a room that was counted
    """A chunk's first line, to end at `end`."""
    cdef int digit
    end -= 2
    memcpy(end, b"\r\n", 2)
    while True:
        digit = size & 15
        end -= 1
        end[0] = digit + 48 if digit < 10 else digit + 87
        size >>= 4
        if not size:
            return end


cdef inline bytes joined(fr_piece *pieces, int count, Py_ssize_t total, Py_ssize_t taken):
    """The pieces as one, without what was taken of them."""
    cdef bytes whole = PyBytes_FromStringAndSize(NULL, total - taken)
    cdef char *into = PyBytes_AS_STRING(whole)
    cdef Py_ssize_t size
    cdef int i
    for i in range(count):
        size = pieces[i].iov_len
        if taken >= size:
            taken -= size
            continue
        memcpy(into, <char *>pieces[i].iov_base + taken, size - taken)
        into += size - taken
        taken = 0
    return whole
