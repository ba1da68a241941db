"""S23, S24: nothing that looks like a key leaves through the log, whichever part of a line carries it."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastroute import logs
from fastroute.logs import Redactor

log = logging.getLogger("fastroute.test")

JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
CANARIES = {
    "sk-1234": "sk-***",
    "sk-proj-Ab3_9xYz-0123456789": "sk-***",
    "sk-ant-api03-AAAABBBBCCCC": "sk-***",
    "vk-5f6a7b8c9d": "vk-***",
    "fr_live_a1b2c3d4_0123456789abcdef": "fr_***",
    "ic_0123456789abcdef": "ic_***",
    "AIzaSyD-0123456789abcdefghijklmnopqrstu": "AIza***",
    "gsk_0123456789abcdef": "gsk_***",
    JWT: "eyJ***",
    "Bearer hunter2": "Bearer ***",
    "Bearer x": "Bearer ***",
    "bearer 0123456789": "bearer ***",
}
WHOLE = pytest.mark.parametrize(("canary", "mask"), CANARIES.items(), ids=[canary[:12] for canary in CANARIES])
AROUND = [
    "{}",
    "key={}",
    "'{}'",
    '{{"key": "{}"}}',
    "(see {})",
    "a\n{}",
    "a\t{} b",
    r"b'x\n{}'",
    "%3D{}",
    "https://h/?k={}&b",
]


@WHOLE
@pytest.mark.parametrize("around", AROUND)
def test_a_key_is_masked_wherever_it_stands_in_a_text(canary, mask, around):
    text = Redactor().text(around.format(canary))
    assert text == around.format(mask)


@pytest.mark.parametrize(
    "text",
    [
        "task-oriented and risk-averse desk-bound work",
        "disk-usage of a mask-based scheme",
        "metric_total, basic_auth, topic_name_long, traffic_shaping_rules",
        "fr_FR is a locale",
        "the bearer token is missing; Bearer authentication or bearer of news",
        "sk- is a prefix, and so are vk- and ic_",
        "router_requests_total",
        "mistral-small-latest",
    ],
)
def test_ordinary_words_stay(text):
    assert Redactor().text(text) == text


@WHOLE
def test_a_canary_comes_out_of_no_part_of_a_line_and_not_on_stderr(started, path, capsys, canary, mask):
    """Message, arguments, added fields at any depth and as names, exceptions and their causes, requests."""
    book = started()
    log.warning(f"in the message {canary}")
    log.warning("in the arguments %s and %r", canary, {"Authorization": canary})
    log.warning("added", extra={"field": canary, "deep": {"a": [canary, {canary: 1}]}, "error": ValueError(canary)})
    log.warning("bytes", extra={"raw": canary.encode(), "many": {canary}})
    try:
        try:
            raise KeyError(canary)
        except KeyError as error:
            raise RuntimeError(f"because of\n{canary}") from error
    except RuntimeError:
        log.exception("failed")
    book.record(logging.LogRecord("fastroute.test", logging.ERROR, __file__, 1, "wrong arguments %d", (canary,), None))
    book.request("req_1", model=canary, path=f"/v1/{canary}")
    log.warning("odd", extra={"big": 2**70, "field": canary})
    book.flush()
    secret = canary.split(" ")[-1]
    written = path.read_text() + capsys.readouterr().err
    assert written.count("\n") > 15
    if len(secret) > 1:
        assert secret not in written
    assert mask in written


def test_a_secret_of_no_known_shape_is_masked_when_it_was_named(started, path, capsys):
    secret = 'Q7w"e\\rTy0Zx'
    book = started(secrets=[secret, secret + "Longer", "short"])
    log.warning("refused: %s", secret, extra={"field": [secret + "Longer"]})
    log.warning("short")
    book.flush()
    written = path.read_text() + capsys.readouterr().err
    assert "Q7w" not in written
    assert "Longer" not in written
    assert "short" in written  # too short to be told from a word


@given(st.text(max_size=60), st.sampled_from(sorted(CANARIES)), st.text(max_size=60))
def test_a_key_between_any_texts_is_masked_in_the_line_as_in_the_text(before, canary, after):
    """Whatever JSON makes of the surroundings, the key is found: only letters and digits right before it hide it."""
    redactor = Redactor()
    if (before and before[-1].isalnum()) or canary.startswith("Bearer x"):
        before += " "
    text = f"{before}{canary}{after}"
    line = redactor.lines(logs._encoded({"message": text}))
    secret = canary.split(" ")[-1].encode()
    if len(secret) > 4:
        assert secret not in line
        assert secret.decode() not in redactor.text(text)


@given(st.text(max_size=200))
def test_masking_twice_is_masking_once(text):
    redactor = Redactor()
    assert redactor.text(redactor.text(text)) == redactor.text(text)
