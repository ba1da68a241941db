# What lies in the memory, and the arithmetic on one bucket. Included by `_table.pyx`.

cdef extern from *:
    """
    #define FR_EPOCH ((1ULL << 24) - 1)
    #define FR_COUNT ((1ULL << 34) - 1)
    #define FR_CYCLE ((1ULL << 30) - 1)
    #define FR_FUTURE (1ULL << 20)
    #define FR_KEY_LAST ((1ULL << 62) - 1)
    #define FR_LIMIT_LAST 10000000000LL
    #define FR_LEAVING 1ULL
    #define FR_STAYED 2ULL
    #define fr_get(p) __atomic_load_n((p), __ATOMIC_RELAXED)
    #define fr_set(p, v) __atomic_store_n((p), (v), __ATOMIC_RELAXED)
    #define fr_add(p, v) __atomic_fetch_add((p), (v), __ATOMIC_RELAXED)
    #define fr_fence() __atomic_thread_fence(__ATOMIC_SEQ_CST)
    static inline int fr_swap(uint64_t *p, uint64_t old, uint64_t now) {
        return __atomic_compare_exchange_n(p, &old, now, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
    static inline int fr_swap32(uint32_t *p, uint32_t old, uint32_t now) {
        return __atomic_compare_exchange_n(p, &old, now, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    }
    """
    const uint64_t EPOCH "FR_EPOCH"
    const uint64_t COUNT "FR_COUNT"
    # Ticks until a bucket's stamp comes again: 34 years where a window is a minute.
    const uint64_t CYCLE "FR_CYCLE"
    # A caller who came long after reading its clock meets buckets of its future; older than this is the past.
    const uint64_t FUTURE "FR_FUTURE"
    const uint64_t KEY_LAST "FR_KEY_LAST"
    const int64_t LIMIT_LAST "FR_LIMIT_LAST"
    # Somebody is about to push an entry's identity out; and what is turned when it is found to be in use.
    const uint64_t LEAVING "FR_LEAVING"
    const uint64_t STAYED "FR_STAYED"
    uint64_t fr_get(const uint64_t *p) nogil
    uint32_t fr_get32 "fr_get"(const uint32_t *p) nogil
    void fr_set(uint64_t *p, uint64_t v) nogil
    void fr_set32 "fr_set"(uint32_t *p, uint32_t v) nogil
    void fr_add(uint64_t *p, uint64_t v) nogil
    void fr_fence() nogil
    bint fr_swap(uint64_t *p, uint64_t old, uint64_t now) nogil
    bint fr_swap32(uint32_t *p, uint32_t old, uint32_t now) nogil

cdef enum:
    TICKS = 60
    RING = 64  # 61 ticks count at a time; a power of two
    SET = 16  # an identity lives in one of 16 entries: two cache lines to look through
    COLUMNS = 64
    DEPTH = 4  # organisation, owner, key, grant
    HEAD = 4096
    TRIES = 1000
    TOKENS_LAST = 1000000000
    REQUESTS = 0
    TOKENS = 1
    AT_ONCE = 2

cdef tuple KINDS = ("rpm", "tpm", "concurrency")

cdef struct Body:
    uint64_t rings[2][RING]
    uint32_t columns[COLUMNS]

HEADER = HEAD
SLOT = 16 + <int>sizeof(Body)
WORKERS_MAX = COLUMNS
ACCOUNTS_MAX = DEPTH
SLOTS_MIN = SET
LIMIT_MAX = LIMIT_LAST
TOKENS_MAX = TOKENS_LAST
KEY_MAX = KEY_LAST
assert LIMIT_LAST + TOKENS_LAST < COUNT

cdef struct Account:
    uint64_t key
    int level  # its place among the accounts, for who is told no
    int64_t limits[3]  # -1 is no limit
    uint64_t used[3]
    uint64_t tick  # where it adds
    uint64_t newest
    uint64_t tag
    uint32_t mark
    Py_ssize_t base
    Py_ssize_t slot  # where it added
    Py_ssize_t holders[SET]
    Py_ssize_t held
    bint put[3]

cdef struct Place:
    uint64_t key
    uint64_t tick
    Py_ssize_t slot
    bint entered
    bint metered


