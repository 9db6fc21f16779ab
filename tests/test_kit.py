"""The kit does what it says; only loopback is contacted."""

import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.kit.faults import (
    WELL,
    Changed,
    Chunked,
    Close,
    Drip,
    Empty,
    Fault,
    Gzip,
    Html,
    IgnoreRange,
    Redirect,
    Reset,
    Stall,
    Status,
    TooLong,
    Truncate,
    WrongBytes,
    WrongContentRange,
)
from tests.kit.faulty_server import FaultyServer
from tests.kit.images import BuiltImage, iso_by_jigdo_file
from tests.kit.mounts import Mounted, mounted_at
from tests.kit.nginx import Access, Nginx
from tests.kit.requirements import require, require_fuse, tool

PATH = "/pool/a b%41#?\u00e9.deb"
DATA = bytes(range(256)) * 40
TAIL = {"Range": "bytes=10000-"}


@pytest.fixture
def server(faulty_server: FaultyServer) -> FaultyServer:
    faulty_server.files = {PATH: DATA}
    return faulty_server


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(trust_env=False, timeout=10, headers={"Accept-Encoding": "identity"}) as client:
        yield client


def test_good_service(server: FaultyServer, client: httpx.Client) -> None:
    whole = client.get(server.url(PATH))
    assert (whole.status_code, whole.content) == (200, DATA)
    again = client.get(server.url(PATH), headers={"If-None-Match": whole.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    head = client.head(server.url(PATH))
    assert (head.headers["Content-Length"], head.content) == (str(len(DATA)), b"")
    assert client.get(server.url("/none")).status_code == 404
    assert server.paths() == [PATH, PATH, PATH, "/none"]
    assert [request.body_bytes for request in server.requests] == [len(DATA), 0, 0, 13]
    assert server.requests[0].target == "/pool/a%20b%2541%23%3F%C3%A9.deb"
    assert server.connections == 1, "keep-alive"


@pytest.mark.parametrize(
    ("asked", "status", "body", "content_range"),
    [
        ("bytes=0-0", 206, DATA[:1], "bytes 0-0/10240"),
        ("bytes=10000-", 206, DATA[10000:], "bytes 10000-10239/10240"),
        ("bytes=100-99999", 206, DATA[100:], "bytes 100-10239/10240"),
        ("bytes=-5", 206, DATA[-5:], "bytes 10235-10239/10240"),
        ("bytes=10240-", 416, None, "bytes */10240"),
        ("bytes=-0", 416, None, "bytes */10240"),
        ("bytes=5-4", 200, DATA, None),
        ("bytes=0-1,5-6", 200, DATA, None),
        ("lines=1-2", 200, DATA, None),
    ],
)
def test_ranges(
    server: FaultyServer,
    client: httpx.Client,
    *,
    asked: str,
    status: int,
    body: bytes | None,
    content_range: str | None,
) -> None:
    answer = client.get(server.url(PATH), headers={"Range": asked})
    assert (answer.status_code, answer.headers.get("Content-Range")) == (status, content_range)
    assert body is None or answer.content == body
    assert server.requests[0].range == asked


def test_content_that_changes_between_ranges(server: FaultyServer, client: httpx.Client) -> None:
    server.script(PATH, WELL, Changed(), Changed(), WELL)
    first = client.get(server.url(PATH), headers={"Range": "bytes=0-9999"})
    condition = TAIL | {"If-Range": first.headers["ETag"]}
    careful = client.get(server.url(PATH), headers=condition)
    assert careful.status_code == 200
    assert len(careful.content) == len(DATA)
    assert careful.content != DATA
    careless = client.get(server.url(PATH), headers=TAIL)
    assert careless.status_code == 206
    assert careless.content == careful.content[10000:]
    assert careless.headers["ETag"] != first.headers["ETag"]
    assert client.get(server.url(PATH), headers=condition).content == DATA[10000:]


@pytest.mark.parametrize(
    ("fault", "status", "headers", "body"),
    [
        (Status(503, retry_after=7), 503, {"Retry-After": "7"}, b"as you wish\n"),
        (Status(404), 404, {}, b"as you wish\n"),
        (
            WrongBytes(),
            206,
            {"Content-Range": "bytes 10000-10239/10240"},
            bytes(255 - b for b in DATA[10000:]),
        ),
        (Empty(), 206, {"Content-Length": "0"}, b""),
        (TooLong(3), 206, {"Content-Length": "243"}, DATA[10000:] + bytes(3)),
        (IgnoreRange(), 200, {"Content-Length": "10240"}, DATA),
        (WrongContentRange(-1), 206, {"Content-Range": "bytes 9999-10238/10240"}, DATA[10000:]),
        (Gzip(), 206, {"Content-Encoding": "gzip"}, DATA[10000:]),
        (Chunked(), 206, {"Transfer-Encoding": "chunked"}, DATA[10000:]),
        (Drip(4800), 206, {"Content-Length": "240"}, DATA[10000:]),
        (Redirect("file:///etc/passwd"), 302, {"Location": "file:///etc/passwd"}, b"elsewhere\n"),
        (Redirect("/loop", 307), 307, {"Location": "/loop"}, b"elsewhere\n"),
    ],
    ids=str,
)
def test_faults_in_an_answer(
    server: FaultyServer,
    client: httpx.Client,
    *,
    fault: Fault,
    status: int,
    headers: dict[str, str],
    body: bytes,
) -> None:
    server.script(PATH, fault)
    answer = client.get(server.url(PATH), headers=TAIL)
    assert (answer.status_code, answer.content) == (status, body)
    assert headers.items() <= {name.title(): value for name, value in answer.headers.items()}.items()
    after = client.get(server.url(PATH), headers=TAIL)
    assert after.content == DATA[10000:], "the script is used up"
    assert server.connections == 1, "the connection outlives the fault"


def test_html_page(server: FaultyServer, client: httpx.Client) -> None:
    server.always("/*", Html())
    answer = client.get(server.url(PATH), headers=TAIL)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/html")
    assert answer.content.startswith(b"<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("fault", "error", "received"),
    [
        (Close(), httpx.RemoteProtocolError, None),
        (Reset(), httpx.ReadError, None),
        (Reset(5000), httpx.ReadError, 5000),
        (Truncate(5000), httpx.RemoteProtocolError, 5000),
        (Truncate(0), httpx.RemoteProtocolError, 0),
    ],
    ids=str,
)
def test_faults_of_a_connection(
    server: FaultyServer,
    client: httpx.Client,
    fault: Fault,
    error: type[httpx.TransportError],
    received: int | None,
) -> None:
    server.script(PATH, fault)
    with pytest.raises(error):
        client.get(server.url(PATH))
    request = server.requests[0]
    assert (request.status, request.body_bytes) == ((0, 0) if received is None else (200, received))
    assert client.get(server.url(PATH)).content == DATA


def test_stall_in_the_body(server: FaultyServer, client: httpx.Client) -> None:
    server.script(PATH, Stall(100))
    with client.stream("GET", server.url(PATH)) as answer:
        pieces = answer.iter_raw()
        assert next(pieces) == DATA[:100]
        server.wait_stalled()
        assert server.requests[0].body_bytes == 100
        server.release()
        assert b"".join(pieces) == DATA[100:]


def test_stall_before_the_answer(server: FaultyServer, client: httpx.Client) -> None:
    server.always(PATH, Stall())
    statuses: list[int] = []

    def release() -> None:
        server.wait_stalled()
        statuses.extend(request.status for request in server.requests)
        server.release()

    releaser = threading.Thread(target=release)
    releaser.start()
    assert client.get(server.url(PATH)).content == DATA
    releaser.join()
    assert statuses == [0]


def test_stop_ends_what_stalls_and_start_is_the_same_port(server: FaultyServer, client: httpx.Client) -> None:
    server.script(PATH, Stall(100))
    with client.stream("GET", server.url(PATH)) as answer:
        pieces = answer.iter_raw()
        assert next(pieces) == DATA[:100]
        server.stop()
        with pytest.raises(httpx.TransportError):
            next(pieces)
    with pytest.raises(httpx.ConnectError):
        client.get(server.url(PATH))
    server.start()
    assert client.get(server.url(PATH)).content == DATA
    assert server.count(PATH) == 2


def test_scripts_come_before_rules_and_the_latest_rule_wins(
    server: FaultyServer, client: httpx.Client
) -> None:
    server.always("/pool/*", Status(500))
    server.always(PATH, Status(403))
    server.script(PATH, Status(429), WELL)
    statuses = [client.get(server.url(PATH)).status_code for _ in range(4)]
    assert statuses == [429, 200, 403, 403]
    assert client.get(server.url("/pool/x")).status_code == 500
    server.behave()
    server.forget_requests()
    assert client.get(server.url(PATH)).status_code == 200
    assert server.count(PATH) == 1


def test_requests_in_flight_are_counted(server: FaultyServer) -> None:
    server.always(PATH, Stall())
    getters = [threading.Thread(target=httpx.get, args=(server.url(PATH),)) for _ in range(5)]
    for getter in getters:
        getter.start()
    server.wait_stalled(5)
    server.release()
    for getter in getters:
        getter.join()
    assert server.peak_in_flight == 5


def test_directory_is_served_and_not_left(tmp_path: Path, client: httpx.Client) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "latin-\udcfc").write_bytes(b"inside")
    (tmp_path / "secret").write_bytes(b"outside")
    with FaultyServer(tmp_path / "root") as server:
        assert client.get(server.url("/latin-\udcfc")).content == b"inside"
        assert client.get(server.url("/") + "%2e%2e/secret").status_code == 404


def test_nginx_serves_logs_and_comes_back(
    tmp_path: Path, nginx: Callable[..., Nginx], client: httpx.Client
) -> None:
    (tmp_path / "a b%\u00e9").write_bytes(DATA)
    server = nginx(tmp_path)
    assert client.get(server.url("/a b%\u00e9"), headers=TAIL).content == DATA[10000:]
    assert client.head(server.url("/none") + "?x").status_code == 404
    expected = [Access("GET", "/a b%\u00e9", TAIL["Range"], 206, 240), Access("HEAD", "/none", None, 404, 0)]
    assert server.access_log() == expected
    server.clear_log()
    assert server.access_log() == []
    url = server.url("/a b%\u00e9")
    server.stop()
    with pytest.raises(httpx.ConnectError):
        client.get(url)
    server.start()
    assert client.get(url).content == DATA
    assert [(entry.status, entry.body_bytes) for entry in server.access_log()] == [(200, len(DATA))]


def test_jigdo_file_rebuilds_every_image(any_image: BuiltImage, tmp_path: Path) -> None:
    out = tmp_path / "rebuilt"
    command = [tool("jigdo-file"), "make-image", "--no-cache", "--report=quiet", f"--image={out}"]
    command += [f"--template={any_image.template}", f"--jigdo={any_image.jigdo}", f"{any_image.pool}//"]
    subprocess.run(command, check=True, capture_output=True)
    assert out.read_bytes() == any_image.image.read_bytes()
    assert len(any_image.parts) == 30, "all of the pool but the file that is too small"


def test_images_are_the_same_on_every_run(iso_md5: BuiltImage, tmp_path: Path) -> None:
    again = iso_by_jigdo_file(tmp_path / "again")
    assert again.image.read_bytes() == iso_md5.image.read_bytes()
    assert again.template.read_bytes() == iso_md5.template.read_bytes()


def test_servers_are_replaced(iso_md5: BuiltImage, iso_jte_md5: BuiltImage, tmp_path: Path) -> None:
    for built in (iso_md5, iso_jte_md5):
        moved = built.with_servers(
            tmp_path / built.jigdo.parent.name, {"Debian": ["http://a/", "http://b/ --try-last"]}
        )
        text = subprocess.run(["gzip", "-dcf", moved.jigdo], check=True, capture_output=True).stdout
        assert text.count(b"[Servers]") == 1
        assert text.endswith(b"\n\n[Servers]\nDebian=http://a/\nDebian=http://b/ --try-last\n")
        assert b"\nTemplate=kit.template\n" in text
        assert (
            text.count(b"=Debian:main/") + text.count(b'="Debian:main/') + text.count(b"='Debian:main/") == 30
        )
        assert moved.template.read_bytes() == built.template.read_bytes()


def test_log_check(tmp_path: Path) -> None:
    (tmp_path / "test_inner.py").write_text(
        """
import logging, pytest
log = logging.getLogger("jigdofs.parts")
def test_silent(): log.info("all is well"); logging.getLogger("other").warning("not ours")
def test_unannounced(): log.warning("mirror is slow")
@pytest.mark.logs("is slow")
def test_announced(): log.warning("mirror is slow")
@pytest.mark.logs("is slow")
def test_another(): log.warning("mirror is slow"); log.error("disk full")
@pytest.mark.logs("is slow")
def test_missing(): pass
def test_fixture(expected_log): expected_log("disk"); log.error("disk full")
"""
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.conftest",
        "-p",
        "no:cacheprovider",
        "-c",
        "/dev/null",
    ]
    done = subprocess.run([*command, "-v", str(tmp_path)], capture_output=True, text=True, check=False)
    outcomes = dict(line.split("::")[1].split()[:2] for line in done.stdout.splitlines() if "%]" in line)
    failed = {"test_unannounced", "test_another", "test_missing"}
    passed = {"test_silent", "test_announced", "test_fixture"}
    assert outcomes == dict.fromkeys(failed, "FAILED") | dict.fromkeys(passed, "PASSED")


@pytest.mark.logs("seen by the mark itself")
def test_log_mark_applies_here() -> None:
    logging.getLogger("jigdofs.kit").warning("seen by the mark itself")


def test_requirements(monkeypatch: pytest.MonkeyPatch) -> None:
    require("sh")
    monkeypatch.setenv("JIGDOFS_REQUIRE_ALL", "0")
    with pytest.raises(pytest.skip.Exception, match="no-such-program is not installed"):
        require("sh", "no-such-program")
    monkeypatch.setenv("JIGDOFS_REQUIRE_ALL", "1")
    with pytest.raises(pytest.fail.Exception, match="no-such-program is not installed"):
        require("no-such-program")


# A program with the face of jigdofs that mounts an empty directory.
STUB = """
import subprocess, sys, pyfuse3, trio
verb, *rest = sys.argv[1:]
if verb == "umount":
    sys.exit(subprocess.call(["fusermount3", "-u", rest[0]]))
if rest[0] == "broken":
    sys.exit("ERROR jigdofs.cli: broken is no .jigdo")
class Root(pyfuse3.Operations):
    async def getattr(self, inode, ctx=None):
        entry = pyfuse3.EntryAttributes()
        entry.st_ino, entry.st_mode = inode, 0o40755
        return entry
if "--retake" in rest:
    subprocess.check_call(["fusermount3", "-u", rest[1]])
pyfuse3.init(Root(), rest[1], pyfuse3.default_options)
print("INFO jigdofs.stub: as " + rest[0], file=sys.stderr, flush=True)
if "--warn" in rest:
    print("WARNING jigdofs.stub: not well", file=sys.stderr, flush=True)
trio.run(pyfuse3.main)
pyfuse3.close()
"""
PROGRAM = (sys.executable, "-c", STUB)


def test_mount_and_unmount(tmp_path: Path) -> None:
    mountpoint = tmp_path / "m t"
    with Mounted("a.jigdo", mountpoint, program=PROGRAM) as mounted:
        assert mounted_at(mountpoint)
        mounted.wait_for_log("as a.jigdo")
        assert mounted.stderr() == ["INFO jigdofs.stub: as a.jigdo"]
        mounted.unmount()
        assert mounted.process.returncode == 0
    assert not mounted_at(mountpoint)


def test_mount_as_ordinary_user(public_dir: Path) -> None:
    require_fuse("nobody")
    with Mounted("a.jigdo", public_dir / "mnt", user="nobody", program=PROGRAM) as mounted:
        status = Path(f"/proc/{mounted.process.pid}/status").read_text("ascii")
        assert "\nUid:\t65534\t65534\t65534\t65534\n" in status
    assert not mounted_at(public_dir / "mnt")


def test_mount_that_fails_tells_why(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"returned 1: ERROR jigdofs\.cli: broken is no \.jigdo"):
        Mounted("broken", tmp_path / "mnt", program=PROGRAM).__enter__()


def test_mount_with_a_warning_fails_unless_allowed(tmp_path: Path) -> None:
    with (
        pytest.raises(AssertionError, match="unexpected in the log"),
        Mounted("a.jigdo", tmp_path / "mnt", ["--warn"], program=PROGRAM),
    ):
        pass
    with Mounted("a.jigdo", tmp_path / "mnt", ["--warn"], allow_log=["not well"], program=PROGRAM):
        pass


def test_dead_mount_is_mounted_over_or_cleaned_up(tmp_path: Path) -> None:
    mountpoint = tmp_path / "mnt"
    for retake in (True, False):
        with Mounted("a.jigdo", mountpoint, program=PROGRAM) as mounted:
            mounted.process.kill()
            mounted.process.wait()
            assert mounted_at(mountpoint)
            if retake:
                with Mounted("a.jigdo", mountpoint, ["--retake"], program=PROGRAM):
                    assert mountpoint.stat().st_mode == 0o40755
                assert not mounted_at(mountpoint)
        assert not mounted_at(mountpoint)
