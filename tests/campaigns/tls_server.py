"""A server that misbehaves over TLS, under a certificate of our own that nobody else knows."""

import ssl
import subprocess
from pathlib import Path

from tests.kit.faulty_server import FaultyServer
from tests.kit.ports import LOOPBACK
from tests.kit.requirements import tool


def make_certificate(directory: Path) -> Path:
    """Write key and certificate for loopback into one file, and return it."""
    both = directory / "loopback.pem"
    command = [tool("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    command += [
        "-nodes",
        "-days",
        "2",
        "-subj",
        f"/CN={LOOPBACK}",
        "-addext",
        f"subjectAltName=IP:{LOOPBACK}",
    ]
    subprocess.run([*command, "-keyout", str(both), "-out", str(both)], check=True, capture_output=True)
    return both


class TlsServer(FaultyServer):
    """The same over https: clients need `SSL_CERT_FILE` to point to the certificate.

    Args:
        certificate: made by `make_certificate`.
    """

    def __init__(self, certificate: Path) -> None:
        super().__init__()
        self._certificate = certificate

    def start(self) -> None:
        """Listen; nobody may connect before this returns."""
        super().start()
        assert self._listener is not None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._certificate)
        self._listener.socket = context.wrap_socket(self._listener.socket, server_side=True)

    def stop(self) -> None:
        """Close everything; a client that hung up in the middle of a record is not our fault."""
        super().stop()
        self._errors = [error for error in self._errors if not isinstance(error, ssl.SSLError)]

    def url(self, path: str = "/") -> str:
        """Return the URL of a decoded path, properly escaped."""
        return "https" + super().url(path).removeprefix("http")
