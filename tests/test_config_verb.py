"""`jigdofs config`, and the verbs that follow settings, as a user types them."""

import json
import re
import tomllib
from pathlib import Path

import pytest

from jigdofs.settings.keys import KEYS
from tests.kit.images import BuiltImage
from tests.kit.mounts import Mounted
from tests.kit.scenes import Program


@pytest.fixture
def program(tmp_path: Path) -> Program:
    home = tmp_path / "home"
    (home / ".config" / "jigdofs").mkdir(parents=True)
    return Program(home)


@pytest.fixture
def config(program: Program) -> Path:
    """The user's own file."""
    return program.home / ".config" / "jigdofs" / "config.toml"


def test_show(program: Program, config: Path, tmp_path: Path) -> None:
    """Every setting, where it comes from, and no password."""
    config.write_text('connections = 3\nreadahead = "1M"\n[mirror]\nDebian = "http://me:secret@a/"\n')
    named = tmp_path / "set.toml"
    named.write_text('connections = 4\nmountpoint = "/mnt"\n')
    program.environ |= {"JIGDOFS_CACHE_DIR": "/srv/c", "JIGDOFS_CONNETIONS": "1"}
    done = program("config", "show", "--origin", "--config", named)
    assert done.stderr == "jigdofs: note: JIGDOFS_CONNETIONS means nothing: no such setting\n"
    shown = dict(re.split(r"\s+# (?=[^#]*$)", line) for line in done.stdout.splitlines() if line[0] != "#")
    assert shown['cache-dir = "/srv/c"'] == "JIGDOFS_CACHE_DIR"
    assert shown["connections = 4"] == f"{named}:1"
    assert shown['readahead = "1M"'] == f"{config}:2"
    assert shown['mirror.Debian = ["http://a/"]'] == f"{config}:4"
    assert shown['read-timeout = "2m"'] == "default"
    assert shown['mountpoint = "/mnt"'] == f"{named}:2"
    assert "secret" not in done.stdout
    assert tomllib.loads(program("config", "show").stdout)["readahead"] == "1M"

    members = json.loads(program("config", "show", "--json").stdout)
    assert members["connections"] == 3
    assert members["record"] is None
    members = json.loads(program("config", "show", "--json", "--origin").stdout)
    assert members["readahead"] == {"value": "1M", "origin": f"{config}:2"}


def test_check(program: Program, config: Path, tmp_path: Path) -> None:
    """One line for each problem, and 3; nothing and 0 where there is none."""
    assert program("config", "check").returncode == 0
    config.write_text('cach-dir = "x"\nconnections = 0\nprefetch = "some"\nfuse-options = "contents"\n')
    done = program("config", "check")
    assert done.returncode == 3
    assert done.stderr.splitlines() == [
        f"jigdofs: {config}:1: there is no setting `cach-dir'; did you mean cache-dir?",
        f"jigdofs: {config}:2: connections: `0' is no number of at least 1 and below 10^9",
        f"jigdofs: {config}:3: prefetch: `some' is none of none, metadata, all",
        f"jigdofs: {config}:4: fuse-options: contents is none of FUSE's, but a setting of its own",
    ]
    good = tmp_path / "good.toml"
    good.write_text('images = "a.jigdo"\nmountpoint = "/mnt"\n')
    assert program("config", "check", good).returncode == 0
    assert f"{tmp_path}/none: No such file" in program.fails(
        "config", "check", good, tmp_path / "none", code=3
    )


def test_example(program: Program, tmp_path: Path) -> None:
    """The example is a file without settings; with all marks taken off it has each, and nothing is wrong."""
    example = program("config", "example").stdout
    assert tomllib.loads(example) == {}
    everything = tmp_path / "all.toml"
    everything.write_text(re.sub(r"(?m)^#(?=[a-z])", "", example))
    assert tomllib.loads(everything.read_text()).keys() == KEYS.keys()
    done = program("config", "check", everything)
    assert (done.returncode, done.stderr) == (0, "")


def test_verbs_follow(program: Program, config: Path, iso_md5: BuiltImage) -> None:
    """A wrong setting stops every verb that has settings, and no other; --help always helps."""
    config.write_text("nonsense = 1\n")
    problem = f"{config}:1: there is no setting `nonsense'"
    for arguments in (["info", "x"], ["mount", "x", "y"], ["download", "x"], ["serve", "x"]):
        assert problem in program.fails(*arguments, code=3)
    assert program("info", "--help").returncode == 0
    assert program("ls", "--template", iso_md5.template).returncode == 0
    assert program("md5sum", iso_md5.jigdo).returncode == 0


