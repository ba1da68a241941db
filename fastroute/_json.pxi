"""The JSON readers of `_scan`: they prove and measure, and build nothing.

Every reader below takes a pointer and returns the pointer after what it read, or NULL with the fault noted in the
`Doc`. The byte at `Doc.end` can always be read and is never part of a token: a `bytes` object ends in NUL, a line in CR
or LF. That is why only skipped white space, wide loads and what is lenient are checked against the end.
All know C memory alone; what is wrong, malloc too, is a note in the `Doc`.
"""

cdef struct Text:
    bptr raw      # what stands between the quotes
    size_t length
    bptr at       # the same with escapes undone, once `plain` was asked
    size_t size
    bint escaped

cdef struct Slot:
    uint32_t hash
    uint32_t offset  # of the key in the body; 0 is an empty slot, since no key stands there

cdef struct Keys:
    # The keys of one object: a list while there are few, then a table on the heap.
    size_t count
    Slot few[FEW]
    Slot* table
    size_t mask

cdef struct Doc:
    bptr base
    bptr end
    bptr fault
    Why why
    bint strict       # a request is proved; an upstream's event is only read
    int max_depth
    size_t text
    size_t media
    uchar* scratch[2]  # keys with their escapes undone; the second is for comparing two
    size_t room[2]
    bint starved       # malloc failed

cdef enum:
    # What a value's bytes mean for the token bound.
    SHAPE = 1    # keys and punctuation reach the model too: schemas, arguments
    MEDIA = 2    # parts here may be images, audio or files
    MESSAGE = 4  # a message itself: its frame is counted by the message, not by the byte

cdef uint64_t ONES = 0x0101010101010101, TOPS = 0x8080808080808080
cdef uint64_t P61 = (<uint64_t> 1 << 61) - 1
cdef uint64_t SECRET = int.from_bytes(os.urandom(8), "little") % (P61 - 1) + 1


cdef bptr fail(Doc* d, bptr at, Why why) noexcept nogil:  # a note of the fault is kept
    d.why = why
    d.fault = at
    return NULL


cdef inline bptr space(Doc* d, bptr p) noexcept nogil:  # C memory, read
    while p[0] <= 32 and (p[0] == 32 or p[0] == 10 or p[0] == 13 or p[0] == 9) and p < d.end:
        p += 1
    return p


cdef inline int hex4(bptr p) noexcept nogil:  # C memory, read; -1 is no digit
    cdef int i, digit, total = 0
    for i in range(4):
        digit = p[i]
        if 48 <= digit <= 57:
            digit -= 48
        elif 97 <= digit | 32 <= 102:
            digit = (digit | 32) - 87
        else:
            return -1
        total = total << 4 | digit
    return total


cdef bptr sequence(bptr p) noexcept nogil:  # C memory, read; NULL is none
    """Past one UTF-8 sequence of two to four bytes, or NULL; the table is Unicode's 3-7."""
    cdef uchar c = p[0], low = 0x80, high = 0xBF
    cdef int more, i
    if 0xC2 <= c <= 0xDF:
        more = 1
    elif c & 0xF0 == 0xE0:
        more = 2
        if c == 0xE0:
            low = 0xA0
        elif c == 0xED:
            high = 0x9F
    elif 0xF0 <= c <= 0xF4:
        more = 3
        if c == 0xF0:
            low = 0x90
        elif c == 0xF4:
            high = 0x8F
    else:
        return NULL
    if not low <= p[1] <= high:
        return NULL
    for i in range(2, more + 1):
        if p[i] & 0xC0 != 0x80:
            return NULL
    return p + more + 1


