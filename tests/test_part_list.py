"""Lists of parts: what was written is read again, and what is no list is told by its line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigdofs.errors import FormatError
from jigdofs.format.checksum import Checksum
from jigdofs.format.part import Part
from jigdofs.format.part_list import FIRST_LINE, line, parse

MD5 = Part(Checksum(bytes(range(16))), 7)
SHA256 = Part(Checksum(bytes(range(32))), 123_456)
ONE, TWO = line(MD5, "a.deb"), line(SHA256, "b.deb")

_digests = st.binary(min_size=16, max_size=16) | st.binary(min_size=32, max_size=32)
_parts = st.builds(Part, st.builds(Checksum, _digests), st.integers(0, 10**15 - 1))
# what a name may be: any text, and bytes that are no UTF-8 as they come out of os.fsdecode
_names = st.text(max_size=12) | st.binary(max_size=12).map(lambda raw: raw.decode("utf-8", "surrogateescape"))
_breaks = st.sampled_from(
    ["\n", "\r", "\r\n", "\x00", "\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\udcff", "# "]
)
_odd_names = st.lists(_names | _breaks, max_size=4).map("".join)


def parsed(text: str) -> list[Part]:
    return list(parse(text, "list"))


@given(listed=st.lists(st.tuples(_parts, _odd_names), max_size=8))
def test_round_trip(listed: list[tuple[Part, str]]) -> None:
    """Whatever the names are, the parts come back, each once, in the order of their first line."""
    lines = [line(part, name) for part, name in listed]
    assert [one.count("\n") for one in lines] == [1] * len(lines)
    text = (FIRST_LINE + "".join(lines)).encode().decode()  # as a file has it
    assert parsed(text) == list(dict.fromkeys(part for part, _ in listed))


def test_what_a_line_looks_like() -> None:
    """Checksum, length and name, and no blank at the end where there is no name."""
    assert ONE == "md5:000102030405060708090a0b0c0d0e0f 7 a.deb\n"
    assert line(MD5, "") == "md5:000102030405060708090a0b0c0d0e0f 7\n"
    assert line(MD5, "two\nlines\x85") == "md5:000102030405060708090a0b0c0d0e0f 7 two\\nlines\\x85\n"


def test_each_part_once_in_order() -> None:
    """A part that comes again is left out, whatever it is called there; another length is another part."""
    other = Part(MD5.checksum, 8)
    text = FIRST_LINE + TWO + ONE + line(SHA256, "another name") + line(other, "") + ONE
    assert parsed(text) == [SHA256, MD5, other]


def test_comments_and_blank_lines() -> None:
    """People may comment on a list, leave lines blank, indent and align."""
    text = f"{FIRST_LINE}\n# mine\n  # indented\n\t\n  {ONE}{TWO.replace(' ', chr(9), 1)}# the end"
    assert parsed(text) == [MD5, SHA256]


@pytest.mark.parametrize("odd", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028"])
def test_only_a_line_feed_ends_a_line(odd: str) -> None:
    """A comment or name that a person wrote may hold what other programs take for the end of a line."""
    text = f"{FIRST_LINE}# one{odd}comment\n{ONE.rstrip()}{odd}x y\nbad\n"
    with pytest.raises(FormatError) as caught:
        parsed(text)
    assert caught.value.line == 4


def test_carriage_returns() -> None:
    """A list that went through Windows is the same list."""
    assert parsed((FIRST_LINE + ONE + "# x\n" + TWO).replace("\n", "\r\n")) == [MD5, SHA256]


@pytest.mark.parametrize("text", [FIRST_LINE, FIRST_LINE.rstrip(), FIRST_LINE + "\n\n"])
def test_an_empty_list(text: str) -> None:
    """A run that touched nothing wrote a list all the same."""
    assert parsed(text) == []


@pytest.mark.parametrize("end", range(len(TWO)))
def test_a_last_line_that_was_cut(end: int) -> None:
    """Wherever a crash cut the last line, no part comes out of it that was never written."""
    whole = end > len(TWO) - len(" b.deb\n")
    assert parsed(FIRST_LINE + ONE + TWO[:end]) == [MD5, SHA256][: 1 + whole]


@pytest.mark.parametrize(
    "garbage",
    [
        "garbage",
        "md5:00 7 x",
        "md5:000102030405060708090a0b0c0d0e0f",
        "md5:000102030405060708090a0b0c0d0e0f x",
        "md5:000102030405060708090a0b0c0d0e0f -1",
        "md5:000102030405060708090A0B0C0D0E0F 7",
        "sha256:000102030405060708090a0b0c0d0e0f 7",
        "sha1:000102030405060708090a0b0c0d0e0f00000000 7",
        "md5:000102030405060708090a0b0c0d0e0f 1234567890123456",
        "md5:000102030405060708090a0b0c0d0e0f \u0667",
        "md5:000102030405060708090a0b0c0d0e0f 7x",
    ],
)
def test_a_line_that_is_none(garbage: str) -> None:
    """A malformed line is an error with its number; what stands before it was given out."""
    parts = parse(f"{FIRST_LINE}# two\n{ONE}{garbage}\n{TWO}", "list")
    assert next(parts) == MD5
    with pytest.raises(FormatError, match=r"list:4: is no checksum and length"):
        next(parts)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n",
        ONE,
        "\n" + FIRST_LINE,
        "# jigdofs part list 2\n",
        "# jigdofs part list\n",
        "# jigdofs part list 1x\n",
    ],
)
def test_another_first_line(text: str) -> None:
    """What does not begin as a list does, is none."""
    with pytest.raises(FormatError, match="no list of parts"):
        parsed(text)
