"""What a line says, where it goes, and that nobody waits for it."""

import errno
import logging
import os
import re
import subprocess
import sys
import threading
import time
import warnings
from datetime import datetime
from pathlib import Path

import pytest

from fastroute import logs

log = logging.getLogger("fastroute.test")


def test_a_line_is_one_json_object_with_its_moment_its_author_and_whatever_was_added(started, lines):
    book = started(worker=3)
    log.info("served %s in %d ms", "alice", 12, extra={"request_id": "req_1", "path": Path("/x"), "n": {"a": [1]}})
    assert book.flush()
    (line,) = lines()
    moment = datetime.fromisoformat(line.pop("ts"))
    assert moment.utcoffset() is not None
    assert abs(moment.timestamp() - time.time()) < 60
    assert line == {
        "level": "INFO",
        "logger": "fastroute.test",
        "worker": 3,
        "message": "served alice in 12 ms",
        "request_id": "req_1",
        "path": "/x",
        "n": {"a": [1]},
    }


def test_the_moment_has_milliseconds_and_says_utc(started, path):
    book = started()
    log.info("x")
    book.flush()
    assert re.match(rb'{"ts":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z","level":', path.read_bytes())


def test_one_request_is_one_line(started, lines):
    book = started()
    book.request("req_7", method="POST", path="/v1/chat/completions", status=200, ms=112, model="m")
    book.flush()
    (line,) = lines()
    assert line.pop("ts")
    assert line == {
        "level": "INFO",
        "logger": "fastroute.request",
        "message": "request",
        "request_id": "req_7",
        "method": "POST",
        "path": "/v1/chat/completions",
        "status": 200,
        "ms": 112,
        "model": "m",
    }


def test_the_file_has_the_level_that_was_asked_for_and_stderr_has_warnings_in_words(started, lines, capsys):
    book = started("DEBUG")
    for level in ("debug", "info", "warning", "error", "critical"):
        getattr(log, level)("a %s", level, extra={"request_id": "req_1"} if level == "error" else None)
    book.flush()
    assert [line["level"] for line in lines()] == ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]
    shown = capsys.readouterr().err.splitlines()
    assert [line.split(" ", 1)[1] for line in shown] == [
        "WARNING fastroute.test: a warning",
        "ERROR fastroute.test [req_1]: a error",
        "CRITICAL fastroute.test: a critical",
    ]


def test_at_error_a_warning_is_for_stderr_only_and_requests_are_not_written(started, path, capsys):
    book = started("ERROR")
    log.warning("careful")
    book.request("req_1", status=200)
    book.flush()
    assert path.read_bytes() == b""
    assert "careful" in capsys.readouterr().err


def test_other_libraries_are_heard_from_warning_up(started, lines):
    book = started("DEBUG")
    logging.getLogger("httpx").info("POST https://example.test")
    logging.getLogger("httpx").warning("odd")
    book.flush()
    assert [line["message"] for line in lines()] == ["odd"]


def test_an_exception_comes_with_its_traceback_in_the_same_line(started, lines, capsys):
    book = started()
    try:
        raise ValueError("no such\nthing")
    except ValueError:
        log.exception("failed")
    book.flush()
    (line,) = lines()
    assert line["message"] == "failed"
    assert "Traceback" in line["exception"]
    assert "no such\nthing" in line["exception"]
    assert "ValueError" in capsys.readouterr().err


def test_a_message_cannot_make_a_line_of_its_own_on_the_terminal(started, capsys):
    book = started()
    log.warning("name %s", "x\n2026-01-01 CRITICAL forged\x1b[2J")
    book.flush()
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "\x1b" not in shown


@pytest.mark.parametrize(
    "value", [2**70, "\ud800", b"\xff\x00", {1: {2}}, float("nan"), ValueError("x"), object, 3 + 4j, "x" * 1_000_000]
)
def test_whatever_is_added_the_line_is_written_and_is_json_of_bounded_length(started, lines, path, value):
    book = started()
    log.info("odd", extra={"value": value})
    book.request("req_1", value=value)
    book.flush()
    assert [line["message"] for line in lines()] == ["odd", "request"]
    assert path.stat().st_size < 300_000
    assert book.dropped == 0


def test_a_value_inside_itself_is_written_too(started, lines):
    book = started()
    loop: list[object] = []
    loop.append(loop)
    log.info("odd", extra={"value": loop})
    book.flush()
    assert [line["message"] for line in lines()] == ["odd"]


