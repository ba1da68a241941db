"""What happened, written down: JSON lines into a file of the day, warnings to people on stderr, keys in neither.

Whoever logs only appends to a bounded queue in memory; one thread formats, masks and writes. When the disk is slow or full,
lines are dropped and counted: no request ever waits for a log. Several processes may write to the same file.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import stat
import sys
import threading
import time
import traceback
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

import orjson

from fastroute._lines import Lines, Sheet
from fastroute.clock import Clock, SystemClock
from fastroute.errors import FastrouteError
from fastroute.redaction import SIGNS, scrub_text

QUEUE_MAX = 10_000
KEEP_DAYS = 14
# Lines of so long go out in one write: one wake-up of the thread and one system call for all of them.
GATHER_S = 0.05
_BATCH = 500
_TEXT_MAX = 32_768
_SECRET_MIN = 8
_LINE_MAX = 131_072
_FIELD_MAX = 1024
_FORMS_MAX = 1024

# A record with its message, a request with its moment, lines of others, or somebody who waits until all before it is written.
_Said = tuple[logging.LogRecord, str] | tuple[int, str, dict[str, Any]]
_Entry: TypeAlias = _Said | Sheet | threading.Event
# surface, status, model, backend, reason, attempts, stream: what the lines of thousands of requests share.
Kind = tuple[str, int, str | None, str | None, str, int, bool]
_Stamp = tuple[int, str]
# What every record has; the rest of one is what its author added with `extra`. Our own names cannot be taken.
_STANDARD = {
    *vars(logging.makeLogRecord({})),
    *("message", "asctime", "taskName", "ts", "level", "logger", "worker", "exception"),
}


class LogError(FastrouteError):
    """The log cannot be written where the configuration says."""


class Redactor:
    """Masks whatever looks like a key, and the given secrets whatever they look like."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        # Longest first, so that a secret that begins with another is masked whole.
        self._secrets = sorted({secret for secret in secrets if len(secret) >= _SECRET_MIN}, key=len, reverse=True)
        self._signs = [sign.encode() for sign in SIGNS]
        self._signs += [orjson.dumps(secret)[1:-1] for secret in self._secrets]

    def text(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return scrub_text(text)

    def lines(self, block: bytes | bytearray) -> bytes | bytearray:
        """JSON lines with every string of them masked; nearly all are clean, which a few searches tell of all at once."""
        if not self._suspects(block):
            return block
        return b"".join([self._masked(line) if self._suspects(line) else line for line in block.splitlines(True)])

    def _suspects(self, block: bytes | bytearray) -> bool:
        return any(sign in block for sign in self._signs)

    def _masked(self, line: bytes | bytearray) -> bytes:
        return orjson.dumps(self._value(orjson.loads(line)), option=orjson.OPT_APPEND_NEWLINE)

    def _value(self, value: Any) -> Any:
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list):
            return [self._value(one) for one in value]
        if isinstance(value, dict):
            return {self.text(key): self._value(one) for key, one in value.items()}
        return value


