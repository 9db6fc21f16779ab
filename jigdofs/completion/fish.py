"""The completion script for fish. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from jigdofs.completion.grammar import Operand, Option, Value, Verb

_HEAD = """\
# fish completion of jigdofs, as `jigdofs completion fish` prints it

function __jigdofs_after
    # the words so far begin with these
    set -l words (commandline -opc)[2..-1]
    test (count $words) -ge (count $argv); or return 1
    set -l number 1
    for wanted in $argv
        contains -- $words[$number] (string split '|' -- $wanted); or return 1
        set number (math $number + 1)
    end
end

function __jigdofs_right_after
    # the words so far are these
    test (count (commandline -opc)) -eq (math (count $argv) + 1); or return 1
    test (count $argv) -eq 0; or __jigdofs_after $argv
end

function __jigdofs_mounts
    while read -l device point type rest
        test "$type" = fuse.jigdofs; and string unescape -- $point
    end </proc/self/mounts
end

complete -c jigdofs -f
"""


def script(verbs: tuple[Verb, ...]) -> str:
    """Return the script."""
    lines = [*_verbs(verbs, ()), *(line for verb in verbs for line in _verb(verb, ()))]
    return _HEAD + "".join(f"{line}\n" for line in lines)


def _verbs(verbs: tuple[Verb, ...], path: tuple[str, ...]) -> Iterator[str]:
    condition = _quoted(" ".join(["__jigdofs_right_after", *map(_quoted, path)]))
    for verb in verbs:
        for number, name in enumerate(verb.names):
            about = verb.help if number == 0 else f"short for {verb.names[0]}"
            yield f"complete -c jigdofs -n {condition} -a {name} -d {_quoted(about)}"


def _verb(verb: Verb, path: tuple[str, ...]) -> Iterator[str]:
    here = (*path, "|".join(verb.names))
    if verb.verbs:
        yield from _verbs(verb.verbs, here)
        for one in verb.verbs:
            yield from _verb(one, here)
        return
    condition = _quoted(" ".join(["__jigdofs_after", *map(_quoted, here)]))
    for option in verb.options:
        names = " ".join(
            f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names
        )
        value = f" {_value(option)}" if option.value is not Value.NOTHING else ""
        yield f"complete -c jigdofs -n {condition} {names}{value} -d {_quoted(option.brief)}"
    for operand in dict.fromkeys(_value(operand) for operand in verb.operands):
        yield f"complete -c jigdofs -n {condition} {operand.removeprefix('-r ').replace('-x ', '-f ')}"


_VALUES = {
    Value.TEXT: "-x",
    Value.FILE: "-r -F",
    Value.DIRECTORY: "-x -a '(__fish_complete_directories)'",
    Value.MOUNT: "-r -F -a '(__jigdofs_mounts)'",
    Value.USER: "-x -a '(__fish_complete_users)'",
    Value.GROUP: "-x -a '(__fish_complete_groups)'",
}


def _value(one: Option | Operand) -> str:
    """Return what completes a value: -r -F is files, -x nothing but what follows."""
    if one.value is Value.WORD:
        return f"-x -a {_quoted(' '.join(one.words))}"
    return _VALUES[one.value]


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
