"""Install the Debian package in a Debian of its own, use it as an administrator does, purge it: what is left?

    .venv/bin/python -m tests.debian.package [--suite bookworm|trixie] [--tree DIR] [--deb FILE]

As root. Without --deb the package is built, with .ci/build-deb. The tree is another one than that of
`tests.debian`, since nothing of ours may be in it; debootstrap makes it the first time.
"""

import argparse
import signal
import subprocess
import sys
import tempfile
from collections.abc import Set as AbstractSet
from pathlib import Path

from tests.debian.tree import Tree
from tests.kit.mounts import REPOSITORY
from tests.kit.running import need

_MATERIAL = "/srv/package-test"
_NEEDED = ("man-db", "procps")  # `systemd-analyze verify` looks for manual pages
# what apt, dpkg and this test itself write
_NOT_OURS = (
    "/var/lib/dpkg",
    "/var/lib/apt",
    "/var/cache/apt",
    "/var/cache/man",
    "/var/log",
    "/root/.cache",
    _MATERIAL,
)
_APT = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "-qq", "--yes")
_IMAGE_SET = f"""\
images = ["{_MATERIAL}/image.jigdo"]
mountpoint = "{_MATERIAL}/set"
scan = ["{_MATERIAL}/pool"]
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.debian.package", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--suite", default="trixie", choices=("bookworm", "trixie"), help="which Debian")
    parser.add_argument("--tree", type=Path, metavar="DIR", help="where it is, or will be made")
    parser.add_argument("--deb", type=Path, metavar="FILE", help="the package")
    arguments = parser.parse_args()
    need("debootstrap", "unshare", "nsenter", "pivot_root")
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    default = Path(tempfile.gettempdir()) / f"jigdofs-package-{arguments.suite}"
    tree = Tree((arguments.tree or default).absolute(), arguments.suite)
    tree.make()
    with tempfile.TemporaryDirectory() as temporary:
        deb = arguments.deb or built(Path(temporary))
        tree.path("/opt/jigdofs.deb").write_bytes(deb.read_bytes())
    try:
        tree.boot()
        scenario(tree)
    finally:
        tree.shutdown()
    return 0


def built(directory: Path) -> Path:
    """Build the package, and return it."""
    command = [str(REPOSITORY / ".ci" / "build-deb"), "--lintian", "--outdir", str(directory)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    say("built; lintian: no errors", *done.stdout.splitlines()[:-1])
    return Path(done.stdout.splitlines()[-1])


def scenario(tree: Tree) -> None:
    """Install, use, upgrade, purge; anything that is not as it should be ends it."""
    tree.does(*_APT, "update")
    tree.does(*_APT, "install", *_NEEDED, timeout_s=600)
    tree.does("systemctl", "daemon-reload")
    files, units = seen(tree), listed_units(tree)

    tree.does(*_APT, "install", "/opt/jigdofs.deb", timeout_s=600)
    packages = tree.does(
        "dpkg-query", "--show", "--showformat=${Package} ${Version}\n", "python3-*"
    ).splitlines()
    named = "pyfuse3 trio httpx diskcache platformdirs rich pycdlib numpy hypercorn prometheus-client".split()
    packages = [line for line in packages if " " in line.strip()]
    say("installed, with", *[line for line in packages if line.split()[0].removeprefix("python3-") in named])
    assert not list(tree.path("/usr/local/lib").glob("python3*/dist-packages/*"))
    assert tree("systemctl", "list-units", "--no-legend", "jigdofs*") == ""
    warnings = tree.run("sh", "-c", "systemd-analyze verify /usr/lib/systemd/system/jigdofs*")
    assert (warnings.returncode, warnings.stdout, warnings.stderr) == (0, "", ""), warnings
    say("systemd-analyze verify: no word")

    tree.does("useradd", "--create-home", "somebody")
    tree.does("chmod", "666", "/dev/fuse")  # as udev does
    for user in ("root", "somebody"):
        assert "is that of the original" in tree.does(
            "runuser", "--user", user, "--", "sh", "-c", "cd; jigdofs demo"
        )
    say("jigdofs demo, as root and as an ordinary user")

    make_image(tree)
    for kind in ("jigdofs", "fuse.jigdofs"):
        options = f"ro,scan={_MATERIAL}/pool"
        tree.does("mount", "-t", kind, f"{_MATERIAL}/image.jigdo", f"{_MATERIAL}/mnt", "-o", options)
        is_right(tree, "mnt")
        tree.does("umount", f"{_MATERIAL}/mnt")
    say("mount -t jigdofs, mount -t fuse.jigdofs")

    tree.write("/etc/jigdofs/images.d/set.toml", _IMAGE_SET)
    tree.does("systemctl", "enable", "--now", "jigdofs@set", "jigdofs-update@none.timer")
    is_right(tree, "set")
    daemon = tree("systemctl", "show", "--property=MainPID", "jigdofs@set")
    tree.does(*_APT, "install", "--reinstall", "/opt/jigdofs.deb")
    assert tree("systemctl", "show", "--property=MainPID", "jigdofs@set") == daemon
    is_right(tree, "set")
    tree.does("systemctl", "restart", "jigdofs@set")
    is_right(tree, "set")
    say("jigdofs@set: starts, goes on while the package is upgraded, restarts")

    tree.does("mount", "-t", "jigdofs", f"{_MATERIAL}/image.jigdo", f"{_MATERIAL}/mnt")
    tree.does(*_APT, "purge", "--autoremove", "jigdofs", timeout_s=600)
    assert tree("findmnt", "--types", "fuse.jigdofs") == ""
    assert tree("sh", "-c", "ps ax | grep '[j]igdofs mount'") == ""
    tree.does("userdel", "--remove", "somebody")
    tree.does("rm", "-r", _MATERIAL)
    same("files", files, seen(tree))
    same("units", units, listed_units(tree))
    say("purged, with the unit and a mount of hand at work: the same files and units as before")


def make_image(tree: Tree) -> None:
    """Make an image of four files with the package's own make-template."""
    tree.does("mkdir", "--parents", *[f"{_MATERIAL}/{name}" for name in ("pool", "mnt")])
    for number in range(4):
        tree.does("dd", "if=/dev/urandom", f"of={_MATERIAL}/pool/{number}", "bs=100k", "count=5")
    tree.does("sh", "-c", f"cat {_MATERIAL}/pool/* >{_MATERIAL}/image.iso")
    wanted = [f"--{what}={_MATERIAL}/image.{end}" for what, end in (("image", "iso"), ("jigdo", "jigdo"))]
    labels = [f"--label=Pool={_MATERIAL}/pool", f"--uri=Pool=file:{_MATERIAL}/pool"]
    tree.does(
        "jigdofs",
        "make-template",
        *wanted,
        *labels,
        f"--template={_MATERIAL}/image.template",
        f"{_MATERIAL}/pool/",
    )


