"""What the compiled upstream and load generator share: epoll, a timer of nanoseconds, sockets, the CPU clock of a process.

They run on Linux; elsewhere every call fails with ENOSYS, and the command says so before it starts anything.
"""

from libc.stdint cimport int64_t

cdef extern from *:
    """
    #include <errno.h>
    #include <stdint.h>
    #include <string.h>
    #include <strings.h>
    #include <sys/types.h>
    #ifdef __linux__
    #include <arpa/inet.h>
    #include <netinet/in.h>
    #include <netinet/tcp.h>
    #include <sys/epoll.h>
    #include <sys/prctl.h>
    #include <sys/socket.h>
    #include <sys/timerfd.h>
    #include <time.h>
    #include <unistd.h>

    static int64_t net_now(void)
    {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
    }

    /* User and system time of a whole process, ended threads included, to the nanosecond; -1 when it is gone. */
    static int64_t net_cpu(int pid)
    {
        struct timespec t;
        clockid_t clock = (clockid_t)((~(unsigned int)pid << 3) | 2);
        if (clock_gettime(clock, &t)) return -1;
        return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
    }

    static int net_poller(void)
    {
        prctl(PR_SET_TIMERSLACK, 1UL, 0UL, 0UL, 0UL);
        return epoll_create1(EPOLL_CLOEXEC);
    }

    static int net_watch(int poller, int fd, unsigned int tag, int writing, int known)
    {
        struct epoll_event event;
        memset(&event, 0, sizeof event);
        event.events = EPOLLIN | (writing ? EPOLLOUT : 0);
        event.data.u32 = tag;
        return epoll_ctl(poller, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event);
    }

    /* Tags of what is ready; bit 0 of `how` is readable or failed, bit 1 writable. */
    static int net_wait(int poller, unsigned int *tags, unsigned char *how, int most, int timeout_ms)
    {
        struct epoll_event events[256];
        int found = epoll_wait(poller, events, most < 256 ? most : 256, timeout_ms);
        for (int i = 0; i < found; i++) {
            tags[i] = events[i].data.u32;
            how[i] = ((events[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP)) ? 1 : 0)
                | ((events[i].events & EPOLLOUT) ? 2 : 0);
        }
        return found < 0 && errno == EINTR ? 0 : found;
    }

    static int net_timer(void) { return timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC); }

    /* Once, at an instant of `net_now`; 0 disarms. */
    static int net_timer_at(int timer, int64_t at)
    {
        struct itimerspec when;
        memset(&when, 0, sizeof when);
        when.it_value.tv_sec = at / 1000000000;
        when.it_value.tv_nsec = at % 1000000000;
        return timerfd_settime(timer, TFD_TIMER_ABSTIME, &when, 0);
    }

    static void net_timer_heard(int timer)
    {
        uint64_t times;
        if (read(timer, &times, sizeof times) < 0) return;
    }

    static void net_hurry(int fd)
    {
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    }

    static int net_accept(int listener)
    {
        int fd = accept4(listener, 0, 0, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) net_hurry(fd);
        return fd;
    }

    static int net_connect(const char *host, int port)
    {
        struct sockaddr_in place;
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd < 0) return -1;
        net_hurry(fd);
        memset(&place, 0, sizeof place);
        place.sin_family = AF_INET;
        place.sin_port = htons((uint16_t)port);
        if (inet_pton(AF_INET, host, &place.sin_addr) != 1) { close(fd); errno = EINVAL; return -1; }
        if (connect(fd, (struct sockaddr *)&place, sizeof place) && errno != EINPROGRESS) {
            int saved = errno; close(fd); errno = saved; return -1;
        }
        return fd;
    }

    static ssize_t net_send(int fd, const char *data, size_t length) { return send(fd, data, length, MSG_NOSIGNAL); }
    static ssize_t net_recv(int fd, char *data, size_t room) { return recv(fd, data, room, 0); }
    static void net_close(int fd) { close(fd); }
    #else
    static int64_t net_now(void) { return 0; }
    static int64_t net_cpu(int pid) { return -1; }
    static int net_poller(void) { errno = ENOSYS; return -1; }
    static int net_watch(int p, int f, unsigned int t, int w, int k) { errno = ENOSYS; return -1; }
    static int net_wait(int p, unsigned int *t, unsigned char *h, int m, int ms) { errno = ENOSYS; return -1; }
    static int net_timer(void) { errno = ENOSYS; return -1; }
    static int net_timer_at(int t, int64_t at) { errno = ENOSYS; return -1; }
    static void net_timer_heard(int t) { }
    static int net_accept(int l) { errno = ENOSYS; return -1; }
    static int net_connect(const char *h, int p) { errno = ENOSYS; return -1; }
    static ssize_t net_send(int f, const char *d, size_t n) { errno = ENOSYS; return -1; }
    static ssize_t net_recv(int f, char *d, size_t n) { errno = ENOSYS; return -1; }
    static void net_close(int f) { }
    #endif

    static int net_again(void) { return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR; }

    /* Where a header's value begins in a head that ends with an empty line; 0 when it is not there. */
    static const char *net_header(const char *head, size_t length, const char *name)
    {
        size_t size = strlen(name);
        const char *end = head + length, *at = head;
        while ((at = memchr(at, '\\n', (size_t)(end - at)))) {
            at++;
            if ((size_t)(end - at) > size && at[size] == ':' && !strncasecmp(at, name, size)) {
                at += size + 1;
                while (at < end && *at == ' ') at++;
                return at;
            }
        }
        return 0;
    }
    """
    int64_t net_now() noexcept nogil  # a clock
    int64_t net_cpu(int pid) noexcept nogil  # a clock; -1 where there is none
    int net_poller() noexcept nogil  # a descriptor, or -1
    int net_watch(int poller, int fd, unsigned int tag, int writing, int known) noexcept nogil  # 0, or -1
    int net_wait(int poller, unsigned int* tags, unsigned char* how, int most, int timeout_ms) noexcept nogil  # -1
    int net_timer() noexcept nogil  # a descriptor, or -1
    int net_timer_at(int timer, int64_t at) noexcept nogil  # 0, or -1
    void net_timer_heard(int timer) noexcept nogil  # reads what is then over
    int net_accept(int listener) noexcept nogil  # a descriptor, or -1
    int net_connect(const char* host, int port) noexcept nogil  # a descriptor, or -1
    ssize_t net_send(int fd, const char* data, size_t length) noexcept nogil  # how many, or -1
    ssize_t net_recv(int fd, char* data, size_t room) noexcept nogil  # how many, or -1
    void net_close(int fd) noexcept nogil  # the kernel takes it back
    int net_again() noexcept nogil  # errno, compared
    const char* net_header(const char* head, size_t length, const char* name) noexcept nogil  # a place, or NULL
