"""The completion script for bash. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from jigdofs.completion.grammar import Operand, Option, Value, Verb

_HEAD = """\
# bash completion of jigdofs, as `jigdofs completion bash` prints it

_jigdofs_mounts() {
    local point type rest
    while IFS=' ' read -r _ point type rest; do
        [[ $type == fuse.jigdofs ]] && printf '%b\\n' "${point//\\\\/\\\\0}"
    done </proc/self/mounts
}

_jigdofs_reply() { # WORD KIND [WORDS]
    local IFS=$'\\n' word=$1
    case $2 in
        words) COMPREPLY+=($(IFS=$' \\n'; compgen -W "$3" -- "$word")) ;;
        file) compopt -o filenames && COMPREPLY+=($(compgen -f -- "$word")) ;;
        directory) compopt -o filenames && COMPREPLY+=($(compgen -d -- "$word")) ;;
        user) COMPREPLY+=($(compgen -u -- "$word")) ;;
        group) COMPREPLY+=($(compgen -g -- "$word")) ;;
        mount)
            compopt -o filenames
            local point
            while IFS= read -r point; do
                [[ $point == "$word"* ]] && COMPREPLY+=("$point")
            done < <(_jigdofs_mounts)
            # the images below a mount point, once that is written in full
            [[ $word == */* && ${#COMPREPLY[@]} == 0 ]] && COMPREPLY+=($(compgen -f -- "$word"))
            ;;
    esac
}

_jigdofs() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} options= kind= words= operands=()
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        _jigdofs_reply "$word" words "@VERBS@ --help --version"
        return
    fi
    # --option=value comes as three words
    if [[ $word == = ]]; then
        word=
    elif [[ $before == = ]]; then
        before=${COMP_WORDS[COMP_CWORD-2]}
    fi
    case ${COMP_WORDS[1]} in
"""
_TAIL = """\
        *) return ;;
    esac
    if [[ $kind ]]; then
        _jigdofs_reply "$word" $kind "$words"
    elif [[ $word == -* ]]; then
        _jigdofs_reply "$word" words "$options"
    else
        local operand
        for operand in "${operands[@]}"; do
            _jigdofs_reply "$word" ${operand%%:*} "${operand#*:}"
        done
    fi
}

complete -F _jigdofs jigdofs
"""
_KINDS = {
    Value.TEXT: "text",
    Value.WORD: "words",
    Value.FILE: "file",
    Value.DIRECTORY: "directory",
    Value.MOUNT: "mount",
    Value.USER: "user",
    Value.GROUP: "group",
}


def script(verbs: tuple[Verb, ...]) -> str:
    """Return the script."""
    names = " ".join(sorted(name for verb in verbs for name in verb.names))
    lines = [line for verb in verbs for line in _verb(verb, " " * 8, 2)]
    return _HEAD.replace("@VERBS@", names) + "".join(f"{line}\n" for line in lines) + _TAIL


def _verb(verb: Verb, indent: str, word: int) -> Iterator[str]:
    """Yield the case of a verb; `word` is the number of the word after it."""
    yield f"{indent}{'|'.join(verb.names)})"
    inner = indent + "    "
    if verb.verbs:
        names = " ".join(name for one in verb.verbs for name in one.names)
        yield f"{inner}if ((COMP_CWORD == {word})); then"
        yield f'{inner}    _jigdofs_reply "$word" words "{names} --help"'
        yield f"{inner}    return"
        yield f"{inner}fi"
        yield f"{inner}case ${{COMP_WORDS[{word}]}} in"
        for one in verb.verbs:
            yield from _verb(one, inner + "    ", word + 1)
        yield f"{inner}    *) return ;;"
        yield f"{inner}esac"
    else:
        yield f"{inner}options='{' '.join(name for option in verb.options for name in option.names)}'"
        operands = dict.fromkeys(f"'{_kind(one)}:{' '.join(one.words)}'" for one in verb.operands)
        yield f"{inner}operands=({' '.join(operands)})"
        cases = [line for option in verb.options if option.value is not Value.NOTHING for line in _of(option)]
        if cases:
            yield f"{inner}case $before in"
            yield from (f"{inner}    {line}" for line in cases)
            yield f"{inner}esac"
    yield f"{inner};;"


def _of(option: Option) -> Iterator[str]:
    words = f" words='{' '.join(option.words)}'" if option.words else ""
    yield f"{'|'.join(option.names)}) kind={_kind(option)}{words} ;;"


def _kind(one: Option | Operand) -> str:
    return _KINDS[one.value]
