"""Skip a test that lacks a program or a right; with `JIGDOFS_REQUIRE_ALL=1` fail it instead."""

import atexit
import contextlib
import functools
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

import pytest

# An ordinary user's PATH may lack the directories where nginx and mke2fs are.
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
_CAP_SYS_ADMIN = 21
_TEMPORARY = tempfile.gettempdir()
_REPOSITORY = Path(__file__).parents[2]


def lack(reason: str) -> NoReturn:
    """Skip the running test, or fail it where everything is required."""
    if os.environ.get("JIGDOFS_REQUIRE_ALL") == "1":
        pytest.fail(f"JIGDOFS_REQUIRE_ALL=1, but {reason}")
    pytest.skip(reason)


def tool(command: str) -> str:
    """Return the full path of a required program, looking into the sbin directories too."""
    found = shutil.which(command, path=_PATH)
    if found is None:
        lack(f"{command} is not installed")
    return found


def require(*commands: str) -> None:
    """Go on only where all these programs are installed."""
    for command in commands:
        tool(command)


def require_root() -> None:
    """Go on only as root."""
    if os.geteuid() != 0:
        lack("this needs root")


def require_fuse(user: str | None = None) -> None:
    """Go on only where FUSE file systems can be mounted, by `user` if one is named."""
    require("fusermount3")
    if importlib.util.find_spec("pyfuse3") is None:
        lack("pyfuse3 is not installed")
    if not Path("/dev/fuse").exists():
        lack("there is no /dev/fuse")
    command = ["sh", "-c", ": <>/dev/fuse"]  # opens it for reading and writing, as libfuse will
    if user is not None:
        require_root()
        command = as_user(user, command)
    if subprocess.run(command, capture_output=True, check=False).returncode != 0:
        lack(f"{user or 'this user'} may not open /dev/fuse")
    # root mounts by itself; fusermount3 of an ordinary user regains the right from the bounding set
    which = "CapEff" if os.geteuid() == 0 and user is None else "CapBnd"
    found = re.search(
        rf"^{which}:\s*([0-9a-f]+)$", Path("/proc/self/status").read_text("ascii"), re.MULTILINE
    )
    if found is None or not int(found[1], 16) >> _CAP_SYS_ADMIN & 1:
        lack("mounting is not permitted here")


def as_user(user: str, command: list[str]) -> list[str]:
    """Return the command line that runs `command` as an ordinary user without further groups.

    Our own interpreter in it becomes the one behind the virtual environment, with a copy of the
    product and what it needs: the checkout may lie where that user may not look, such as /root.
    """
    import pwd

    entry = pwd.getpwnam(user)
    ids = ["--reuid", str(entry.pw_uid), "--regid", str(entry.pw_gid)]
    interpreter = os.path.realpath(sys.executable)
    words = [interpreter if word == sys.executable else word for word in command]
    packages = f"PYTHONPATH={_public_packages()}"
    return [tool("setpriv"), *ids, "--clear-groups", "--", tool("env"), packages, *words]


@functools.cache
def _public_packages() -> str:
    """Copy the product and the packages it needs to where everybody can read them, once a run."""
    # not where `tempfile.tempdir` says: a test may have it point to a directory of its own just now
    directory = Path(tempfile.mkdtemp(prefix="kit-packages-", dir=_TEMPORARY))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    directory.chmod(0o755)
    shutil.copytree(_REPOSITORY / "jigdofs", directory / "jigdofs")
    # numpy is an extra of ours, and so among nobody's requirements
    for name in (_needed("jigdofs", set()) | {"numpy"}) - {"jigdofs"}:
        distribution = importlib.metadata.distribution(name)
        for top in {file.parts[0] for file in distribution.files or () if file.parts[0] != ".."}:
            source = Path(str(distribution.locate_file(top)))
            if source.is_dir():
                shutil.copytree(source, directory / top, dirs_exist_ok=True)
            elif source.exists():
                shutil.copy(source, directory / top)
    subprocess.run(["chmod", "-R", "a+rX", str(directory)], check=True)
    return str(directory)


def _needed(name: str, seen: set[str]) -> set[str]:
    """Return the names of a distribution and of all that are installed because of it."""
    if name not in seen:
        seen.add(name)
        for requirement in importlib.metadata.requires(name) or ():
            found = re.match(r"[A-Za-z0-9._-]+", requirement)
            if found and "extra ==" not in requirement:
                with contextlib.suppress(importlib.metadata.PackageNotFoundError):
                    importlib.metadata.distribution(found[0])
                    _needed(found[0], seen)
    return seen
