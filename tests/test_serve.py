"""`jigdofs serve`: the real program asked by real clients."""

import contextlib
import hashlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.kit.faults import Stall, Status
from tests.kit.faulty_server import FaultyServer
from tests.kit.images import BuiltImage
from tests.kit.requirements import tool
from tests.kit.scenes import Program, lonely, pool_files, wait_until
from tests.kit.serving import Serving, serving

QUICK = ("--connect-timeout", "1s", "--stall-timeout", "1s", "--read-timeout", "10s")


WEBSOCKET = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
HTTP2 = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
    b"Connection: Upgrade, HTTP2-Settings\r\n\r\n"
)


@dataclass(frozen=True)
class Scene:
    """An image that is served, from parts on a server that misbehaves when told to."""

    built: BuiltImage
    mirror: FaultyServer
    server: Serving
    tmp: Path

    @property
    def image(self) -> str:
        return self.server.url(f"/{self.built.image.name}")


@pytest.fixture
def scene(iso_md5: BuiltImage, faulty_server: FaultyServer, tmp_path: Path) -> Iterator[Scene]:
    faulty_server.files = pool_files(iso_md5)
    built = iso_md5.with_servers(tmp_path / "in", {"Debian": faulty_server.url("/pool/")})
    with serving([built.jigdo], tmp_path, *QUICK, allow_log=("cannot be had",)) as server:
        yield Scene(built, faulty_server, server, tmp_path)


