"""The options of mount(8): translated, passed on, ignored or refused, never guessed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jigdofs.cli.fuse_options import Translated, translate
from jigdofs.errors import UsageError


@pytest.mark.parametrize(
    ("texts", "arguments", "fuse"),
    [
        ([], [], []),
        (["", ",", ",,ro,"], [], []),
        (["ro,noauto,nofail,_netdev,user,x-systemd.automount,x-gvfs-show,X-mount.mkdir,comment=a"], [], []),
        (["defaults,nosuid,nodev,relatime"], [], []),
        (["user,noexec,nosuid,nodev"], [], ["noexec"]),
        (["exec", "noexec"], [], ["noexec"]),
        (["user,noexec,subtype=x,exec"], [], ["subtype=x"]),
        (["allow_other"], ["--allow-other"], []),
        (["allow-other", "no_cache"], ["--allow-other", "--no-cache"], []),
        (["uid=1000,gid=100,umask=022"], ["--uid=1000", "--gid=100", "--umask=022"], []),
        (["cache_dir=/var/c,cache-max-size=1G"], ["--cache-dir=/var/c", "--cache-max-size=1G"], []),
        (["mirror=Debian=http://h/d/"], ["--mirror=Debian=http://h/d/"], []),
        (["mirror=A=/a,mirror=B=/b"], ["--mirror=A=/a", "--mirror=B=/b"], []),
        ([r"image=a\,b.iso,ro"], ["--image=a,b.iso"], []),
        ([r"image=a\\b\x,log_file=/l\ "], ["--image=a\\bx", "--log-file=/l "], []),
        (["image="], ["--image="], []),
        (
            ["allow_root,fsname=x,subtype=y"],
            [],
            ["allow_root", "fsname=x", "subtype=y"],
        ),
        (["default_permissions", "auto_unmount"], [], ["default_permissions", "auto_unmount"]),
    ],
)
def test_translate(texts: list[str], arguments: list[str], fuse: list[str]) -> None:
    """Each option goes where it belongs, in order."""
    assert translate(texts) == Translated(tuple(arguments), tuple(fuse))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rw", "overlayfs"),
        ("ro,rw", "overlayfs"),
        ("uid", "needs a value"),
        ("cache_dir", "needs a value, as in cache_dir=VALUE"),
        ("miror=A=/a", "did you mean mirror"),
        ("allow_others", "did you mean allow-other"),
        ("allow_other=1", "no such option"),
        ("=x", None),
        ("qqq", "no such option$"),
        ("foreground", "no such option"),
        ("UID=1", "no such option"),
    ],
)
def test_refused(text: str, words: str | None) -> None:
    """An unknown option, or one without its value, is an error that helps; an empty one is nothing."""
    if words is None:
        assert translate([text]) == Translated((), ())
        return
    with pytest.raises(UsageError, match=words):
        translate([text])


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_any_value_can_be_written(value: str) -> None:
    """With backslashes before commas and backslashes, every value comes through."""
    escaped = value.replace("\\", "\\\\").replace(",", "\\,")
    assert translate([f"ro,image={escaped},uid=1"]).arguments == (f"--image={value}", "--uid=1")


def test_what_is_no_option_is_not_told_at_length() -> None:
    """A line stays one that can be read."""
    with pytest.raises(UsageError, match="-o yyyy") as caught:
        translate(["y" * 100_000])
    assert len(str(caught.value)) < 120
