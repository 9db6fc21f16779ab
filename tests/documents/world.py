"""A small world in which the commands of documents run as they stand there.

    unshare --mount --pid --net --fork --kill-child --mount-proc python -m tests.documents.world DIR <STEPS

DIR has an ISO `dvd.iso`, its `dvd.jigdo` and `dvd.template`, and `pool`, which has the parts. Steps are JSON:
a list of commands and files; for each a line of JSON tells what became of it. Nothing of the machine is
changed: /etc, /usr and /var are overlaid, /srv, /mnt, /run and /var/cache are empty at first.
The network has loopback only, where nginx stands in for every host that documents name.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.documents.commands import Step
from tests.kit.mounts import REPOSITORY
from tests.kit.requirements import tool

_STEP_S = 30
_HOSTS = (
    "cdimage.debian.org deb.debian.org ftp.de.debian.org mirror.example.org one.example.org two.example.org"
)
_PUBLISHED = (
    "work/dvd.jigdo",
    "work/dvd-1.jigdo",
    "work/dvd-2.jigdo",
    "work/new-dvd.jigdo",
    "work/debian-12.jigdo",
    "dvd.jigdo",
    "jigdo/dvd-1.jigdo",
    "jigdo/dvd-2.jigdo",
    "site/cdimage/archive/12.0.0/amd64/jigdo-dvd/debian-12.0.0-amd64-DVD-1.jigdo",
    "site/cdimage/archive/12.0.0/amd64/jigdo-bd/debian-12.0.0-amd64-BD-1.jigdo",
    "site/debian-cd/current/amd64/jigdo-dvd/debian-12-amd64-DVD-1.jigdo",
)
"""Where documents take a .jigdo for granted, below /srv: all of the same image, under other names."""
_NGINX = """\
user root; pid /run/stand-in.pid; error_log /run/stand-in.log;
events { worker_connections 256; }
http {
  access_log off; default_type application/octet-stream;
  server { listen 127.0.0.1:80; listen 127.0.0.3:3128; listen 127.0.0.3:3142; root /srv/site; }
}
"""
_JIGDOFS = """\
#!%(python)s
import sys
sys.path.insert(0, %(repository)r)
from jigdofs.cli import main
sys.exit(main())
"""
# what stands in for programs that would do more than a test may, or need more than it has
_PROGRAMS = {
    "sudo": 'exec "$@"',
    # what debootstrap begins with: SUITE, TARGET, MIRROR
    "debootstrap": 'mkdir -p "$2" && cd "$2" && curl -fsS "${3%/}/dists/$1/Release" '
    '"${3%/}/dists/$1/main/binary-amd64/Packages"',
    "systemctl": """
for unit; do :; done
name=${unit#*@} && name=${name%.timer}
set=/etc/jigdofs/images.d/$name.toml
case "$1 $unit" in
  "reload nginx") test -e /run/nginx.pid && nginx -s reload || nginx ;;
  "restart squid" | "restart apt-cacher-ng") ;;
  *jigdofs-update@*) . /etc/jigdofs/update.d/$name.conf && jigdofs download --update --into "$INTO" $JIGDOS ;;
  "enable jigdofs@"*) jigdofs mount --config $set ;;
  "restart jigdofs@"*) systemctl stop $unit && jigdofs mount --config $set ;;
  "stop jigdofs@"*) jigdofs umount $(findmnt -rno TARGET -t fuse.jigdofs) ;;
  "reload jigdofs@"*) pkill -HUP -f "mount --config $set" ;;
  "status jigdofs@"*) pgrep -f "mount --config $set" ;;
  *) echo "systemctl: $*: not known here" >&2; exit 1 ;;
esac
""",
}
_LO_UP = """
import fcntl, socket, struct
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
    for name, address in (("lo", "127.0.0.1"), ("lo:1", "192.0.2.1")):
        packed = struct.pack("16sH2x4s8x", name.encode(), socket.AF_INET, socket.inet_aton(address))
        fcntl.ioctl(asking, 0x8916, packed)  # SIOCSIFADDR
        fcntl.ioctl(asking, 0x8914, struct.pack("16sH14x", name.encode(), 0x41))  # SIOCSIFFLAGS: up, running
