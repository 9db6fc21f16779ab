"""Tell how downloads go: in words, with a bar on a terminal; or in JSON, an object a line."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from jigdofs.batch import Outcome, Result
from jigdofs.build import account as origins
from jigdofs.build.account import Account
from jigdofs.cli.progress import transfer_bars
from jigdofs.errors import EXIT_INTERRUPTED, Incomplete, JigdofsError, printable
from jigdofs.fetch.url import without_credentials
from jigdofs.parts.mirrors import Mirrors

_ORIGINS = (origins.BEFORE, origins.LOCAL, origins.CACHE, origins.MIRRORS)
_DONE = {
    Outcome.BUILT: "is complete",
    Outcome.MENDED: "was damaged and is whole again",
    Outcome.THERE: "was there already and is whole",
    Outcome.UNCHANGED: "is unchanged since it was found whole",
}
_LEFT_ALONE = (Outcome.THERE, Outcome.UNCHANGED)


class TextReporter:
    """Say things in words; on a terminal, with a bar.

    Args:
        quiet: say nothing but what went wrong.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        shown = sys.stderr.isatty() and not quiet
        self.interval_s = 0.2 if shown else None
        self._bars: Any = None
        self._task: Any = None
        self._name = ""
        self._account = Account(0)

    def begin(self, path: str, account: Account) -> None:
        """Show a bar."""
        self._account = account
        self._name = printable(path.rsplit("/", 1)[-1])
        if self.interval_s is not None:
            self._bars = transfer_bars()
            self._task = self._bars.add_task(self._name, total=account.length, completed=account.done)
            self._bars.start()

    def update(self) -> None:
        """Move the bar."""
        if self._bars is not None:
            done, checked = self._account.done, self._account.checked
            stage = "checking " if checked and done in (0, self._account.length) else ""
            self._bars.update(
                self._task, completed=checked if stage else done, description=stage + self._name
            )

    def end(self, result: Result) -> None:
        """Print the account of an image."""
        self._clear()
        if self._quiet:
            return
        size = f"{result.account.length:,} bytes"
        if result.outcome not in _LEFT_ALONE:
            size += f" in {result.seconds:.1f} s"
        checked = ""
        if result.outcome is not Outcome.UNCHANGED:
            checked = "; checked against its " + ", ".join(
                dict.fromkeys(one.algorithm for one in result.sums)
            )
        _print(f"{printable(result.path)} {_DONE[result.outcome]}: {size}{checked}")
        if result.outcome not in _LEFT_ALONE:
            _print(f"  {'; '.join(_shares(result.account))}")

    def fail(self, what: str, error: JigdofsError) -> None:
        """Print what went wrong."""
        self._clear()
        text, what = str(error), without_credentials(what)
        prefix = "" if what.removeprefix("./") in text else f"{printable(what)}: "
        print(f"jigdofs: {prefix}{text}", file=sys.stderr)

    def leave(self) -> None:
        """Take the bar away."""
        self._clear()

    def remark(self, text: str) -> None:
        """Print something that is no failure."""
        print(f"jigdofs: note: {text}", file=sys.stderr)

    def interrupted(self) -> None:
        """Print how to go on."""
        self._clear()
        print("jigdofs: interrupted; run the same command again: it goes on from here", file=sys.stderr)

    def finish(self, mirrors: Mirrors, code: int) -> None:
        """Print what each mirror gave."""
        if self._quiet:
            return
        for mirror, health in mirrors.records().items():
            _print(f"fetched from {printable(mirror)}: {health.files} parts, {health.bytes:,} bytes")

    def _clear(self) -> None:
        if self._bars is not None:
            self._bars.stop()
            self._bars = None


class JsonReporter:
    """Write one JSON object a line to stdout; sizes are in bytes, times in seconds."""

    def __init__(self) -> None:
        self.interval_s: float | None = 1.0
        self._path = ""
        self._account = Account(0)
        self._began = 0.0

    def begin(self, path: str, account: Account) -> None:
        """Write `begin`."""
        self._path, self._account, self._began = path, account, time.monotonic()
        _write("begin", path=path, size=account.length)

    def update(self) -> None:
        """Write `progress`."""
        account = self._account
        _write(
            "progress",
            path=self._path,
            size=account.length,
            present=account.done,
            fetched=account.fetched,
            checked=account.checked,
            origins=_origins(account),
            seconds=round(time.monotonic() - self._began, 3),
        )

    def end(self, result: Result) -> None:
        """Write `end`."""
        account = result.account
        _write(
            "end",
            path=result.path,
            outcome=result.outcome.value,
            size=account.length,
            fetched=account.fetched,
            sums={known.algorithm: known.hex for known in result.sums},
            origins=_origins(account),
            seconds=round(result.seconds, 3),
        )

    def fail(self, what: str, error: JigdofsError) -> None:
        """Write `failed`."""
        missing = {"missing_parts": error.missing} if isinstance(error, Incomplete) else {}
        _write(
            "failed", what=without_credentials(what), error=str(error), exit_code=error.exit_code, **missing
        )

    def leave(self) -> None:
        """Have nothing to take away."""

    def remark(self, text: str) -> None:
        """Write `remark`."""
        _write("remark", text=text)

    def interrupted(self) -> None:
        """Write `finished` with the exit code of an interrupt."""
        _write("finished", exit_code=EXIT_INTERRUPTED)

    def finish(self, mirrors: Mirrors, code: int) -> None:
        """Write `finished`."""
        given = {
            mirror: {"parts": health.files, "bytes": health.bytes}
            for mirror, health in mirrors.records().items()
        }
        _write("finished", exit_code=code, mirrors=given)


def _write(event: str, **values: object) -> None:
    values = {name: printable(value) if isinstance(value, str) else value for name, value in values.items()}
    _print(json.dumps({"event": event, **values}))


def _origins(account: Account) -> dict[str, dict[str, int]]:
    """Return what came from where so far."""
    shares = dict(account.shares)  # threads add to it meanwhile
    return {origin: {"parts": share.parts, "bytes": share.bytes} for origin, share in shares.items()}


def _print(line: str) -> None:
    """Print a line; where nobody reads any more, the work goes on all the same."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _shares(account: Account) -> list[str]:
    """Name what came from where, and how much did not have to be fetched."""
    told = []
    for origin in _ORIGINS:
        share = account.shares.get(origin)
        if share is not None:
            parts = "1 part" if share.parts == 1 else f"{share.parts} parts"
            told.append(f"{parts} ({share.bytes:,} bytes) from {origin}")
    raw = account.shares.get(origins.TEMPLATE)
    if raw is not None:
        told.append(f"{raw.bytes:,} bytes from the template")
    spared = sum(
        account.shares[origin].bytes
        for origin in (origins.BEFORE, origins.LOCAL, origins.CACHE)
        if origin in account.shares
    )
    if spared:
        told.append(f"{spared:,} bytes did not have to be fetched")
    return told
