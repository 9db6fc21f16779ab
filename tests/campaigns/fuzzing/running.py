"""Run one input, and mutate inputs without guidance: what CI does, and what needs no atheris."""

import random
import time
from collections.abc import Iterator
from dataclasses import dataclass

from tests.campaigns.fuzz_targets import Target

_MAX_AT_ONCE = 4  # mutations of one input


class TookLong(AssertionError):
    """Say that an input took more processor time than it may."""


def run_one(target: Target, data: bytes) -> None:
    """Feed one input; raise whatever its check does, or `TookLong`."""
    began = time.process_time()
    target.check(data)
    took_s = time.process_time() - began
    if took_s > target.hang_s:
        raise TookLong(f"{len(data)} bytes took {took_s:.1f} s of processor time")


@dataclass(frozen=True, slots=True)
class Finding:
    """An input that broke a promise."""

    target: str
    name: str
    data: bytes
    error: Exception


def replay(target: Target) -> tuple[int, list[Finding]]:
    """Feed the inputs that are kept with the sources; return how many, and what broke."""
    findings = []
    count = 0
    for name, data in target.corpus():
        count += 1
        findings += _found(target, name, data)
    return count, findings


def mutate(target: Target, seed: int, count: int) -> list[Finding]:
    """Feed so many mutations of them; the same seed makes the same ones."""
    findings = []
    for number, data in enumerate(_mutations(target, seed, count)):
        findings += _found(target, f"seed {seed}, input {number}", data)
    return findings


def _found(target: Target, name: str, data: bytes) -> list[Finding]:
    try:
        run_one(target, data)
    except Exception as error:  # noqa: BLE001  that is what is looked for
        return [Finding(target.name, name, data, error)]
    return []


def _mutations(target: Target, seed: int, count: int) -> Iterator[bytes]:
    source = random.Random(f"{target.name} {seed}")
    kept = [data for _, data in target.corpus()] or [b""]
    for _ in range(count):
        data = bytearray(source.choice(kept))
        for _ in range(source.randint(1, _MAX_AT_ONCE)):
            _mutate(data, source, target, kept)
        yield bytes(data[: target.max_bytes])


def _mutate(data: bytearray, source: random.Random, target: Target, kept: list[bytes]) -> None:
    at = source.randrange(len(data) + 1)
    count = min(source.randint(1, 64), source.randint(1, 64))
    kind = source.randrange(8)
    if kind == 0 and at < len(data):
        data[at] ^= 1 << source.randrange(8)
    elif kind == 1 and at < len(data):
        data[at] = source.choice((0, 1, 0x7F, 0x80, 0xFF, source.randrange(256)))
    elif kind == 2:
        data[at:at] = source.randbytes(min(count, 8))
    elif kind == 3:
        del data[at : at + count]
    elif kind == 4:
        data[at:at] = data[at : at + count] * source.randint(1, 3)
    elif kind == 5:
        other = source.choice(kept)
        begin = source.randrange(len(other) + 1)
        data[at : at + source.choice((0, count))] = other[begin : begin + count]
    elif kind == 6 and target.words:
        data[at : at + source.choice((0, count))] = source.choice(target.words)
    else:
        other = source.choice(kept)
        data[at:] = other[source.randrange(len(other) + 1) :]
