"""Have control sockets in a directory of the test, and run lines as another user."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from jigdofs.control import place
from tests.kit.requirements import as_user, require_root

MNT = "/mnt/iso"
USER = "nobody"


def sockets_below(directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have sockets of our own there, whoever runs the test; return the directory that is taken first."""
    monkeypatch.setattr(place, "_ROOT_DIRECTORY", directory / "jigdofs")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    monkeypatch.setattr("tempfile.tempdir", str(directory))
    return directory / "jigdofs"


def run_as_user(code: str, **environ: str) -> str:
    """Run a few lines as an ordinary user, and return what they print."""
    require_root()
    command = as_user(USER, [sys.executable, "-c", textwrap.dedent(code)])
    done = subprocess.run(
        command, env={"PATH": os.environ["PATH"], **environ}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
