"""Where log lines go: the terminal, the journal, a file or syslog; and what of them is kept for later."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from pathlib import Path

from jigdofs.errors import JigdofsError, Stopped, printable
from jigdofs.troubles import RecentTroubles, Repeats, Trouble

_ROOT = logging.getLogger("jigdofs")
_LISTENERS = logging.getLogger("trio.serve_listeners")
SYSLOG = "syslog"
_SYSLOG_SOCKET = "/dev/log"
_PRIORITIES = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
"""The journal's numbers (sd-daemon(3)); 7 for what is less."""
_recent = RecentTroubles()
_where = "nowhere"


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


class _Journal(_OneLine):
    """Write for the journal: the level as a number before the line, all of a record on one, without a time.

    Each line of ours would be a record of its own there, so a traceback's line feeds are escaped, too.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Add the number."""
        priority = next((number for level, number in _PRIORITIES if record.levelno >= level), 7)
        return f"<{priority}>{super().format(record)}".replace("\n", "\\n")


class ErrorLog:
    """Log errors of readers; one that comes again at once, piece by piece, is one error (`troubles.Repeats`).

    Args:
        logger: where to.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def report(self, what: str, error: JigdofsError) -> None:
        """Log that something failed, and why; our own end is no error."""
        reason = str(error)
        level = logging.INFO if isinstance(error, Stopped) else logging.ERROR
        self._logger.log(level, "%s failed: %s", what, reason, extra={"why": reason})


def troubles() -> list[Trouble]:
    """Return the last distinct warnings and errors, the latest first."""
    return _recent.last()


def where() -> str:
    """Tell where the log goes: `terminal`, `stderr`, `journal`, `syslog`, `nowhere` or the path of a file."""
    return _where


def tell_repeats(*, all_of_it: bool = False) -> None:
    """Log how often messages were kept back; called now and then, and with `all_of_it` at the end."""
    for handler in _ROOT.handlers:
        for keeper in handler.filters:
            if isinstance(keeper, Repeats):
                keeper.tell(all_of_it=all_of_it)


def to_stderr(level: int) -> None:
    """Log to the terminal or to whoever started us."""
    handler = logging.StreamHandler(sys.stderr)
    if _stderr_is_the_journal():
        handler.setFormatter(_Journal("%(name)s: %(message)s"))
        _set(handler, level, "journal")
        return
    handler.setFormatter(_OneLine("%(levelname)s %(name)s: %(message)s"))
    _set(handler, level, "terminal" if sys.stderr.isatty() else "stderr")


def to_user(level: int) -> None:
    """Write to stderr as commands do that somebody waits for: the program's name, the level, the message."""
    handler = logging.StreamHandler(sys.stderr)
    if _stderr_is_the_journal():
        handler.setFormatter(_Journal("%(message)s"))
    else:
        handler.setFormatter(_Spoken("jigdofs: %(spoken)s: %(message)s"))
    _set(handler, level, "stderr")


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
    _set(handler, level, target)


def set_level(level: int) -> None:
    """Log from this level on, wherever that goes."""
    for logger in (_ROOT, _LISTENERS):
        logger.setLevel(level)


def _without_traceback(record: logging.LogRecord) -> bool:
    """Leave away where in trio it happened: it says ten times a second that descriptors have run out."""
    record.exc_info = None
    return True


_LISTENERS.addFilter(_without_traceback)


def to_nowhere() -> None:
    """Log nothing."""
    _set(logging.NullHandler(), logging.CRITICAL, "nowhere")


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


def _stderr_is_the_journal() -> bool:
    """Tell whether somebody has connected our stderr to the journal, as systemd does (systemd.exec(5))."""
    stream = os.environ.get("JOURNAL_STREAM", "")
    try:
        status = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):
        return False
    return stream == f"{status.st_dev}:{status.st_ino}"


def _set(handler: logging.Handler, level: int, target: str) -> None:
    global _where  # noqa: PLW0603  there is one log, as there is one root of all loggers
    _where = target
    tell_repeats(all_of_it=True)
    handler.addFilter(Repeats(handler))
    for logger in (_ROOT, _LISTENERS):
        logger.handlers[:] = [_recent, handler]
        logger.setLevel(level)
        logger.propagate = False
