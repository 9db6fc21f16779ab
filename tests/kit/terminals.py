"""Type into an interactive shell on a terminal, and see what it made of the line."""

import os
import pty
import select
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.kit.scenes import wait_until

REPORT = "\x14"
"""Ctrl-T: the shell has it bound to write its line to $LINE, and to empty it."""


class Terminal:
    """A shell on a terminal of its own.

    Args:
        command: the shell; what it is set up with must end by making the file $READY.
        directory: a new one, where it runs and keeps files.
        environ: all it gets, besides LINE and READY.
    """

    def __init__(self, command: Sequence[str], directory: Path, environ: Mapping[str, str]) -> None:
        self._line = directory / "line"
        self._ready = directory / "ready"
        self._shown = b""
        self._far, near = pty.openpty()
        words = {"LINE": str(self._line), "READY": str(self._ready), "TERM": "dumb", "HOME": str(directory)}
        self._process = subprocess.Popen(
            list(command),
            stdin=near,
            stdout=near,
            stderr=near,
            cwd=directory,
            env={**environ, **words},
            start_new_session=True,
        )
        os.close(near)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        try:
            self._wait_for(self._ready)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._reader.join(5)
        os.close(self._far)

    def typed(self, keys: str) -> str:
        """Type, and return the line as the shell has it then."""
        self._line.unlink(missing_ok=True)
        os.write(self._far, (keys + REPORT).encode())
        self._wait_for(self._line)
        return self._line.read_text("utf-8").removesuffix("\n")

    def _wait_for(self, path: Path) -> None:
        try:
            wait_until(
                lambda: path.exists() and path.read_bytes().endswith(b"\n"), f"{path.name} of the shell"
            )
        except AssertionError as error:
            raise AssertionError(f"{error}; it showed {self._shown.decode(errors='replace')!r}") from None

    def _read(self) -> None:
        while self._process.poll() is None:
            if select.select([self._far], [], [], 0.05)[0]:
                try:
                    self._shown += os.read(self._far, 4096)
                except OSError:
                    break
