"""A TCP proxy that adds a round-trip time, for benchmarks of distance on one machine."""

import math
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import trio

_PIECE_BYTES = 256 << 10
_WINDOW_PIECES = 64


@contextmanager
def delayed(port: int, rtt_s: float, bytes_per_s: float = math.inf) -> Iterator[int]:
    """Yield the port behind which a local port is `rtt_s` away; a process of its own does the work.

    Args:
        port: the local one.
        rtt_s: round trip.
        bytes_per_s: of each connection, in each direction.
    """
    command = [sys.executable, "-m", "tests.benchmarks.delay_proxy", str(port), str(rtt_s), str(bytes_per_s)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.kill()


async def _serve(port: int, rtt_s: float, bytes_per_s: float) -> None:
    async def connect(near: trio.SocketStream) -> None:
        await trio.sleep(rtt_s)  # SYN and its answer
        far = await trio.open_tcp_stream("127.0.0.1", port)
        near.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        async with near, far, trio.open_nursery() as nursery:
            nursery.start_soon(_pump, near, far, rtt_s / 2, bytes_per_s)
            await _pump(far, near, rtt_s / 2, bytes_per_s)
            nursery.cancel_scope.cancel()

    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    print(listeners[0].socket.getsockname()[1], flush=True)
    await trio.serve_listeners(connect, listeners)


async def _pump(
    source: trio.SocketStream, target: trio.SocketStream, delay_s: float, bytes_per_s: float
) -> None:
    """Pass bytes on, each after the delay; many may be on the way."""
    send, receive = trio.open_memory_channel[tuple[float, bytes]](_WINDOW_PIECES)
    free_at = 0.0  # when the line has sent what was sent before

    async def deliver() -> None:
        async for due, data in receive:
            await trio.sleep_until(due)
            await target.send_all(data)

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(deliver)
            async with send:
                async for data in source:
                    free_at = max(free_at, trio.current_time()) + len(data) / bytes_per_s
                    await send.send((free_at + delay_s, bytes(data)))
    except* (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # one side has gone


if __name__ == "__main__":
    trio.run(_serve, int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]))
