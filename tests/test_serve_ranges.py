"""What a request for a file is answered: ranges and conditions, by the rules of RFC 9110."""

import email.utils
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigdofs.serve.ranges import Answer, Validators, decide

ETAG = b'"e2f5"'
CHANGED_S = 1_700_000_000
OURS = Validators(ETAG, CHANGED_S)
SIZE = 1000


def date(seconds: int) -> bytes:
    return email.utils.formatdate(seconds, usegmt=True).encode()


RANGES: list[tuple[bytes, tuple[int, ...]]] = [
    (b"bytes=0-0", (206, 0, 1)),
    (b"bytes=0-999", (206, 0, 1000)),
    (b"bytes=10-19", (206, 10, 20)),
    (b"bytes=10-", (206, 10, 1000)),
    (b"bytes=990-5000", (206, 990, 1000)),
    (b"bytes=-1", (206, 999, 1000)),
    (b"bytes=-5000", (206, 0, 1000)),
    (b"Bytes = 5 - 6 ", (206, 5, 7)),
    (b"bytes=, 5-6 ,", (206, 5, 7)),
    (b"bytes=1000-", (416,)),
    (b"bytes=1000-2000", (416,)),
    (b"bytes=-0", (416,)),
    (b"bytes=99999999999999999999-", (416,)),
    (b"bytes=0-1,3-4", (416,)),
    (b"bytes=" + b",".join([b"0-"] * 500), (416,)),
    # what is no range of bytes is passed over
    (b"bytes=5-4", (200, 0, 1000)),
    (b"bytes=-", (200, 0, 1000)),
    (b"bytes=", (200, 0, 1000)),
    (b"bytes=a-b", (200, 0, 1000)),
    (b"bytes=0-1,x", (200, 0, 1000)),
    (b"bytes=0x10-0x20", (200, 0, 1000)),
    (b"items=0-1", (200, 0, 1000)),
    (b"", (200, 0, 1000)),
    ("bytes=\u0661-".encode(), (200, 0, 1000)),
    (b"bytes=0-99999999999999999999", (206, 0, 1000)),
]


@pytest.mark.parametrize(("text", "expected"), RANGES, ids=[repr(text)[:30] for text, _ in RANGES])
def test_ranges(text: bytes, expected: tuple[int, ...]) -> None:
    """One range is answered, several are refused, what is none is passed over."""
    assert decide({b"range": text}, SIZE, OURS) == Answer(*expected)


CONDITIONS: list[tuple[dict[bytes, bytes], int]] = [
    ({b"if-none-match": ETAG}, 304),
    ({b"if-none-match": b"W/" + ETAG}, 304),
    ({b"if-none-match": b'"other", ' + ETAG}, 304),
    ({b"if-none-match": b"*"}, 304),
    ({b"if-none-match": b'"other"'}, 200),
    ({b"if-none-match": b'"e2f5'}, 200),
    ({b"if-modified-since": date(CHANGED_S)}, 304),
    ({b"if-modified-since": date(CHANGED_S + 9)}, 304),
    ({b"if-modified-since": date(CHANGED_S - 1)}, 200),
    ({b"if-modified-since": b"yesterday"}, 200),
    # the tag decides where both are given
    ({b"if-none-match": b'"other"', b"if-modified-since": date(CHANGED_S)}, 200),
    ({b"if-match": ETAG}, 200),
    ({b"if-match": b"*"}, 200),
    ({b"if-match": b"W/" + ETAG}, 412),
    ({b"if-match": b'"other"'}, 412),
    ({b"if-unmodified-since": date(CHANGED_S)}, 200),
    ({b"if-unmodified-since": date(CHANGED_S - 1)}, 412),
    ({b"range": b"bytes=0-1", b"if-none-match": ETAG}, 304),
    ({b"range": b"bytes=0-1", b"if-range": ETAG}, 206),
    ({b"range": b"bytes=0-1", b"if-range": b"W/" + ETAG}, 200),
    ({b"range": b"bytes=0-1", b"if-range": b'"other"'}, 200),
    ({b"range": b"bytes=0-1", b"if-range": date(CHANGED_S)}, 206),
    ({b"range": b"bytes=0-1", b"if-range": date(CHANGED_S + 1)}, 200),
    ({b"range": b"bytes=0-1", b"if-range": b"\xff"}, 200),
    ({b"if-range": b'"other"'}, 200),
]


@pytest.mark.parametrize(("headers", "status"), CONDITIONS, ids=str)
def test_conditions(headers: dict[bytes, bytes], status: int) -> None:
    """Validators decide whether anything is sent, and whether a range still holds."""
    assert decide(headers, SIZE, OURS).status == status


def test_an_empty_file() -> None:
    """Of nothing there is a whole, and no range."""
    assert decide({}, 0, OURS) == Answer(200, 0, 0)
    assert decide({b"range": b"bytes=0-"}, 0, OURS) == Answer(416)
    assert decide({b"range": b"bytes=-5"}, 0, OURS) == Answer(416)


fields = st.dictionaries(
    st.sampled_from([b"range", b"if-range", b"if-match", b"if-none-match", b"if-modified-since"]),
    st.binary(max_size=30)
    | st.builds(lambda a, b: b"bytes=%d-%d" % (a, b), st.integers(0, 2000), st.integers(0, 2000)),
)


@given(fields, st.integers(0, 2000))
def test_whatever_is_asked_the_answer_lies_within(headers: dict[bytes, bytes], size: int) -> None:
    """No header is too odd to be answered, and no answer leaves the file."""
    answer = decide(headers, size, OURS)
    assert answer.status in (200, 206, 304, 412, 416)
    assert 0 <= answer.begin <= answer.end <= size
    assert (answer.begin < answer.end) or answer.status != 206


@pytest.mark.parametrize("text", [b" " * 30_000 + b"x" + b" " * 30_000, b"5" + b" " * 60_000 + b"x"])
def test_blanks_in_a_range_cost_little(text: bytes) -> None:
    """A header as long as the server takes it is read once, not once for every blank."""
    before = time.process_time()
    for _ in range(10):
        assert decide({b"range": b"bytes=" + text}, SIZE, OURS) == Answer(200, 0, SIZE)
    assert time.process_time() - before < 1
