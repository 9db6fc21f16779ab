"""Write lists of options as man(7) has them, and read what a man page documents. Pure."""

import re
from collections.abc import Iterable, Iterator

from jigdofs.completion.grammar import Option, Verb

# what depends on the machine and the user, and what the pages say instead
_DEFAULTS = {
    "--cache-dir": "default: /var/cache/jigdofs for root, ~/.cache/jigdofs for others; see ENVIRONMENT",
    "--log-file": "default: the terminal in the foreground, else syslog where there is one, else a file in"
    " the user's state directory",
}
_LIST = re.compile(
    r'(?ms)^\.\\" (?P<kind>options|keys|settings) of (?P<name>.+?): .*?\n(?P<text>.*?)^\.\\" end\n'
)
_HEADING = re.compile(r'(?m)^\.S[SH] "?(.*?)"?$')


def escaped(text: str) -> str:
    r"""Return text as roff wants it: `\`, hyphens that are minus signs, quotes and what begins a line."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    text = re.sub(r"`([^`']*)'", r"\\(oq\1\\(cq", text)
    text = text.replace("'", "\\(aq").replace("`", "\\(ga").replace("~", "\\(ti").replace("^", "\\(ha")
    return re.sub(r"(?m)^(?=\.)", r"\\&", text)


def plain(text: str) -> str:
    """Return what a reader sees of a line of roff: no fonts, no escapes."""
    text = re.sub(r"\\f[BIRP]", "", text)
    for code, char in {
        "(oq": "`",
        "(cq": "'",
        "(aq": "'",
        "(ga": "`",
        "(ti": "~",
        "(ha": "^",
        "(dq": '"',
    }.items():
        text = text.replace(f"\\{code}", char)
    return text.replace("\\-", "-").replace("\\&", "").replace("\\e", "\\")


def sentence(text: str) -> str:
    """Return a help text as a sentence; one that begins with a word and a colon is left small."""
    text = text if re.match(r"[\w-]+:|--|/|[a-z]+\.[a-z]", text) else text[:1].upper() + text[1:]
    return text if text.endswith((".", "?")) else text + "."


def option(one: Option) -> str:
    """Return the entry of an option."""
    names = ", ".join(f"\\fB{escaped(name)}\\fR" for name in one.names)
    value = f" \\fI{escaped(one.metavar)}\\fR" if one.metavar else ""
    return f".TP\n{names}{value}\n{filled(sentence(about(one)))}\n"


def about(one: Option) -> str:
    """Return what an option does, with a default that holds on every machine."""
    for name in one.names:
        if name in _DEFAULTS:
            return f"{one.brief} ({_DEFAULTS[name]})"
    return one.help


def entry(name: str, metavar: str, text: str) -> str:
    """Return the entry of a key or a mount option."""
    value = f"=\\fI{escaped(metavar)}\\fR" if metavar else ""
    return f".TP\n\\fB{escaped(name)}\\fR{value}\n{filled(sentence(text))}\n"


def filled(text: str) -> str:
    """Break a text into lines of at most 100 characters."""
    import textwrap

    lines = textwrap.wrap(text, 100, break_long_words=False, break_on_hyphens=False)
    return "\n".join(escaped(line) for line in lines)


def shared_groups(verbs: Iterable[Verb]) -> dict[str, tuple[Option, ...]]:
    """Return the options that stand under the same heading in the help of several verbs, alike."""
    found: dict[str, list[tuple[Option, ...]]] = {}
    for verb in verbs:
        for title, options in groups(verb).items():
            found.setdefault(title, []).append(options)
    return {
        title: alike[0]
        for title, alike in found.items()
        if title not in ("options", "") and len(alike) > 1 and all(one == alike[0] for one in alike)
    }


def groups(verb: Verb) -> dict[str, tuple[Option, ...]]:
    """Return the options of a verb by heading, without --help."""
    found: dict[str, list[Option]] = {}
    for one in verb.options:
        if "--help" not in one.names:
            found.setdefault(one.group, []).append(one)
    return {title: tuple(options) for title, options in found.items()}


def options_of(verb: Verb, shared: dict[str, tuple[Option, ...]]) -> str:
    """Return the list of a verb's options, those of its verbs included."""
    text = "".join(option(one) for title, own in groups(verb).items() if title not in shared for one in own)
    lent = [title for title in groups(verb) if title in shared]
    if lent:
        listed = [f"\\(lq{escaped(title[:1].upper() + title[1:])}\\(rq" for title in lent]
        named = ", ".join(listed[:-1]) + (" and " if listed[:-1] else "") + listed[-1]
        text += f".PP\nAlso the options under\n{named}\nin OPTIONS OF SEVERAL VERBS.\n"
    for one in verb.verbs:
        operands = "".join(f" \\fI{escaped(operand.metavar)}\\fR" for operand in one.operands)
        text += f".TP\n\\fB{escaped(verb.names[0])} {escaped(one.names[0])}\\fR{operands}\n"
        text += f"{filled(sentence(one.help))}\n"
        inner = options_of(one, shared)
        text += f".RS\n{inner}.RE\n" if inner else ""
    return text


def lists(page: str) -> Iterator[tuple[str, str]]:
    """Yield name and text of each list that is made from the program."""
    for found in _LIST.finditer(page):
        yield f"{found['kind']} of {found['name']}", found["text"]


def refreshed(page: str, made: dict[str, str]) -> str:
    """Return a page with its lists as they are now; raise KeyError for one that nothing is known of."""

    def replaced(found: re.Match[str]) -> str:
        name = f"{found['kind']} of {found['name']}"
        head = found[0].partition("\n")[0]
        return f'{head}\n{made[name]}.\\" end\n'

    return _LIST.sub(replaced, page)


def sections(page: str) -> dict[str, str]:
    """Return the text below each heading of either kind."""
    pieces = _HEADING.split(page)
    return {plain(heading): text for heading, text in zip(pieces[1::2], pieces[2::2], strict=True)}


def tags(text: str) -> set[str]:
    """Return the words in bold that a text has as tags of its entries: options, keys."""
    found: set[str] = set()
    for line in re.findall(r"(?m)^\.TP.*\n(.*)$", text.replace("\\\n", "")):
        found.update(plain(bold) for bold in re.findall(r"\\fB(.*?)\\fR", line))
    return found
