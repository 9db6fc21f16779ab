"""Where log lines go: the terminal, a file or syslog."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from pathlib import Path

from jigdofs.errors import JigdofsError, Stopped, printable

_ROOT = logging.getLogger("jigdofs")
SYSLOG = "syslog"
_SYSLOG_SOCKET = "/dev/log"
_SAME_ERROR_S = 10.0


class _OneLine(logging.Formatter):
    """Keep one record on one line, save for tracebacks of our own bugs."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  the name logging gave it
        """Escape line feeds that came from outside."""
        return super().formatMessage(record).replace("\n", "\\n")


class _Spoken(_OneLine):
    """Write levels as words of a sentence."""

    def format(self, record: logging.LogRecord) -> str:
        """Add the word."""
        record.spoken = record.levelname.lower()
        return super().format(record)


class ErrorLog:
    """Log errors, each but once in a while: whoever failed to read asks again at once, piece by piece.

    Args:
        logger: where to.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._last = ("", -_SAME_ERROR_S)

    def report(self, what: str, error: JigdofsError) -> None:
        """Log that something failed, and why, unless that was just said; our own end is no error."""
        reason, now = str(error), time.monotonic()
        if self._last[0] == reason and now - self._last[1] < _SAME_ERROR_S:
            return
        self._last = (reason, now)
        level = logging.INFO if isinstance(error, Stopped) else logging.ERROR
        self._logger.log(level, "%s failed: %s", what, reason)


def to_stderr(level: int) -> None:
    """Log to the terminal or to whoever started us."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine("%(levelname)s %(name)s: %(message)s"))
    _set(handler, level)


def to_user(level: int) -> None:
    """Write to stderr as commands do that somebody waits for: the program's name, the level, the message."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Spoken("jigdofs: %(spoken)s: %(message)s"))
    _set(handler, level)


def to_background(target: str, level: int, where: str) -> None:
    """Log to a file, or to syslog, which several processes may share; raise `OSError`.

    Args:
        target: of the file, or the word `syslog`.
        level: what is logged.
        where: what this process is for, a mount point: each line tells it, and the process.
    """
    from logging.handlers import SysLogHandler, WatchedFileHandler

    handler: logging.Handler
    # in a format, % is written twice
    line = f"jigdofs[%(process)d]: {printable(where).replace('%', '%%')}: %(levelname)s %(name)s: %(message)s"
    if target == SYSLOG:
        os.stat(_SYSLOG_SOCKET)  # the handler would be silent about its absence
        handler = SysLogHandler(_SYSLOG_SOCKET)
        handler.setFormatter(_OneLine(line))
    else:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
        # reopened when logrotate moved it away

        class Tolerant(WatchedFileHandler):
            """Lose lines rather than raise: the directory of the file may be gone."""

            def emit(self, record: logging.LogRecord) -> None:
                with contextlib.suppress(OSError):
                    super().emit(record)

        handler = Tolerant(target, encoding="utf-8", errors="backslashreplace")
        handler.setFormatter(_OneLine(f"%(asctime)s {line}"))
    _set(handler, level)


def to_nowhere() -> None:
    """Log nothing."""
    _set(logging.NullHandler(), logging.CRITICAL)


def default_target() -> str:
    """Return syslog where there is one, else a file in the user's log directory."""
    if Path(_SYSLOG_SOCKET).exists():
        return SYSLOG
    import platformdirs

    directory = platformdirs.user_log_path("jigdofs")
    if os.geteuid() == 0 and not _belongs_to_root(directory):
        directory = Path("/var/log/jigdofs")
    return str(directory / "mount.log")


def _belongs_to_root(path: Path) -> bool:
    """Tell whether all the way to a path is root's: sudo may leave root with the HOME of a user.

    Such a user could put links there, and would be left with directories that are not theirs.
    """
    existing = [parent for parent in (path, *path.parents) if parent.exists()]
    return all(parent.stat().st_uid == 0 for parent in existing)


def _set(handler: logging.Handler, level: int) -> None:
    _ROOT.handlers[:] = [handler]
    _ROOT.setLevel(level)
    _ROOT.propagate = False
