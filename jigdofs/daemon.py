"""Go into the background only when the work has really begun."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable

from jigdofs.errors import EXIT_INTERRUPTED, EXIT_MOUNT, EXIT_OK

_log = logging.getLogger(__name__)

Ready = Callable[[], None]


def run_detached(work: Callable[[Ready], int]) -> int:
    """Run `work` in a child and return once it called its argument, or ended.

    Until then the child shares our terminal, so it prints its own errors and Ctrl-C ends both.

    Returns:
        0 once the child is ready, else its exit code.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child:
        os.close(writing)
        try:
            ready = os.read(reading, 1)
        except KeyboardInterrupt:
            os.waitpid(child, 0)
            return EXIT_INTERRUPTED
        if ready:
            return EXIT_OK
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        return code if code > 0 else EXIT_MOUNT
    os.close(reading)

    def ready_now() -> None:
        os.setsid()
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # there is no terminal any more that could go away
        os.chdir("/")
        sys.stdout.flush()
        sys.stderr.flush()
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        os.close(null)
        os.write(writing, b"1")
        os.close(writing)

    code = EXIT_MOUNT
    try:
        code = work(ready_now)
    except Exception:  # noqa: BLE001  told whole; the code says the rest
        _log.exception("internal error")
    finally:
        sys.stderr.flush()
        os._exit(code)
