"""Mount with the program itself, in a process of its own, and look at what it leaves behind."""

import errno
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.kit.requirements import as_user, require_fuse, tool

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = (sys.executable, "-m", "jigdofs")
_PRIVATE = re.compile(r"(?i)(http|https|ftp|all|no)_proxy|JOURNAL_STREAM|NOTIFY_SOCKET|XDG_.*|JIGDOFS_.*")
_NOTABLE = re.compile(r"(WARNING|ERROR|CRITICAL) |Traceback \(most recent call last\)")


def mounted_at(path: Path) -> bool:
    """Tell whether something is mounted right there, without asking the file system that may hang."""
    wanted = os.fsencode(path.parent.resolve() / path.name)
    with Path("/proc/self/mountinfo").open("rb") as table:
        points = (line.split(b" ")[4] for line in table)
        return any(
            re.sub(rb"\\(\d{3})", lambda m: bytes([int(m[1], 8)]), point) == wanted for point in points
        )


def clean_environ(home: Path) -> dict[str, str]:
    """Return the environment of a program that is not to see this machine's proxies and directories."""
    environ = {name: value for name, value in os.environ.items() if not _PRIVATE.fullmatch(name)}
    return environ | {"HOME": str(home), "LC_ALL": "C.UTF-8", "PYTHONPATH": str(REPOSITORY)}


def detach_everything(mountpoint: Path) -> None:
    """Take every mount at this point away, even what is in use or dead."""
    for _ in range(8):  # mounts may be stacked
        if not mounted_at(mountpoint):
            break
        subprocess.run([tool("fusermount3"), "-u", "-z", str(mountpoint)], capture_output=True, check=False)


class Mounted:
    """Run `jigdofs mount SOURCE... MOUNTPOINT --foreground OPTIONS` and unmount it at the end.

    The end fails where unmounting does, where a mount is left, or where the log has a WARNING or worse
    without one of the texts of `allow_log`. A test that ends the process itself is spared the unmounting, and
    the check for a left mount too if the process died of a signal. `home` is HOME and working directory (a
    throw-away one by default). With `user`, home and mount point change their owner.
    """

    def __init__(
        self,
        sources: str | Path | Sequence[str | Path],
        mountpoint: Path,
        options: Sequence[str] = (),
        *,
        home: Path | None = None,
        user: str | None = None,
        allow_log: Sequence[str] = (),
        environ: dict[str, str] | None = None,
        program: Sequence[str] = PROGRAM,
    ) -> None:
        require_fuse(user)
        self.mountpoint = mountpoint.parent.resolve() / mountpoint.name
        self._own_home = home is None
        self._home = Path(tempfile.mkdtemp(prefix="kit-home-")) if home is None else home.absolute()
        self._user = user
        self._allowed = tuple(allow_log)
        self._program = list(program)
        listed = [sources] if isinstance(sources, str | Path) else sources
        names = [str(source.absolute()) if isinstance(source, Path) else source for source in listed]
        self.command = [*self._program, "mount", *names, str(self.mountpoint), "--foreground", *options]
        self._environ = clean_environ(self._home) | (environ or {})
        self._lines: list[str] = []
        self._more = threading.Condition()
        self._reader = threading.Thread(target=self._read, name="kit-mount-log", daemon=True)
        self.process: subprocess.Popen[str]

    def __enter__(self) -> Self:
        for path in (self._home, self.mountpoint):
            # what is left of a dead mount cannot be looked at; a mount point may be a regular file
            if not mounted_at(path):
                if not path.is_file():
                    path.mkdir(parents=True, exist_ok=True)
                if self._user is not None:
                    shutil.chown(path, self._user)
        self.process = subprocess.Popen(
            self._as_user(self.command),
            cwd=self._home,
            env=self._environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        self._reader.start()
        try:
            self._wait_ready(time.monotonic() + 30)
        except BaseException:
            self._clean_up()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        ended = self.process.poll()
        try:
            if error is None and ended is None:
                self.unmount()
            if error is None and ended is not None and ended >= 0:
                assert not mounted_at(self.mountpoint), (
                    f"a process that ended by itself left its mount: {self._log()}"
                )
        finally:
            self._clean_up()
        if error is None:
            unexpected = [line for line in self._lines if _NOTABLE.match(line) and not self._allows(line)]
            assert not unexpected, f"unexpected in the log: {unexpected}; all of it: {self._log()}"

    def stderr(self) -> list[str]:
        """Return the lines it wrote so far."""
        with self._more:
            return list(self._lines)

    def wait_for_log(self, text: str, timeout_s: float = 10) -> None:
        """Wait until a line has the text."""
        with self._more:
            if not self._more.wait_for(lambda: any(text in line for line in self._lines), timeout_s):
                raise AssertionError(f"no {text!r} in the log: {self._log()}")

    def unmount(self) -> None:
        """Unmount with the program, and assert that both it and the mounting process exit with 0."""
        done = self._call([*self._program, "umount", str(self.mountpoint)])
        assert done.returncode == 0, f"umount returned {done.returncode}: {done.stderr}"
        code = self.process.wait(30)
        assert code == 0, f"the unmounted process returned {code}: {self._log()}"
        assert not mounted_at(self.mountpoint), "umount returned 0 and the mount is still there"

    def _wait_ready(self, deadline: float) -> None:
        while not self._answers():
            if self.process.poll() is not None:
                self._reader.join(5)
                raise AssertionError(f"{self.command} returned {self.process.returncode}: {self._log()}")
            if time.monotonic() > deadline:
                raise AssertionError(f"{self.command} did not mount in time: {self._log()}")
            time.sleep(0.01)

    def _answers(self) -> bool:
        """Tell whether a main loop answers; on a dead mount stat may come from a cache, statfs never does.

        While a dead mount is replaced, there is a moment when the bare mount point would answer.
        """
        if not mounted_at(self.mountpoint):
            return False
        asked = self._call(["stat", "--file-system", "--format=%T", str(self.mountpoint)])
        if asked.returncode == 0:
            return asked.stdout.startswith("fuse")
        return os.strerror(errno.ENOTCONN) not in asked.stderr

    def _clean_up(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        detach_everything(self.mountpoint)
        self._reader.join(5)
        if self._own_home:
            shutil.rmtree(self._home, ignore_errors=True)

    def _call(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self._as_user(command),
            cwd=self._home,
            env=self._environ,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def _as_user(self, command: list[str]) -> list[str]:
        return command if self._user is None else as_user(self._user, command)

    def _allows(self, line: str) -> bool:
        return any(text in line for text in self._allowed)

    def _log(self) -> str:
        return "\n".join(self._lines[-50:]) or "(nothing in its log)"

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stream:
            for line in stream:
                with self._more:
                    self._lines.append(line.rstrip("\n"))
                    self._more.notify_all()
