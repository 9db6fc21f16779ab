"""Names of images: whatever a .jigdo says, a name that may stand in a directory."""

import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigdofs.format.jigdo import JigdoFile
from jigdofs.format.jigdo_reader import parse
from jigdofs.image.layout import Layout
from jigdofs.image.raw_data import TemplateFile
from jigdofs.load import LoadedImage, unique_names
from jigdofs.names import directory_names, leaf_name

ANY = st.binary(max_size=400) | st.text("./ \x00\r~ab\u00e9\ufeff\u202e", max_size=300).map(str.encode)


def _is_fit(name: str) -> bool:
    shown = all(char.isprintable() or 0xDC80 <= ord(char) <= 0xDCFF for char in name)
    return shown and "/" not in name and name not in (".", "..") and len(os.fsencode(name)) <= 255


@pytest.mark.parametrize(
    ("name", "leaf"),
    [
        ("x.iso", "x.iso"),
        ("OS X 10.5 - Leopard (Server).iso", "OS X 10.5 - Leopard (Server).iso"),
        ("/etc/passwd", "passwd"),
        ("../../x", "x"),
        ("a/", ""),
        ("..", ""),
        (".", ""),
        ("a/..", ""),
        (" . ", ""),
        ("..\x00", ""),
        ("", ""),
        ("...", "..."),
        (".hidden", ".hidden"),
        ("a\\b", "a\\b"),
        ("a\nb\x1b[1m\x7f\x00c", "ab[1mc"),
        ("evil\u202eosi.exe", "evilosi.exe"),
        ("bom\ufeff\ue000", "bom"),
        ("caf\u00e9-\u96ea-\U0001f4bf.iso", "caf\u00e9-\u96ea-\U0001f4bf.iso"),
        ("latin-\udcfc.iso", "latin-\udcfc.iso"),
        ("x" * 300 + ".iso", "x" * 247 + ".iso"),
        ("x" * 300, "x" * 251),
        ("." + "x" * 300, None),
        ("x." + "y" * 300, "x." + "y" * 31),
        ("\u00e9" * 200 + ".iso", None),
        ("x" * 250 + "." + "\u96ea" * 90, None),
    ],
)
def test_leaf_names(name: str, leaf: str | None) -> None:
    """Only the last component remains, without controls, shortened so that the extension stays."""
    found = leaf_name(name)
    assert _is_fit(found)
    assert (found == leaf) if leaf is not None else (246 <= len(os.fsencode(found)) <= 251)


@given(ANY)
def test_any_name(raw: bytes) -> None:
    """Any bytes give a fit name or none, and a leaf name is its own leaf name."""
    name = leaf_name(raw.decode("utf-8", "surrogateescape"))
    assert _is_fit(name)
    assert leaf_name(name) == name


def _image(name: str) -> LoadedImage:
    (piece,) = parse(b"[Image]\n", "x")
    assert isinstance(piece, JigdoFile)
    template = TemplateFile(-1, "t", "", (0, 0))
    return LoadedImage(name, "x", piece, piece.images[0], template, "1.2", (), Layout([]), (), 0.0)


@pytest.mark.parametrize(
    ("names", "unique"),
    [
        (["a.iso", "b.iso"], ["a.iso", "b.iso"]),
        (["a.iso", "a.iso", "a.iso"], ["a.iso", "a~2.iso", "a~3.iso"]),
        (["a", "a"], ["a", "a~2"]),
        (["a.iso", "a.iso", "a~2.iso", "a.iso"], ["a.iso", "a~2.iso", "a~2~2.iso", "a~3.iso"]),
        (["a.b.c", "a.b.c"], ["a.b.c", "a.b~2.c"]),
    ],
)
def test_unique_names(names: list[str], unique: list[str]) -> None:
    """Later images of the same name get a number before the extension."""
    images = [_image(name) for name in names]
    assert list(unique_names(images).items()) == list(zip(unique, images, strict=True))


@given(
    st.lists(
        st.sampled_from(["a", "a~2", "a.iso", "a~2.iso", "." + "x" * 254, "y" * 251 + ".iso", "z" * 255]),
        max_size=8,
    )
)
def test_unique_names_are_fit(names: list[str]) -> None:
    """Every image keeps a place, under a fit name of its own."""
    images = [_image(name) for name in names]
    named = unique_names(images)
    assert list(named.values()) == images
    assert all(map(_is_fit, named))


@pytest.mark.parametrize(
    ("names", "directories"),
    [
        (["dvd.iso"], ["dvd"]),
        (["a.iso", "b.img", "c"], ["a", "b", "c.d"]),
        (["lab.iso", "lab.img"], ["lab.iso.d", "lab.img.d"]),
        (["y.iso", "y"], ["y.iso.d", "y.d"]),
        (["x.iso.d", "x.iso"], ["x.iso.d.d", "x"]),
        ([".iso"], [".iso.d"]),
        (["o", "o.d."], ["o.d", "o.d..d"]),
    ],
)
def test_directories_are_called_after_their_images(names: list[str], directories: list[str]) -> None:
    """The directory of an image has its name without the ending, or all of it where that is taken."""
    assert directory_names(names) == directories
    assert len({*names, *directories}) == 2 * len(names)


def test_a_name_that_comes_apart_like_an_onion() -> None:
    """Each pass drops a character between bytes that spell the next one: of a long name that took minutes."""
    onion = "\udcc2" * 32_000 + "\udcad" * 32_000  # a soft hyphen within a soft hyphen
    before = time.process_time()
    name = leaf_name(f"a{onion}b.iso")
    assert time.process_time() - before < 5
    assert name.startswith("a")
    assert name.endswith(".iso")
    assert len(os.fsencode(name)) <= 251
    assert leaf_name(name) == name
    short = "\udcc2" * 400 + "\udcad" * 400
    assert leaf_name(f"a{short}b.iso") == "ab.iso"
