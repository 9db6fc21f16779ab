"""`mount -t jigdofs`, `mount -t fuse.jigdofs` and lines of fstab: with the real mount(8)."""

import hashlib
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from jigdofs.cli import main, mount8
from jigdofs.cli.mount8 import Wish
from jigdofs.errors import UsageError
from tests.kit.images import BuiltImage
from tests.kit.mounts import REPOSITORY
from tests.kit.requirements import require_fuse, require_root, tool

LAZILY = "noauto,nofail,_netdev,x-systemd.automount,x-systemd.idle-timeout=10min,allow_other"


@dataclass(frozen=True)
class System:
    """A mount namespace with our helpers in /usr/sbin, and a process namespace that ends what is left."""

    directory: Path
    fstab: str = ""
    helpers: tuple[str, ...] = ("mount.jigdofs", "mount.fuse.jigdofs")

    def run(self, script: str) -> list[str]:
        """Run a shell script there, without HOME and with a PATH that has no sbin; return what it printed."""
        require_root()
        require_fuse()
        programs = self.directory / "programs"
        commands = self.directory / "commands"
        for place, names in ((programs, self.helpers), (commands, ("jigdofs",))):
            place.mkdir()
            for name in names:
                (place / name).write_text(
                    f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(REPOSITORY)!r})\n"
                    "from jigdofs.cli import main\nsys.exit(main())\n"
                )
                (place / name).chmod(0o755)
        (self.directory / "fstab").write_text(self.fstab)
        (self.directory / "mnt").mkdir()
        setup = (
            f"mount -t overlay overlay -o lowerdir={programs}:/usr/sbin /usr/sbin;"
            f"mount -t overlay overlay -o lowerdir={commands}:/usr/bin /usr/bin;"
            f"mount --bind {self.directory}/fstab /etc/fstab; cd {shlex.quote(str(self.directory))};"
            f"exec env -i PATH=/usr/bin:/bin LC_ALL=C sh -uc {shlex.quote(script)}"
        )
        spaces = ("--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "slave")
        done = subprocess.run(
            [tool("unshare"), *spaces, "sh", "-euc", setup],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=120,
            check=False,
        )
        return done.stdout.splitlines()


SUM = "sha256sum <mnt/kit.iso | cut -c -64"
GONE = "findmnt mnt >/dev/null || echo gone"


@pytest.fixture
def image(iso_md5: BuiltImage, tmp_path: Path) -> BuiltImage:
    return iso_md5.with_servers(tmp_path / "kit", {"Debian": [f"file:{iso_md5.pool}/"]})


def checksum(image: BuiltImage) -> str:
    return hashlib.sha256(image.image.read_bytes()).hexdigest()


@pytest.mark.parametrize("kind", ["jigdofs", "fuse.jigdofs"])
def test_mount(image: BuiltImage, tmp_path: Path, kind: str) -> None:
    """mount(8) finds the helper, which bears all that fstab may say; findmnt, df and umount behave."""
    options = f"{LAZILY},cache_dir={tmp_path}/cache"
    told = System(tmp_path).run(
        f"mount -t {kind} {image.jigdo} mnt -o {options}; echo $?; {SUM};"
        "findmnt -t fuse.jigdofs -no SOURCE,FSTYPE mnt; findmnt -no OPTIONS mnt | cut -d, -f 1-3;"
        f"df --output=avail,pcent mnt | tail -n 1 | tr -d ' '; umount mnt; echo $?; {GONE}"
    )
    assert told[:2] == ["0", checksum(image)]
    assert told[2].split() == [str(image.jigdo), "fuse.jigdofs"]
    assert told[3:] == ["ro,nosuid,nodev", "0100%", "0", "gone"]


def test_noexec(image: BuiltImage, tmp_path: Path) -> None:
    """Nothing can be run in the mount when that is asked for, as `user' in fstab does, too."""
    line = f"{image.jigdo} {tmp_path}/mnt jigdofs user,no_cache 0 0\n"
    told = System(tmp_path, fstab=line).run(
        f"for o in noexec noexec,exec; do mount -t jigdofs {image.jigdo} mnt -o no_cache,$o;"
        f"findmnt -no OPTIONS mnt | cut -d, -f 1-4; umount mnt; done; mount {tmp_path}/mnt;"
        "findmnt -no OPTIONS mnt | cut -d, -f 1-4; umount mnt"
    )
    assert told == ["ro,nosuid,nodev,noexec", "ro,nosuid,nodev,relatime", "ro,nosuid,nodev,noexec"]


def test_without_the_helper_of_fuse(image: BuiltImage, tmp_path: Path) -> None:
    """For the type fuse.jigdofs, mount.fuse3 runs `jigdofs SRC DIR -o OPTIONS`."""
    told = System(tmp_path, helpers=("mount.jigdofs",)).run(
        f"mount -t fuse.jigdofs {image.jigdo} mnt -o {LAZILY},no_cache; echo $?; {SUM}; umount mnt; {GONE}"
    )
    assert told == ["0", checksum(image), "gone"]


def test_fstab(image: BuiltImage, tmp_path: Path) -> None:
    """A line of fstab is enough for `mount DIR' and for `mount -a'; findmnt finds nothing wrong with it."""
    line = f"{image.jigdo} {tmp_path}/mnt jigdofs ro,_netdev,nofail,no_cache,umask=022 0 0\n"
    told = System(tmp_path, fstab=line).run(
        f"mount {tmp_path}/mnt; echo $?; stat -c %a mnt/kit.iso; umount mnt; {GONE};"
        f"mount -a -O _netdev; echo $?; {SUM}; umount mnt; {GONE}"
    )
    assert told == ["0", "444", "gone", "0", checksum(image), "gone"]


def test_image_set(image: BuiltImage, tmp_path: Path) -> None:
    """The source may be a file that describes a set of images."""
    settings = tmp_path / "set.toml"
    settings.write_text(f'images = ["{image.jigdo}"]\nno-cache = true\n')
    line = f"{settings} {tmp_path}/mnt jigdofs nofail,_netdev 0 0\n"
    told = System(tmp_path, fstab=line).run(
        f"mount -v -t jigdofs {settings} mnt; echo $?; {SUM}; findmnt -no SOURCE mnt; mount -a; echo $?;"
        f"umount mnt; {GONE}"
    )
    mounted = f"mount.jigdofs: {settings} mounted on {tmp_path}/mnt."
    assert told == [mounted, "0", checksum(image), str(settings), "0", "gone"]


def test_failures(image: BuiltImage, tmp_path: Path) -> None:
    """Exit codes are those of mount(8); each failure is one line."""
    told = System(tmp_path).run(
        f"mount -t jigdofs {image.jigdo} mnt -o colour=red; echo $?;"
        "mount -t jigdofs missing.jigdo mnt; echo $?;"
        f"mount -t jigdofs {image.jigdo} nowhere; echo $?;"
        f"/usr/sbin/mount.jigdofs {image.jigdo} mnt -o remount; echo $?; {GONE};"
        f"mount -t jigdofs {image.jigdo} mnt -o no_cache; mount -o remount,ro mnt; echo $?; umount mnt"
    )
    assert told[0].startswith("mount.jigdofs: -o colour: no such option")
    assert told[1] == "1"
    assert told[2].startswith(f"mount.jigdofs: {tmp_path}/missing.jigdo: ")
    assert told[3] == "32"
    assert "nowhere" in told[4]
    assert told[5] == "32"
    assert told[6].startswith("mount.jigdofs: -o remount: not possible")
    assert told[7:9] == ["32", "gone"]
    assert "-o remount: not possible" in told[9]
    assert told[10:] == ["32"]


def test_sloppy_and_fake(image: BuiltImage, tmp_path: Path) -> None:
    """`-s` bears unknown options; `-f` looks at everything and mounts nothing."""
    told = System(tmp_path).run(
        f"mount -s -t jigdofs {image.jigdo} mnt -o colour=red,no_cache; echo $?; umount mnt;"
        f"/usr/sbin/mount.jigdofs {image.jigdo} mnt -f -o no_cache; echo $?; {GONE}"
    )
    assert told == ["0", "0", "gone"]


def test_namespace(image: BuiltImage, tmp_path: Path) -> None:
    """`-N` mounts where that process sees it."""
    told = System(tmp_path).run(
        "unshare -m --propagation private sh -c 'echo; exec sleep 1000' | { read line; true; } &"
        "until other=$(pgrep -x sleep); do :; done;"
        f"/usr/sbin/mount.jigdofs {image.jigdo} {tmp_path}/mnt -N $other -o no_cache; echo $?; {GONE};"
        f"nsenter -m -t $other sh -c 'cd {tmp_path}; {SUM}; umount mnt'; kill $other"
    )
    assert told == ["0", "gone", checksum(image)]


def test_parse() -> None:
    """Options may stand anywhere, as mount(8) puts them behind the names."""
    line = ["a.jigdo", "/mnt", "-sfnv", "-N", "12", "-o", "ro,x", "-t", "jigdofs", "-o", "uid=1"]
    wish = mount8.parse(line)
    assert wish == Wish(
        "a.jigdo", "/mnt", options=("ro,x", "uid=1"), sloppy=True, fake=True, verbose=True, namespace="12"
    )
    assert mount8.parse(["a", "b"]) == Wish("a", "b")


@pytest.mark.parametrize(
    "line",
    [[], ["a"], ["a", "b", "c"], ["a", "b", "-q"], ["a", "b", "-o"], ["a", "b", "-t", "ext4"]],
    ids=str,
)
def test_wrong_usage(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A line that makes no sense is told in one line; the exit code is 1, wrong usage."""
    with pytest.raises(UsageError):
        mount8.parse(line)
    assert mount8.main(line) == mount8.EXIT_USAGE
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    """It tells what it is for."""
    assert mount8.main([option]) == 0
    assert "mount.jigdofs" in capsys.readouterr().out


def test_verbs_are_no_sources(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`jigdofs mount A -o ro` is the verb, `jigdofs A B -o ro` mount.fuse3's way, `jigdofs A B` a mistake."""
    monkeypatch.chdir(os.sep)
    assert main(["mount", "a.jigdo", "-o", "ro"]) == 3
    assert capfd.readouterr().err.startswith("jigdofs: ")
    assert main(["/nowhere/a.jigdo", "/nowhere/b", "-o", "ro,dev,suid"]) == mount8.EXIT_FAILED
    assert capfd.readouterr().err.startswith("jigdofs: ")
    assert main(["a.jigdo", "/mnt"]) == 3
