"""Run a real nginx on loopback for as long as a test needs it."""

import json
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.parse
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.kit.ports import LOOPBACK, port_of, reserve_port
from tests.kit.requirements import tool

_BARRIER = "/.kit-barrier"
# One process (no master): it keeps the user who started it, and it alone is to be ended.
_CONF = """\
daemon off;
master_process off;
pid nginx.pid;
error_log error.log;
events {{ worker_connections 512; }}
http {{
  default_type application/octet-stream;
  client_body_temp_path tmp; proxy_temp_path tmp;
  fastcgi_temp_path tmp; uwsgi_temp_path tmp; scgi_temp_path tmp;
  log_format kit escape=json '{{"method":"$request_method","target":"$request_uri","status":$status,'
    '"body_bytes":$body_bytes_sent,"range":"$http_range"}}';
  access_log access.log kit;
  server {{
    listen {host}:{port} backlog=256;
    location = {barrier} {{ return 204; }}
    location / {{ root "{root}"; {directives} }}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Access:
    """Tell one request that nginx has answered, with the path decoded and without the query."""

    method: str
    path: str
    range: str | None
    status: int
    body_bytes: int


class Nginx:
    """Serve a directory; `directives` go into its location block, such as `limit_rate 1m;`."""

    def __init__(self, root: Path, directives: str = "") -> None:
        self._program = tool("nginx")
        self._home = Path(tempfile.mkdtemp(prefix="kit-nginx-"))
        self._keeper = reserve_port()
        self._log = self._home / "access.log"
        self.process: subprocess.Popen[bytes] | None = None
        fields = {"host": LOOPBACK, "port": port_of(self._keeper), "barrier": _BARRIER}
        conf = _CONF.format(root=root.absolute(), directives=directives, **fields)
        (self._home / "nginx.conf").write_text(conf)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        self._keeper.close()
        shutil.rmtree(self._home)

    def url(self, path: str = "/") -> str:
        """Return the URL of a decoded path, properly escaped."""
        quoted = urllib.parse.quote(path.encode(errors="surrogateescape"))
        return f"http://{LOOPBACK}:{port_of(self._keeper)}{quoted}"

    def start(self, timeout_s: float = 10) -> None:
        """Listen, on the same port as ever, and return when connections are accepted."""
        assert self.process is None, "started already"
        errors = self._home / "error.log"
        self.process = subprocess.Popen(
            [self._program, "-p", str(self._home), "-e", str(errors), "-c", "nginx.conf"],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                socket.create_connection((LOOPBACK, port_of(self._keeper)), timeout=1).close()
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise AssertionError(f"nginx does not serve: {errors.read_text()}") from None
                time.sleep(0.01)
            else:
                return

    def stop(self) -> None:
        """End it with all its connections; idempotent."""
        if self.process is None:
            return
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process = None

    def access_log(self) -> list[Access]:
        """Return the requests answered so far; what a client has read to the end is there."""
        if self.process is not None:
            # One process serves one event after the other: what ended before this request has been logged.
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            opener.open(self.url(_BARRIER), timeout=10).close()
        if not self._log.exists():
            return []
        records: list[Access] = []
        for line in self._log.read_text(errors="surrogateescape").splitlines():
            entry = json.loads(line)
            path = urllib.parse.unquote(entry["target"].partition("?")[0], errors="surrogateescape")
            if path != _BARRIER:
                records.append(
                    Access(
                        entry["method"], path, entry["range"] or None, entry["status"], entry["body_bytes"]
                    )
                )
        return records

    def clear_log(self) -> None:
        """Forget the requests answered so far."""
        self.access_log()
        if self._log.exists():
            with self._log.open("r+b") as log:  # nginx appends to the same file
                log.truncate()
