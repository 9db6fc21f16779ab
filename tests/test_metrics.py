"""Metrics for Prometheus: what they say, and what clients may do to who gives them away."""

import contextlib
import os
import resource
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from tests.kit.faults import Status
from tests.kit.faulty_server import FaultyServer
from tests.kit.images import BuiltImage
from tests.kit.mounts import Mounted
from tests.kit.ports import port_of, reserve_port
from tests.kit.scenes import QUICK, Program, lonely, pool_files, read_direct, wait_until

BASE_UNITS = ("_bytes", "_seconds", "_ratio")


@pytest.fixture
def published(iso_md5: BuiltImage, faulty_server: FaultyServer, tmp_path: Path) -> BuiltImage:
    faulty_server.files = pool_files(iso_md5)
    return iso_md5.with_servers(tmp_path / "in", {"Debian": faulty_server.url("/pool/")})


@pytest.fixture
def asked(published: BuiltImage, tmp_path: Path) -> Iterator[tuple[Mounted, Path]]:
    """A mount and the socket where it can be asked for metrics."""
    path = tmp_path / "metrics"
    options = ("--cache-dir", str(tmp_path / "cache"), "--metrics", f"unix:{path}", *QUICK)
    with Mounted(published.jigdo, tmp_path / "mnt", options, allow_log=["failed", "is avoided"]) as mounted:
        yield mounted, path
        if mounted.process.poll() is None:
            mounted.unmount()
        assert not path.exists()


def talk(path: Path, request: bytes) -> tuple[bytes, bytes]:
    """Send a request and return head and body of the answer."""
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(20)
        stream.connect(os.fspath(path))
        stream.sendall(request)
        answer = b""
        while more := stream.recv(65536):
            answer += more
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, body


def scraped(path: Path) -> dict[str, Metric]:
    head, body = talk(path, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert f"Content-Length: {len(body)}".encode() in head
    return parsed(body.decode())


def parsed(text: str) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(families: dict[str, Metric], family: str, sample: str = "", **labels: str) -> float:
    found = [
        one.value
        for one in families[family].samples
        if one.name == (sample or family) and labels.items() <= one.labels.items()
    ]
    assert len(found) == 1, (family, labels, families[family].samples)
    return float(found[0])


def test_values(asked: tuple[Mounted, Path], iso_md5: BuiltImage, faulty_server: FaultyServer) -> None:
    """What was read, fetched and refused is what the metrics say."""
    mounted, path = asked
    image = mounted.mountpoint / "kit.iso"
    part, other = lonely(iso_md5)[:2]
    before = scraped(path)
    name, size = {"image": "kit.iso"}, iso_md5.image.stat().st_size
    assert value(before, "jigdofs_image_size_bytes", **name) == size
    assert value(before, "jigdofs_reads", "jigdofs_reads_total", result="miss", **name) == 0

    read_direct(image, part.offset, part.length)
    read_direct(image, part.offset, part.length)
    faulty_server.always(f"/pool/{other.path}", Status(404))
    with pytest.raises(OSError):
        read_direct(image, other.offset, 1)
    after = scraped(path)
    assert value(after, "jigdofs_reads", "jigdofs_reads_total", result="miss", **name) >= 1
    assert value(after, "jigdofs_reads", "jigdofs_reads_total", result="hit", **name) >= 1
    assert value(after, "jigdofs_reads", "jigdofs_reads_total", result="eio", **name) >= 1
    assert value(after, "jigdofs_last_read_error_time_seconds", **name) > 0
    read = value(after, "jigdofs_read_bytes", "jigdofs_read_bytes_total", **name)
    assert read >= 2 * part.length
    durations = "jigdofs_read_duration_seconds"
    reads = sum(one.value for one in after["jigdofs_reads"].samples)
    assert value(after, durations, f"{durations}_count") == reads
    assert value(after, durations, f"{durations}_bucket", le="+Inf") == reads
    mirror = {"mirror": faulty_server.url("/pool/")}
    assert value(after, "jigdofs_fetch_parts", "jigdofs_fetch_parts_total", **mirror) >= 1
    assert value(after, "jigdofs_received_bytes", "jigdofs_received_bytes_total") >= part.length
    wait_until(lambda: "jigdofs_image_parts" in scraped(path), "the first count")
    assert value(scraped(path), "jigdofs_image_parts_present", **name) >= 1
    assert {sample.labels["mountpoint"] for family in after.values() for sample in family.samples} == {
        str(mounted.mountpoint)
    }


def test_rules_of_prometheus(asked: tuple[Mounted, Path]) -> None:
    """What `promtool check metrics' asks for: help, base units, `_total` for counters and nothing else."""
    families = scraped(asked[1])
    assert len(families) > 15
    for name, family in families.items():
        assert family.documentation.endswith("."), name
        assert name.startswith("jigdofs_"), name
        assert family.type in {"counter", "gauge", "histogram"}, name
        names = {sample.name for sample in family.samples}
        totals = {sample for sample in names if sample.endswith("_total")}
        assert totals == (names if family.type == "counter" else set()), name
        assert not any(word in name for word in ("milli", "micro", "kilo", "mega", "minutes", "percent")), (
            name
        )
        if any(word in family.documentation for word in ("Bytes", "bytes")):
            assert name.endswith(BASE_UNITS) or "bytes" in name, name


def test_other_requests(asked: tuple[Mounted, Path]) -> None:
    """There is one thing to be had, and what is no request is told so."""
    _, path = asked
    statuses = {
        b"GET / HTTP/1.1\r\n\r\n": b"404",
        b"GET /metrics?name[]=x HTTP/1.0\n\n": b"200",
        b"POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc": b"405",
        b"\x16\x03\x01\r\n\r\n": b"400",
        b"GET /metrics\r\n\r\n": b"400",
        b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 100_000: b"400",
    }
    for request, status in statuses.items():
        assert talk(path, request)[0].split(b" ")[1] == status, request[:40]
    head, body = talk(path, b"HEAD /metrics HTTP/1.1\r\n\r\n")
    assert (head.split(b" ")[1], body) == (b"200", b"")


def test_clients_that_say_nothing(asked: tuple[Mounted, Path]) -> None:
    """However many connect and say nothing, others are answered, and these are given up."""
    mounted, path = asked
    silent = [socket.socket(socket.AF_UNIX) for _ in range(40)]
    try:
        for one in silent:
            one.settimeout(20)
            one.connect(os.fspath(path))
        status, _ = talk(path, b"GET /metrics HTTP/1.1\r\n\r\n")
        assert status.split(b" ")[1] in (b"200", b"503")
        for one in silent:
            assert one.recv(100)[:9] == b"HTTP/1.1 "
    finally:
        for one in silent:
            one.close()
    request = b"GET /metrics HTTP/1.1\r\n\r\n"
    wait_until(lambda: talk(path, request)[0].startswith(b"HTTP/1.1 200 "), "there is room again")
    assert os.listdir(mounted.mountpoint) == ["kit.iso"]


def test_more_connections_than_descriptors(asked: tuple[Mounted, Path], iso_md5: BuiltImage) -> None:
    """Whoever connects again and again takes no descriptor that a reader needs."""
    mounted, path = asked
    hard = resource.prlimit(mounted.process.pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(mounted.process.pid, resource.RLIMIT_NOFILE, (120, hard))
    with contextlib.ExitStack() as stack:
        for _ in range(300):
            one = stack.enter_context(socket.socket(socket.AF_UNIX))
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 20, 0))
            one.connect(os.fspath(path))  # blocks: others may wait there, as many as may
        one.settimeout(20)
        assert len(os.listdir(f"/proc/{mounted.process.pid}/fd")) < 110
        part = lonely(iso_md5)[0]
        data = read_direct(mounted.mountpoint / "kit.iso", part.offset, part.length)
        assert data == iso_md5.image.read_bytes()[part.offset : part.offset + part.length]
        assert one.recv(100).startswith(b"HTTP/1.1 503 ")


