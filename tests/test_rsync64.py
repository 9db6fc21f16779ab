"""The checksum of a part's beginning: the vectors of jigdo-file, and that pieces make no difference."""

import hashlib
import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigdofs.format.checksum import to_base64
from jigdofs.format.rsync64 import TABLE, Rsync64
from tests.kit.requirements import tool

ALL = bytes(range(256))
VECTORS = [
    (b"", 0, 0, "0000000000000000", "AAAAAAAAAAA"),
    (b"\x00", 0x51D65C0F, 0x51D65C0F, "0f5cd6510f5cd651", "D1zWUQ9c1lE"),
    (b"\x01", 0x083CD94B, 0x083CD94B, "4bd93c084bd93c08", "S9k8CEvZPAg"),
    (b"abc", 0x64B529DA, 0x1E5CB047, "da29b56447b05c1e", "2im1ZEewXB4"),
    (ALL, 0x267FADC3, 0x15BCB04B, "c3ad7f264bb0bc15", "w61_JkuwvBU"),
    (bytes(1024), 0x59703C00, 0x8D301E00, "003c7059001e308d", "ADxwWQAeMI0"),
    (b"\x7f" * 1024, 0x2204FC00, 0x1AFA7E00, "00fc0422007efa1a", "APwEIgB--ho"),
    (ALL * 4, 0x99FEB70C, 0x5505532C, "0cb7fe992c530555", "DLf-mSxTBVU"),
]


def test_table() -> None:
    """The table is the one of jigdo and jigit, to the last bit."""
    packed = struct.pack("<256I", *TABLE)
    assert hashlib.sha256(packed).hexdigest() == (
        "656e5df0b5cadcd2827e5d2a92bb54efca36ea45a8230e84f9e21dbde88abd39"
    )


@pytest.mark.parametrize(("data", "lo", "hi", "packed", "text"), VECTORS)
def test_vectors(data: bytes, lo: int, hi: int, packed: str, text: str) -> None:
    """Both halves, the eight bytes and their base64 are those jigdo-file computes."""
    checksum = Rsync64(data)
    assert (checksum.lo, checksum.hi) == (lo, hi)
    assert checksum.digest().hex() == packed
    assert to_base64(checksum.digest()) == text


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_appending_is_summing(head: bytes, tail: bytes) -> None:
    """Feeding in pieces gives the sum of the whole."""
    checksum = Rsync64(head)
    checksum.update(tail)
    assert checksum.digest() == Rsync64(head + tail).digest()


def test_same_as_jigdo_file(tmp_path: Path) -> None:
    """jigdo-file puts our sum of a part's first 1024 bytes into the template."""
    part = hashlib.shake_256(b"jigdofs").digest(5000)
    (tmp_path / "part").write_bytes(part)
    (tmp_path / "image").write_bytes(b"before" + part + b"after")
    jigdo_file = tool("jigdo-file")
    command = [jigdo_file, "make-template", "--report=quiet", "--no-cache", "--image=image", "part"]
    subprocess.run(command, cwd=tmp_path, capture_output=True, check=True)
    command = [jigdo_file, "list-template", "--template=image.template"]
    printed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    sums = [line.split()[4] for line in printed.splitlines() if line.startswith("need-file")]
    assert sums == [to_base64(Rsync64(part[:1024]).digest())]