def curl(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [tool("curl"), "--silent", "--show-error", "--noproxy", "*", *arguments]
    return subprocess.run(command, capture_output=True, check=False, timeout=60)


def header(scene: Scene, path: str, *arguments: str) -> tuple[int, dict[str, str]]:
    """Return status and header of what is answered, the body dropped."""
    done = curl("--dump-header", "-", "--output", os.devnull, *arguments, scene.server.url(path))
    status, *lines = done.stdout.decode().split("\r\n")
    return int(status.split(" ")[1]), {
        name.lower(): value for name, _, value in (line.partition(": ") for line in lines if ": " in line)
    }


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_the_whole_image(scene: Scene) -> None:
    """What is served is the image, by its length, bytes and checksum; each part was fetched once."""
    name = scene.built.image.name
    assert scene.server.line == f"serving {scene.image} and {scene.server.url('/kit/')}"
    status, answer = header(scene, f"/{name}", "--head")
    assert (status, int(answer["content-length"])) == (200, scene.built.image.stat().st_size)
    assert answer["accept-ranges"] == "bytes"
    assert answer["etag"] == f'"{hashlib.md5(scene.built.image.read_bytes()).hexdigest()}"'
    assert "server" not in answer
    assert scene.mirror.paths() == [], "HEAD reads nothing"
    assert curl(scene.image).stdout == scene.built.image.read_bytes()
    asked = scene.mirror.paths()
    assert len(asked) == len(set(asked))
    assert set(asked) >= {f"/pool/{path}" for path in scene.built.parts.values()}


def test_parallel_ranges_and_resumption(scene: Scene) -> None:
    """aria2c with four connections, wget that goes on, and curl in pieces get the identical file."""
    wanted = digest(scene.built.image)
    aria = [tool("aria2c"), "-x4", "-s4", "-k1M", "--file-allocation=none", "--quiet", "--no-conf"]
    subprocess.run([*aria, "-o", "aria.iso", scene.image], cwd=scene.tmp, check=True, timeout=60)
    assert digest(scene.tmp / "aria.iso") == wanted
    (scene.tmp / "wget.iso").write_bytes(scene.built.image.read_bytes()[:1_234_567])
    wget = [tool("wget"), "--quiet", "--continue", "--no-proxy", "-O", "wget.iso", scene.image]
    subprocess.run(wget, cwd=scene.tmp, check=True, timeout=60)
    assert digest(scene.tmp / "wget.iso") == wanted
    size = scene.built.image.stat().st_size
    with (scene.tmp / "curl.iso").open("wb") as file:
        for begin in range(0, size, 1_000_003):
            done = curl("--range", f"{begin}-{min(begin + 1_000_002, size - 1)}", scene.image)
            file.write(done.stdout)
    assert digest(scene.tmp / "curl.iso") == wanted


def test_status_codes(scene: Scene) -> None:
    """Every kind of request has its answer, and a connection that had an error goes on."""
    name = f"/{scene.built.image.name}"
    size = scene.built.image.stat().st_size
    _, answer = header(scene, name, "--head")
    status, part = header(scene, name, "--range", "5-9")
    assert (status, part["content-range"], part["content-length"]) == (206, f"bytes 5-9/{size}", "5")
    status, refused = header(scene, name, "--range", "0-1,5-6")
    assert (status, refused["content-range"]) == (416, f"bytes */{size}")
    assert header(scene, name, "--header", f"If-None-Match: {answer['etag']}")[0] == 304
    assert header(scene, name, "--header", f"If-Modified-Since: {answer['last-modified']}")[0] == 304
    assert header(scene, name, "--range", "5-9", "--header", 'If-Range: "old"', "--head")[0] == 200
    assert header(scene, "/none.iso")[0] == 404
    assert header(scene, f"{name}/x")[0] == 404
    assert header(scene, f"{name}/")[0] == 404
    assert header(scene, name, "--data", "x=1")[0] == 405
    assert header(scene, name, "--request", "DELETE")[1]["allow"] == "GET, HEAD"
    for path in ("/%2e%2e/etc/passwd", "/kit/%2e%2e/%2e%2e/etc/passwd", "/kit/a%00b", "/kit/..%2f..%2fetc"):
        url = f"http://127.0.0.1:{scene.server.port}{path}"
        done = curl("--path-as-is", "--write-out", "%{http_code}", "--output", os.devnull, url)
        assert done.stdout in (b"400", b"404"), path


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_connection_ends_that_was_to_end(scene: Scene, version: str, method: str) -> None:
    """After an answer that is the last one, by wish or by the old version, the server closes."""
    for path in ("/kit/README.txt", "/", f"http://127.0.0.1:{scene.server.port}/kit/README.txt", "/none"):
        with socket.create_connection(("127.0.0.1", scene.server.port)) as client:
            client.settimeout(30)
            client.sendall(f"{method} {path} HTTP/{version}\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
            data = b""
            while more := client.recv(1 << 16):
                data += more
        assert data.startswith(b"HTTP/1.1 404" if path == "/none" else b"HTTP/1.1 200")


def test_requests_are_logged_when_asked_for(iso_md5: BuiltImage, tmp_path: Path) -> None:
    """With -v each request is a line."""
    with serving([iso_md5.jigdo], tmp_path, "-v") as server:
        curl(server.url("/kit/README.txt"))
        wait_until(lambda: any("GET /kit/README.txt" in line for line in server.stderr), "a line")


def test_the_files_inside(scene: Scene) -> None:
    """Each file of the pool, odd names too, is served with its bytes, and reading one fetches that part."""
    one = lonely(scene.built)[0]
    assert curl(scene.server.url(f"/kit/pool/main/{one.path.removeprefix('main/')}")).stdout == (
        (scene.built.pool / one.path).read_bytes()
    )
    assert scene.mirror.paths() == [f"/pool/{one.path}"]
    for file in scene.built.pool.rglob("*"):
        if file.is_file():
            path = b"/kit/pool/" + os.fsencode(file.relative_to(scene.built.pool))
            assert curl(scene.server.url(path)).stdout == file.read_bytes(), path
    assert curl(scene.server.url("/kit/empty")).stdout == b""
    assert curl("--range", "0-1", scene.server.url("/kit/empty")).stdout == b""


def test_directories_lead_everywhere(scene: Scene) -> None:
    """Wget finds every file by following the pages of links."""
    status, answer = header(scene, "/kit/pool")
    assert (status, answer["location"]) == (301, "/kit/pool/")
    command = [tool("wget"), "--quiet", "--no-proxy", "--recursive", "--level=inf", "--no-parent"]
    command += ["--no-host-directories", "--reject=index.html*", "--restrict-file-names=nocontrol"]
    subprocess.run([*command, scene.server.url("/")], cwd=scene.tmp, check=False, timeout=60)
    assert digest(scene.tmp / scene.built.image.name) == digest(scene.built.image)
    sizes = sorted(file.stat().st_size for file in (scene.tmp / "kit" / "pool").rglob("*") if file.is_file())
    assert sizes == sorted(file.stat().st_size for file in scene.built.pool.rglob("*") if file.is_file())


def test_a_part_that_cannot_be_had_is_an_error(scene: Scene) -> None:
    """Before the answer began it is a 502; later the connection breaks: no answer looks whole that is not."""
    one = lonely(scene.built)[0]
    scene.mirror.always(f"/pool/{one.path}", Status(404))
    done = curl("--write-out", "%{http_code}", "--range", f"{one.offset}-{one.end - 1}", scene.image)
    assert done.stdout.endswith(b"502")
    assert b"cannot be had" in done.stdout
    assert b"127.0.0.1" not in done.stdout, "mirrors are not told"
    done = curl(scene.image)
    assert done.returncode == 18, "curl: the transfer ended early"
    assert scene.built.image.read_bytes().startswith(done.stdout)
    assert len(done.stdout) <= one.offset
    scene.mirror.behave()
    whole = scene.built.image.read_bytes()
    wait_until(lambda: curl(scene.image).stdout == whole, "for a moment it is not asked for again")


def test_a_client_that_leaves_leaves_nothing(scene: Scene) -> None:
    """While a part stalls its client may go; others are answered, and the end comes."""
    one, other = lonely(scene.built)[:2]
    scene.mirror.always(f"/pool/{one.path}", Stall())
    with socket.create_connection(("127.0.0.1", scene.server.port)) as client:
        path = f"/{scene.built.image.name}"
        text = f"GET {path} HTTP/1.1\r\nHost: x\r\nRange: bytes={one.offset}-{one.end - 1}\r\n\r\n"
        client.sendall(text.encode())
        scene.mirror.wait_stalled()
    done = curl("--range", f"{other.offset}-{other.end - 1}", scene.image)
    assert done.stdout == (scene.built.pool / other.path).read_bytes()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_although_clients_hang(scene: Scene, number: int) -> None:
    """A client that takes nothing, one that says nothing and one that waits for a part do not hold it up."""
    one = lonely(scene.built)[0]
    scene.mirror.always(f"/pool/{one.path}", Stall())
    path = f"/{scene.built.image.name}"
    clients = [socket.create_connection(("127.0.0.1", scene.server.port)) for _ in range(3)]
    try:
        clients[0].setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        clients[0].sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        clients[1].sendall(b"GET / HT")
        text = f"GET {path} HTTP/1.1\r\nHost: x\r\nRange: bytes={one.offset}-{one.end - 1}\r\n\r\n"
        clients[2].sendall(text.encode())
        scene.mirror.wait_stalled()
        assert scene.server.end(number) == 0
    finally:
        for client in clients:
            client.close()


def test_odd_requests_do_not_end_it(scene: Scene) -> None:
    """Garbage, a header without end, upgrades and pipelined requests are answered or dropped; it goes on."""
    path = f"/{scene.built.image.name}".encode()
    requests = [
        b"\x00\xff garbage\r\n\r\n",
        b"GET " + b"/a" * 50_000 + b" HTTP/1.1\r\n\r\n",
        WEBSOCKET,
        *(HTTP2.replace(b"AAMAAABkAAQAAP__", settings) for settings in (b"A", b"AAAA", b"AAT_____", b"\xff")),
        b"HEAD %s HTTP/1.1\r\nHost: x\r\n\r\n" % path * 20,
        b"GET %s HTTP/1.0\r\n\r\n" % path,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(100),
    ]
    for request in requests:
        with socket.create_connection(("127.0.0.1", scene.server.port)) as client:
            client.settimeout(30)
            client.sendall(request)
            with contextlib.suppress(OSError):  # it may have hung up by now
                client.shutdown(socket.SHUT_WR)
            while client.recv(1 << 16):
                pass
    assert curl(scene.server.url("/kit/README.txt")).stdout.startswith(b"line 0")


def test_who_wants_http2_gets_http1(scene: Scene) -> None:
    """An offer to go on with HTTP/2 is passed over, and insisting on it ends nothing but that connection."""
    url = scene.server.url("/kit/README.txt")
    for option, code in (("--http2", 0), ("--http2-prior-knowledge", None)):
        done = curl(option, "--write-out", "%{http_version}", url)
        assert (done.returncode == 0) == (code == 0)
        assert done.stdout.endswith(b"1.1") == (code == 0)
    assert curl(url).stdout.startswith(b"line 0")


def test_a_plain_iso_is_served_likewise(iso_md5: BuiltImage, tmp_path: Path) -> None:
    """An image that lies here as a whole is served with its files, and what was changed under us is not."""
    copy = tmp_path / "plain.iso"
    copy.write_bytes(iso_md5.image.read_bytes())
    with serving([copy], tmp_path, allow_log=("changed since it was opened",)) as server:
        assert server.line == f"serving {server.url('/plain.iso')} and {server.url('/plain/')}"
        assert curl(server.url("/plain.iso")).stdout == iso_md5.image.read_bytes()
        assert curl(server.url("/plain/README.txt")).stdout.startswith(b"line 0")
        with copy.open("r+b") as file:
            file.write(b"x")
        wait_until(lambda: copy.stat().st_mtime > iso_md5.image.stat().st_mtime, "another time")
        done = curl("--write-out", "%{http_code}", server.url("/plain.iso"))
        assert done.stdout.endswith(b"502")


@pytest.mark.parametrize(
    "address",
    ["nonsense", "127.0.0.1", "127.0.0.1:99999", "192.0.2.77:8080", "[::1]"],
)
def test_places_where_nothing_can_listen(iso_md5: BuiltImage, tmp_path: Path, address: str) -> None:
    """An address that is none is one line, before anything is loaded."""
    line = Program(tmp_path).fails("serve", iso_md5.jigdo, "--listen", address, code=3)
    assert line.startswith(f"jigdofs: --listen {address}: ")


def test_a_port_that_is_taken(iso_md5: BuiltImage, tmp_path: Path) -> None:
    """A port that somebody has is one line."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        line = Program(tmp_path).fails("serve", iso_md5.jigdo, "--listen", address, code=3)
    assert "Address already in use" in line
