"""The .jigdo we write: read back by us and by jigdo-file, whatever the names."""

import dataclasses
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigdofs.errors import InputError
from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.format.jigdo import JigdoFile
from jigdofs.format.jigdo_reader import parse
from jigdofs.format.jigdo_writer import Description, write_jigdo
from jigdofs.format.template import ImageInfo, MatchedFile
from jigdofs.format.template_writer import header, pack_desc
from tests.kit.requirements import tool

A, B, C = (Checksum.of(Algorithm.MD5, name) for name in (b"a", b"b", b"c"))
S, T = (Checksum.of(Algorithm.SHA256, name) for name in (b"s", b"t"))
NAMES = st.text(
    st.characters(exclude_characters="\n", codec="utf-8") | st.sampled_from(" \t'\"\\#\r\udc80\udcfc"),
    min_size=1,
)


def _description(
    filename: str = "x.iso", template: str = "x.template", checksum: Checksum = C, location: str = "A:x"
) -> Description:
    parts = ((A, location), (S, "A:x"), (A, "A:second"))
    servers = (("A", "'http://h/a b/' --try-first"), ("A", "file:"), ("B", "A:b/"))
    return Description(filename, template, (checksum,), parts, servers, "tests")


@given(NAMES.map("A:{}".format), st.sampled_from([C, S]))
def test_what_is_written_is_read(location: str, checksum: Checksum) -> None:
    """Parts of any name, several per key, and servers come back as they were given."""
    (read,) = parse(write_jigdo(_description(checksum=checksum, location=location)), "x")
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
    (read,) = parse(write_jigdo(_description(name, name)), "x")
    assert isinstance(read, JigdoFile)
    assert (read.images[0].filename, read.images[0].templates) == (name, (name,))


@given(NAMES, NAMES)
def test_any_name_of_the_image(filename: str, template: str) -> None:
    """Any name without a line feed comes back, save that a `stdio:` of libjte's is dropped in reading."""
    (read,) = parse(write_jigdo(_description(filename, template)), "x")
    assert isinstance(read, JigdoFile)
    (image,) = read.images
    assert (image.filename, image.templates) == (filename.removeprefix("stdio:"), (template,))


@pytest.mark.parametrize("field", range(4))
def test_a_line_feed_is_refused(field: int) -> None:
    """A name that would make a line of its own is an error that names it, wherever it stands."""
    name = "x\n[Parts]"
    cases = [
        _description(filename=name),
        _description(template=name),
        _description(location=name),
        dataclasses.replace(_description(), servers=(("A", name),)),
    ]
    with pytest.raises(InputError, match=r"x\\n\[Parts\]: .*line feed"):
        write_jigdo(cases[field])


FULL = Description(
    filename="x y.iso",
    template="x.template",
    template_checksums=(T, B),
    parts=((A, "A:z"), (B, "A:it's"), (C, "A:a b"), (S, "A:a"), (A, "A:a")),
    servers=(("A", "file:"),),
    generator="tests",
    template_size=5,
    image_checksums=(S, A),
    image_size=7,
)


def test_the_whole_text() -> None:
    """Everything stands where jigdo-file and libjte put it; alternatives for a part keep their order."""
    assert (
        write_jigdo(FULL).decode()
        == f"""\
# JigsawDownload

[Jigdo]
Version=2.0
Generator=tests

[Image]
Filename=x y.iso
Template=x.template
Template-SHA256Sum={T.base64}
Template-MD5Sum={B.base64}
# Template Hex MD5Sum {B.hex}
# Template Hex SHA256Sum {T.hex}
# Template size 5 bytes
# Image Hex MD5Sum {A.hex}
# Image Hex SHA256Sum {S.hex}
# Image size 7 bytes

[Servers]
A=file:

[Parts]
{B.base64}="A:it's"
{C.base64}='A:a b'
{S.base64}=A:a
{A.base64}=A:z
{A.base64}=A:a
"""
    )


def test_sums_and_sizes_are_read() -> None:
    """Our reader finds in it all that was told of template and image."""
    (read,) = parse(write_jigdo(FULL), "x")
    assert isinstance(read, JigdoFile)
    (image,) = read.images
    assert set(image.template_checksums) == {T, B}
    assert (image.image_sums, image.image_size) == ({"md5": A.hex, "sha256": S.hex}, 7)


def test_without_sections() -> None:
    """[Image] and [Servers] can be left out, and nothing else goes with them."""
    whole = write_jigdo(FULL).decode()
    sections = {part.partition("]")[0]: part for part in whole.split("\n\n[")}
    assert write_jigdo(FULL, image_section=False).decode() == whole.replace(f"[{sections['Image']}\n\n", "")
    assert write_jigdo(FULL, servers_section=False).decode() == whole.replace(
        f"[{sections['Servers']}\n\n", ""
    )


