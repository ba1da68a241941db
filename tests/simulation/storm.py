"""What goes wrong in a world, and how."""

from fastroute.ledger.protocol import Refresh

# Each strikes about once in so many milliseconds, or where `chance` is asked; a seed draws some of them.
FAULTS = {
    "kill": 6000,
    "kill after send": 0,
    "kill before settle": 0,
    "stop": 7000,
    "books die": 4000,
    "power": 8000,
    "store down": 7000,
    "commit lost": 3000,
    "commit unclear": 4000,
    "network": 0,
    "disconnect": 3000,
    "crossed": 2500,
    "disk full": 6000,
    "bad block": 6000,
    "clock": 3000,
    "midnight": 0,
    "limits": 2000,
    "revoke": 9000,
    "grants": 1200,
    "posts": 1500,
    "corrections": 1500,
    "breach": 0,
    "late": 0,
    "leave": 0,
    "rush": 4000,
}


class Storm:
    """The part of a `World` that strikes it."""

    def strike(self, fault, every_ms):
        if self.quiet:
            return
        self.at(self.rng.randrange(2 * every_ms), self.strike, fault, every_ms)
        self.note(fault)
        if getattr(self, "strike_" + fault.replace(" ", "_"))() is not False:
            self.counts[fault] += 1

    def living(self):
        there = [worker for worker in self.workers if worker is not None and not worker.dead]
        return self.rng.choice(there) if there else None

    def strike_kill(self):
        worker = self.living()
        if worker is not None:
            worker.die()

    def strike_stop(self):
        worker = self.living()
        if worker is not None and not worker.stopped:
            worker.stopped = True
            self.at(self.rng.randrange(100, 8000), self.go_on, worker)

    def go_on(self, worker):
        if worker.stopped and not worker.dead:
            worker.resume()

    def strike_books_die(self):
        if self.keeper is None:
            return False
        self.fuse = self.rng.randrange(1, 6)
        if self.rng.random() < 0.2:
            self.books_gone()
            return None
        return False  # counted when it does

    def strike_power(self):
        self.boots += 1
        self.boot_id = f"boot-{self.boots}"
        for worker in self.workers:
            if worker is not None:
                worker.die()
        self.oracle.lost_power()
        self.lines.clear()
        self.books_gone()
        self.disk.lose_power()

    def strike_store_down(self):
        self.store.down = True
        self.at(self.rng.randrange(100, 4000), self.store_up)

    def store_up(self):
        self.store.down = False

    def strike_rush(self):
        """Many callers of one account at once, at all workers."""
        account = self.rng.randrange(1, len(self.store._accounts) + 1)
        for worker in self.workers:
            if worker is not None and worker.life and not worker.dead:
                for _ in range(8):
                    worker.at(self.rng.randrange(500), self.call, worker, account)

    def strike_commit_lost(self):
        self.store.fail = "lost"

    def strike_commit_unclear(self):
        self.store.fail = "kept"

    def strike_disconnect(self):
        if not self.lines:
            return False
        self.cut(self.lines[self.rng.choice(list(self.lines))])
        return None

    def strike_crossed(self):
        """A report comes on somebody else's connection."""
        worker, line = self.living(), self.rng.choice(list(self.lines.values())) if self.lines else None
        if worker is None or line is None or not worker.life or line.worker is worker or worker.stopped:
            return False
        seq, leases = worker.holder.report(self.now)
        self.to_keeper(line, Refresh(worker.number(), worker.life, seq, leases))
        return None

    def strike_disk_full(self):
        self.disk.full = True
        self.disk.brim = self.rng.random() < 0.5
        full_ms = self.rng.randrange(1000, 12_000)
        self.at(full_ms, self.disk_has_room)
        if "kill" in self.faults:  # while settlements wait for room
            for worker in self.workers:
                if worker is not None:
                    self.at(self.rng.randrange(full_ms), worker.die)

    def disk_has_room(self):
        self.disk.full = self.disk.brim = False

    def strike_bad_block(self):
        self.disk.sick = True
        self.at(self.rng.randrange(50, 1000), self.disk_is_well)

    def disk_is_well(self):
        self.disk.sick = False

    def strike_clock(self):
        self.wall += self.rng.choice((-86_400_000, -3_600_000, -500, 500, 3_600_000, 86_400_000))

    def strike_limits(self):
        limits = self.oracle.limits
        row = limits[self.rng.choice(sorted(limits))]
        kind = self.store._accounts[row.account].kind
        if kind in ("grant", "lease"):
            return False
        amount = max(0, int(min(row.amount, 100_000) * self.rng.choice((0, 0.3, 0.9, 1.5, 3))))
        self.ask("limit", account=row.account, unit=row.unit, amount=amount, window=row.window, zone=row.zone)
        return None

    def strike_revoke(self):
        rows = [row for row in self.accounts() if row.state == "live" and row.kind in ("key", "agent")]
        if len(rows) < 4:
            return False
        self.ask("revoke", account=self.rng.choice(rows).id)
        return None

    def strike_grants(self):
        rows = list(self.accounts())
        grants = [row for row in rows if row.kind in ("grant", "lease") and row.state == "live"]
        if grants and self.rng.random() < 0.4:
            self.ask("end", account=self.rng.choice(grants).id)
        elif len(grants) < 6:
            expires_ms = self.wall_ms() + self.rng.randrange(1, 20_000) if self.rng.random() < 0.5 else None
            self.ask(
                "allocate",
                parent=self.rng.choice(rows).id,
                amount=self.rng.choice((50, 500, 2000)),
                name=f"g{self.asked}",
                kind=self.rng.choice(("grant", "lease")),
                expires_ms=expires_ms,
            )

    def strike_posts(self):
        rows = [row for row in self.accounts() if row.state == "live"]
        self.ask("post", account=self.rng.choice(rows).id, microdollars=self.rng.randrange(300))

    def strike_corrections(self):
        """An invoice tells what an attempt cost that was charged for more."""
        found = [
            (key, bill)
            for key, bill in list(self.bills.items())[-40:]
            if bill.billed and key not in self.corrected and key in self.oracle.entries
        ]
        if not found:
            return False
        key, bill = self.rng.choice(found)
        entry = self.oracle.entries[key]
        account = self.store._accounts[entry.account]
        while account is not None:  # what an allocation that is over gets back is its parent's of today
            if account.kind in ("grant", "lease"):
                return False
            account = None if account.parent is None else self.store._accounts[account.parent]
        charged = tuple(map(min, entry.charged, map(max, bill.amounts, entry.charged)))
        charged = tuple(min(had, true) for had, true in zip(charged, bill.amounts, strict=True))
        self.ask("correct", holder=key[0], attempt=key[1], charged=charged)
        return None
