"""A TCP proxy for a bad line: at random, from a seed, it delays, slows, stalls, garbles and breaks."""

import random
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import trio

_PIECE_BYTES = 64 << 10
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger: on, for no time


@dataclass(frozen=True, slots=True)
class Limp:
    """How bad a line is: chances of one, drawn for each connection (refuse) or piece of 64 KiB.

    Attributes:
        refuse: it is closed before a byte.
        reset: it is reset.
        stall: it falls silent, for ever.
        garble: one byte of the piece is another one.
        slow: the piece takes a second.
        delay_s: every piece takes up to so long.
    """

    refuse: float = 0.02
    reset: float = 0.004
    stall: float = 0.001
    garble: float = 0.001
    slow: float = 0.01
    delay_s: float = 0.02


@contextmanager
def limping(port: int, seed: int) -> Iterator[int]:
    """Yield the port behind which a local port is on a bad line; a process of its own does the work."""
    command = [sys.executable, "-m", "tests.campaigns.limping_proxy", str(port), str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


async def _serve(port: int, chance: random.Random, limp: Limp) -> None:
    async def connect(near: trio.SocketStream) -> None:
        async with near:
            if chance.random() < limp.refuse:
                return
            try:
                async with (
                    await trio.open_tcp_stream("127.0.0.1", port) as far,
                    trio.open_nursery() as nursery,
                ):
                    nursery.start_soon(_forward, near, far, nursery.cancel_scope)
                    await _limp(far, near, chance, limp)
                    nursery.cancel_scope.cancel()
            except* (trio.BrokenResourceError, trio.ClosedResourceError):
                pass  # one side has gone

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    print(listeners[0].socket.getsockname()[1], flush=True)
    await trio.serve_listeners(connect, listeners)


async def _forward(source: trio.SocketStream, target: trio.SocketStream, line: trio.CancelScope) -> None:
    """Pass requests on until the client hangs up: then the line is down."""
    async for data in source:
        await target.send_all(data)
    line.cancel()


async def _limp(
    source: trio.SocketStream, target: trio.SocketStream, chance: random.Random, limp: Limp
) -> None:
    """Pass answers on, badly."""
    while data := bytearray(await source.receive_some(_PIECE_BYTES)):
        drawn = chance.random()
        if drawn < limp.reset:
            target.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            return
        drawn -= limp.reset
        if drawn < limp.stall:
            await trio.sleep_forever()  # until the client hangs up
        drawn -= limp.stall
        if drawn < limp.garble:
            data[chance.randrange(len(data))] ^= 1 + chance.randrange(255)
        drawn -= limp.garble
        await trio.sleep(1 if 0 <= drawn < limp.slow else chance.random() * limp.delay_s)
        await target.send_all(data)


if __name__ == "__main__":
    trio.run(_serve, int(sys.argv[1]), random.Random(int(sys.argv[2])), Limp())
