"""Bytes that lie in several places, given to a socket by one call of the system."""

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
