"""Run the caching proxies of docs/fleet.md on loopback, with the configurations that stand there."""

import contextlib
import os
import random
import re
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.kit.ports import LOOPBACK, port_of

_DOCUMENT = Path(__file__).parents[2] / "docs" / "fleet.md"
_SBIN = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
_START_S = 20.0
# One process without master, as in tests/kit/nginx.py; what the Debian package has in its nginx.conf
_NGINX_CONF = """\
daemon off;
master_process off;
pid nginx.pid;
error_log error.log;
events {{ worker_connections 1024; }}
http {{
  sendfile on;
  tcp_nopush on;
  access_log off;
  client_body_temp_path tmp; proxy_temp_path tmp;
  fastcgi_temp_path tmp; uwsgi_temp_path tmp; scgi_temp_path tmp;
  {server}
}}
"""
_SQUID_PLACES = """
cache_effective_user proxy
pid_filename {home}/squid.pid
access_log none
cache_log {home}/cache.log
coredump_dir {home}
shutdown_lifetime 1 second
"""


@dataclass(frozen=True, slots=True)
class Upstream:
    """Say how mounts get at the origin.

    Attributes:
        prefix: URL of what is the origin's root directory.
        environ: what the mounts have in their environment.
        process: the proxy, None where there is none.
    """

    prefix: str
    environ: Mapping[str, str] = field(default_factory=dict)
    process: "subprocess.Popen[bytes] | None" = None


def installed(program: str) -> str | None:
    """Return the full path of a program, looking into the sbin directories too."""
    return shutil.which(program, path=_SBIN)


def reserve_low_port() -> socket.socket:
    """Bind a free loopback port below 32768, as `reserve_port` does: apt-cacher-ng misreads those above."""
    while True:
        keeper = socket.socket()
        keeper.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            keeper.bind((LOOPBACK, random.randrange(20_000, 32_000)))
        except OSError:
            keeper.close()
        else:
            return keeper


@contextlib.contextmanager
def nginx(origin: str) -> Iterator[Upstream]:
    """Run nginx with its `proxy_cache`."""
    with _home() as home, _port() as port:
        server = _block(
            "nginx",
            {
                "/var/cache/nginx/jigdo": f"{home}/cache",
                "listen 8080;": f"listen {LOOPBACK}:{port};",
                "http://deb.debian.org": origin.rstrip("/"),
                "http://cdimage.debian.org": origin.rstrip("/"),
            },
        )
        (home / "nginx.conf").write_text(_NGINX_CONF.format(server=server))
        command = ["nginx", "-p", str(home), "-e", f"{home}/error.log", "-c", "nginx.conf"]
        with _running(command, home, port) as process:
            yield Upstream(f"http://{LOOPBACK}:{port}/", process=process)


@contextlib.contextmanager
def squid(origin: str) -> Iterator[Upstream]:
    """Run squid as the forward proxy that `http_proxy` names."""
    with _home() as home, _port() as port:
        conf = _block(
            "squid",
            {
                "http_port 3128": f"http_port {LOOPBACK}:{port}",
                "/var/spool/squid 100000": f"{home}/cache 10000",
            },
        )
        (home / "squid.conf").write_text(conf + _SQUID_PLACES.format(home=home))
        if os.geteuid() == 0:
            shutil.chown(home, "proxy")
        command = ["squid", "-N", "-f", f"{home}/squid.conf"]
        with (home / "output").open("ab") as log:
            make_directories = [installed(command[0]) or command[0], "-z", *command[1:]]
            subprocess.run(make_directories, check=True, stdout=log, stderr=log)
        with _running(command, home, port) as process:
            yield Upstream(origin, {"http_proxy": f"http://{LOOPBACK}:{port}"}, process)


@contextlib.contextmanager
def apt_cacher_ng(origin: str) -> Iterator[Upstream]:
    """Run apt-cacher-ng, which finds the origin's name in the path.

    It asks the name servers even for 127.0.0.1; for localhost only for an SRV record.
    """
    origin = origin.removeprefix("http://").replace(LOOPBACK, "localhost")
    with _home() as home, _port() as port:
        (home / "conf").mkdir()
        (home / "conf" / "zz_jigdo.conf").write_text(_block("acng", {}))
        places = {"CacheDir": "cache", "LogDir": "log", "SocketPath": "socket", "PidFile": "pid"}
        command = ["apt-cacher-ng", "-c", f"{home}/conf", "ForeGround=1", f"Port={port}"]
        command += [f"{option}={home}/{name}" for option, name in places.items()]
        command += [f"BindAddress={LOOPBACK}", "AllowUserPorts=0"]
        with _running(command, home, port) as process:
            yield Upstream(f"http://{LOOPBACK}:{port}/{origin}", process=process)


PROXIES: Mapping[str, Callable[[str], contextlib.AbstractContextManager[Upstream]]] = {
    "nginx": nginx,
    "squid": squid,
    "apt-cacher-ng": apt_cacher_ng,
}
"""By the name of the program that has to be installed."""


def _block(language: str, changes: Mapping[str, str]) -> str:
    """Return a configuration out of the document, ports and places changed."""
    found = re.search(rf"(?ms)^```{language}\n(.*?)^```$", _DOCUMENT.read_text("utf-8"))
    assert found is not None, f"no ```{language} in {_DOCUMENT}"
    text = found[1]
    for old, new in changes.items():
        assert old in text, f"no {old!r} in the {language} configuration of {_DOCUMENT}"
        text = text.replace(old, new)
    return text


@contextlib.contextmanager
def _home() -> Iterator[Path]:
    home = Path(tempfile.mkdtemp(prefix="fleet-proxy-"))
    home.chmod(0o755)
    try:
        yield home
    finally:
        shutil.rmtree(home)


@contextlib.contextmanager
def _port() -> Iterator[int]:
    with reserve_low_port() as keeper:
        yield port_of(keeper)


@contextlib.contextmanager
def _running(command: list[str], home: Path, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a program until it is not needed any more, from when it accepts connections."""
    program = installed(command[0]) or command[0]
    with (home / "output").open("ab") as log:
        process = subprocess.Popen(
            [program, *command[1:]], cwd=home, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + _START_S
        while not _accepts(port):
            told = (home / "output").read_text("utf-8", "replace")
            assert process.poll() is None, f"{command[0]} ended: {told}"
            assert time.monotonic() < deadline, f"{command[0]} does not come up: {told}"
            time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:  # it may be stopped
            process.kill()
            process.wait()


def _accepts(port: int) -> bool:
    try:
        socket.create_connection((LOOPBACK, port), timeout=1).close()
    except OSError:
        return False
    return True