cdef bptr string(Doc* d, bptr p, Text* out) noexcept nogil:  # a fault is NULL and a note
    """From the opening quote to after the closing one."""
    cdef uint64_t w, hits
    cdef size_t saved = 0
    cdef bptr q
    cdef uchar c
    cdef int code, second
    p += 1
    out.raw = p
    out.escaped = False
    while True:
        # Eight bytes at a time to a quote, a backslash, a control or a non-ASCII byte; a borrow spoils only later ones.
        while p + 8 <= d.end:
            memcpy(&w, p, 8)
            hits = ((w ^ (ONES * 0x22)) - ONES | (w ^ (ONES * 0x5C)) - ONES | w - ONES * 0x20 | w) & TOPS
            if hits:
                p += FR_FIRST(hits)
                break
            p += 8
        c = p[0]
        if c == 0x22:
            out.length = p - out.raw
            out.at = out.raw
            out.size = out.length - saved
            return p + 1
        if c == 0x5C:
            out.escaped = True
            c = p[1]
            if c == 117:  # u
                code = hex4(p + 2)
                if code < 0:
                    return fail(d, p, SYNTAX)
                q = p + 6
                if 0xD800 <= code < 0xE000:
                    second = hex4(q + 2) if code < 0xDC00 and q[0] == 0x5C and q[1] == 117 else -1
                    if 0xDC00 <= second < 0xE000:
                        saved += 8
                        q += 6
                    elif d.strict:
                        return fail(d, p, SURROGATE)
                    else:
                        saved += 3
                else:
                    saved += 5 if code < 0x80 else 4 if code < 0x800 else 3
                p = q
            elif c == 0x22 or c == 0x5C or c == 47 or c == 98 or c == 102 or c == 110 or c == 114 or c == 116:
                saved += 1
                p += 2
            else:
                return fail(d, p, SYNTAX)
        elif c >= 0x80:
            while p[0] >= 0x80:
                if d.strict:
                    q = sequence(p)
                    if q == NULL:
                        return fail(d, p, UTF8)
                    p = q
                elif p >= d.end:
                    return fail(d, p, SYNTAX)
                else:
                    p += 1
        elif c < 32:
            if d.strict or p >= d.end:
                return fail(d, p, SYNTAX)
            p += 1
        else:
            p += 1


cdef inline uchar* utf8(uchar* out, int code) noexcept nogil:  # C memory, written
    if code < 0x80:
        out[0] = code
        return out + 1
    if code < 0x800:
        out[0] = 0xC0 | code >> 6
        out[1] = 0x80 | code & 0x3F
        return out + 2
    if code < 0x10000:
        out[0] = 0xE0 | code >> 12
        out[1] = 0x80 | code >> 6 & 0x3F
        out[2] = 0x80 | code & 0x3F
        return out + 3
    out[0] = 0xF0 | code >> 18
    out[1] = 0x80 | code >> 12 & 0x3F
    out[2] = 0x80 | code >> 6 & 0x3F
    out[3] = 0x80 | code & 0x3F
    return out + 4


cdef bint plain(Doc* d, Text* text, int which) noexcept nogil:  # a fault, no memory too, is a note
    """Point `at` to the text with its escapes undone, good until the next call. False when memory ran out."""
    cdef bptr p = text.raw, end = text.raw + text.length
    cdef uchar* out
    cdef int code, low
    if not text.escaped:
        return True
    if d.room[which] < text.length:
        out = <uchar*> realloc(d.scratch[which], text.length)
        if out == NULL:
            d.starved = True
            return False
        d.scratch[which] = out
        d.room[which] = text.length
    out = d.scratch[which]
    while p < end:
        if p[0] != 0x5C:
            out[0] = p[0]
            out += 1
            p += 1
        elif p[1] != 117:
            code = p[1]
            out[0] = 8 if code == 98 else 12 if code == 102 else 10 if code == 110 else 13 if code == 114 else \
                9 if code == 116 else code
            out += 1
            p += 2
        else:
            code = hex4(p + 2)
            p += 6
            if 0xD800 <= code < 0xDC00 and p + 6 <= end and p[0] == 0x5C and p[1] == 117:
                low = hex4(p + 2)
                if 0xDC00 <= low < 0xE000:
                    code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00)
                    p += 6
            out = utf8(out, code)
    text.at = d.scratch[which]
    text.size = out - d.scratch[which]
    return True


cdef inline bint equals(Text* text, const char* word, size_t size) noexcept nogil:  # C memory, compared
    return text.size == size and text.at[0] == <uchar> word[0] and memcmp(text.at, word, size) == 0


cdef inline uint64_t step(uint64_t h, uint64_t word) noexcept nogil:  # C numbers alone
    cdef u128 product = <u128> (h + word) * SECRET
    h = (<uint64_t> product & P61) + <uint64_t> (product >> 61)
    return h - P61 if h >= P61 else h


