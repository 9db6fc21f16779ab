"""The completion script for zsh. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

from jigdofs.completion.grammar import Operand, Option, Value, Verb

_HEAD = """\
#compdef jigdofs
# zsh completion of jigdofs, as `jigdofs completion zsh` prints it

_jigdofs_mounts() {
  local -a points
  local device point type rest
  while read -r device point type rest; do
    [[ $type == fuse.jigdofs ]] && points+=( "${(g:o:)point}" )
  done </proc/self/mounts
  # the images below a mount point, once that is written in full
  compadd -f -a points || _files
}

_jigdofs() {
  local curcontext=$curcontext
  local -a verbs
"""
_TAIL = """\
}

_jigdofs "$@"
"""
_ACTIONS = {
    Value.TEXT: " ",
    Value.FILE: "_files",
    Value.DIRECTORY: "_directories",
    Value.MOUNT: "_jigdofs_mounts",
    Value.USER: "_users",
    Value.GROUP: "_groups",
}


def script(verbs: tuple[Verb, ...]) -> str:
    """Return the script."""
    return _HEAD + "".join(f"{line}\n" for line in _choice(verbs, "  ", "verb")) + _TAIL


def _choice(verbs: tuple[Verb, ...], indent: str, what: str) -> Iterator[str]:
    """Yield what completes a verb, or what comes after it."""
    yield f"{indent}if (( CURRENT == 2 )); then"
    yield f"{indent}  verbs=("
    for verb in verbs:
        for number, name in enumerate(verb.names):
            about = verb.help if number == 0 else f"short for {verb.names[0]}"
            yield f"{indent}    {_quoted(f'{name}:{about}')}"
    yield f"{indent}  )"
    yield f"{indent}  _describe -t verbs {_quoted(what)} verbs"
    yield f"{indent}  return"
    yield f"{indent}fi"
    yield f"{indent}shift words"
    yield f"{indent}(( CURRENT-- ))"
    yield f"{indent}case $words[1] in"
    for verb in verbs:
        yield f"{indent}  ({'|'.join(verb.names)})"
        if verb.verbs:
            yield from _choice(verb.verbs, indent + "    ", f"{verb.names[0]} verb")
        else:
            specifications = [*map(_option, verb.options), *_operands(verb.operands)]
            yield f"{indent}    _arguments -S \\"
            for specification in specifications[:-1]:
                yield f"{indent}      {specification} \\"
            yield f"{indent}      {specifications[-1]}"
        yield f"{indent}    ;;"
    yield f"{indent}esac"


def _option(option: Option) -> str:
    """Return a specification for _arguments, such as `'(-l --lazy)'{-l,--lazy}'[detach it now]'`."""
    takes = option.value is not Value.NOTHING
    names = [name + (("=" if name.startswith("--") else "+") if takes else "") for name in option.names]
    excludes = "*" if option.repeatable else f"({' '.join(option.names)})"
    braces = names[0] if len(names) == 1 else "{" + ",".join(names) + "}"
    about = "[" + re.sub(r"([]\[:])", r"\\\1", option.brief) + "]"
    value = f":{_escaped(option.metavar)}:{_action(option)}" if takes else ""
    return f"{_quoted(excludes)}{braces}{_quoted(about + value)}"


def _operands(operands: tuple[Operand, ...]) -> Iterator[str]:
    """Yield one specification: any of them may stand at any place, as the number of inputs is open."""
    if not operands:
        return
    kinds = dict.fromkeys((operand.value, operand.words, operand.metavar) for operand in operands)
    actions = {_action(operand): operand for operand in operands}
    if len(actions) == 1:
        metavars = " or ".join(dict.fromkeys(metavar for _, _, metavar in kinds))
        yield _quoted(f"*:{_escaped(metavars)}:{next(iter(actions))}")
        return
    for number, operand in enumerate(operands, start=1):
        place = "*" if number == len(operands) else str(number)
        yield _quoted(f"{place}:{_escaped(operand.metavar)}:{_action(operand)}")


def _action(one: Option | Operand) -> str:
    if one.value is Value.WORD:
        return f"({' '.join(one.words)})"
    return _ACTIONS[one.value]


def _escaped(text: str) -> str:
    return text.replace(":", "\\:")


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