def test_the_command_line_wins(program: Program, config: Path, iso_md5: BuiltImage, tmp_path: Path) -> None:
    """Over the environment, and that over files; what is wrong about a value names its place."""
    caches = {name: tmp_path / name for name in ("file", "variable", "flag")}
    config.write_text(f'cache-dir = "{caches["file"]}"\n')
    server = f"--mirror=Debian={iso_md5.pool}/"
    download = ("download", "--keep-parts", server, "--quiet", "--force", "--output", tmp_path, iso_md5.jigdo)
    assert program(*download).returncode == 0
    program.environ["JIGDOFS_CACHE_DIR"] = str(caches["variable"])
    assert program(*download).returncode == 0
    assert program(*download, "--cache-dir", caches["flag"]).returncode == 0
    assert all((cache / "objects").is_dir() for cache in caches.values())


def test_scan_remembers_where_others_look(program: Program, config: Path, tmp_path: Path) -> None:
    """`scan` obeys cache-dir, so that `mount --scan' finds what it has found out."""
    config.write_text(f'cache-dir = "{tmp_path}/cache"\n')
    (tmp_path / "file").write_bytes(bytes(3000))
    assert program("scan", tmp_path / "file").returncode == 0
    assert (tmp_path / "cache" / "scanned.db").exists()


def test_an_image_set(iso_md5: BuiltImage, tmp_path: Path) -> None:
    """A mount without arguments: images, mount point and options come from the file."""
    config = tmp_path / "images.d" / "kit.toml"
    config.parent.mkdir()
    config.write_text(
        f"images = '../{iso_md5.jigdo.name}'\nmountpoint = '../mnt'\ncache-dir = '../cache'\n"
        f"mirror.Debian = '{iso_md5.pool}/'\numask = '077'\n"
    )
    iso_md5.with_servers(tmp_path, {"Debian": ["http://127.0.0.1:9/"]})
    with Mounted([], tmp_path / "mnt", ["--config", str(config)]) as mounted:
        image = mounted.mountpoint / iso_md5.image.name
        assert image.read_bytes() == iso_md5.image.read_bytes()
        assert image.stat().st_mode & 0o777 == 0o400
    other = tmp_path / "other"
    with Mounted([], other, [f"-oconfig={config},umask=0"]) as mounted:
        assert (other / iso_md5.image.name).stat().st_mode & 0o777 == 0o444


def test_what_an_image_set_lacks(program: Program, tmp_path: Path) -> None:
    """The line names the file and what is not in it."""
    config = tmp_path / "set.toml"
    config.write_text("contents = true\n")
    lacks_both = f"{config}: has no `images' and no `mountpoint', and the command line names none"
    assert lacks_both in program.fails("mount", "--config", config, code=3)
    assert f"{config}: has no `images', and" in program.fails("mount", "--config", config, "/mnt", code=3)
    config.write_text("images = 'x.jigdo'\n")
    assert f"{config}: has no `mountpoint', and" in program.fails("mount", "--config", config, code=3)
    config.write_text("metrics = '9711'\n")
    assert "9711: is neither HOST:PORT" in program.fails("config", "check", config, code=3)
    assert "required: MOUNTPOINT" in program.fails("mount", "x.jigdo", code=3)
    assert "only check takes files" in program.fails("config", "show", "x", code=3)


def test_settings_for_all_images(program: Program, config: Path, iso_md5: BuiltImage, tmp_path: Path) -> None:
    """A label that this image lacks is no mistake there, but one on the command line is told of."""
    config.write_text(f"[mirror]\nDebian = '{iso_md5.pool}/'\nUbuntu = 'http://127.0.0.1:9/'\n")
    done = program("download", "--output", tmp_path, "--force", iso_md5.jigdo)
    assert (done.returncode, done.stderr) == (0, "")
    done = program("download", "--output", tmp_path, iso_md5.jigdo, "--mirror", "Debain=http://127.0.0.1:9/")
    assert "no part has the label `Debain'" in done.stderr
    one = tmp_path / "one.toml"
    one.write_text(
        "mirror.Debain = 'http://127.0.0.1:9/'\n"
    )  # what is said for these images is meant for them
    done = program("download", "--output", tmp_path, iso_md5.jigdo, "--config", one)
    assert "no part has the label `Debain'" in done.stderr
    assert "Ubuntu" not in done.stderr


def test_what_a_setting_names_is_missing(program: Program, config: Path, tmp_path: Path) -> None:
    """The message tells who named it."""
    config.write_text(f"scan = '{tmp_path}/old.iso'\n")
    problem = program.fails("mount", "x.jigdo", tmp_path / "mnt", code=3)
    assert problem == f"jigdofs: {config}:1: scan {tmp_path}/old.iso: there is no such file or directory"
    config.write_text("mirror.Debian = 'pool'\n")
    problem = program.fails("mount", "x.jigdo", tmp_path / "mnt", code=3)
    assert problem == f"jigdofs: {config}:1: mirror Debian={config.parent}/pool: is no directory"
    problem = program.fails("mount", "x.jigdo", tmp_path / "mnt", f"--mirror=A={tmp_path}/b", code=3)
    assert problem == f"jigdofs: --mirror A={tmp_path}/b: is no directory"