def test_a_message_with_the_wrong_arguments_is_said_as_it_stands(started, lines):
    book = started()
    book.record(logging.LogRecord("fastroute.test", logging.INFO, __file__, 1, "%d of %d", ("one",), None))
    book.flush()
    assert lines()[0]["message"] == "%d of %d % ('one',)"


def test_a_value_that_cannot_be_shown_costs_its_own_line_only(started, lines):
    class Hostile:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    book = started()
    log.info("bad", extra={"value": Hostile()})
    log.info("good")
    book.flush()
    assert [line["message"] for line in lines()] == ["log lines were dropped", "good"]
    assert book.dropped == 1


def test_a_full_queue_drops_and_counts_and_the_caller_never_waits(started, lines, monkeypatch):
    """The writer is held up; everything beyond the queue is lost, and the log itself says how much."""
    counted: list[int] = []
    book = started(on_drop=counted.append)
    held, free = threading.Event(), threading.Event()
    write = book._file.write

    def slow(block: bytes) -> None:
        held.set()
        assert free.wait(10)
        write(block)

    monkeypatch.setattr(book._file, "write", slow)
    log.info("first")
    assert held.wait(10)
    for n in range(logs.QUEUE_MAX + 25):
        book.request("req", n=n)
    assert book.dropped == sum(counted) == 25
    free.set()
    assert book.flush()
    found = lines()
    assert [line["dropped"] for line in found if line["message"] == "log lines were dropped"] == [25]
    assert len(found) == 1 + logs.QUEUE_MAX + 1


def test_a_full_disk_drops_and_counts_and_recovers_by_itself(started, lines, monkeypatch):
    counted: list[int] = []
    book = started(on_drop=counted.append)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        for _ in range(3):
            log.info("lost")
        assert book.flush()
    assert sum(counted) == 3
    log.info("back")
    assert book.flush()
    assert [(line["message"], line.get("dropped")) for line in lines()] == [
        ("log lines were dropped", 3),
        ("back", None),
    ]


def test_a_line_torn_by_a_full_disk_does_not_spoil_the_next(started, path, monkeypatch):
    book = started()
    whole = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda fd, block: whole(fd, block[:20]))
        log.info("torn")
        book.flush()
    log.info("whole")
    book.flush()
    torn, *rest = path.read_bytes().splitlines()
    assert len(torn) == 20
    assert [b'"message":"whole"' in line for line in rest if b'"whole"' in line] == [True]


def test_warnings_and_dead_threads_are_logged_like_everything_else(started, lines):
    book = started()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old way", UserWarning, stacklevel=1)

    def fail() -> None:
        raise LookupError("gone")

    thread = threading.Thread(target=fail, name="helper")
    thread.start()
    thread.join(10)
    book.flush()
    first, second = lines()
    assert first["logger"] == "py.warnings"
    assert "old way" in first["message"]
    assert second["message"] == "thread helper ended by an exception"
    assert "LookupError: gone" in second["exception"]


def test_an_exception_that_ends_the_process_is_in_the_log_with_its_keys_masked(path):
    program = (
        "import sys; from pathlib import Path; from fastroute import logs\n"
        "logs.setup('INFO', Path(sys.argv[1]))\n"
        "raise RuntimeError('the key sk-live-0123456789abcdef is refused')\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=30)
    assert ended.returncode == 1
    assert "sk-*** is refused" in ended.stderr
    assert "0123456789" not in ended.stderr + path.read_text()
    assert "RuntimeError" in path.read_text()


def test_everything_is_as_before_after_shutdown(path):
    def world() -> list[object]:
        root = logging.getLogger()
        return [
            *(root.level, logging.getLogger("fastroute").level, list(root.handlers), warnings.showwarning),
            *(sys.excepthook, threading.excepthook, sys.unraisablehook, threading.active_count()),
        ]

    before = world()
    logs.setup("DEBUG", path)
    logs.setup("INFO", path)
    logs.shutdown()
    logs.shutdown()
    assert world() == before


def test_what_was_logged_before_shutdown_is_written_by_then(path, lines):
    book = logs.setup("INFO", path)
    for n in range(2000):
        book.request("req", n=n)
    logs.shutdown()
    assert [line["n"] for line in lines()] == list(range(2000))


def test_without_a_file_warnings_still_reach_stderr(capsys):
    book = logs.setup("INFO", None)
    log.warning("careful")
    book.request("req_1", status=200)
    book.flush()
    logs.shutdown()
    assert capsys.readouterr().err.endswith("WARNING fastroute.test: careful\n")


def test_a_log_that_cannot_be_written_is_said_at_the_start(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(logs.LogError, match=r"file/router\.log cannot be written: .*log\.path"):
        logs.setup("INFO", tmp_path / "file" / "router.log")
