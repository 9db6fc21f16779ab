"""Words and quotes: every rule of jigdo-file's splitting, and jigdo-file itself as the judge."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.format.template import ImageInfo, MatchedFile
from jigdofs.format.template_writer import header, pack_desc
from jigdofs.format.words import quote, split
from tests.kit.requirements import tool

TEXTS = st.text(st.characters(exclude_characters="\n", codec="utf-8"), max_size=30)
ODD_TEXTS = st.text(" \t\r#'\"\\ab:=[];\x01\u00e9\udcfc", max_size=20)

RULES = [
    ("", []),
    (" \t ", []),
    ("#", []),
    ("  # note", []),
    ("one", ["one"]),
    ("  one\ttwo   three ", ["one", "two", "three"]),
    ("a#b", ["a"]),
    ("My:a%20b#c", ["My:a%20b"]),
    ("a b # c d", ["a", "b"]),
    ("x'y'\"z\"", ["xyz"]),
    ("''", [""]),
    ("'' x", ["", "x"]),
    ("a''", ["a"]),
    ("a\\ b", ["a b"]),
    ("\\#x\\'y\\\"z\\\\", ["#x'y\"z\\"]),
    ("\\n\\x41", ["nx41"]),
    ("x\\", ["x"]),
    ('"a\\b\\"c\\\\"', ['ab"c\\']),
    ('"it\'s # here"', ["it's # here"]),
    ("'a\\b \"c\" # d'", ['a\\b "c" # d']),
    ("'a\\'b", ["a\\b"]),
    ("'open to the end # \\", ["open to the end # \\"]),
    ('"open \\"', ['open "']),
    ("'a' 'b'", ["a", "b"]),
    ("'a'#b", ["a"]),
    ("a;b;", ["a;b;"]),
    ("a\rb\x0bc\x0cd\u00a0e\u2028f", ["a\rb\x0bc\x0cd\u00a0e\u2028f"]),
    ("http://h/x --try-last=.5", ["http://h/x", "--try-last=.5"]),
]

BARE_OR_NOT = [
    ("plain:/a-b_c%d;e[f]", "plain:/a-b_c%d;e[f]"),
    ("a b", "'a b'"),
    ("a\tb", "'a\tb'"),
    ("a#b", "'a#b'"),
    ("back\\slash", "'back\\slash'"),
    ('say "x"', "'say \"x\"'"),
    ("it's", '"it\'s"'),
    ('it\'s "x" \\', '"it\'s \\"x\\" \\\\"'),
    ("", "''"),
    ("a\r", "'a\r'"),
    ("-", "-"),
    ("--try-last", "--try-last"),
]


@pytest.mark.parametrize(("value", "words"), RULES)
def test_rules(value: str, words: list[str]) -> None:
    """Each rule of format.md 2.3 holds."""
    assert split(value) == words


@pytest.mark.parametrize(("word", "written"), BARE_OR_NOT)
def test_quoting(word: str, written: str) -> None:
    """A word is quoted only where it must be, in jigdo-file's manner."""
    assert quote(word) == written
    assert split(written) == [word]


@given(TEXTS | ODD_TEXTS, st.lists(ODD_TEXTS, max_size=3))
def test_what_is_quoted_is_split_again(word: str, more: list[str]) -> None:
    """Any word without a line feed comes back, alone and among others."""
    assert split(quote(word)) == [word]
    assert split("\t".join(map(quote, [word, *more]))) == [word, *more]


@given(ODD_TEXTS)
def test_splitting_never_fails(value: str) -> None:
    """Any value splits, into no more words than it has room for."""
    assert sum(map(len, split(value))) <= len(value)


def test_a_line_feed_cannot_be_quoted() -> None:
    """A name that would break into two lines is refused."""
    with pytest.raises(ValueError, match="line feed"):
        quote("a\nb")


def _first_words_by_jigdo_file(tmp_path: Path, values: list[str]) -> list[str]:
    """Let `print-missing-all` read each value as the only location of a part of its own."""
    keys = [Checksum.of(Algorithm.MD5, str(number).encode()) for number in range(len(values))]
    entries = [MatchedFile(2000, key, bytes(8)) for key in keys]
    info = ImageInfo(2000 * len(keys), Checksum(bytes(16)), 1024)
    template = header(Algorithm.MD5, "tests", "") + pack_desc([*entries, info])
    (tmp_path / "x.template").write_bytes(template)
    lines = [f"{key.base64}={value}\n" for key, value in zip(keys, values, strict=True)]
    jigdo = "[Jigdo]\nVersion=1.2\n[Parts]\n" + "".join(lines)
    (tmp_path / "x.jigdo").write_bytes(jigdo.encode("utf-8", "surrogateescape"))
    command = [tool("jigdo-file"), "print-missing-all", "--jigdo=x.jigdo", "--template=x.template"]
    done = subprocess.run([*command, "--image=none"], cwd=tmp_path, capture_output=True, check=True)
    assert done.stderr == b""
    found: dict[str, str] = {}
    location: list[str] = []
    for line in done.stdout.decode("utf-8", "surrogateescape").split("\n"):
        if line.startswith("MD5Sum:"):
            (found[line.removeprefix("MD5Sum:")],) = location
            location = []
        elif line or not location:
            location = [line]
    return [found[key.base64] for key in keys]


def _values() -> list[str]:
    """Return every rule that has a first word, and every text of three odd characters."""
    odd = "ab \t'\"\\#:"
    texts = [x + y + z for x in odd for y in odd for z in odd]
    # jigdo-file crashes where there is no word, and prints no line apart for an empty one
    return [text for text in [*(rule for rule, _ in RULES), *texts] if (split(text) or [""])[0]]


def test_jigdo_file_splits_alike(tmp_path: Path) -> None:
    """jigdo-file takes the same first word out of every value."""
    values = _values()
    assert len(values) > 500
    assert _first_words_by_jigdo_file(tmp_path, values) == [split(value)[0] for value in values]


def test_jigdo_file_reads_our_quotes(tmp_path: Path) -> None:
    """jigdo-file reads every name that we quote."""
    names = [word for word, _ in BARE_OR_NOT if word]
    names += [f"Debian:{value}" for value in _values()] + ["latin-\udcfc", "caf\u00e9-\u96ea", "cr\r", "\x82"]
    assert _first_words_by_jigdo_file(tmp_path, [quote(name) for name in names]) == names
