"""The types of options, and the exit code of wrong usage."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigdofs.cli import parser
from jigdofs.errors import EXIT_INPUT, UsageError

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *(
            ("0", 0),
            ("1000", 1000),
            ("64k", 64 * KIB),
            ("64K", 64 * KIB),
            ("64kb", 64 * KIB),
            ("64KiB", 64 * KIB),
        ),
        *(("1.5G", 3 * GIB // 2), (" 20 GiB ", 20 * GIB), ("2T", 2048 * GIB), ("1p", GIB * MIB), ("7b", 7)),
        *(("0.5k", 512), ("1.9", 1), ("9007199254740993", 9007199254740993)),
    ],
)
def test_sizes(text: str, value: int) -> None:
    """Sizes are read exactly, units are powers of 1024."""
    assert parser.size(text) == value
    assert parser.size_or_off(text) == value


@pytest.mark.parametrize("text", ["off", "OFF", " none "])
def test_no_size(text: str) -> None:
    """`off` is no limit, where there may be none."""
    assert parser.size_or_off(text) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [("30", 30), ("30s", 30), ("500ms", 0.5), ("2m", 120), ("1.5h", 5400), (" 3 S ", 3), ("0.25", 0.25)],
)
def test_durations(text: str, value: float) -> None:
    """Times are read with their unit, seconds without."""
    assert parser.duration_s(text) == value


@pytest.mark.parametrize(
    ("read", "texts"),
    [
        (
            parser.size,
            ["", "x", "-1", "1e5", "1 k k", "k", "1.k", ".5", "1x", "1kk", "\u0661", "off", "1,5G"],
        ),
        (parser.size_or_off, ["", "-1", "of"]),
        (parser.duration_s, ["", "0", "0.0s", "-1", "1d", "1 s s", "s", "1\u017f", "1m\u017f", "inf", "nan"]),
        (parser.positive, ["", "0", "-1", "1.0", "x", " 1", "\u0663", "\u00b2"]),
        (parser.octal, ["", "8", "0888", "-1", "01777", "x", "0o22", " 22"]),
        (parser.mirror, ["", "=", "x", "=http://h/", "Debian=", "Debian"]),
    ],
)
def test_what_is_refused(read: Callable[[str], object], texts: list[str]) -> None:
    """What is no value of the type is refused with a message that quotes it."""
    for text in texts:
        with pytest.raises(argparse.ArgumentTypeError) as caught:
            read(text)
        assert f"`{text}'" in str(caught.value)


def _accepts(read: Callable[[str], object], text: str) -> bool:
    try:
        read(text)
    except (argparse.ArgumentTypeError, ValueError, TypeError):  # what argparse turns into an error
        return False
    return True


@given(
    st.sampled_from([parser.size, parser.duration_s, parser.positive, parser.octal, parser.mirror]),
    st.text(max_size=12)
    | st.from_regex(r"[0-9]{0,400}(\.[0-9]{0,3})? ?[kmgtpi]?[bs\u017f\u212a]?", fullmatch=True),
)
def test_any_text(read: Callable[[str], object], text: str) -> None:
    """Any text is read or refused in a way that argparse turns into a message; no number is negative."""
    if _accepts(read, text):
        value = read(text)
        assert not isinstance(value, int | float) or value >= 0


@pytest.mark.parametrize("text", ["9" * 400, "9" * 400 + "G"])
def test_a_size_beyond_all_numbers(text: str) -> None:
    """A number that no float holds is a size like others, or refused, but no crash."""
    assert not _accepts(parser.size, text) or parser.size(text) > 10**399


@pytest.mark.parametrize(
    "read", [parser.positive, parser.up_to_65535, parser.user, parser.group, parser.size]
)
@pytest.mark.parametrize("digits", [26, 400, 5000])
def test_a_number_of_many_digits(read: Callable[[str], object], digits: int) -> None:
    """More digits than `int` takes are refused in words, not with all of them."""
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        read("9" * digits)
    assert len(str(caught.value)) < 120


def test_numbers() -> None:
    """Counts and umasks are read."""
    assert [parser.positive(text) for text in ("1", "007", "64", "999999999")] == [1, 7, 64, 999_999_999]
    assert [parser.octal(text) for text in ("0", "022", "22", "0777", "7")] == [0, 0o22, 0o22, 0o777, 7]


@pytest.mark.parametrize(
    ("text", "label", "target"),
    [
        ("Debian=http://h/debian/", "Debian", "http://h/debian/"),
        ("Debian=https://h/a=b", "Debian", "https://h/a=b"),
        ("Debian=Other:sub/", "Debian", "Other:sub/"),
        ("Debian=/srv/debian", "Debian", "/srv/debian"),
        ("Debian=/srv/debian/", "Debian", "/srv/debian/"),
        ("Debian=file:/srv/d", "Debian", "/srv/d"),
        ("Debian=file:///srv/d/", "Debian", "/srv/d/"),
        ("Debian=rel/d", "Debian", "{cwd}/rel/d"),
        ("Debian=file:rel/", "Debian", "{cwd}/rel/"),
        ("Debian=.", "Debian", "{cwd}"),
        ("Debian=./Label:x", "Debian", "{cwd}/Label:x"),
        ("Debian=../d", "Debian", "{parent}/d"),
        ("Debian=/srv/a/../d/", "Debian", "/srv/d/"),
        ("Debian=~/d", "Debian", "{cwd}/home/d"),
    ],
)
def test_mirrors(text: str, label: str, target: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mirror is a URL, a label, or a directory made absolute without `..` (others give no part)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    cwd = os.getcwd()
    assert parser.mirror(text) == (label, target.format(cwd=cwd, parent=os.path.dirname(cwd)))


def test_a_mirror_at_nobodys_home() -> None:
    """A `~user` who does not exist is refused, or taken as a name, but no crash."""
    text = "Debian=~no-such-user-here/d"
    assert not _accepts(parser.mirror, text) or parser.mirror(text)[1].endswith("/~no-such-user-here/d")


@pytest.mark.parametrize("arguments", [["--size", "x"], ["--siz", "1"], ["extra"], ["--size"]])
def test_wrong_usage(arguments: list[str]) -> None:
    """Wrong usage ends in exit code 3, names the program, and options are not abbreviated."""
    here = parser.Parser("jigdofs test", "A test.")
    here.add_argument("--size", type=parser.size)
    with pytest.raises(UsageError, match="jigdofs test --help") as caught:
        here.parse_args(arguments)
    assert caught.value.exit_code == EXIT_INPUT