def point(directory: Path) -> Path:
    """Return a mount point where nothing is."""
    (directory / "point").mkdir()
    return directory / "point"


def test_address(published: BuiltImage, tmp_path: Path) -> None:
    """They are to be had at an address; one that is taken is said before anything is mounted."""
    with reserve_port() as keeper:
        port = port_of(keeper)
    with Mounted(published.jigdo, tmp_path / "mnt", ("--no-cache", "--metrics", f"127.0.0.1:{port}")):
        with socket.create_connection(("127.0.0.1", port), 10) as stream:
            stream.sendall(b"GET /metrics HTTP/1.1\r\n\r\n")
            answer = b"".join(iter(lambda: stream.recv(65536), b""))
        families = parsed(answer.partition(b"\r\n\r\n")[2].decode())
        assert "jigdofs_cache_bytes" not in families  # there is none
        mount = ("mount", published.jigdo, point(tmp_path), "--metrics")
        error = Program(tmp_path).fails(*mount, f"127.0.0.1:{port}", code=3)
    assert "cannot listen there: Address already in use" in error


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("localhost", "neither HOST:PORT"),
        ("127.0.0.1:99999", "neither HOST:PORT"),
        ("127.0.0.1:x", "neither HOST:PORT"),
        ("unix:relative", "must be absolute"),
        ("unix:/nowhere/at/all", "cannot listen there: No such file"),
        ("/tmp/metrics.txt", "must end in .prom"),
        ("/nowhere/at/all.prom", "cannot be written: No such file"),
        ("192.0.2.1:80", "cannot listen there: Cannot assign"),
    ],
)
def test_mistakes(target: str, text: str, tmp_path: Path) -> None:
    """A place that cannot be used is one line, and nothing is fetched or mounted."""
    mount = ("mount", tmp_path / "none.jigdo", point(tmp_path), "--metrics")
    assert text in Program(tmp_path).fails(*mount, target, code=3)


def test_file(published: BuiltImage, tmp_path: Path) -> None:
    """A file for node_exporter is whole, readable for others, and gone after the end."""
    path = tmp_path / "collected" / "jigdofs.prom"
    path.parent.mkdir()
    with Mounted(published.jigdo, tmp_path / "mnt", ("--no-cache", "--metrics", str(path))) as mounted:
        wait_until(path.read_text, "it is written")
        families = parsed(path.read_text())
        assert value(families, "jigdofs_build_info", mountpoint=str(mounted.mountpoint)) == 1
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
        assert os.listdir(path.parent) == [path.name]
    assert os.listdir(path.parent) == []


def test_socket_of_a_killed_daemon(published: BuiltImage, tmp_path: Path) -> None:
    """What a killed daemon left is replaced; what another one listens at is not."""
    path = tmp_path / "metrics"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(os.fspath(path))
    with Mounted(published.jigdo, tmp_path / "mnt", ("--no-cache", "--metrics", f"unix:{path}")):
        assert scraped(path)
        mount = ("mount", published.jigdo, point(tmp_path), "--metrics", f"unix:{path}")
        assert "Address already in use" in Program(tmp_path).fails(*mount, code=3)
        assert scraped(path)
