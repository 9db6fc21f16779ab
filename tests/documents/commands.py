"""Find the commands that documents have their readers type, and the files they have them write. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from tests.documents import roff

_FENCE = re.compile(r"(?ms)^```(\w*)\n(.*?)^```$")
_EXAMPLE = re.compile(r"(?ms)^\.EX\n(.*?)^\.EE$")
_FSTAB_LINE = re.compile(r"\S+ /\S+ jigdofs \S+ 0 0")


@dataclass(frozen=True, slots=True)
class Step:
    """Something that a reader does.

    Attributes:
        document: its name.
        command: a shell command, or a line of fstab; "" where a file is written.
        file: what is written, and then what it holds.
        content: of that file.
    """

    document: str
    command: str = ""
    file: str = ""
    content: str = ""

    @property
    def is_fstab(self) -> bool:
        return _FSTAB_LINE.fullmatch(self.command) is not None


def of_markdown(name: str, text: str) -> Iterator[Step]:
    """Yield what Markdown says: commands in blocks of `sh`, files whose first line names them."""
    for language, block in _FENCE.findall(text):
        named = re.match(r"# (/etc/\S+|preseed\.cfg)\n", block)
        if language == "sh":
            yield from (Step(name, command) for command in _commands(block))
        elif named:
            yield Step(name, file=named[1], content=block)
        elif not language:
            yield from (Step(name, line) for line in block.splitlines() if _FSTAB_LINE.fullmatch(line))


def of_page(name: str, text: str) -> Iterator[Step]:
    """Yield what the examples of a man page say; a file is named right before its block."""
    section = roff.sections(text)["EXAMPLES"]
    for found in _EXAMPLE.finditer(section):
        block = "".join(f"{roff.plain(line)}\n" for line in found[1].splitlines())
        named = re.search(r"(?m)^\.IR (/etc/\S+) :\n\.PP\n\Z", section[: found.start()])
        if named:
            yield Step(name, file=roff.plain(named[1]), content=block)
        else:
            yield from (Step(name, command) for command in _commands(block))


def _commands(block: str) -> Iterator[str]:
    """Yield the commands of a block: lines that a backslash ends put together; no comments, no blanks."""
    for line in block.replace("\\\n", " ").splitlines():
        command = re.sub(r"(^|\s+)#\s.*$", "", line)
        if command.strip():
            yield re.sub(r"\s+", " ", command).strip()
