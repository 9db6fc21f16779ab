"""The .jigdo we write: read back by us and by jigdo-file, whatever the names."""

import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.format.jigdo import JigdoFile, parse
from jigdofs.format.jigdo_writer import Description, write_jigdo
from jigdofs.format.template import ImageInfo, MatchedFile
from jigdofs.format.template_writer import header, pack_desc
from tests.kit.requirements import tool

A, B, C = (Checksum.of(Algorithm.MD5, name) for name in (b"a", b"b", b"c"))
S = Checksum.of(Algorithm.SHA256, b"s")
NAMES = st.text(
    st.characters(exclude_characters="\n", codec="utf-8") | st.sampled_from(" '\"\\#\r"), min_size=1
)


def _description(filename: str, template: str, checksum: Checksum, location: str) -> Description:
    parts = ((A, location), (S, "A:x"), (A, "A:second"))
    servers = (("A", "http://h/a b/"), ("A", "file:"), ("B", "A:b/"))
    return Description(filename, template, checksum, parts, servers, "tests")


@given(NAMES.map("A:{}".format), st.sampled_from([C, S]))
def test_what_is_written_is_read(location: str, checksum: Checksum) -> None:
    """Parts of any name, several per key, and servers come back as they were given."""
    (read,) = parse(write_jigdo(_description("x.iso", "x.template", checksum, location)), "x")
    assert isinstance(read, JigdoFile)
    assert read.images[0].template_checksums == (checksum,)
    assert read.version == ("1.2" if checksum is C else "2.0")
    assert read.generator == "tests"
    assert [mapping.target for mapping in read.mappings(A)] == [location, "A:second"]
    assert {label: [m.target for m in found] for label, found in read.servers.items()} == {
        "A": ["http://h/a b/", "file:"],
        "B": ["A:b/"],
    }


@pytest.mark.parametrize(
    "name", ["x.iso", "OS X (1).iso", 'it\'s "x" #1\\', "'x'.iso", '"x" y.iso', "\u96ea\udcfc", "a=b", "#x"]
)
def test_names_of_the_image(name: str) -> None:
    """Names of image and template come back too, though jigdo-file's manner is to leave them unquoted."""
    (read,) = parse(write_jigdo(_description(name, name, C, "A:x")), "x")
    assert isinstance(read, JigdoFile)
    assert (read.images[0].filename, read.images[0].templates) == (name, (name,))


@pytest.mark.parametrize("field", range(3))
def test_a_line_feed_is_refused(field: int) -> None:
    """A name that would make a line of its own is an error wherever it stands."""
    names = ["x"] * 3
    names[field] = "x\n[Parts]"
    with pytest.raises(ValueError, match="line feed"):
        write_jigdo(_description(names[0], names[1], C, names[2]))


def test_jigdo_file_reads_it(tmp_path: Path) -> None:
    """jigdo-file finds the same locations, labels expanded, in the same order."""
    (tmp_path / "x.jigdo").write_bytes(write_jigdo(_description("x", "x.template", C, 'B:it\'s "x" #1\\\r')))
    desc = pack_desc([MatchedFile(2000, A, bytes(8)), ImageInfo(2000, C, 1024)])
    (tmp_path / "x.template").write_bytes(header(Algorithm.MD5, "tests", "") + desc)
    command = [tool("jigdo-file"), "print-missing-all", "--jigdo=x.jigdo", "--template=x.template"]
    done = subprocess.run([*command, "--image=none"], cwd=tmp_path, capture_output=True, check=True)
    assert done.stderr == b""
    assert done.stdout.decode().split("\n")[:4] == [
        'http://h/a b/b/it\'s "x" #1\\\r',
        'b/it\'s "x" #1\\\r',
        "http://h/a b/second",
        "second",
    ]
