"""Every command that a document has its reader type is run, or stands here with the reason why not."""

import json
import re
import shlex
import shutil
import subprocess
from dataclasses import asdict
from pathlib import Path

import pytest

from jigdofs.cli import completion
from jigdofs.cli.called_as import COMMANDS
from tests.documents import commands, refresh
from tests.documents.commands import Step
from tests.documents.world import in_a_world
from tests.kit import images
from tests.kit.installer import installer_iso
from tests.kit.mounts import REPOSITORY
from tests.kit.requirements import require, require_fuse, require_root

NOT_RUN = {
    r"\.ci/setup\b.*": "installs packages of Debian and Python; it is what CI begins with",
    r"\.ci/build-deb\b.*": "builds and installs a package: tests of the package do that",
    r"(sudo )?apt install .*": "installs the package that was built",
    r"pipx install .*": "installs from a package index",
    r'sudo ln -s "\$\(command -v jigdofs\)" .*': "puts the command where packages, and this world, have it",
    r"xorriso -as cdrecord .*": "burns a disc",
    r"qemu-system-x86_64 .*": "boots a machine",
    r"(sudo )?jigdofs loop .*": "mounts what is inside, which not every kernel can: tests/test_loop.py",
    r"\.venv/bin/python -m tests\.(benchmarks|campaigns)\b.*": "takes minutes; tests run parts of them",
}
"""Commands that no test can run as they are; those of jigdofs must at least have options that exist."""

SHOWS = {
    r"ls -l /mnt/iso": r"\.iso$",
    r"ls -l /srv/iso": r"dvd-1\.iso$",
    r"xorriso -indev .*": r"pool/main/a",
    r".*ls /mnt/iso/dvd/pool.*": r"^(a|main)$",
    r"jigdofs status /.*": r"are here",
    r"findmnt .*": r"fuse\.jigdofs",
    r"jigdofs info --check-urls .*": r"parts",
    r"jigdofs config show .*": r"cache",
}
"""What the output of some must have, beside an exit code of 0."""


def documents() -> dict[str, list[Step]]:
    found = {}
    for path in (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))):
        found[path.name] = list(commands.of_markdown(path.name, path.read_text("utf-8")))
    for name in refresh.PAGES:
        found[name] = list(commands.of_page(name, (refresh.MAN / name).read_text("utf-8")))
    return {name: steps for name, steps in found.items() if steps}


DOCUMENTS = documents()


def reason_not_to(step: Step) -> str | None:
    return next((why for pattern, why in NOT_RUN.items() if re.fullmatch(pattern, step.command)), None)


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ISO laid out as Debian's are, called dvd; its parts are on the stand-in for Debian's mirror."""
    built = installer_iso(tmp_path_factory.mktemp("material"))
    directory = built.image.parent
    built.image.rename(directory / "dvd.iso")
    shutil.move(built.template, directory / "dvd.template")
    jigdo = images._set_servers(built.jigdo.read_bytes(), {"Debian": "http://deb.debian.org/debian/"})
    # the path on the mirror is that in the image, as with Debian's own
    text = jigdo.decode().replace("=Debian:main/", "=Debian:").replace("installer.", "dvd.")
    (directory / "dvd.jigdo").write_text(text)
    return directory


@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_it_says_can_be_done(material: Path, name: str) -> None:
    """A reader who types it all, from top to bottom, gets no error."""
    require_root()
    require_fuse()
    require("nginx", "curl", "xorriso", "jigdo-file", "tar")
    steps = [step for step in DOCUMENTS[name] if reason_not_to(step) is None]
    done = subprocess.run(
        in_a_world(material),
        cwd=REPOSITORY,
        input=json.dumps([asdict(step) for step in steps]),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    results = [json.loads(line) for line in done.stdout.splitlines()]
    for step, result in zip(steps, results, strict=False):
        what = step.command or step.file
        assert result["code"] == 0, f"{what}\n{result['out']}"
        for pattern, shown in SHOWS.items():
            if re.fullmatch(pattern, step.command):
                assert re.search(shown, result["out"], re.MULTILINE), f"{what}\n{result['out']}"
    assert (len(results), done.returncode) == (len(steps), 0), done.stderr


def ours() -> list[list[str]]:
    """Return the words of each command of ours in any document, from `jigdofs` on."""
    found = []
    for step in (
        step for steps in DOCUMENTS.values() for step in steps if step.command and not step.is_fstab
    ):
        for part in re.split(r"\s*(?:;|&&|\|(?!\|))\s*", step.command):
            words = shlex.split(part)
            while words and (words[0] == "sudo" or "=" in words[0]):
                words.pop(0)
            if words and words[0] == "jigdofs":
                found.append(words)
    return found


@pytest.mark.parametrize("words", ours(), ids=" ".join)
def test_verbs_and_options_exist(words: list[str]) -> None:
    """Also where a command is not run."""
    known = {name: verb for verb in completion.verbs() for name in verb.names}
    verb = known[words[1]]
    options = {name for option in verb.options for name in option.names}
    options |= {name for one in verb.verbs for option in one.options for name in option.names}
    for word in words[2:]:
        option = word.partition("=")[0]
        if option.startswith("-") and option != "-":
            # jigdo-file's are taken by all verbs that have its commands' names
            assert option in options or (verb.names[0] in COMMANDS and option == "-r"), word


def test_every_reason_is_needed() -> None:
    """No exception is kept for a command that no document has any more."""
    typed = [step.command for steps in DOCUMENTS.values() for step in steps if step.command]
    for pattern in (*NOT_RUN, *SHOWS):
        assert any(re.fullmatch(pattern, command) for command in typed), pattern
