"""Completion: scripts that say what the parsers say; real shells complete with them, starting no program."""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jigdofs.cli import ALIASES, VERBS
from jigdofs.cli.completion import SHELLS, script, verbs
from jigdofs.cli.parser import Parser
from jigdofs.completion import grammar
from jigdofs.completion.grammar import Value
from jigdofs.demo import build
from tests.documents.refresh import COMPLETION, SCRIPTS
from tests.kit.mounts import Mounted
from tests.kit.requirements import tool
from tests.kit.scenes import Program
from tests.kit.terminals import Terminal

BASH = r"""
PATH=/nonexistent PS1='$ ' HISTFILE=
. "$SCRIPT"
bind 'set bell-style none' 'set completion-query-items 0' 'set page-completions off'
bind -x '"\C-t": printf "%s\n" "$READLINE_LINE" >"$LINE"; READLINE_LINE='
echo >"$READY"
"""
ZSH = r"""
path=(/nonexistent) PS1='%% '
fpath=("${SCRIPT:h}" $fpath)
autoload -Uz compinit && compinit -D -u
LISTMAX=1000000
report() { print -r -- "$BUFFER" >"$LINE"; BUFFER= }
zle -N report
bindkey -e
bindkey '^T' report
echo >"$READY"
"""
Complete = Callable[[str], str]


def test_every_shell_has_a_script() -> None:
    """What is committed for packages is what the program prints: python -m tests.documents.refresh."""
    assert set(SCRIPTS) == set(SHELLS)
    for shell, name in SCRIPTS.items():
        assert (COMPLETION / name).read_text("utf-8") == script(shell), shell


def test_the_verb_prints_it(tmp_path: Path) -> None:
    done = Program(tmp_path)("completion", "bash")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (COMPLETION / SCRIPTS["bash"]).read_text("utf-8")
    assert "SHELL" in Program(tmp_path).fails("completion", "tcsh", code=3)


def test_the_scripts_are_the_same_for_everybody(tmp_path: Path) -> None:
    """Neither who runs it nor the environment changes them, or packages would differ from build to build."""
    other = Program(tmp_path, "nobody" if os.geteuid() == 0 else None, {"CACHE_DIRECTORY": "/elsewhere"})
    for shell, name in SCRIPTS.items():
        assert other("completion", shell, cwd=Path("/")).stdout == (COMPLETION / name).read_text("utf-8")


def test_all_is_known() -> None:
    """Verbs and short names are those of the program; each takes something."""
    known = verbs()
    assert {verb.names[0] for verb in known} == set(VERBS)
    assert {name for verb in known for name in verb.names[1:]} == set(ALIASES)
    assert all(verb.options or verb.verbs for verb in known)