cdef uint32_t key_hash(Doc* d, Text* key) noexcept nogil:  # C memory, read
    """A polynomial modulo 2**61 - 1 at a secret point: nobody who cannot see the point can make many keys collide."""
    cdef uint64_t h = step(0, key.size), word
    cdef bptr p = key.at
    cdef size_t left = key.size
    while left >= 7:
        word = 0
        memcpy(&word, p, 7)
        h = step(h, word)
        p += 7
        left -= 7
    word = 0
    if not key.escaped and p + 8 <= d.end:
        memcpy(&word, p, 8)
        word &= (<uint64_t> 1 << 8 * left) - 1
    else:
        memcpy(&word, p, left)
    h = step(h, word)
    return <uint32_t> ((h ^ h >> 29) * <uint64_t> 0xFF51AFD7ED558CCD >> 32)


cdef bint same(Doc* d, uint32_t offset, Text* key) noexcept nogil:  # C memory, compared
    cdef Text other
    string(d, d.base + offset, &other)
    return plain(d, &other, 1) and other.size == key.size and memcmp(other.at, key.at, key.size) == 0


cdef void insert(Slot* table, size_t mask, Slot slot) noexcept nogil:  # C memory, with a free place always
    cdef size_t at = slot.hash & mask
    while table[at].offset:
        at = at + 1 & mask
    table[at] = slot


cdef bint grow(Keys* keys) noexcept nogil:  # no memory is False
    cdef size_t size = (keys.mask + 1) * 4 if keys.table != NULL else FEW * 4, i
    cdef Slot* table = <Slot*> calloc(size, sizeof(Slot))
    if table == NULL:
        return False
    if keys.table == NULL:
        for i in range(keys.count):
            insert(table, size - 1, keys.few[i])
    else:
        for i in range(keys.mask + 1):
            if keys.table[i].offset:
                insert(table, size - 1, keys.table[i])
        free(keys.table)
    keys.table = table
    keys.mask = size - 1
    return True


cdef bint remember(Doc* d, Keys* keys, Text* key) noexcept nogil:  # no memory is False, and a note
    """Note one more key; False, with `why`, when the object has it already or has too many, or when memory ran out."""
    cdef Slot slot
    cdef size_t at
    slot.hash = key_hash(d, key)
    slot.offset = <uint32_t> (key.raw - 1 - d.base)
    if keys.table == NULL:
        for at in range(keys.count):
            if keys.few[at].hash == slot.hash and same(d, keys.few[at].offset, key):
                d.why = DUPLICATE_KEY
                return False
    else:
        at = slot.hash & keys.mask
        while keys.table[at].offset:
            if keys.table[at].hash == slot.hash and same(d, keys.table[at].offset, key):
                d.why = DUPLICATE_KEY
                return False
            at = at + 1 & keys.mask
    if keys.count == C_KEYS:
        d.why = KEYS
        return False
    if (keys.count == FEW if keys.table == NULL else keys.count * 2 > keys.mask) and not grow(keys):
        d.starved = True
        return False
    if keys.table == NULL:
        keys.few[keys.count] = slot
    else:
        insert(keys.table, keys.mask, slot)
    keys.count += 1
    return True


cdef bptr member(Doc* d, bptr p, bint first, Keys* keys, Text* key) noexcept nogil:  # a fault is NULL and a note
    """To the next value of an object, its key in `key`; or past the closing brace, with `key.raw` NULL."""
    cdef bptr quote
    p = space(d, p)
    if p[0] == 125:  # }
        key.raw = NULL
        return p + 1
    if not first:
        if p[0] != 44:  # ,
            return fail(d, p, SYNTAX)
        p = space(d, p + 1)
    if p[0] != 0x22:
        return fail(d, p, SYNTAX)
    quote = p
    p = string(d, p, key)
    if p == NULL:
        return NULL
    if not plain(d, key, 0) or keys != NULL and not remember(d, keys, key):
        return fail(d, quote, d.why)
    p = space(d, p)
    if p[0] != 58:  # :
        return fail(d, p, SYNTAX)
    return space(d, p + 1)