class DailyFile:
    """A file several processes append to, which gets the name of its day at midnight UTC; the last fourteen are kept.

    Which day the file is of is written in a file beside it, whose lock is held while names change: so it is renamed once,
    by whoever comes first, also when nobody was running at midnight. A clock that goes back renames nothing.
    """

    def __init__(self, path: Path, clock: Clock, keep: int = KEEP_DAYS) -> None:
        self._path = path
        self._clock = clock
        self._keep = keep
        self._fd = -1
        self._day = ""
        self._torn = False

    def open(self) -> None:
        """Open today's file; `LogError` when there can be none."""
        try:
            self._turn(self._today())
        except OSError as error:
            raise LogError(f"the log {self._path} cannot be written: {error.strerror}; see log.path") from None

    def write(self, block: bytes | bytearray) -> None:
        """Append whole lines in one write, which no line of another process falls into."""
        today = self._today()
        if self._fd < 0 or today > self._day or self._moved():
            self._turn(today)
        if self._torn:  # a full disk took half a line; it shall not spoil the next
            block = b"\n" + block
        written = os.write(self._fd, block)
        self._torn = written < len(block) and not block[:written].endswith(b"\n")
        if written < len(block):
            raise OSError(f"{len(block) - written} of {len(block)} bytes were not taken")

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _today(self) -> str:
        return self._clock.now().astimezone(UTC).date().isoformat()

    def _moved(self) -> bool:
        """Whether the name leads elsewhere by now: another process turned the page, or somebody removed the file."""
        try:
            there, here = self._path.stat(), os.fstat(self._fd)
        except FileNotFoundError:
            return True
        return (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino)

    def _turn(self, today: str) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._path.exists() and not stat.S_ISREG(self._path.stat().st_mode):
            self._reopen()  # a terminal, a pipe, /dev/null: nothing that has days
            self._day = today
            return
        with self._locked() as marker:
            day = os.pread(marker, 10, 0).decode("ascii", "replace")
            if not re.fullmatch(r"\d{4}-\d\d-\d\d", day):
                day = self._age(today)
            if day < today:
                self._rename(day)
                day = today
            os.pwrite(marker, day.encode(), 0)
            self._reopen()
            self._day = day

    def _reopen(self) -> None:
        self.close()
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._torn = False

    def _age(self, today: str) -> str:
        """The day of a file that nothing is written about."""
        try:
            changed = self._path.stat().st_mtime
        except FileNotFoundError:
            return today
        return datetime.fromtimestamp(changed, UTC).date().isoformat()

    def _rename(self, day: str) -> None:
        target = self._path.with_name(f"{self._path.name}.{day}")
        again = 0
        while target.exists():
            again += 1
            target = self._path.with_name(f"{self._path.name}.{day}.{again}")
        with suppress(FileNotFoundError):
            self._path.rename(target)
        days = sorted(self._path.parent.glob(f"{self._path.name}.[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9]*"))
        for old in days[: -self._keep]:
            old.unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[int]:
        path = self._path.with_name(f"{self._path.name}.lock")
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield fd
        finally:
            os.close(fd)


