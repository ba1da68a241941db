# cython: language_level=3, autotestdict=False, auto_pickle=False
"""Records in mapped memory: putting one there without a system call, and finding them again in bytes read back.

`_journal.pyi` states the contracts; files, names and threads are the business of `journal`. A record is a head of 16
bytes (crc32c, then kind and length in one word, then the sequence number) and its payload, zeros up to a multiple of 8.
The first eight bytes of the head are stored last and at once: until then they are zero and there is no record.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport errno
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

import os

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    #include <sys/mman.h>
    #include <unistd.h>
    #if defined(__x86_64__)
    #include <cpuid.h>
    #elif defined(__aarch64__) && defined(__linux__)
    #include <sys/auxv.h>
    #endif

    #if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
    #error "a journal is little-endian, as are the machines that fastroute runs on"
    #endif

    static uint32_t crc_tables[8][256];

    static void crc_prepare(void)
    {
        for (uint32_t n = 0; n < 256; n++) {
            uint32_t crc = n;
            for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (crc & 1 ? 0x82f63b78u : 0);
            crc_tables[0][n] = crc;
        }
        for (int t = 1; t < 8; t++)
            for (int n = 0; n < 256; n++)
                crc_tables[t][n] = (crc_tables[t - 1][n] >> 8) ^ crc_tables[0][crc_tables[t - 1][n] & 0xff];
    }

    static uint32_t crc_by_table(uint32_t crc, const unsigned char *data, size_t length)
    {
        uint64_t word;
        crc = ~crc;
        for (; length >= 8; data += 8, length -= 8) {
            memcpy(&word, data, 8);
            word ^= crc;
            crc = crc_tables[7][word & 0xff] ^ crc_tables[6][(word >> 8) & 0xff]
                ^ crc_tables[5][(word >> 16) & 0xff] ^ crc_tables[4][(word >> 24) & 0xff]
                ^ crc_tables[3][(word >> 32) & 0xff] ^ crc_tables[2][(word >> 40) & 0xff]
                ^ crc_tables[1][(word >> 48) & 0xff] ^ crc_tables[0][word >> 56];
        }
        for (; length; data++, length--) crc = (crc >> 8) ^ crc_tables[0][(crc ^ *data) & 0xff];
        return ~crc;
    }

    // In assembler, since each compiler has its own conditions for the built-in; whether it may run is asked at run time.
    #if defined(__x86_64__)
    static inline uint32_t crc_word(uint64_t crc, uint64_t word)
    {
        __asm__("crc32q %1, %0" : "+r"(crc) : "r"(word));
        return (uint32_t)crc;
    }
    static inline uint32_t crc_byte(uint32_t crc, unsigned char byte)
    {
        __asm__("crc32b %1, %0" : "+r"(crc) : "r"(byte));
        return crc;
    }
    static int crc_present(void)
    {
        unsigned a, b, c, d;
        return __get_cpuid(1, &a, &b, &c, &d) && c >> 20 & 1;  // SSE4.2
    }
    #elif defined(__aarch64__)
    static inline uint32_t crc_word(uint32_t crc, uint64_t word)
    {
        __asm__(".arch_extension crc\\n\\tcrc32cx %w0, %w0, %x1" : "+r"(crc) : "r"(word));
        return crc;
    }
    static inline uint32_t crc_byte(uint32_t crc, uint32_t byte)
    {
        __asm__(".arch_extension crc\\n\\tcrc32cb %w0, %w0, %w1" : "+r"(crc) : "r"(byte));
        return crc;
    }
    static int crc_present(void)
    {
    #if defined(__ARM_FEATURE_CRC32)
        return 1;
    #elif defined(__linux__)
        return getauxval(AT_HWCAP) >> 7 & 1;  // HWCAP_CRC32
    #else
        return 0;
    #endif
    }
    #endif

    #if defined(__x86_64__) || defined(__aarch64__)
    static uint32_t crc_by_instruction(uint32_t crc, const unsigned char *data, size_t length)
    {
        uint64_t word;
        crc = ~crc;
        for (; length >= 8; data += 8, length -= 8) {
            memcpy(&word, data, 8);
            crc = crc_word(crc, word);
        }
        for (; length; data++, length--) crc = crc_byte(crc, *data);
        return ~crc;
    }
    #else
    #define crc_by_instruction crc_by_table
    static int crc_present(void) { return 0; }
    #endif

    static uint32_t (*crc32c_of)(uint32_t, const unsigned char *, size_t) = crc_by_table;

    static int crc_choose(void)
    {
        crc_prepare();
        if (crc_present()) crc32c_of = crc_by_instruction;
        return crc_present();
    }

    // One store, after everything that was written before it in the eyes of whoever sees it.
    static inline void publish(char *at, uint64_t word)
    {
        __atomic_store_n((uint64_t *)at, word, __ATOMIC_RELEASE);
    }

    // No life appends more records: 890 years at 10,000 a second.
    static const uint64_t LAST = (uint64_t)1 << 48;

    // A kind and a length share 32 bits; the last kind is ours and closes a segment.
    enum { SEGMENT_HEAD = 64, RECORD_HEAD = 16, END = 255, PAYLOAD_MAX = (1 << 24) - 1 };
    """
    enum: SEGMENT_HEAD, RECORD_HEAD, END, PAYLOAD_MAX
    const uint64_t LAST
    int crc_choose()
    uint32_t crc32c_of(uint32_t crc, const unsigned char *data, size_t length) nogil
    uint32_t crc_by_table(uint32_t crc, const unsigned char *data, size_t length) nogil
    void publish(char *at, uint64_t word) nogil
    void *mmap(void *address, size_t length, int protection, int flags, int fd, long offset)
    int munmap(void *address, size_t length)
    ssize_t pread(int fd, void *buffer, size_t count, long offset) nogil
    int madvise(void *address, size_t length, int advice)
    int msync(void *address, size_t length, int flags) nogil
    long sysconf(int name)
    void *MAP_FAILED
    int PROT_READ, PROT_WRITE, MADV_RANDOM, MAP_SHARED, MS_SYNC, _SC_PAGESIZE

