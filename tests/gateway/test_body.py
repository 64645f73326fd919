"""Bodies: what they may be packed in, and how much of what may be in them."""

from __future__ import annotations

import gzip
import json
import time
import tracemalloc
import zlib

import pytest
from fastapi import HTTPException
from hypothesis import given
from hypothesis import strategies as st

from proactive_prefect.gateway.body import MAX_VALUES, parse_body

LIMIT = 1_048_576
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def refusal(raw: bytes, encoding: str = "", limit: int = LIMIT) -> tuple[int, str]:
    """Status and reason with which a JSON body is refused."""
    with pytest.raises(HTTPException) as error:
        parse_body(raw, "application/json", encoding, limit)
    return error.value.status_code, error.value.detail


@given(anything, st.sampled_from(["", "identity", "gzip", "X-Gzip", "deflate"]))
def test_json_is_read_as_it_was_written_packed_or_not(value: object, encoding: str) -> None:
    """Every value of JSON comes through, under each encoding that is taken."""
    raw = json.dumps(value).encode()
    packed = {"gzip": gzip.compress, "x-gzip": gzip.compress, "deflate": zlib.compress}.get(encoding.lower(), bytes)
    assert parse_body(packed(raw), "application/json", encoding, LIMIT) == value


@pytest.mark.parametrize(("encoding", "packed"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_a_bomb_costs_no_more_than_the_limit(encoding: str, packed: object) -> None:
    """Of what would unpack to 200 MB no more is unpacked than a body may have."""
    bomb = packed(b" " * 200_000_000)  # type: ignore[operator]
    assert len(bomb) < LIMIT
    tracemalloc.start()
    try:
        assert refusal(bomb, encoding)[0] == 413
        assert tracemalloc.get_traced_memory()[1] < 8 * LIMIT
    finally:
        tracemalloc.stop()


def test_a_bomb_in_a_bomb_is_not_looked_into() -> None:
    """Two encodings, one in the other, are not known."""
    assert refusal(gzip.compress(gzip.compress(b"{}")), "gzip, gzip")[0] == 415
    assert refusal(gzip.compress(gzip.compress(b"{}")), "gzip")[0] == 400


@pytest.mark.parametrize(
    "raw",
    [b"", b"{}", gzip.compress(b"{}")[:-1], gzip.compress(b"{}") + b"x", gzip.compress(b"{}") * 2],
)
def test_what_is_not_one_whole_packed_body_is_refused(raw: bytes) -> None:
    """Cut off, with something behind it, or not packed at all."""
    assert refusal(raw, "gzip")[0] == 400


@pytest.mark.parametrize("raw", [b'{"a": 1, "a": 2}', b'[{"b": {"x": 1, "y": 2, "x": 1}}]', b'{"a": 1, "\\u0061": 2}'])
def test_a_key_that_comes_twice_is_refused(raw: bytes) -> None:
    """Of two, who looked before may have seen the other one."""
    assert refusal(raw) == (400, "the body is not JSON: a key comes twice in one object")


def test_values_are_counted_and_commas_in_texts_are_not() -> None:
    """So many values are taken, and texts with any number of commas and brackets in them."""
    assert refusal(b"[" + b"1," * MAX_VALUES + b"1]")[0] == 400
    assert refusal(b"[" + b"[]," * MAX_VALUES + b"1]")[0] == 400
    assert len(parse_body(b"[" + b"1," * (MAX_VALUES - 10) + b"1]", "application/json", "", LIMIT)) == MAX_VALUES - 9
    text = '["\\",{[,' * MAX_VALUES
    assert parse_body(json.dumps([text, text]).encode(), "application/json", "", LIMIT) == [text, text]


@pytest.mark.parametrize(
    "raw", [b'"' + b'\\"' * 500_000, b'"' * 1_000_000, b"[" * 1_000_000, b'["' + b"," * 900_000 + b"\\", b"{" * 900_000]
)
def test_no_body_takes_longer_than_its_length_deserves(raw: bytes) -> None:
    """A megabyte of anything is refused in a moment: the work does not grow with the square of it."""
    began = time.process_time()
    assert refusal(raw)[0] == 400
    assert time.process_time() - began < 5
