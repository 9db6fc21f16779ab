"""What old templates say: real ones of jigdo-file and xorriso, and images that jigdo-file left half done."""

import gzip
import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from jigdofs.errors import FormatError
from jigdofs.format.checksum import Algorithm, Checksum
from jigdofs.format.part import Part
from jigdofs.sources import old_image
from jigdofs.sources.sources import Sources
from tests.kit.images import BuiltImage
from tests.kit.requirements import tool


@pytest.fixture
def lines() -> list[str]:
    return []


def parts_of(built: BuiltImage) -> list[Part]:
    paths = {checksum: built.pool / path for checksum, path in built.parts.items()}
    return [Part(Checksum(bytes.fromhex(hexed)), path.stat().st_size) for hexed, path in paths.items()]


def scanned(lines: list[str], *paths: Path) -> Sources:
    sources = Sources([str(path) for path in paths], report=lines.append)
    sources.scan(None)
    return sources


def copy_beside(built: BuiltImage, directory: Path, *, jigdo: bool = False) -> Path:
    """Copy image and template (and .jigdo) into a directory; return the image."""
    directory.mkdir()
    for path in (built.image, built.template, *([built.jigdo] if jigdo else [])):
        shutil.copyfile(path, directory / path.name)
    return directory / built.image.name


def test_every_part_is_where_the_template_says(any_image: BuiltImage) -> None:
    """In each kind of image, each stretch that a template names has the checksum it gives."""
    template = old_image.read_old_template(str(any_image.template))
    data = any_image.image.read_bytes()
    assert template.image_length == len(data)
    found = set()
    for said in old_image.said(template.entries()):
        stretch = data[said.offset : said.offset + said.length]
        assert hashlib.new(any_image.algorithm, stretch).digest() == said.checksum.digest
        found.add(said.checksum.hex)
    assert found == set(any_image.parts)


@pytest.mark.parametrize("named", ["directory", "template", "jigdo", "image"])
def test_parts_are_found_in_the_image_beside(
    any_image: BuiltImage, named: str, tmp_path: Path, lines: list[str]
) -> None:
    """Whichever of the files the user names, all parts are candidates at once, without a byte hashed."""
    image = copy_beside(any_image, tmp_path / "old", jigdo=True)
    path = {"directory": image.parent, "image": image}.get(named) or image.with_suffix(f".{named}")
    sources = scanned(lines, path)
    for part in parts_of(any_image):
        best = sources.candidates(part)[0]
        assert (best.path, best.checksum(part.checksum.algorithm)) == (str(image.resolve()), part.checksum)
    assert sources.counts.hashed_bytes == 0
    assert all(sources.find(part) for part in parts_of(any_image))
    assert lines == []


def test_both_directories_of_an_image_are_used(iso_md5: BuiltImage, tmp_path: Path, lines: list[str]) -> None:
    """A template that knows only MD5 hides no part that is wanted by SHA-256; nothing is there twice."""
    image = copy_beside(iso_md5, tmp_path / "old")
    sources = scanned(lines, image.parent)
    places = [(piece.path, piece.offset, piece.length) for piece in sources.pieces()]
    assert len(places) == len(set(places))
    for path in iso_md5.parts.values():
        data = (iso_md5.pool / path).read_bytes()
        found = sources.find(Part(Checksum.of(Algorithm.SHA256, data), len(data)))
        assert found is not None
        assert {checksum.algorithm for checksum in found.checksums} == set(Algorithm)


def test_an_image_of_another_length_is_not_the_templates(
    tar_md5: BuiltImage, tmp_path: Path, lines: list[str]
) -> None:
    """An image that was cut short has none of the template's parts, and who named the template is told."""
    image = copy_beside(tar_md5, tmp_path / "old")
    with image.open("ab") as file:
        file.write(b"x")
    template = image.with_suffix(".template")
    assert not any(scanned(lines, image.parent).candidates(part) for part in parts_of(tar_md5))
    assert lines == []
    scanned(lines, template)
    assert lines == [f"{template.resolve()}: no complete image of it lies beside it"]


