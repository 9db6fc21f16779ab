"""Mount in every combination of users, cache directories, mount points and options, and see who may what.

    python -m tests.campaigns.rights --seed 1 --count 300       # as root, on a machine with FUSE
    python -m tests.campaigns.rights --seed 1 --only 17         # that case again, and what became of it

Each case mounts an image as root or as an ordinary user, has three users read, ask and unmount it, and looks
at all that was written. What must come of it is foretold (`rights_matrix`). It all happens in a mount
namespace of its own, in which /etc/fuse.conf, /var/cache and /var/log are other ones.
"""

import argparse
import hashlib
import os
import pwd
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.campaigns.rights_matrix import OTHER, PLAIN, READERS, USER, Case, draw, foretell, shown_as
from tests.campaigns.rights_scene import Scene, staged
from tests.campaigns.verdict import conclude
from tests.kit.figures import Figure
from tests.kit.images import BuiltImage, iso_by_jigdo_file
from tests.kit.mounts import PROGRAM, clean_environ, detach_everything, mounted_at
from tests.kit.requirements import as_user, tool
from tests.kit.running import run
from tests.kit.scenes import Program, ended, wait_until

NUMBER = 6
KINDS = {
    "let in": "users who could read, ask or unmount what is not for them",
    "kept out": "users who could not read, or not end, what is theirs",
    "told wrongly": "exit codes, owners or modes that are not as they should be",
    "unclear": "refusals that are not one line which says what to do",
    "left open": "files and directories left for others to write, or to somebody else",
    "left behind": "mounts and daemons left",
}
_CONF = Path("/etc/fuse.conf")
_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Fault:
    """What was not as it must be: one of `KINDS`, and the words."""

    kind: str
    words: str


def try_case(case: Case, built: BuiltImage, conf: Path) -> list[Fault]:
    """Mount as the case says, have everybody try, and return what was not as foretold.

    Args:
        case: what to do.
        built: the image.
        conf: the file that is /etc/fuse.conf here.
    """
    conf.write_text(f"{case.consent}\n")
    foretold = foretell(case)
    faults: list[Fault] = []
    with staged(case) as scene:
        before = _everything(scene)
        done = _mount(case, built, scene)
        lines = [line for line in done.stderr.splitlines() if not _is_warning(line)]
        said = f"`{done.stderr.strip()}', exit code {done.returncode}"
        if done.returncode != foretold.code:
            faults.append(Fault("told wrongly", f"{said}; it should be {foretold.code}"))
        elif foretold.code and (len(lines) != 1 or foretold.line not in lines[0]):
            faults.append(Fault("unclear", f"{said}; it should be one line with `{foretold.line}'"))
        elif not foretold.code and lines:
            faults.append(Fault("unclear", f"{said}; it should say nothing"))
        if mounted_at(scene.mounted):
            faults += _readers(case, built, scene, foretold.readers)
            faults += _strangers(case, scene)
            faults += _end(case, scene)
        faults += _written(case, scene, before)
    return faults


# -- what is done --------------------------------------------------------------------------------


def _mount(case: Case, built: BuiltImage, scene: Scene) -> subprocess.CompletedProcess[str]:
    cache = {"default": [], "none": ["--no-cache"]}.get(case.cache, ["--cache-dir", str(scene.cache)])
    if case.cache == "below a directory with the sticky bit":
        cache = ["--cache-dir", str(scene.temporary / "deep" / "cache")]
    options = ",".join(filter(None, (case.admitted, case.shown)))
    words = [
        *PROGRAM,
        "mount",
        str(built.jigdo),
        str(scene.point),
        "--mirror",
        f"Debian={built.pool}",
        *cache,
    ]
    words += ["-o", options] if options else []
    return subprocess.run(
        words if case.mounter == "root" else as_user(case.mounter, words),
        cwd=scene.directory,
        env=clean_environ(scene.home) | {"TMPDIR": str(scene.temporary)},
        umask=case.umask,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT_S,
        check=False,
    )


def _is_warning(line: str) -> bool:
    """Tell whether a line says what is done without; no case expects a particular one."""
    return line.startswith(
        ("WARNING jigdofs.wiring.foundation: going on without", "jigdofs: warning: nothing is")
    )


def _as(user: str, *command: str) -> subprocess.CompletedProcess[str]:
    words = list(command) if user == "root" else as_user(user, list(command))
    return subprocess.run(words, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)


def _readers(case: Case, built: BuiltImage, scene: Scene, expected: frozenset[str]) -> Iterator[Fault]:
    image = scene.point if case.point == "a file" else scene.point / built.image.name
    right = hashlib.sha256(built.image.read_bytes()).hexdigest()
    for reader in READERS:
        done = _as(reader, "sha256sum", str(image))
        if reader not in expected and done.returncode == 0:
            yield Fault("let in", f"{reader} can read it")
        if reader in expected and done.stdout.split()[:1] != [right]:
            yield Fault("kept out", f"{reader} reads {done.stdout!r}, {done.stderr!r}")
        if reader in expected:
            uid, gid, umask = shown_as(case)
            shown = _as(reader, "stat", "--dereference", "--format=%u %g %a", str(image)).stdout.strip()
            if shown != (wanted := f"{uid} {gid} {0o444 & ~umask:o}"):
                yield Fault("told wrongly", f"{reader} is shown {shown}, not {wanted}")


