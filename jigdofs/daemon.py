"""Go into the background only when the work has really begun."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
from collections.abc import Callable

from jigdofs.errors import EXIT_INTERRUPTED, EXIT_MOUNT, EXIT_OK, Stopped

_log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1

Ready = Callable[[], None]


def run_detached(work: Callable[[Ready], int]) -> int:
    """Run `work` in a child and return once it called its argument, or ended.

    Until then the child shares our terminal, so it prints its own errors and Ctrl-C ends both; if we are
    killed, it ends too, as nobody would learn of it.

    Returns:
        0 once the child is ready, else its exit code.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    child = os.fork()
    if child:
        os.close(writing)
        return _wait_for(child, reading)
    os.close(reading)
    _end_with_parent(signal.SIGTERM)
    if os.getppid() != parent:  # it died before it could be told to us
        os._exit(EXIT_MOUNT)
    code = EXIT_MOUNT
    try:
        code = work(lambda: _leave(writing))
    except Exception:  # noqa: BLE001  told whole; the code says the rest
        _log.exception("internal error")
    finally:
        sys.stderr.flush()
        os._exit(code)


def _wait_for(child: int, reading: int) -> int:
    """Return once the child is ready or has ended."""
    try:
        ready = os.read(reading, 1)
    except KeyboardInterrupt:
        os.waitpid(child, 0)
        return EXIT_INTERRUPTED
    if ready:
        return EXIT_OK
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        name = signal.strsignal(-code) or f"signal {-code}"
        sys.stderr.write(f"jigdofs: the daemon died before it was ready: {name}\n")
    return code if code > 0 else EXIT_MOUNT


def _leave(writing: int) -> None:
    """Leave terminal and directory, and say that we are ready; raise `Stopped` if nobody listens."""
    _end_with_parent(None)
    os.setsid()
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # there is no terminal any more that could go away
    os.chdir("/")
    sys.stdout.flush()
    sys.stderr.flush()
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    os.close(null)
    try:
        os.write(writing, b"1")
    except BrokenPipeError:
        raise Stopped("whoever wanted this is gone") from None
    finally:
        os.close(writing)


def _end_with_parent(number: signal.Signals | None) -> None:
    """Have the kernel send us a signal when our parent dies (prctl(2)), or no longer."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(number or 0), 0, 0, 0)