cdef bptr scalar(Doc* d, bptr p) noexcept nogil:  # a fault is NULL and a note
    """A number or a literal. An upstream may also say NaN, as some do in their log probabilities."""
    cdef bptr start = p
    if not d.strict:
        while p[0] > 32 and p[0] != 44 and p[0] != 93 and p[0] != 125 and p[0] != 0x22 and p < d.end:
            p += 1
        return p if p > start else fail(d, p, SYNTAX)
    if p[0] == 116 and p[1] == 114 and p[2] == 117 and p[3] == 101:
        return p + 4
    if p[0] == 102 and p[1] == 97 and p[2] == 108 and p[3] == 115 and p[4] == 101:
        return p + 5
    if p[0] == 110 and p[1] == 117 and p[2] == 108 and p[3] == 108:
        return p + 4
    if p[0] == 45:
        p += 1
    if p[0] == 48:
        p += 1
    elif 49 <= p[0] <= 57:
        while 48 <= p[0] <= 57:
            p += 1
    else:
        return fail(d, start, SYNTAX)
    if p[0] == 46:
        p += 1
        if not 48 <= p[0] <= 57:
            return fail(d, p, SYNTAX)
        while 48 <= p[0] <= 57:
            p += 1
    if p[0] | 32 == 101:
        p += 1
        if p[0] == 43 or p[0] == 45:
            p += 1
        if not 48 <= p[0] <= 57:
            return fail(d, p, SYNTAX)
        while 48 <= p[0] <= 57:
            p += 1
    return p if p - start <= C_NUMBER else fail(d, start, NUMBER)


cdef bint media_key(Text* key) noexcept nogil:  # C memory, compared
    return (
        equals(key, "image_url", 9) or equals(key, "input_audio", 11) or equals(key, "file", 4)
        or equals(key, "audio", 5) or equals(key, "video_url", 9) or equals(key, "inline_data", 11)
        or equals(key, "inlineData", 10) or equals(key, "file_data", 9) or equals(key, "fileData", 8)
    )


cdef bint media_type(Text* kind) noexcept nogil:  # C memory, compared
    return (
        equals(kind, "image", 5) or equals(kind, "document", 8) or equals(kind, "input_image", 11)
        or equals(kind, "input_file", 10) or equals(kind, "video", 5) or equals(kind, "container_upload", 16)
    )


cdef bptr value(Doc* d, bptr p, int depth, int area) noexcept nogil:  # a fault is NULL and a note
    """Past one value; `depth` is its own, were it an array or an object."""
    cdef Text text
    cdef size_t count
    cdef bptr start = p
    if p[0] == 0x22:
        p = string(d, p, &text)
        if p != NULL:
            d.text += text.size + (2 if area & SHAPE else 0)
        return p
    if p[0] == 123:
        return members(d, p, depth, area)
    if p[0] == 91:
        return elements(d, p, depth, area, 0, SYNTAX, &count)
    p = scalar(d, p)
    if p != NULL and area & SHAPE:
        d.text += p - start
    return p


cdef bptr members(Doc* d, bptr p, int depth, int area) noexcept nogil:  # a fault is NULL and a note
    cdef Keys keys
    if depth > d.max_depth:
        return fail(d, p, DEPTH)
    if not d.strict:
        return each_member(d, p, depth, area, NULL)
    keys.count = 0
    keys.table = NULL
    p = each_member(d, p, depth, area, &keys)
    free(keys.table)
    return p


cdef bptr each_member(Doc* d, bptr p, int depth, int area, Keys* keys) noexcept nogil:  # a fault is NULL and a note
    cdef Text key, kind
    cdef bint first = True, media = False
    cdef int inner = SHAPE | MEDIA if area & MESSAGE else area
    if area & SHAPE:
        d.text += 4
    p += 1
    while True:
        p = member(d, p, first, keys, &key)
        if p == NULL or key.raw == NULL:
            d.media += media
            return p
        first = False
        if area & SHAPE:
            d.text += key.size + 6
        if inner & MEDIA and not media:
            if p[0] == 0x22 and equals(&key, "type", 4):
                if string(d, p, &kind) == NULL or not plain(d, &kind, 0):
                    return NULL
                media = media_type(&kind)
            else:
                media = media_key(&key)
        p = value(d, p, depth + 1, inner)
        if p == NULL:
            return NULL


# A fault is NULL and a note.
cdef bptr elements(Doc* d, bptr p, int depth, int area, size_t most, Why why, size_t* count) noexcept nogil:
    """Past an array, counting; more than `most` elements (0: any number) are refused with `why`."""
    count[0] = 0
    if depth > d.max_depth:
        return fail(d, p, DEPTH)
    if area & SHAPE:
        d.text += 4
    p = space(d, p + 1)
    if p[0] == 93:
        return p + 1
    while True:
        count[0] += 1
        if most and count[0] > most:
            return fail(d, p, why)
        if area & SHAPE:
            d.text += 2
        p = value(d, p, depth + 1, area)
        if p == NULL:
            return NULL
        p = space(d, p)
        if p[0] == 93:
            return p + 1
        if p[0] != 44:
            return fail(d, p, SYNTAX)
        p = space(d, p + 1)