def _strangers(case: Case, scene: Scene) -> Iterator[Fault]:
    """Have another user ask and unmount."""
    stranger = Program(scene.temporary, OTHER, {"TMPDIR": str(scene.temporary)})
    for verb, code in (("umount", 4), ("status", 1)):
        done = stranger(verb, scene.point)
        line = (done.stderr or done.stdout).strip().splitlines()[-1:]
        if done.returncode != code:
            yield Fault("let in", f"{verb} by {OTHER}: {done}")
        elif "another user mounted" not in "".join(line):
            yield Fault("unclear", f"{verb} by {OTHER}: {done}")
    if not mounted_at(scene.mounted):
        yield Fault("let in", f"{OTHER} has unmounted it")


def _end(case: Case, scene: Scene) -> Iterator[Fault]:
    """Have the owner ask and unmount, and see that the daemon ends."""
    user = None if case.mounter == "root" else case.mounter
    owner = Program(scene.directory, user, {"TMPDIR": str(scene.temporary)})
    status = owner("status", scene.point)
    if status.returncode != 0 or "daemon  process " not in status.stdout:
        yield Fault("kept out", f"status by its owner: {status}")
        return
    daemon = int(status.stdout.partition("daemon  process ")[2].split(",")[0])
    done = owner("umount", scene.point)
    if (done.returncode, done.stderr) != (0, ""):
        yield Fault("kept out", f"umount by its owner: {done}")
    if mounted_at(scene.mounted):
        yield Fault("left behind", "the mount is still there")
        detach_everything(scene.mounted)
    wait_until(lambda: ended(daemon), "the daemon's end")


def _everything(scene: Scene) -> set[Path]:
    tops = (scene.directory, Path("/var/cache"), Path("/var/log"))
    return {path for top in tops for path in top.rglob("*")}


def _written(case: Case, scene: Scene, before: set[Path]) -> Iterator[Fault]:
    """Look at all that is new."""
    uid = pwd.getpwnam(case.mounter).pw_uid
    for path in sorted(_everything(scene) - before):
        status = path.lstat()
        if status.st_mode & 0o022 or status.st_uid != uid:
            yield Fault("left open", f"{path}: {status.st_mode:o} of {status.st_uid}")
        if case.home == "of another" and path.is_relative_to(scene.home):
            yield Fault("left open", f"{path} was made in somebody else's home")


# -- the campaign --------------------------------------------------------------------------------


def cases(seed: int, count: int) -> list[Case]:
    """Return the cases of a seed: the plain one as root and as a user, then drawn ones."""
    source = random.Random(seed)
    return [PLAIN, Case(**{**asdict(PLAIN), "mounter": USER}), *(draw(source) for _ in range(count))][:count]


def _apart() -> None:
    """Go on in a mount namespace of our own: what is mounted here nobody else sees."""
    command = [tool("unshare"), "--mount", "--propagation", "private", sys.executable, "-m", __spec__.name]
    os.execv(command[0], [*command, *sys.argv[1:], "--apart"])


def main() -> None:
    """Run the campaign."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=300, help="cases (default: %(default)s)")
    parser.add_argument("--only", type=int, metavar="N", help="do this case of the seed alone")
    parser.add_argument("--apart", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("needs root: it mounts as several users")
    if not arguments.apart:
        _apart()
    with tempfile.TemporaryDirectory(prefix="rights-") as name:
        directory = Path(name)
        directory.chmod(0o755)
        conf = directory / "fuse.conf"
        conf.touch()
        for path in (Path("/var/cache"), Path("/var/log")):
            subprocess.run([tool("mount"), "-t", "tmpfs", "-o", "mode=755", "rights", str(path)], check=True)
        subprocess.run([tool("mount"), "--bind", str(conf), str(_CONF)], check=True)
        built = iso_by_jigdo_file(directory)
        subprocess.run(["chmod", "-R", "a+rX", str(directory)], check=True)
        found: list[tuple[int, Case, list[Fault]]] = []
        refused = 0
        for index, case in enumerate(cases(arguments.seed, arguments.count)):
            if arguments.only in (None, index):
                refused += foretell(case).code != 0
                if faults := try_case(case, built, conf):
                    found.append((index, case, faults))
        subprocess.run([tool("umount"), str(_CONF)], check=True)
    counted = Counter(fault.kind for _, _, faults in found for fault in faults)
    conclude(
        [Figure(NUMBER, words, counted[kind], "<= 0", "found") for kind, words in KINDS.items()],
        seed=arguments.seed,
        cases=arguments.count if arguments.only is None else 1,
        refused=refused,
        faults=[
            {"index": index, "case": asdict(case), "faults": [asdict(fault) for fault in faults]}
            for index, case, faults in found
        ],
    )


if __name__ == "__main__":
    run(main, "unshare", "jigdo-file", "xorriso")