def _template(checksums: Sequence[Checksum]) -> bytes:
    parts = [MatchedFile(2000, checksum, bytes(8)) for checksum in checksums]
    info = ImageInfo(2000 * len(parts), Checksum(bytes(len(checksums[0].digest))), 1024)
    return header(checksums[0].algorithm, "tests", "") + pack_desc([*parts, info])


def _print_missing_all(directory: Path) -> list[bytes]:
    command = [tool("jigdo-file"), "print-missing-all", "--jigdo=x.jigdo", "--template=x.template"]
    done = subprocess.run([*command, "--image=none"], cwd=directory, capture_output=True, check=True)
    assert done.stderr == b""
    return done.stdout.split(b"\n")


def test_jigdo_file_reads_it(tmp_path: Path) -> None:
    """jigdo-file finds the same locations, labels expanded, in the same order."""
    (tmp_path / "x.jigdo").write_bytes(write_jigdo(_description(location='B:it\'s "x" #1\\\r')))
    (tmp_path / "x.template").write_bytes(_template([A]))
    assert _print_missing_all(tmp_path)[:4] == [
        b'http://h/a b/b/it\'s "x" #1\\\r',
        b'b/it\'s "x" #1\\\r',
        b"http://h/a b/second",
        b"second",
    ]


@pytest.mark.parametrize("algorithm", Algorithm)
def test_jigdo_file_reads_our_names(tmp_path: Path, algorithm: Algorithm) -> None:
    """jigdo-file reads every name byte for byte, with both checksums of the template in the file."""
    names = [
        b" x",
        b"x ",
        b"\tx",
        b"x\r",
        b"\r",
        b"#x",
        b"x#y",
        b"it's",
        b'"x"',
        b"\\",
        b"caf\xe9",
        b"\xe9'\" \\",
    ]
    names += [b"x=y", b"[Parts]", b"a:b", b"'", b'"', b"--try-last", b"a --try-last", "\u96ea".encode()]
    keys = [Checksum.of(algorithm, name) for name in names]
    locations = [f"A:{name.decode('utf-8', 'surrogateescape')}" for name in names]
    parts = tuple(zip(keys, locations, strict=True))
    sums = (T, B) if algorithm is Algorithm.SHA256 else (B, T)
    described = dataclasses.replace(FULL, parts=parts, template_checksums=sums)
    (tmp_path / "x.jigdo").write_bytes(write_jigdo(described))
    (tmp_path / "x.template").write_bytes(_template(keys))
    paragraphs = b"\n".join(_print_missing_all(tmp_path)).split(b"\n\n")
    assert sorted(paragraph.split(b"\n")[0] for paragraph in paragraphs if paragraph) == sorted(names)


@pytest.mark.parametrize("algorithm", Algorithm)
@pytest.mark.parametrize("right", ["both", "first", "second"])
def test_jigdo_lite_takes_both_checksums(tmp_path: Path, algorithm: Algorithm, right: str) -> None:
    """jigdo-lite builds the image with both checksums of the template told, even if only one is right."""
    (tmp_path / "tree").mkdir()
    parts = []
    for name in ("a b", "c"):
        data = f"{name}\n".encode() * 1000
        (tmp_path / "tree" / name).write_bytes(data)
        parts.append((Checksum.of(algorithm, data), f"My:{name}"))
    image = b"".join((tmp_path / "tree" / location[3:]).read_bytes() + bytes(99) for _, location in parts)
    (tmp_path / "x.img").write_bytes(image)
    make = [tool("jigdo-file"), "make-template", "--report=quiet", f"-C{algorithm.short_name}"]
    subprocess.run([*make, "--image=x.img", "--template=x.template", "tree//"], cwd=tmp_path, check=True)
    template = (tmp_path / "x.template").read_bytes()
    sums = [Checksum.of(algorithm, template)]
    sums += [Checksum.of(other, template) for other in Algorithm if other is not algorithm]
    if right != "both":
        wrong = 1 if right == "first" else 0
        sums[wrong] = Checksum(bytes(len(sums[wrong].digest)))
    servers = (("My", f"file:{tmp_path}/tree/"),)
    described = Description("y.img", "x.template", tuple(sums), tuple(parts), servers, "tests", len(template))
    (tmp_path / "x.jigdo").write_bytes(write_jigdo(described))
    command = [tool("jigdo-lite"), "--noask", "x.jigdo"]
    environ = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run(
        command,
        cwd=tmp_path,
        env=environ,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert b"mismatch" not in done.stdout + done.stderr
    assert (tmp_path / "y.img").read_bytes() == image