cdef inline uint64_t mix(uint64_t key) noexcept:  # C numbers alone
    key = (key ^ (key >> 30)) * <uint64_t>0xBF58476D1CE4E5B9
    key = (key ^ (key >> 27)) * <uint64_t>0x94D049BB133111EB
    return key ^ (key >> 31)


cdef inline uint64_t tag_of(uint64_t key) noexcept:  # C numbers, divided by 63
    return 1 + (mix(key) >> 40) % 63  # never that of an untouched word


cdef inline uint32_t mark_of(uint64_t key) noexcept:  # C numbers, divided by 0xFFFF
    return <uint32_t>(1 + (mix(key) >> 46) % 0xFFFF)


cdef inline uint64_t stamp(uint64_t tag, uint64_t tick) noexcept:  # C numbers alone
    return tag << 24 | (tick >> 6 & EPOCH)


cdef inline void look_through(const uint64_t *ring, Account *account, int kind) noexcept:  # atomics; RING divides
    """Adds up what counts at the account's tick."""
    cdef uint64_t word, here, used = 0, tick = account.tick, epoch = tick >> 6 & EPOCH
    cdef uint64_t now = stamp(account.tag, tick), place = tick % RING, j
    cdef bint newer = False
    if epoch == 0 or epoch == EPOCH:
        look_far(ring, account, kind)
        return
    # Of the 64 ticks up to now those behind our place in the ring have the stamp before ours, and the last three are over.
    # Telling each bucket's age instead makes a request of two accounts with two limits each 1.13 us, not 0.89.
    for j in range(place + 1):
        word = fr_get(ring + j)
        here = word >> 34
        used += word & COUNT if here == now and j + TICKS >= place else 0
        newer |= here > now
    for j in range(place + 1, <uint64_t>RING):
        word = fr_get(ring + j)
        here = word >> 34
        used += word & COUNT if here == now - 1 and j > place + 3 else 0
        newer |= here >= now
    if newer:
        look_far(ring, account, kind)
    else:
        account.used[kind] += used


cdef void look_far(const uint64_t *ring, Account *account, int kind) noexcept:  # atomics and C numbers alone
    """The same by each bucket's age: where another has seen a later time, has had the slot, or stamps begin anew."""
    cdef uint64_t word, since, used = 0, least = FUTURE, now = account.tick + FUTURE
    cdef uint64_t j, tag = account.tag
    for j in range(<uint64_t>RING):
        word = fr_get(ring + j)
        if word >> 58 != tag:
            continue
        since = (now - ((word >> 34 & EPOCH) << 6 | j)) & CYCLE
        if since <= TICKS + FUTURE:
            used += word & COUNT
            if since < least:
                least = since
    account.used[kind] += used
    if now - least > account.newest:
        account.newest = now - least


cdef inline uint64_t in_column(const Body *body, uint32_t mark, Py_ssize_t column) noexcept:  # one atomic read
    cdef uint32_t word = fr_get32(&body.columns[column])
    return word & 0xFFFF if word >> 16 == mark else 0


cdef bint change(uint64_t *word, uint64_t stamped, int64_t by) noexcept:  # atomics and C numbers alone
    """Add to a bucket that is still what it was; below nothing and beyond its width there is no more."""
    cdef uint64_t old
    cdef int64_t count
    while True:
        old = fr_get(word)
        if old >> 34 != stamped:
            return False
        count = <int64_t>(old & COUNT) + by
        if count < 0:
            count = 0
        elif count > <int64_t>COUNT:
            count = <int64_t>COUNT
        if fr_swap(word, old, stamped << 34 | <uint64_t>count):
            return True


cdef inline int unfit(Account *account, int64_t tokens, int64_t request) noexcept:  # C numbers, compared
    """Which limit has no room: before the request is added (1), or after (0)."""
    cdef int64_t *limits = account.limits
    if limits[REQUESTS] >= 0 and <int64_t>account.used[REQUESTS] + request > limits[REQUESTS]:
        return REQUESTS
    if limits[TOKENS] >= 0 and (<int64_t>account.used[TOKENS] + tokens * request > limits[TOKENS] or not limits[TOKENS]):
        return TOKENS
    if limits[AT_ONCE] >= 0 and <int64_t>account.used[AT_ONCE] + request > limits[AT_ONCE]:
        return AT_ONCE
    return -1
