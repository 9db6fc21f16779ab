"""Run mount(8) and its kin: fixed names, no shell, bounded in time, messages in English."""

from __future__ import annotations

import os
import subprocess

from jigdofs.errors import MountError


def run(*command: str, limit_s: float = 60) -> subprocess.CompletedProcess[str]:
    """Run a program to its end; raise `MountError` if it cannot be started or takes too long."""
    try:
        return subprocess.run(
            command,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            check=False,
            timeout=limit_s,
            env={**os.environ, "LC_ALL": "C"},
        )
    except FileNotFoundError:
        package = "fuse3" if command[0] == "fusermount3" else "mount"
        raise MountError(f"{command[0]} is not installed (package {package})") from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MountError(f"{command[0]} does not work: {error}") from error


def complaint(done: subprocess.CompletedProcess[str], line: int = -1) -> str:
    """Return what a program wrote that failed: its last line, or another one, without its name."""
    lines = done.stderr.strip().splitlines() or ["no reason given"]
    return lines[line].removeprefix(f"{done.args[0]}: ")
