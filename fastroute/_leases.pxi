"""What one worker may spend, in `_core`: a slot for each account, and reservations on up to four of them at once."""

ctypedef int64_t Numbers[PATH_MAX]


cdef inline int64_t free_of(const Account *account) noexcept nogil:  # spent <= SPENT_MAX, the rest far less: in 63 bits
    return account.granted - account.released - account.spent - account.held


@cython.final
cdef class Leases:
    """What one worker may still spend, per account, in the account's own unit."""

    def __cinit__(self, capacity):
        cdef Py_ssize_t slot
        self.capacity = within(capacity, "capacity", 1, SLOTS_MAX)
        self.accounts = <Account *>PyMem_Calloc(self.capacity, sizeof(Account))
        if self.accounts == NULL:
            raise MemoryError()
        for slot in range(self.capacity):
            self.accounts[slot].next_closed = slot + 1

    def __dealloc__(self):
        PyMem_Free(self.accounts)

    def __len__(self):
        return self.opened

    cdef Account *account(self, object slot) except NULL:
        return self.numbered(within(slot, "slot", 0, self.capacity - 1))

    cdef Account *numbered(self, int64_t index) except NULL:
        if not 0 <= index < self.capacity or not self.accounts[index].is_open:
            raise ValueError(f"slot {index} is not open")
        return &self.accounts[index]

    cdef int numbers(self, tuple slots, int64_t *numbers) except -1:
        """The slots of a reservation, each open and there once; returns how many."""
        cdef Py_ssize_t index, count = len(slots)
        cdef Account *accounts[PATH_MAX]
        if count > PATH_MAX:
            raise ValueError(f"slots names at most {PATH_MAX} accounts, not {count}")
        for index in range(count):
            numbers[index] = within(slots[index], "slot", 0, self.capacity - 1)
        return self.path(<int>count, numbers, accounts)

    cdef int path(self, int count, const int64_t *slots, Account **accounts) except -1:
        cdef int index, earlier
        for index in range(count):
            accounts[index] = self.numbered(slots[index])
            for earlier in range(index):
                if accounts[earlier] == accounts[index]:
                    raise ValueError(f"slots names slot {slots[index]} twice")
        return count

    def open(self, granted=0):
        """A slot for an account; OverflowError when all are in use."""
        cdef int64_t amount = within(granted, "granted", 0, AMOUNT_MAX)
        cdef int64_t slot = self.next_closed
        cdef Account *account
        if slot == self.capacity:
            raise OverflowError(f"all {self.capacity} slots are open")
        account = &self.accounts[slot]
        self.next_closed = account.next_closed
        account.granted = amount
        account.released = account.spent = account.held = account.reservations = 0
        account.is_open = True
        self.opened += 1
        return slot

    def grant(self, slot, amount):
        """Add to what the account may spend."""
        cdef Account *account = self.account(slot)
        cdef int64_t more = within(amount, "amount", 0, AMOUNT_MAX)
        if more > AMOUNT_MAX - account.granted:
            raise OverflowError(f"slot {slot} was granted {account.granted}; {more} more would pass {AMOUNT_MAX}")
        account.granted += more

    def release(self, slot, amount):
        """Give back up to so much of what is free; returns how much."""
        cdef Account *account = self.account(slot)
        cdef int64_t given = min(within(amount, "amount", 0, AMOUNT_MAX), max(free_of(account), 0))
        account.released += given
        return given

    def close(self, slot):
        """(released, spent) of a slot that holds nothing; everything free is released first."""
        cdef Account *account = self.account(slot)
        if account.reservations:
            raise ValueError(f"slot {slot} still holds {account.held} in {account.reservations} reservations")
        account.released += max(free_of(account), 0)
        account.is_open = False
        account.next_closed = self.next_closed
        self.next_closed = slot
        self.opened -= 1
        return account.released, account.spent

    def reserve(self, tuple slots not None, tuple amounts not None):
        """Hold an amount on each slot, all or nothing; UNKNOWN when held, else the index that refused."""
        cdef Numbers places, wanted
        cdef int count = self.numbers(slots, places)
        matched(count, amounts, "amounts", wanted)
        return self.hold(count, places, wanted)

    cdef int hold(self, int count, const int64_t *slots, const int64_t *amounts) except -2:
        cdef Account *accounts[PATH_MAX]
        cdef int index
        self.path(count, slots, accounts)
        for index in range(count):
            if amounts[index] > free_of(accounts[index]):
                return index
        for index in range(count):
            accounts[index].held += amounts[index]
            accounts[index].reservations += 1
        return -1

    def settle(self, tuple slots not None, tuple reserved not None, tuple spent not None):
        """Close a reservation with what was really spent; True when any spending was above it."""
        cdef Numbers places, held, charged
        cdef int count = self.numbers(slots, places)
        matched(count, reserved, "reserved", held)
        matched(count, spent, "spent", charged)
        return self.close_hold(count, places, held, charged)

    cdef bint close_hold(
        self, int count, const int64_t *slots, const int64_t *held, const int64_t *charged
    ) except? True:
        cdef Account *accounts[PATH_MAX]
        cdef int index
        cdef bint breach = False
        self.path(count, slots, accounts)
        for index in range(count):
            if held[index] > accounts[index].held or accounts[index].reservations == 0:
                raise ValueError(f"slot {slots[index]} holds {accounts[index].held}, no reservation of {held[index]}")
            if charged[index] > SPENT_MAX - accounts[index].spent:
                raise OverflowError(f"slot {slots[index]} spent {accounts[index].spent}; {charged[index]} is too much")
        for index in range(count):
            accounts[index].held -= held[index]
            accounts[index].reservations -= 1
            accounts[index].spent += charged[index]
            breach = breach or charged[index] > held[index]
        return breach

    def void(self, tuple slots not None, tuple reserved not None):
        """Close a reservation with nothing spent."""
        self.settle(slots, reserved, (0,) * len(slots))

    def balance(self, slot):
        """(granted, released, spent, held, free)."""
        cdef Account *account = self.account(slot)
        return account.granted, account.released, account.spent, account.held, free_of(account)


cdef int matched(Py_ssize_t count, tuple amounts, str name, int64_t *numbers) except -1:
    cdef Py_ssize_t index
    if len(amounts) != count:
        raise ValueError(f"{name} has a number for each of {count} slots, not {len(amounts)}")
    for index in range(count):
        numbers[index] = within(amounts[index], name, 0, AMOUNT_MAX)
    return 0
