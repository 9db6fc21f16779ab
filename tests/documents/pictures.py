"""Record the terminal sessions of the README: real runs, drawn as SVG.

    python -m tests.documents.pictures          # as root; writes docs/pictures/*.svg

The commands run in the small world of `world`, with an image of 300 packages, so that no name of this machine
gets into a picture.
"""

import io
import json
import random
import re
import shlex
import subprocess
import tempfile
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tests.documents.commands import Step
from tests.documents.world import in_a_world
from tests.kit import images
from tests.kit.mounts import REPOSITORY

_SESSIONS = {
    "session": (
        "jigdofs mount --contents dvd.jigdo /mnt/iso",
        "ls -lh /mnt/iso",
        "find /mnt/iso/dvd/pool -name '*.deb' | wc -l",
        "sha256sum /mnt/iso/dvd/pool/main/l/linux-image-6.1.deb",
        "jigdofs status /mnt/iso",
        "jigdofs umount /mnt/iso",
    ),
    "status": (
        "jigdofs mount --contents dvd.jigdo /mnt/iso",
        "cat /mnt/iso/dvd/pool/main/[blp]/*.deb | wc -c",
        "jigdofs status /mnt/iso",
    ),
}
_WIDTH = 110


def main() -> None:
    """Run the sessions and draw them."""
    with tempfile.TemporaryDirectory(prefix="jigdofs-pictures-") as name:
        material = _material(Path(name))
        for session, typed in _SESSIONS.items():
            picture = REPOSITORY / "docs" / "pictures" / f"{session}.svg"
            picture.write_text(drawn(recorded(material, typed)), "utf-8")
            print(f"wrote {picture.relative_to(REPOSITORY)}: {picture.stat().st_size} bytes")


def recorded(material: Path, typed: tuple[str, ...]) -> list[tuple[str, str]]:
    """Run commands in a world of their own, and return each with what it printed."""
    done = subprocess.run(
        in_a_world(material),
        cwd=REPOSITORY,
        input=json.dumps([asdict(Step("", _on_a_terminal(command))) for command in typed]),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(result["code"] == 0 for result in results), results
    return [(command, result["out"]) for command, result in zip(typed, results, strict=True)]


def _on_a_terminal(command: str) -> str:
    """Return the command line that runs a command of ours on a terminal, where it has colours."""
    if not command.startswith("jigdofs status"):
        return command
    return f"TERM=xterm-256color COLUMNS={_WIDTH} script -qec {shlex.quote(command)} /dev/null"


def drawn(session: list[tuple[str, str]]) -> str:
    """Return the picture of a session."""
    console = Console(record=True, width=_WIDTH, file=io.StringIO(), force_terminal=True, highlight=False)
    for command, output in session:
        console.print(Text.assemble(("$ ", "bold green"), (command, "bold")), soft_wrap=False)
        if output:
            console.print(Text.from_ansi(output.replace("\r\n", "\n").rstrip("\n")))
    svg = console.export_svg(title="jigdofs", unique_id="jigdofs")
    svg = svg.replace("<svg ", '<svg xml:space="preserve" ', 1)
    # fonts from elsewhere are nothing that a picture should fetch
    return re.sub(r"(?s)\s*@font-face \{.*?\}", "", svg)


def _material(directory: Path) -> Path:
    """Make an image of 300 packages and what belongs to it."""
    source = random.Random(12)
    pool = directory / "pool" / "main"
    for path in (".disk/info", "dists/bookworm/Release", "dists/bookworm/main/binary-amd64/Packages"):
        images._write(pool / path, source.randbytes(60_000))
    for number in range(300):
        letter = "abcdefgklmnpqrstvwxz"[number // 15]
        images._write(
            pool / f"pool/main/{letter}/{letter}-{number}.deb",
            source.randbytes(source.randint(20_000, 400_000)),
        )
    images._write(pool / "pool/main/l/linux-image-6.1.deb", source.randbytes(3_000_000))
    images._run([*images._xorriso(), "-o", "dvd.iso", "-graft-points", "/=pool/main"], directory)
    built = images._make_template(
        directory / "dvd.iso", directory / "pool", "md5", {"Debian": "http://deb.debian.org/debian/"}
    )
    built.jigdo.write_text(built.jigdo.read_text().replace("=Debian:main/", "=Debian:"))
    return directory


if __name__ == "__main__":
    main()