def is_right(tree: Tree, place: str) -> None:
    """Assert that the image there has the bytes it should have."""
    tree.does("cmp", f"{_MATERIAL}/image.iso", f"{_MATERIAL}/{place}/image.iso")


def seen(tree: Tree) -> AbstractSet[str]:
    """Return all files and directories of the tree, but what apt, dpkg and this test write."""
    found = tree.does("find", "/", "/run", "-xdev").splitlines()
    return {name for name in found if not name.startswith(_NOT_OURS)}


def listed_units(tree: Tree) -> AbstractSet[str]:
    """Return all units that systemd has in mind and that are ours, or failed."""
    listed = tree("systemctl", "list-units", "--all", "--plain", "--no-legend").splitlines()
    return {line.split()[0] for line in listed if "jigdofs" in line or " failed " in line}


def same(what: str, before: AbstractSet[str], after: AbstractSet[str]) -> None:
    """Assert that nothing has come or gone."""
    # lists of users before the last change; the system user stays on purpose; a temporary of debconf's
    allowed = {f"/etc/{name}-" for name in ("passwd", "group", "shadow", "gshadow", "subuid", "subgid")}
    new = {name for name in after - before if not name.startswith("/var/cache/debconf/")} - allowed
    gone = {name for name in before - after if not name.startswith(("/var/cache/debconf/", "/run/systemd/"))}
    new = {name for name in new if not name.startswith("/run/systemd/")}
    assert not new, f"{what} left: {sorted(new)}"
    assert not gone, f"{what} gone: {sorted(gone)}"


def say(*words: str) -> None:
    print("; ".join(words), flush=True)


if __name__ == "__main__":
    sys.exit(main())