def test_what_values_are() -> None:
    """The names that values have in the help tell what a shell can offer for them."""
    parser = Parser("x", "x")
    parser.add_argument("--file", metavar="FILE")
    parser.add_argument("--size", metavar="SIZE|off", help="keep (default: 5%% of it (or so))")
    parser.add_argument("--secret", help="==SUPPRESS==")
    parser.add_argument("where", metavar="MNT")
    inner = parser.add_subparsers()
    within = inner.add_parser("ls", help="list", description="", aliases=["l"])
    within.add_argument("--all", action="store_true")
    found = grammar.verb(("x",), "do", parser)
    kinds = {option.names[-1]: (option.value, option.words) for option in found.options}
    assert kinds == {
        "--help": (Value.NOTHING, ()),
        "--file": (Value.FILE, ()),
        "--size": (Value.WORD, ("off",)),
    }
    assert [option.brief for option in found.options if "--size" in option.names] == ["keep"]
    assert [operand.value for operand in found.operands] == [Value.MOUNT]
    (verb,) = found.verbs
    assert (verb.names, verb.help) == (("ls", "l"), "list")
    assert "--all" in [name for option in verb.options for name in option.names]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A mount point with a blank in its name, in a directory whose name begins like no other."""
    directory = tmp_path_factory.mktemp("completion")
    site = directory / "site"
    site.mkdir()
    build(site, 2)
    options = ("--mirror", f"Demo={site}/", "--cache-dir", str(directory / "cache"))
    with Mounted(site / "demo.jigdo", directory / "mount point", options):
        yield directory


def test_mount_points_in_bash(place: Path) -> None:
    """All mounts of jigdofs are offered, those with blanks in their names whole."""
    words = 'COMP_WORDS=(jigdofs umount ""); COMP_CWORD=2; _jigdofs; printf "%s\\n" "${COMPREPLY[@]}"'
    ask = f'compopt() {{ :; }}; . "$0"; {words}'
    command = [tool("bash"), "-c", ask, str(COMPLETION / SCRIPTS["bash"])]
    offered = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert str(place / "mount point") in offered


def shell(name: str, directory: Path) -> Terminal:
    environ = {"SCRIPT": str(COMPLETION / SCRIPTS[name]), "LC_ALL": "C.UTF-8", "PATH": "/usr/bin:/bin"}
    directory.mkdir()
    if name == "bash":
        (directory / "rc").write_text(BASH)
        return Terminal([tool("bash"), "--noprofile", "--rcfile", "rc", "-i"], directory, environ)
    (directory / ".zshrc").write_text(ZSH)
    return Terminal([tool("zsh"), "-d", "-i"], directory, {**environ, "ZDOTDIR": str(directory)})


@pytest.fixture(params=["bash", "zsh"])
def complete(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Complete]:
    """Type a line and the tabulator key; what the shell makes of it."""
    with shell(request.param, tmp_path / "shell") as terminal:
        yield lambda line: terminal.typed(f"{line}\t")


def test_verbs_and_options(complete: Complete) -> None:
    assert complete("jigdofs moun") == "jigdofs mount "
    assert complete("jigdofs unm") == "jigdofs unmount "
    assert complete("jigdofs mount --foreg") == "jigdofs mount --foreground "
    assert complete("jigdofs mt --no-im") == "jigdofs mt --no-image-section "
    assert complete("jigdofs mount x.jigdo /mnt --cont") == "jigdofs mount x.jigdo /mnt --contents "
    assert complete("jigdofs status --fore") == "jigdofs status --fore"


def test_values(complete: Complete, place: Path) -> None:
    assert complete("jigdofs serve --prefetch meta") == "jigdofs serve --prefetch metadata "
    assert complete("jigdofs serve --prefetch=meta").rstrip() == "jigdofs serve --prefetch=metadata"
    assert complete("jigdofs completion fi") == "jigdofs completion fish "
    assert complete("jigdofs mount --uid nobod").rstrip() == "jigdofs mount --uid nobody"
    assert complete(f"jigdofs info {place}/site/demo.j") == f"jigdofs info {place}/site/demo.jigdo "
    assert complete(f"jigdofs download --scan {place}/si") == f"jigdofs download --scan {place}/site/"
    assert complete(f"jigdofs mount --cache-dir={place}/ca") == f"jigdofs mount --cache-dir={place}/cache/"


def test_mount_points(complete: Complete, place: Path) -> None:
    """Where jigdofs has mounted something is offered, blanks in the name and all; and what is below."""
    point = f"{place}/mount\\ point"
    for line in ("umount", "status --json", "loop", "prefetch --all"):
        assert complete(f"jigdofs {line} {place}/mou").rstrip(" /") == f"jigdofs {line} {point}"
    assert complete(f"jigdofs prefetch {point}/de").rstrip() == f"jigdofs prefetch {point}/demo.img"


def fish(line: str, directory: Path) -> list[str]:
    """Return what fish would offer, without descriptions."""
    environ = {"HOME": str(directory), "LC_ALL": "C.UTF-8", "PATH": "/nonexistent", "LINE": line}
    source = f"source {COMPLETION / SCRIPTS['fish']}; complete -C $LINE"
    done = subprocess.run(
        [tool("fish"), "--no-config", "-c", source],
        env=environ,
        cwd=directory,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    return [offered.partition("\t")[0] for offered in done.stdout.splitlines()]


def test_fish(place: Path) -> None:
    """The same in fish."""
    assert fish("jigdofs moun", place) == ["mount"]
    assert set(fish("jigdofs ", place)) == {*VERBS, *ALIASES}
    assert fish("jigdofs mount --foreg", place) == ["--foreground"]
    assert fish("jigdofs mt --no-im", place) == ["--no-image-section"]
    assert fish("jigdofs status --fore", place) == []
    assert fish("jigdofs serve --prefetch meta", place) == ["metadata"]
    assert fish("jigdofs serve --prefetch=meta", place) == ["--prefetch=metadata"]
    assert fish("jigdofs completion fi", place) == ["fish"]
    assert fish(f"jigdofs info {place}/site/demo.j", place) == [f"{place}/site/demo.jigdo"]
    assert f"{place}/mount point" in [one.rstrip("/") for one in fish(f"jigdofs umount {place}/mou", place)]


@pytest.mark.parametrize("name", SHELLS)
def test_the_shell_reads_it_without_complaint(name: str) -> None:
    subprocess.run([tool(name), "-n", str(COMPLETION / SCRIPTS[name])], check=True, capture_output=True)
