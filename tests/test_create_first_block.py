"""rsync64 by numpy: the same as the plain one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigdofs.create.first_block import rsync64
from jigdofs.format.rsync64 import Rsync64
from tests.test_rsync64 import VECTORS


@pytest.mark.parametrize(("data", "packed"), [(vector[0], vector[3]) for vector in VECTORS])
def test_vectors(data: bytes, packed: str) -> None:
    """The eight bytes are those that jigdo-file computes."""
    assert rsync64(data).hex() == packed


@given(st.binary(max_size=50), st.integers(0, 5000))
def test_same_as_the_plain_one(pattern: bytes, length: int) -> None:
    """Of any bytes, none and thousands of them, the sums are those of adding one by one."""
    data = (pattern * length)[:length]
    assert rsync64(data) == Rsync64(data).digest()


@pytest.mark.parametrize("fill", [0x23, 0xFF])
def test_large(fill: int) -> None:
    """Sums that overflow a million times are those of adding one by one."""
    data = bytes([fill]) * 100_000
    assert rsync64(data) == Rsync64(data).digest()