# What stands at a place: a record's size, or one of these.
cdef enum:
    MORE = -1  # not enough of it is here
    NOTHING = -2
    CLOSED = -3  # the segment ends here
    BAD = -4

HARDWARE = bool(crc_choose())
SEGMENT_HEAD_BYTES = SEGMENT_HEAD
RECORD_HEAD_BYTES = RECORD_HEAD
PAYLOAD_BYTES_MAX = PAYLOAD_MAX
KIND_MAX = END - 1
FULL, PART, EMPTY, ENDED, BROKEN = range(5)

cdef size_t PAGE = sysconf(_SC_PAGESIZE)


def crc32c(bytes data not None, uint32_t seed=0):
    return crc32c_of(seed, <const unsigned char *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))


def crc32c_by_table(bytes data not None, uint32_t seed=0):
    return crc_by_table(seed, <const unsigned char *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))


cdef class Segment:
    def __cinit__(self, int fd, Py_ssize_t size, uint64_t number, uint32_t seed):
        cdef void *base
        if size < SEGMENT_HEAD + 2 * RECORD_HEAD or size % 8:
            raise ValueError(f"a segment of {size} bytes: at least {SEGMENT_HEAD + 2 * RECORD_HEAD} and a multiple of 8")
        base = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0)
        if base == MAP_FAILED:
            raise OSError(errno, os.strerror(errno))
        self.base = <char *>base
        self.size, self.number, self.seed = size, number, seed
        # Reading ahead would fill megabytes of pages with zeros within one append: 22 ms once, at 8 MiB.
        madvise(base, size, MADV_RANDOM)

    def flush(self, Py_ssize_t start, Py_ssize_t end):
        cdef size_t first
        cdef int failed = 0
        if not 0 <= start <= end <= self.size:
            raise ValueError(f"nothing from {start} to {end} in {self.size} bytes")
        first = start // PAGE * PAGE
        with nogil:
            if msync(self.base + first, end - first, MS_SYNC):
                failed = errno
        if failed:
            raise OSError(failed, os.strerror(failed))

    def __dealloc__(self):
        if self.base != NULL:
            munmap(self.base, self.size)


def warm(int fd):
    cdef char chunk[64 * 1024]
    cdef ssize_t count = 1
    cdef long at = 0
    with nogil:
        while count > 0:
            count = pread(fd, chunk, sizeof(chunk), at)
            at += count


# `noexcept`: C memory is copied and summed, with no object and no division.
cdef void put(char *at, uint32_t kind, const char *payload, size_t length, uint64_t sequence, uint32_t seed) noexcept:
    cdef unsigned char head[12]
    cdef uint32_t word = kind << 24 | <uint32_t>length, crc
    memcpy(head, &word, 4)
    memcpy(head + 4, &sequence, 8)
    crc = crc32c_of(crc32c_of(seed, head, 12), <const unsigned char *>payload, length)
    memcpy(at + 8, &sequence, 8)
    memcpy(at + RECORD_HEAD, payload, length)
    publish(at, <uint64_t>word << 32 | crc)


