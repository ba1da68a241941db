"""Words between quotes: found wherever they stand, as a search of the text for each of them would."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastroute._scan import Words
from fastroute.paying import TELLING

FEW = (b"id", b"idle", b"tools", b"tool", b"\xc3\xa9t\xc3\xa9")


@given(
    st.lists(st.sampled_from([b'"', b"id", b"idle", b"tool", b"s", b"\xc3\xa9t\xc3\xa9", b"\\", b" ", b"\0", b"\xff"]))
)
def test_they_are_found_as_a_search_for_each_would_find_them(parts):
    body = b"".join(parts)
    searched = any(b'"' + word + b'"' in body for word in FEW)
    assert Words(FEW).within(body) is searched


@pytest.mark.parametrize("body", [b"", b'"', b'""', b'"id', b'id"', b'"i"', b'"idl"', b'"ID"', b'"id\0"'])
def test_a_part_of_one_is_none(body):
    assert not Words(FEW).within(body)


def test_every_word_that_tells_of_a_cost_is_found_at_any_depth():
    words = re.findall(rb"\w+", b"tools service_tier background cache_control prompt container id document_url plugins")
    for word in words:
        assert TELLING.within(b'{"a": [{"b": {"%b": 1}}]}' % word)


@pytest.mark.parametrize("hidden", [rb"\u0074ools", rb"tool\u0073", rb"service\u005ftier", rb"too\u006Cs"])
def test_a_letter_that_is_spelled_as_an_escape_may_hide_one(hidden):
    assert TELLING.within(b'{"%b": 1}' % hidden)
    assert TELLING.within(b'{"%b' % hidden)


def test_what_encoders_escape_by_themselves_hides_none():
    text = json.dumps({"text": 'h\u00fc\u4e16\n\t\x01 \\ "'}).encode() + rb'"\u003c \u0026 \u003e \u0027"' + rb'"\u00'
    assert not TELLING.within(text)


def test_words_are_few_and_not_empty():
    with pytest.raises(ValueError):
        Words([b""])
    with pytest.raises(ValueError):
        Words([b"%d" % number for number in range(33)])
