"""Settings as files and variables say them, and one place on top of another."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigdofs.settings import keys
from jigdofs.settings.keys import KEYS, Kind
from jigdofs.settings.layers import Origin, Setting, merged, of_key
from jigdofs.settings.toml_file import parse
from jigdofs.settings.values import WrongValue, from_environment, from_toml
from jigdofs.settings.variables import parse as parse_variables

NAMES = [name for name in KEYS if name != "mirror"] + ["mirror.Debian", "mirror.Ubuntu"]
layers = st.lists(
    st.dictionaries(st.sampled_from(NAMES), st.integers(0, 99)).map(
        lambda found: {name: Setting((str(value),), Origin("f", value)) for name, value in found.items()}
    )
)


@given(layers)
def test_the_last_one_wins(given_layers: list[dict[str, Setting]]) -> None:
    """Each setting is that of the last layer that has it, origin included, and there is no other."""
    result = merged(given_layers)
    assert result.keys() == {name for layer in given_layers for name in layer}
    for name, setting in result.items():
        assert setting == [layer[name] for layer in given_layers if name in layer][-1]


@given(layers, st.integers(0, 9))
def test_layers_can_be_put_together_in_any_order_of_work(
    given_layers: list[dict[str, Setting]], cut: int
) -> None:
    """Merging some of them first changes nothing."""
    first, rest = given_layers[:cut], given_layers[cut:]
    assert merged([merged(first), merged(rest)]) == merged(given_layers)
    assert merged([merged(given_layers)]) == merged(given_layers)


def said(text: str, *, image_set: bool = False) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    layer, problems = parse(text.encode(), "/etc/x.toml", image_set=image_set)
    return {name: setting.texts for name, setting in layer.items()}, list(map(str, problems))


def test_values() -> None:
    """Values have their own types; `_` and `-` are the same; relative paths are beside the file."""
    text = """
    cache_dir = "cache"
    cache-max-size = "20G"
    cache-min-free = 1024
    no-cache = false
    read-timeout = 1.5
    connections = 8
    umask = "022"
    uid = 0
    scan = "/srv/a"
    log-file = "syslog"
    [mirror]
    Debian = ["http://a/", "pool/", "Other:x/"]
    Non-US = "file:/srv"
    """
    assert said(text) == (
        {
            "cache-dir": ("/etc/cache",),
            "cache-max-size": ("20G",),
            "cache-min-free": ("1024",),
            "no-cache": ("false",),
            "read-timeout": ("1.500000",),
            "connections": ("8",),
            "umask": ("022",),
            "uid": ("0",),
            "scan": ("/srv/a",),
            "log-file": ("syslog",),
            "mirror.Debian": ("Debian=http://a/", "Debian=/etc/pool/", "Debian=Other:x/"),
            "mirror.Non-US": ("Non-US=file:/srv",),
        },
        [],
    )


def test_image_sets() -> None:
    """What is to be mounted stands in a file that was named, and nowhere else."""
    text = 'images = ["a.jigdo", "http://h/b.jigdo"]\nmountpoint = "/mnt"'
    assert said(text, image_set=True)[0]["images"] == ("/etc/a.jigdo", "http://h/b.jigdo")
    _, problems = said(text)
    assert problems[1] == "/etc/x.toml:2: mountpoint may stand only in a file given with --config"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('cach-dir = "x"', "1: there is no setting `cach-dir'; did you mean cache-dir?"),
        ("[mirorr]\nx = 1", "1: there is no setting `mirorr'; did you mean mirror?"),
        (f"{'x' * 60} = 1", f"1: there is no setting `{'x' * 40}'"),
        ("connections = true", "1: connections must be a whole number"),
        ("connections = -1", "1: connections must be a whole number"),
        ('\n\nconnections = "8"', "3: connections must be a whole number"),
        (
            f"cache-min-free = {1 << 70}",
            '1: cache-min-free must be a size such as "20G", or a number of bytes',
        ),
        ("contents = 1", "1: contents must be true or false"),
        ("cache-dir = ''", "1: cache-dir must be a path"),
        ('cache-dir = "a\\u0000b"', "1: cache-dir must be a path"),
        ("umask = 0o22", '1: umask must be a text such as "022"'),
        (
            "read-timeout = nan",
            '1: read-timeout must be a time such as "30s" or "2m", or a number of seconds',
        ),
        (
            "read-timeout = 07:32:00",
            '1: read-timeout must be a time such as "30s" or "2m", or a number of seconds',
        ),
        ("scan = [1]", "1: scan must be a path, or a list of paths"),
        ("[mirror]\n'a=b' = 'http://x/'", "1: mirror must be a table such as"),
        (
            "[mirror]\nA = 'http://x/'\nconnections = 4",
            "1: mirror cannot be for a label `connections': a setting of that name goes above [mirror]",
        ),
        ("mirror = 5", "1: mirror must be a table such as"),
        ('contents = true\nx = "a', "2: "),
        ("x = 1\ny", "2: Expected '=' after a key in a key/value pair"),
        ("connections = 1\nconnections = 2", "2: Cannot overwrite a value"),
        ("x = " + "[" * 100_000, " is nested too deeply"),
    ],
)
def test_problems_name_the_place(text: str, problem: str) -> None:
    """File, line, setting, and what it should be."""
    _, problems = said(text)
    assert len(problems) == 1
    assert problems[0].startswith(f"/etc/x.toml:{problem}")


def test_no_utf_8() -> None:
    """A file in another encoding is told of with its line."""
    _, problems = parse(b'a = "x"\nb = "\xe4"', "/f", image_set=False)
    assert [str(problem) for problem in problems] == ["/f:2: is no UTF-8, as TOML has to be"]


@given(st.text(max_size=200))
def test_any_text(text: str) -> None:
    """Whatever stands in a file gives settings or problems, never an exception."""
    layer, problems = said(text, image_set=True)
    try:
        wrong = not tomllib.loads(text).keys() <= layer.keys()
    except ValueError:
        wrong = True
    assert bool(problems) >= wrong


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5
)


@given(st.sampled_from(list(KEYS.values())), values)
def test_any_value(key: keys.Key, value: object) -> None:
    """Of whatever type a value is, there are texts without NUL, or a reason."""
    try:
        found = from_toml(key, value, "/d")
    except WrongValue:
        return
    for name, texts in found.items():
        assert name.partition(".")[0] == key.name
        assert not any("\0" in text for text in texts)


def test_variables() -> None:
    """A variable is called as the setting; an empty one is none; one that means nothing is told of."""
    environ = {
        "JIGDOFS_CACHE_DIR": "c",
        "JIGDOFS_CONTENTS": "Yes",
        "JIGDOFS_SCAN": "/a:b:",
        "JIGDOFS_MIRROR": "Debian=http://a/ Debian=/b Ubuntu=http://c/",
        "JIGDOFS_READAHEAD": "",
        "JIGDOFS_NO_CACHE": "perhaps",
        "JIGDOFS_MOUNTPOINT": "/mnt",
        "JIGDOFS_REQUIRE_ALL": "1",
        "HOME": "/root",
    }
    layer, problems, ignored = parse_variables(environ, "/cwd")
    assert {name: setting.texts for name, setting in layer.items()} == {
        "cache-dir": ("/cwd/c",),
        "contents": ("true",),
        "scan": ("/a", "/cwd/b"),
        "mirror.Debian": ("Debian=http://a/", "Debian=/b"),
        "mirror.Ubuntu": ("Ubuntu=http://c/",),
    }
    assert [str(problem) for problem in problems] == ["JIGDOFS_NO_CACHE: must be true or false"]
    assert ignored == ["JIGDOFS_MOUNTPOINT", "JIGDOFS_REQUIRE_ALL"]
    assert from_environment(KEYS["fuse-options"], "a b", "/")["fuse-options"] == ("a", "b")


def test_mirrors_of_one_label() -> None:
    """A later place replaces the mirrors of its labels, and leaves those of others."""
    first, _ = parse(b"mirror.A = 'http://1/'\nmirror.B = 'http://2/'", "/f", image_set=False)
    second, _ = parse(b"mirror.A = ['http://3/', 'http://4/']", "/g", image_set=False)
    found = of_key(merged([first, second]), "mirror")
    assert [(setting.texts, str(setting.origin)) for setting in found] == [
        (("A=http://3/", "A=http://4/"), "/g:1"),
        (("B=http://2/",), "/f:2"),
    ]


def test_every_kind_is_used() -> None:
    """There is a setting of each kind."""
    assert {key.kind for key in KEYS.values()} == set(Kind)
