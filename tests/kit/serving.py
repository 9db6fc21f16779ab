"""Serve with the program itself, in a process of its own, and look at how it ends."""

import os
import re
import signal
import subprocess
import threading
import urllib.parse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.kit.mounts import PROGRAM, clean_environ
from tests.kit.ports import LOOPBACK

_NOTABLE = re.compile(r"(WARNING|ERROR|CRITICAL) |Traceback \(most recent call last\)")


@dataclass(slots=True)
class Serving:
    """A server that answers; `stderr` grows while it runs."""

    process: subprocess.Popen[str]
    port: int
    line: str
    stderr: list[str]

    def url(self, path: bytes | str = "/") -> str:
        """Return the URL of a path that is not escaped yet."""
        return f"http://{LOOPBACK}:{self.port}{urllib.parse.quote(path)}"

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send it a signal and return its exit code."""
        os.kill(self.process.pid, number)
        return self.process.wait(20)


@contextmanager
def serving(
    sources: Sequence[str | Path], home: Path, *options: str, allow_log: Sequence[str] = ()
) -> Iterator[Serving]:
    """Run `jigdofs serve SOURCE... --listen 127.0.0.1:0 OPTIONS`; at its end it must end by itself.

    The end fails where the log has a WARNING or worse without one of the texts of `allow_log`.
    """
    command = [*PROGRAM, "serve", *map(str, sources), "--listen", f"{LOOPBACK}:0", *options]
    process = subprocess.Popen(
        [*command, "--cache-dir", str(home / "cache")],
        cwd=home,
        env=clean_environ(home),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    lines: list[str] = []
    assert process.stdout is not None
    assert process.stderr is not None
    reader = threading.Thread(target=lambda err=process.stderr: lines.extend(err), daemon=True)
    reader.start()
    try:
        line = process.stdout.readline()
        found = re.search(rf"http://{re.escape(LOOPBACK)}:(\d+)/", line)
        assert found is not None, (line, lines)
        server = Serving(process, int(found[1]), line.strip(), lines)
        yield server
        if process.poll() is None:
            assert server.end() == 0, lines
        reader.join(5)
        unexpected = [
            one for one in lines if _NOTABLE.match(one) and not any(text in one for text in allow_log)
        ]
        assert unexpected == [], lines
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        reader.join(5)
        process.stdout.close()
        process.stderr.close()