cdef class Appender:
    def __cinit__(self, *_, **__):
        self.retired = []

    cpdef uint64_t append(self, int kind, bytes payload) except 0:
        if payload is None:
            raise TypeError("a record has a payload")
        cdef Py_ssize_t length = PyBytes_GET_SIZE(payload)
        cdef Py_ssize_t size = (RECORD_HEAD + length + 7) & ~7
        if kind < 1 or kind >= END:
            raise ValueError(f"kind {kind} is not within 1 to {END - 1}")
        if length > PAYLOAD_MAX:
            raise ValueError(f"a payload of {length} bytes is longer than {PAYLOAD_MAX}")
        if size > self.mark - self.at:
            self.make_room(size)
            if size > self.mark - self.at:
                raise ValueError(f"no room was made for {size} bytes")
        self.sequence += 1
        put(self.base + self.at, kind, PyBytes_AS_STRING(payload), length, self.sequence, self.segment.seed)
        self.at += size
        return self.sequence

    def make_room(self, Py_ssize_t size):
        raise NotImplementedError("a subclass says where records go on")

    def watch(self, Py_ssize_t offset):
        self.mark = 0 if self.segment is None else min(offset, self.segment.size - RECORD_HEAD)

    def enter(self, Segment segment):
        # In one step under the GIL: whoever flushes meanwhile sees the old segment as current or as retired.
        if self.segment is not None:
            if segment is not None:
                put(self.base + self.at, END, b"", 0, self.sequence + 1, self.segment.seed)
            self.retired.append(self.segment)
        self.segment = segment
        self.base = NULL if segment is None else segment.base
        self.at = 0 if segment is None else SEGMENT_HEAD
        self.watch(0 if segment is None else segment.size)

    def where(self):
        return self.segment, self.at


cdef inline Py_ssize_t look(
    const char *at, Py_ssize_t have, Py_ssize_t room, uint32_t seed, uint64_t least, uint64_t most
) noexcept nogil:  # C memory is read; what is wrong is an answer
    """`have` bytes of it are here, `room` are left in the segment; its number must be within `least` and `most`."""
    cdef uint64_t word, sequence
    cdef uint32_t kind
    cdef Py_ssize_t length, size
    if room < RECORD_HEAD:
        return BAD
    if have < RECORD_HEAD:
        return MORE
    memcpy(&word, at, 8)
    if word == 0:
        return NOTHING
    memcpy(&sequence, at + 8, 8)
    kind, length = word >> 56, word >> 32 & PAYLOAD_MAX
    size = (RECORD_HEAD + length + 7) & ~7
    if kind == 0 or size > room or sequence < least or sequence > most:
        return BAD
    if size > have:
        return MORE
    if <uint32_t>word != crc32c_of(seed, <const unsigned char *>at + 4, RECORD_HEAD - 4 + length):
        return BAD
    if kind == END:
        return CLOSED if length == 0 else BAD
    return size


def decode(bytes chunk not None, Py_ssize_t room, uint32_t seed, int64_t sequence, Py_ssize_t limit):
    cdef const char *start = PyBytes_AS_STRING(chunk)
    cdef Py_ssize_t have = PyBytes_GET_SIZE(chunk), at = 0, size, length
    cdef uint64_t word, first = sequence + 1, last = first if sequence >= 0 else LAST
    cdef list records = []
    while len(records) < limit:
        size = look(start + at, have - at, room - at, seed, first, last)
        if size < 0:
            break
        memcpy(&word, start + at, 8)
        length = word >> 32 & PAYLOAD_MAX
        records.append((word >> 56, PyBytes_FromStringAndSize(start + at + RECORD_HEAD, length)))
        memcpy(&sequence, start + at + 8, 8)
        first = last = sequence + 1
        at += size
    else:
        return records, at, sequence, FULL
    return records, at, sequence, {MORE: PART, NOTHING: EMPTY, CLOSED: ENDED, BAD: BROKEN}[size]


def find(bytes chunk not None, uint32_t seed, int64_t sequence):
    cdef const char *start = PyBytes_AS_STRING(chunk)
    cdef Py_ssize_t have = PyBytes_GET_SIZE(chunk), at = 0, size
    # So many bytes hold no more records than this.
    cdef uint64_t most = sequence + have // RECORD_HEAD if sequence >= 0 else LAST
    with nogil:
        while at + RECORD_HEAD <= have:
            size = look(start + at, have - at, have - at, seed, sequence + 1, most)
            if size > 0 or size == CLOSED:
                break
            at += 8
    return at if at + RECORD_HEAD <= have else -1
