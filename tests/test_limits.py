"""Limits of what is read: as much as they say is taken, one more is refused in a line that names them."""

import os
import pty
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from jigdofs.errors import FormatError, InputError
from jigdofs.format import jigdo, jigdo_reader
from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.format.label_growth import MAX_PLACES, check_labels
from jigdofs.format.part import Part
from jigdofs.format.template import MAX_CHUNKS, MAX_ENTRIES, MAX_PARTS, read_entries
from jigdofs.format.template_reader import read_template
from jigdofs.parts.presence import present_bytes
from tests.campaigns.bomb_makers import chunk, info, key, lines, part, raw, template, with_text
from tests.kit.mounts import PROGRAM, clean_environ
from tests.kit.scenes import Program

DIGEST = bytes(16)
EMPTY_CHUNK = chunk(b"", 1)


def servers(*texts: str) -> dict[str, tuple[jigdo.Mapping, ...]]:
    text = b"".join(lines(["[Servers]", *texts]))
    (piece,) = jigdo_reader.parse(text, "x.jigdo")
    assert isinstance(piece, jigdo.JigdoFile)
    return piece.servers


def doubling(steps: int) -> list[str]:
    return [f"L{number}=L{number + 1}:{side}" for number in range(steps) for side in "ab"]


@pytest.mark.parametrize(
    ("entries", "what"),
    [
        (part(1, DIGEST) * (MAX_PARTS + 1), f"more than {MAX_PARTS} parts"),
        (raw(0) * (MAX_ENTRIES + 1), f"more than {MAX_ENTRIES} entries"),
    ],
    ids=["parts", "entries"],
)
def test_entries(tmp_path: Path, entries: bytes, what: str) -> None:
    """Both readers of entries keep the limit."""
    with pytest.raises(FormatError, match=what):
        list(read_entries(entries, source="x"))
    count = MAX_PARTS + 1 if "parts" in what else 0
    path = template(tmp_path / "x.template", [entries, info(count)])
    with path.open("rb") as file, pytest.raises(FormatError, match=what):
        read_template(file, "x")


def test_as_many_entries_as_may_be(tmp_path: Path) -> None:
    """The limits themselves are taken."""
    entries = part(1, DIGEST) * MAX_PARTS + raw(0) * (MAX_ENTRIES - MAX_PARTS - 1) + info(MAX_PARTS)
    assert sum(1 for _ in read_entries(entries, source="x")) == MAX_ENTRIES
    path = template(tmp_path / "x.template", [entries])
    with path.open("rb") as file:
        assert len(read_template(file, "x").columns.rows) == MAX_PARTS


@pytest.mark.parametrize("more", [0, 1])
def test_chunks(tmp_path: Path, more: int) -> None:
    """As many chunks as the limit says are listed."""
    path = template(tmp_path / "x.template", [info(0)], [EMPTY_CHUNK * (MAX_CHUNKS + more)])
    with path.open("rb") as file:
        if more:
            with pytest.raises(FormatError, match=f"more than {MAX_CHUNKS} chunks"):
                read_template(file, "x")
        else:
            assert len(read_template(file, "x").chunks) == MAX_CHUNKS


def test_labels_that_double() -> None:
    """What a label stands for is counted through all steps, in no time; an ordinary chain is taken."""
    steps = MAX_PLACES.bit_length() - 1
    check_labels(servers(*doubling(steps)))
    with pytest.raises(FormatError, match=f"label `L.*' stands for more than {MAX_PLACES} places"):
        check_labels(servers(*doubling(steps + 1)))
    with pytest.raises(FormatError, match="places"):
        check_labels(servers(*doubling(40_000)))
    check_labels(servers(*(f"L{number}=L{number + 1}:" for number in range(90_000))))


def test_labels_that_lead_back() -> None:
    """Labels that lead to each other are no mistake of their own: the part's other locations still count."""
    check_labels(servers("A=B:", "B=C:", "C=A:", "C=C:", "C=http://h/"))


def test_a_big_one_is_taken(tmp_path: Path) -> None:
    """200,000 parts with long names, more than any image has, are well within the limits."""
    path = "pool/main/l/linux-signed-amd64/linux-headers-6.1.0-13-cloud-amd64_6.1.55-1_amd64.deb"
    text = b"".join(lines(["[Parts]", *(f"{key(number)}=Debian:{path}" for number in range(200_000))]))
    (piece,) = jigdo_reader.parse(text, "x.jigdo")
    assert isinstance(piece, jigdo.JigdoFile)
    before = piece.is_sorted
    piece.sort()
    assert (before, piece.is_sorted) == (False, True)
    for number in (0, 1, 99_999, 199_999):
        assert [mapping.target for mapping in piece.mappings(Checksum.parse(key(number)))] == [
            f"Debian:{path}"
        ]
    assert piece.mappings(Checksum.parse(key(200_000))) == []
    assert piece.labels() == {"Debian": 200_000}
    assert len(piece.parts[0]) == 200_000


def test_present_bytes_counts_occurrences() -> None:
    """Every occurrence of a part counts, however far apart they are."""
    here = Part(Checksum.of(Algorithm.MD5, b"here"), 7)
    others = (Part(Checksum.of(Algorithm.MD5, b"%d" % number), 1) for number in range(40_000))
    parts: Iterator[Part] = iter([here, *others, here])
    asked: list[str] = []

    def present(keys: object) -> set[str]:
        assert not isinstance(keys, str)
        names = list(keys)  # type: ignore[call-overload]
        asked.extend(names)
        return {name for name in names if here.checksum.hex in name}

    assert present_bytes(parts, present) == 14
    assert len(asked) == 40_002


def test_a_password_is_not_shown(tmp_path: Path) -> None:
    """A message that names a URL leaves out who was to ask."""
    url = "http://me:p@ss@127.0.0.1:1/x.jigdo"
    assert str(InputError(f"{url}: no")) == "http://127.0.0.1:1/x.jigdo: no"
    assert str(InputError(f"a <{url}> b@c: no")) == "a <http://127.0.0.1:1/x.jigdo> b@c: no"
    program = Program(tmp_path, environ={"CACHE_DIRECTORY": str(tmp_path / "cache")})
    for words in (["download"], ["download", "--json"], ["info"]):
        done = program(*words, url)
        assert done.returncode == 1
        assert "127.0.0.1:1/x.jigdo" in done.stderr + done.stdout
        assert "me:p" not in done.stderr + done.stdout
        assert "ss@" not in done.stderr + done.stdout


def test_escapes_do_not_reach_a_terminal(tmp_path: Path) -> None:
    """What print-missing prints for scripts is as it stands in the .jigdo; a terminal would obey it."""
    name = "\x1b]0;owned\x07"
    files = with_text(tmp_path, ["[Parts]", f"{key(0)}=Debian:{name}", "[Servers]", "Debian=http://h/"])
    command = [*PROGRAM, "print-missing", "-i", "x.iso", "-j", str(files.jigdo), "-t", str(files.template)]
    environ = clean_environ(tmp_path)
    piped = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, check=True)
    assert piped.stdout == f"http://h/{name}\n".encode()
    ours, theirs = pty.openpty()
    try:
        subprocess.run(command, cwd=tmp_path, env=environ, stdout=theirs, check=True)
        shown = os.read(ours, 4096)
    finally:
        os.close(theirs)
        os.close(ours)
    assert shown == b"http://h/\\x1b]0;owned\\x07\r\n"
