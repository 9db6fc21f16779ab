"""Checksums of parts, templates and images, and jigdo's own base64 (format.md 2.4)."""

from __future__ import annotations

import base64
import binascii
import enum
import hashlib
from typing import NamedTuple, Protocol

from jigdofs.errors import JigdofsError


class Hasher(Protocol):
    """Be what `hashlib` gives: fed with bytes, asked for the digest."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        """Take more bytes in."""

    def digest(self) -> bytes:
        """Return the digest of everything taken in."""


class Algorithm(enum.Enum):
    """A checksum algorithm; the value is the pseudo-label jigdo gives it."""

    MD5 = "MD5Sum"
    SHA256 = "SHA256Sum"

    @property
    def digest_size(self) -> int:
        """Length of a digest in bytes."""
        return 16 if self is Algorithm.MD5 else 32

    @property
    def short_name(self) -> str:
        """Name in file names, listings and options: `md5` or `sha256`."""
        return self.name.lower()

    def hasher(self) -> Hasher:
        """Start a checksum; MD5 here identifies files, it secures nothing, so FIPS may allow it."""
        return hashlib.md5(usedforsecurity=False) if self is Algorithm.MD5 else hashlib.sha256()


_BY_SIZE = {algorithm.digest_size: algorithm for algorithm in Algorithm}
_BY_BASE64_LENGTH = {22: 16, 43: 32}


class InvalidChecksum(JigdofsError, ValueError):
    """Say that a text is no checksum in jigdo's base64."""


class Checksum(NamedTuple):
    """The checksum of a file; its length tells the algorithm (16 bytes MD5, 32 bytes SHA-256)."""

    digest: bytes

    @classmethod
    def parse(cls, text: str) -> Checksum:
        """Read jigdo's base64 (22 or 43 characters, no padding); raise `InvalidChecksum`.

        Trailing bits that are not zero are refused: jigdo-file compares strings, so such a key
        never matches there (format.md 2.4).
        """
        size = _BY_BASE64_LENGTH.get(len(text))
        if size is None:
            raise InvalidChecksum(f"`{text}' is no MD5 (22 characters) or SHA-256 (43 characters) checksum")
        try:
            digest = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise InvalidChecksum(f"`{text}' is not in jigdo's base64 alphabet") from None
        checksum = cls(digest)
        if len(digest) != size or checksum.base64 != text:
            raise InvalidChecksum(f"`{text}' is not in jigdo's base64 alphabet")
        return checksum

    @classmethod
    def of(cls, algorithm: Algorithm, data: bytes) -> Checksum:
        """Compute the checksum of bytes in memory."""
        hasher = algorithm.hasher()
        hasher.update(data)
        return cls(hasher.digest())

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm that made it."""
        return _BY_SIZE[len(self.digest)]

    @property
    def base64(self) -> str:
        """The text that stands in .jigdo files."""
        return to_base64(self.digest)

    @property
    def hex(self) -> str:
        """The text that md5sum and sha256sum print."""
        return self.digest.hex()

    def __str__(self) -> str:
        return f"{self.algorithm.short_name}:{self.hex}"


def to_base64(data: bytes) -> str:
    """Write bytes in jigdo's base64: URL-safe alphabet, no padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")