class Logs(Lines):
    """The log of one process: a queue, and the thread that empties it."""

    def __init__(
        self,
        level: int,
        file: DailyFile | None,
        worker: int | None = None,
        secrets: Iterable[str] = (),
        on_drop: Callable[[int], None] | None = None,
    ) -> None:
        self.level = level
        self.dropped = 0
        self._file = file
        self._worker = {} if worker is None else {"worker": worker}
        self._redactor = Redactor(secrets)
        self.on_drop = on_drop
        self._told = 0
        self._requests = file is not None and level <= logging.INFO
        self._closing = False
        self._second: _Stamp = (-1, "")
        self._instant: _Stamp = (-1, "")
        self._forms = {}
        self.most = QUEUE_MAX
        self.renew_after_fork()
        self._thread = threading.Thread(target=self._run, name="logs", daemon=True)
        self._thread.start()

    def request(self, request_id: str, **fields: Any) -> None:
        """One line for one request that is over; the fields are read later, so they are values that do not change."""
        if self._requests:
            self._put((time.time_ns(), request_id, fields))

    def record(self, record: logging.LogRecord) -> None:
        try:
            message = record.getMessage()
        except (TypeError, ValueError, LookupError, AttributeError):
            message = f"{record.msg} % {record.args!r}"  # said wrongly, but said
        self._put((record, message))
        if record.levelno >= logging.WARNING:
            self._urgent.set()

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Wait until what was logged so far is written; False when it took too long."""
        written = threading.Event()
        self._queue.append(written)
        self._urgent.set()
        self._waiting.set()
        return self._thread.is_alive() and written.wait(timeout_s)

    def close(self, timeout_s: float = 5.0) -> None:
        """Write what is left and end the thread, but wait for a stuck disk no longer than this."""
        self._closing = True
        if self._thread.is_alive():  # after a fork it is not: it is the parent's
            self._urgent.set()
            self._waiting.set()
            self._thread.join(timeout_s)
        if not self._thread.is_alive() and self._file is not None:
            self._file.close()

    def pending(self) -> list[_Entry]:
        """What was logged and not yet taken; after a fork, what this child has logged so far."""
        return list(self._queue)

    def take(self, entries: list[_Entry]) -> None:
        """Write what another log of this process could not."""
        for entry in entries:
            if isinstance(entry, Sheet):
                self.adopt(entry)
            self._queue.append(entry)
        if entries:
            self.wake()

    def renew_after_fork(self) -> None:
        """In a child: forget the parent's lines, and its locks, which nobody here would ever release."""
        self._queue: deque[_Entry] = deque()
        self._waiting = threading.Event()
        self._urgent = threading.Event()
        self._dropping = threading.Lock()
        self.awake = False
        self.forget()

    def _put(self, entry: _Entry) -> None:
        if len(self._queue) + self.held >= QUEUE_MAX:
            self._drop(1)
            return
        self._queue.append(entry)
        if not self.awake:
            self.wake()

    def wake(self) -> None:
        """Tell the thread that there is something; it forgets it before it looks, so nothing is overlooked."""
        self.awake = True
        self._waiting.set()

    def _drop(self, lines: int) -> None:
        with self._dropping:
            self.dropped += lines
        if self.on_drop is not None:
            self.on_drop(lines)

    def _run(self) -> None:
        while True:
            self._waiting.wait()
            if not self._closing:
                self._urgent.wait(GATHER_S)
            self._waiting.clear()
            self.awake = False
            self._urgent.clear()
            closing = self._closing
            while self._queue:
                self._write([self._queue.popleft() for _ in range(min(len(self._queue), _BATCH))])
            if closing:
                return

    def _write(self, entries: list[_Entry]) -> None:
        # One growing block: a thousand lines kept one by one cost the allocator four times what they cost to encode.
        block = bytearray()
        lines = 0
        shown: list[str] = []
        waiters: list[threading.Event] = []
        for entry in entries:
            if isinstance(entry, threading.Event):
                waiters.append(entry)
                continue
            if isinstance(entry, Sheet):
                block += self.text_of(entry)
                lines += entry.lines
                continue
            try:
                if len(entry) == 3:
                    at_ns, request_id, fields = entry
                    document, record = self._request(self._moment(at_ns // 1_000_000), request_id, fields), None
                else:
                    record, message = entry
                    document = self._document(record, message)
                if record is None or record.levelno >= self.level:
                    block += self._redactor.lines(_encoded(document))
                    lines += 1
                if record is not None and record.levelno >= logging.WARNING:
                    shown.append(self._redactor.text(_for_people(document)))
            except (TypeError, ValueError, LookupError, AttributeError, RuntimeError):
                self._drop(1)  # what somebody logged cannot be turned into text
        if self._file is not None and lines:
            self._append(self._file, block, lines)
        if shown:
            # Where there is no stderr, or it is closed, nobody reads it.
            with suppress(OSError, ValueError, AttributeError):
                sys.stderr.write("".join(shown))
                sys.stderr.flush()
        for waiter in waiters:
            waiter.set()

    def _append(self, file: DailyFile, block: bytearray, lines: int) -> None:
        told = self.dropped
        if told > self._told:
            lost = {**self._head(time.time_ns() // 1_000_000, "WARNING", __name__), "message": "log lines were dropped"}
            block[:0] = _encoded({**lost, "dropped": told - self._told})
        try:
            file.write(block)
            self._told = told
        except OSError:
            self._drop(lines)

    def _request(self, moment: str, request_id: str, fields: dict[str, Any]) -> dict[str, Any]:
        return {
            "ts": moment,
            "level": "INFO",
            "logger": "fastroute.request",
            **self._worker,
            "message": "request",
            "request_id": request_id,
            **fields,
        }

    def form_of(self, kind: Kind) -> tuple[bytes, bytes, bytes, bytes, bytes]:
        """What stands around a line's moment, name, latency and cost, encoded and masked once for all lines of a kind."""
        surface, status, model, backend, reason, attempts, stream = kind
        told = {"surface": surface, "status": status, "model": model, "backend": backend, "reason": reason}
        masked = {field: self._redactor.text(one) if isinstance(one, str) else one for field, one in told.items()}
        fields = {**masked, "attempts": attempts, "stream": stream, "latency_ms": "\0", "cost_picodollars": "\0"}
        form = _encoded({**self._request("\0", "\0", fields), "cache_hit": reason == "cache_hit"})
        # Found by the field before it: no text's encoding has a quote without a backslash, whatever a model is called.
        for field, left in (
            (b"ts", b'"\0"'),
            (b"request_id", b'"\0"'),
            (b"latency_ms", b"\0"),
            (b"cost_picodollars", b"\0"),
        ):
            form = form.replace(b'"%b":"\\u0000"' % field, b'"%b":%b' % (field, left))
        moment, name, latency, cost, end = form.split(b"\0")
        if len(self._forms) >= _FORMS_MAX:
            self._forms.clear()
        pieces = self._forms[kind] = (moment, name, latency, cost, end)
        return pieces

    def second_of(self, second: int) -> str:
        """A moment's text up to its seconds."""
        return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")

    def _document(self, record: logging.LogRecord, message: str) -> dict[str, Any]:
        document = self._head(int(record.created * 1000), record.levelname, record.name)
        document["message"] = message[:_TEXT_MAX]
        for name, value in vars(record).items():
            if name not in _STANDARD:
                document[name] = value
        if record.exc_info and record.exc_info[0] is not None:
            document["exception"] = _traceback(*record.exc_info)[:_TEXT_MAX]
        elif record.exc_text:
            document["exception"] = record.exc_text[:_TEXT_MAX]
        return document

    def _head(self, at_ms: int, level: str, logger: str) -> dict[str, Any]:
        return {"ts": self._moment(at_ms), "level": level, "logger": logger, **self._worker}

    def _moment(self, at_ms: int) -> str:
        if at_ms != self._instant[0]:  # a busy worker says several lines within a millisecond
            second, ms = divmod(at_ms, 1000)
            if second != self._second[0]:
                self._second = (second, self.second_of(second))
            self._instant = (at_ms, f"{self._second[1]}.{ms:03d}Z")
        return self._instant[1]


def _traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> str:
    # Without columns no source line is parsed: CPython 3.11 fails with SystemError when two threads parse at once.
    whole = traceback.TracebackException(kind, error, trace)
    left = [whole]
    while left:
        one = left.pop()
        for frame in one.stack:
            frame.colno = frame.end_colno = None
        left += [cause for cause in (one.__cause__, one.__context__, *(one.exceptions or ())) if cause is not None]
    return "".join(whole.format()).rstrip("\n")


def _encoded(document: dict[str, Any]) -> bytes:
    options = orjson.OPT_APPEND_NEWLINE | orjson.OPT_NON_STR_KEYS
    try:
        line = orjson.dumps(document, default=_plain, option=options)
        if len(line) <= _LINE_MAX:
            return line
    except TypeError:  # half a surrogate pair, an integer beyond 64 bits, a value inside itself
        pass
    return orjson.dumps({_plainest(str(name)): _plainest(value) for name, value in document.items()}, option=options)


def _plain(value: object) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes | bytearray) else str(value)


def _plainest(value: object) -> str | int:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()[:_TEXT_MAX]
    return value if isinstance(value, int) and -(2**63) <= value < 2**63 else ascii(value)[:_FIELD_MAX]


# A message is one line on a terminal, whatever somebody put into it; a traceback keeps its line ends.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))}
_CONTROLS_BUT_LF = {code: text for code, text in _CONTROLS.items() if code != 10}


def _for_people(document: dict[str, Any]) -> str:
    request = f" [{document['request_id']}]" if "request_id" in document else ""
    head = f"{document['ts']} {document['level']} {document['logger']}{request}: {document['message']}"
    trace = document.get("exception", "")
    return head.translate(_CONTROLS) + "\n" + (trace.translate(_CONTROLS_BUT_LF) + "\n" if trace else "")


class _Queued(logging.Handler):
    """Hands every record of this process to its log; nothing here takes a lock."""

    def __init__(self, logs: Logs) -> None:
        super().__init__()
        self.logs = logs
        self.restore: list[Callable[[], None]] = []

    def handle(self, record: logging.LogRecord) -> bool:
        self.logs.record(record)
        return True


def setup(
    level: str,
    path: Path | None,
    worker: int | None = None,
    *,
    secrets: Iterable[str] = (),
    on_drop: Callable[[int], None] | None = None,
    clock: Clock | None = None,
) -> Logs:
    """Make this process's log: `level` and above to the file at `path`, warnings and above to stderr as well.

    Other libraries are heard from WARNING up. Warnings of Python and exceptions nobody caught go the same way, for their
    texts can carry keys too. A process that was forked calls this anew. `LogError` when the file cannot be written.
    """
    pending = _uninstall()
    least = logging.getLevelNamesMapping()[level]
    file = None
    if path is not None:
        file = DailyFile(path, clock or SystemClock())
        file.open()
    logs = Logs(least, file, worker, secrets, on_drop)
    os.register_at_fork(after_in_child=_renewal(logs))
    logs.take(pending)
    handler = _Queued(logs)
    root, ours = logging.getLogger(), logging.getLogger("fastroute")
    before = (root.level, ours.level)
    root.addHandler(handler)
    root.setLevel(max(least, logging.WARNING))
    ours.setLevel(min(least, logging.WARNING))
    _hear_uncaught(handler)

    def levels() -> None:
        root.setLevel(before[0])
        ours.setLevel(before[1])

    handler.restore.append(levels)
    return logs


def shutdown() -> None:
    """Write what is left, end the thread and put everything back as it was; harmless when there is no log."""
    _uninstall()


def _uninstall() -> list[_Entry]:
    pending: list[_Entry] = []
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _Queued)]:
        root.removeHandler(handler)
        for restore in reversed(handler.restore):
            restore()
        handler.logs.close()
        pending += handler.logs.pending()
    return pending


def _renewal(logs: Logs) -> Callable[[], None]:
    there = weakref.ref(logs)  # what is registered for forks can never be taken back

    def renew() -> None:
        logs = there()
        if logs is not None:
            logs.renew_after_fork()

    return renew


def _hear_uncaught(handler: _Queued) -> None:
    log = logging.getLogger("fastroute.uncaught")
    main, thread, unraisable, warning = sys.excepthook, threading.excepthook, sys.unraisablehook, warnings.showwarning

    def in_main(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            main(kind, error, trace)
            return
        log.critical("this process ends by an exception", exc_info=(kind, error, trace))
        handler.logs.flush()

    def in_thread(args: threading.ExceptHookArgs) -> None:
        name = args.thread.name if args.thread else "?"
        error = args.exc_value or args.exc_type()
        log.error("thread %s ended by an exception", name, exc_info=(args.exc_type, error, args.exc_traceback))

    def nowhere(args: sys.UnraisableHookArgs) -> None:
        error = args.exc_value or args.exc_type()
        trace = (args.exc_type, error, args.exc_traceback)
        log.error("%s", args.err_msg or "an exception nobody could be told of", exc_info=trace)

    logging.captureWarnings(True)
    sys.excepthook, threading.excepthook, sys.unraisablehook = in_main, in_thread, nowhere

    def restore() -> None:
        logging.captureWarnings(False)
        warnings.showwarning = warning
        sys.excepthook, threading.excepthook, sys.unraisablehook = main, thread, unraisable

    handler.restore.append(restore)