"""


def build(material: Path) -> None:
    """Make the world."""
    # copies of other tests' mounts: they would be taken for ours, and be held from ending
    subprocess.run(
        ["sh", "-c", "findmnt -rno TARGET -t fuse.jigdofs | tac | xargs -rd '\\n' umount -l"], check=True
    )
    exec(_LO_UP, {})
    for number, place in enumerate(("/etc", "/usr", "/var")):
        upper = Path(f"/mnt/{number}")
        if not number:
            _mount("tmpfs", "/mnt")
        for part in ("upper", "work"):
            (upper / part).mkdir(parents=True)
        _mount("overlay", place, f"lowerdir={place},upperdir={upper}/upper,workdir={upper}/work")
    for place in (
        "/mnt",
        "/srv",
        "/run",
        "/var/cache",
        "/var/log",
        "/etc/nginx/conf.d",
        "/etc/nginx/sites-enabled",
    ):
        Path(place).mkdir(parents=True, exist_ok=True)
        _mount("tmpfs", place, "mode=755")
    Path("/var/log/nginx").mkdir()
    Path("/etc/hosts").write_text(f"127.0.0.1 localhost {_HOSTS}\n127.0.0.3 proxy\n")
    _programs()
    _files(material)
    Path("/run/stand-in.conf").write_text(_NGINX)
    subprocess.run(["nginx", "-e", "/run/stand-in.log", "-c", "/run/stand-in.conf"], check=True)


def _mount(kind: str, place: str, options: str = "") -> None:
    command = ["mount", "-t", kind, kind, place, *(["-o", options] if options else [])]
    subprocess.run(command, check=True)


def _programs() -> None:
    bin_ = Path("/usr/local/bin")
    for name, script in _PROGRAMS.items():
        (bin_ / name).unlink(missing_ok=True)
        (bin_ / name).write_text(f"#!/bin/sh -e\n{script}\n")
        (bin_ / name).chmod(0o755)
    ours = Path("/usr/bin/jigdofs")
    ours.unlink(missing_ok=True)
    ours.write_text(_JIGDOFS % {"python": sys.executable, "repository": str(REPOSITORY)})
    ours.chmod(0o755)
    Path("/usr/local/bin/jigdofs").unlink(missing_ok=True)
    for name in ("mount.jigdofs", "mount.fuse.jigdofs"):
        Path("/usr/sbin", name).unlink(missing_ok=True)
        Path("/usr/sbin", name).symlink_to(ours)


def _files(material: Path) -> None:
    """Lay out what the documents take for granted: images, .jigdo files, mirrors, directories."""
    work = Path("/srv/work")
    for place in ("work/store", "work/.venv/bin", "home", "iso", "archive", "cache", "jigdo", "mirror"):
        Path("/srv", place).mkdir(parents=True, exist_ok=True)
    for place in ("iso", "cd"):
        Path("/mnt", place).mkdir()
    (work / ".venv/bin/jigdofs").symlink_to("/usr/bin/jigdofs")
    pool, site = material / "pool" / "main", Path("/srv/site")
    for place in ("mirror/debian", "debian", "centos", "ours"):
        shutil.copytree(pool, Path("/srv", place))
    shutil.copytree(pool, work / "tree")
    for place in ("old-dvd.iso", "work/old-dvd.iso", "work/DVD.iso", "work/live.iso", "work/own.iso"):
        shutil.copy(material / "dvd.iso", Path("/srv", place))
    for name in ("debian", "centos", "ours"):
        (site / name).parent.mkdir(exist_ok=True)
        (site / name).symlink_to(Path("/srv", name))
    for name in ("cdimage.debian.org", "deb.debian.org"):
        (site / name).symlink_to(".")  # as apt-cacher-ng has them
    netboot = Path("/srv/debian/dists/bookworm/main/installer-amd64/current/images/netboot")
    netboot.mkdir(parents=True)
    subprocess.run(["tar", "-czf", netboot / "netboot.tar.gz", "-C", material, "dvd.jigdo"], check=True)
    for place in _PUBLISHED:
        _publish(material, Path("/srv", place))
    Path("/var/cache/jigdofs-images").mkdir(mode=0o700)
    sets = Path("/etc/jigdofs/images.d")
    shutil.rmtree(sets.parent, ignore_errors=True)
    sets.mkdir(parents=True)
    (sets / "dvds.toml").write_text('images = ["/srv/jigdo/dvd-1.jigdo"]\nmountpoint = "/srv/iso"\n')


def _publish(material: Path, place: Path) -> None:
    """Write the .jigdo under this name, with its template beside it, and an image of the same name."""
    place.parent.mkdir(parents=True, exist_ok=True)
    text = (material / "dvd.jigdo").read_text("utf-8")
    text = text.replace("Filename=dvd.iso", f"Filename={place.stem}.iso")
    text = text.replace("Template=dvd.template", f"Template={place.stem}.template")
    place.write_text(text)
    shutil.copy(material / "dvd.template", place.with_suffix(".template"))


class Reader:
    """Somebody who types what documents say, one command after the other."""

    def __init__(self) -> None:
        self._serving: subprocess.Popen[str] | None = None

    def does(self, step: Step) -> dict[str, Any]:
        """Type it, or write it; return what became of it."""
        if step.file:
            path = Path("/srv/work", step.file)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(step.content)
            return {"code": 0, "out": ""}
        command = step.command
        if step.is_fstab:
            Path("/etc/fstab").write_text(command + "\n")
            command = f"mount {shlex.split(command)[1]}"
        self._make_way(command)
        if command.startswith("jigdofs serve"):
            return self._serve(command)
        return self._run(command)

    def _run(self, command: str) -> dict[str, Any]:
        with open("/run/output", "w+b") as out:  # a daemon may keep it: a pipe would not end
            try:
                code = subprocess.run(
                    ["sh", "-euc", command],
                    cwd="/srv/work",
                    env={"HOME": "/srv/home", "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    timeout=_STEP_S,
                    check=False,
                ).returncode
            except subprocess.TimeoutExpired:
                code = -1
            out.seek(0)
            return {"code": code, "out": out.read().decode(errors="replace")}

    def _make_way(self, command: str) -> None:
        """Undo what was only an example before: mounts, and outputs that would be in the way."""
        if re.search(r"\bmount (-|http|/srv|[\w-]+\.jigdo)|\benable --now jigdofs@", command):
            listed = self._run("findmnt -rno TARGET -t fuse.jigdofs || :")["out"].split()
            for point in listed:
                done = self._run(f"jigdofs umount {point}")
                assert done["code"] == 0, done
        if re.search(r"\bjigdofs (mt|make-template)\b", command):
            for stem in re.findall(r"(\S+)\.(?:iso|jigdo|template)\b", command):
                for ending in ("jigdo", "template"):
                    Path("/srv/work", f"{stem}.{ending}").unlink(missing_ok=True)

    def _serve(self, command: str) -> dict[str, Any]:
        """Leave it running, until the next one is."""
        if self._serving is not None:
            self._serving.terminate()
            self._serving.wait()
        self._serving = subprocess.Popen(
            ["sh", "-c", f"exec {command}"], cwd="/srv/work", stdout=subprocess.PIPE, text=True
        )
        assert self._serving.stdout is not None
        line = self._serving.stdout.readline()
        return {"code": 0 if line.startswith("serving ") else 1, "out": line}


def in_a_world(material: Path) -> list[str]:
    """Return the command line that runs this program in namespaces of its own."""
    spaces = "--mount --pid --net --fork --kill-child --mount-proc --propagation private".split()
    return [tool("unshare"), *spaces, sys.executable, "-m", "tests.documents.world", str(material)]


def main() -> None:
    """Do all steps."""
    os.environ["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    os.environ["HOME"] = "/srv/home"
    build(Path(sys.argv[1]))
    reader = Reader()
    for fields in json.load(sys.stdin):
        began = time.monotonic()
        became = reader.does(Step(**fields))
        print(json.dumps({**became, "seconds": time.monotonic() - began}), flush=True)


def _be_init() -> None:
    """As the first process of its namespace, wait for every process that nobody else waits for."""
    if os.getpid() != 1:
        return
    child = os.fork()
    while child:
        pid, status = os.wait()
        if pid == child:
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


if __name__ == "__main__":
    _be_init()
    main()