def test_a_jigdo_names_files_beside_it_only(tar_md5: BuiltImage, tmp_path: Path, lines: list[str]) -> None:
    """Names with directories are looked for beside the .jigdo, whatever they try to reach."""
    image = copy_beside(tar_md5, tmp_path / "old")
    shutil.move(image, image.with_name("renamed.tar"))
    shutil.move(image.with_suffix(".template"), image.with_name("other.template"))
    jigdo = image.with_name("any.jigdo.gz")
    text = (
        "[Jigdo]\nVersion=1.2\n[Image]\nFilename=../../elsewhere/renamed.tar\n"
        "Template=http://example.org/x/other.template\n[Image]\nFilename=..\nTemplate=a/\n"
    )
    jigdo.write_bytes(gzip.compress(text.encode()))
    sources = scanned(lines, jigdo)
    assert all(sources.candidates(part) for part in parts_of(tar_md5))
    assert lines == [f"{image.parent.resolve()}/any.template: no complete image of it lies beside it"]


def test_a_template_that_lies_is_found_out(tar_md5: BuiltImage, tmp_path: Path, lines: list[str]) -> None:
    """Where the image was changed since, a part is not found there, but in another place that has it."""
    image = copy_beside(tar_md5, tmp_path / "old")
    template = old_image.read_old_template(str(tar_md5.template))
    said = next(said for said in old_image.said(template.entries()) if said.length > 20_000)
    data = bytearray(image.read_bytes())
    for other in old_image.said(template.entries()):
        data[other.offset] ^= other.checksum == said.checksum
    image.write_bytes(data)
    part = Part(said.checksum, said.length)
    sources = scanned(lines, image.parent)
    assert sources.candidates(part)
    assert sources.find(part) is None
    assert sources.candidates(part) == [], "what is known to be wrong is not offered again"
    sources = scanned(lines, image.parent, tar_md5.pool)
    found = sources.find(part)
    assert found is not None
    assert found.path == str(tar_md5.pool.resolve() / tar_md5.parts[said.checksum.hex])


def test_an_image_under_construction_gives_what_is_in_it(
    iso_md5: BuiltImage, tmp_path: Path, lines: list[str]
) -> None:
    """Of a .tmp that jigdo-file left, the parts that it wrote are found, and no other."""
    given = sorted(iso_md5.parts.items())[:7]
    command = [
        tool("jigdo-file"),
        "make-image",
        "--no-cache",
        "--report=quiet",
        f"--template={iso_md5.template}",
    ]
    command += [f"--image={tmp_path / 'half.iso'}", *(str(iso_md5.pool / path) for _, path in given)]
    done = subprocess.run(command, capture_output=True, check=False)
    assert done.returncode == 1, done
    sources = scanned(lines, tmp_path)
    found = {part.checksum.hex for part in parts_of(iso_md5) if sources.find(part)}
    assert found == {checksum for checksum, _ in given}
    assert lines == []


def test_other_files_of_these_names_are_passed_over(tmp_path: Path, lines: list[str]) -> None:
    """`.tmp` and `.template` are popular names: in a tree they are not worth a line, when named they are."""
    (tmp_path / "page.template").write_bytes(b"<html>{{ body }}</html>")
    (tmp_path / "editor.tmp").write_bytes(bytes(10_000))
    scanned(lines, tmp_path)
    assert lines == []
    scanned(lines, tmp_path / "page.template", tmp_path / "editor.tmp")
    assert len(lines) == 1
    assert "is not a template file" in lines[0]


def test_a_damaged_template_is_reported(tar_md5: BuiltImage, tmp_path: Path, lines: list[str]) -> None:
    """A template that is cut short costs a line, and the image beside it what it knew."""
    image = copy_beside(tar_md5, tmp_path / "old")
    template = image.with_suffix(".template")
    template.write_bytes(template.read_bytes()[:-10])
    sources = scanned(lines, image.parent)
    assert not any(sources.candidates(part) for part in parts_of(tar_md5))
    assert len(lines) == 1
    assert str(template.resolve()) in lines[0]


def test_a_hostile_tmp_claims_nothing_outside(tmp_path: Path) -> None:
    """A DESC part whose image is not the bytes before it is no image under construction."""
    path = tmp_path / "x.tmp"
    for data in (b"", b"\xff" * 100, b"DESC\x10\0\0\0\0\0\x10\0\0\0\0\0"):
        path.write_bytes(data)
        with pytest.raises(FormatError):
            old_image.read_tmp(str(path))
