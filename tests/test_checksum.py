"""Checksums and jigdo's own base64: jigdo-file's strings in, the same strings out, nothing else."""

import hashlib
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigdofs.format.checksum import Algorithm, Checksum, InvalidChecksum, to_base64
from tests.kit.requirements import tool

EMPTY_MD5 = "1B2M2Y8AsgTpgAmY7PhCfg"
EMPTY_SHA256 = "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"
DIGESTS = st.sampled_from((16, 32)).flatmap(lambda size: st.binary(min_size=size, max_size=size))


@given(DIGESTS)
def test_every_digest_comes_back_from_its_text(digest: bytes) -> None:
    """Any digest written in base64 and read again is itself, and its length tells the algorithm."""
    checksum = Checksum(digest)
    assert Checksum.parse(checksum.base64) == checksum
    assert checksum.algorithm is (Algorithm.MD5 if len(digest) == 16 else Algorithm.SHA256)
    assert bytes.fromhex(checksum.hex) == digest
    assert str(checksum) == f"{checksum.algorithm.short_name}:{checksum.hex}"
    assert not set("+/=") & set(checksum.base64)


@pytest.mark.parametrize(
    ("algorithm", "name", "size", "text"),
    [(Algorithm.MD5, "md5", 16, EMPTY_MD5), (Algorithm.SHA256, "sha256", 32, EMPTY_SHA256)],
)
def test_algorithms(algorithm: Algorithm, name: str, size: int, text: str) -> None:
    """Each algorithm has the name, size and digest that hashlib gives it, fed whole or in pieces."""
    assert (algorithm.short_name, algorithm.digest_size) == (name, size)
    assert Checksum.of(algorithm, b"").base64 == text
    hasher = algorithm.hasher()
    for piece in (b"ab", bytearray(b"cd"), memoryview(b"ef")):
        hasher.update(piece)
    assert hasher.digest() == hashlib.new(name, b"abcdef").digest()
    assert Checksum.of(algorithm, b"abcdef").hex == hashlib.new(name, b"abcdef").hexdigest()


@pytest.mark.parametrize(
    "text",
    [
        "",
        EMPTY_MD5[:-1],
        EMPTY_MD5 + "=",
        EMPTY_MD5 + "==",
        EMPTY_MD5[:-1] + "h",  # bits behind the last byte
        EMPTY_SHA256[:-1] + "V",
        "+" + EMPTY_MD5[1:],
        "/" + EMPTY_MD5[1:],
        "=" + EMPTY_MD5[1:],
        " " + EMPTY_MD5[1:],
        "\u00e9" + EMPTY_MD5[1:],
        "\udcff" + EMPTY_MD5[1:],
        EMPTY_MD5[:-2] + "==",
        "d41d8cd98f00b204e9800998ecf8427e",
        EMPTY_SHA256 + "A",
    ],
)
def test_what_is_no_checksum(text: str) -> None:
    """Padding, hex, the standard alphabet, other lengths and trailing bits are refused, as CLI and GUI do."""
    with pytest.raises(InvalidChecksum):
        Checksum.parse(text)


@given(st.text(max_size=50) | st.text("AZaz09-_+/= \u00e9", min_size=22, max_size=43))
def test_any_text_is_a_checksum_or_refused(text: str) -> None:
    """Whatever stands left of `=` is read back to the very same text or refused in one way."""
    try:
        checksum = Checksum.parse(text)
    except InvalidChecksum:
        return
    assert checksum.base64 == text


@given(st.binary(max_size=70))
def test_base64_keeps_every_byte(data: bytes) -> None:
    """Base64 of n bytes has as many characters as n needs, and no padding."""
    assert len(to_base64(data)) == -(-len(data) * 4 // 3)


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_same_as_jigdo_file(tmp_path: Path, algorithm: Algorithm) -> None:
    """`jigdo-file md5sum` and `sha256sum` print our text for the same bytes."""
    jigdo_file = tool("jigdo-file")
    files = {tmp_path / f"{size}.bin": bytes(n % 251 for n in range(size)) for size in (1024, 5000, 140_000)}
    for path, data in files.items():
        path.write_bytes(data)
    command = [jigdo_file, f"{algorithm.short_name}sum", "--report=quiet", "--no-cache", *map(str, files)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    sums = {Path(line.split()[1]): line.split()[0] for line in printed.splitlines()}
    assert sums == {path: Checksum.of(algorithm, data).base64 for path, data in files.items()}
