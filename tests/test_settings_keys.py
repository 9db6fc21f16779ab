"""The table of settings and the options of the verbs are about the same things."""

from jigdofs.cli import configured
from jigdofs.settings.keys import KEYS, Kind, find

# what is said for one run only, and stands in no file
NEVER_SET = {
    *("config", "json", "quiet", "force", "update", "output", "into", "check-urls"),  # what to do now
    *("dry-run", "yes", "keep", "pinned", "older-than", "max-size"),  # of `cache`: what to remove now
    *("foreground", "hand-over"),  # how it was started
}


def test_every_option_is_a_setting_or_never_one() -> None:
    """Whoever adds an option decides which; whoever takes one away takes its setting, too."""
    options = {
        action.dest.replace("_", "-"): action
        for parser in configured.parsers().values()
        for action in configured.options_of(parser)
    }
    ours = {name for name, key in KEYS.items() if not key.image_set}
    assert ours <= options.keys()
    assert {name for name in options if name not in ours} == NEVER_SET & options.keys()
    for name in ours:
        switch = options[name].nargs == 0
        assert switch == (KEYS[name].kind in (Kind.FLAG, Kind.COUNT)), name
        assert isinstance(options[name].default, list) == (
            KEYS[name].kind in (Kind.MIRRORS, Kind.PATHS, Kind.WORDS)
        ), name


def test_which_verbs() -> None:
    """Those that mount, fetch or look into the cache; none of jigdo-file's."""
    assert {"mount", "serve", "download", "info"} <= configured.parsers().keys()


def test_names() -> None:
    """Both ways to write a name, and jigdo-file's own for mirrors."""
    assert find("cache_dir") is find("cache-dir") is KEYS["cache-dir"]
    assert find("uri") is KEYS["mirror"]
    assert find("cache") is None
