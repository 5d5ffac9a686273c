"""Certificates of a small authority, made with openssl as an operator would."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

CURVE = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


@dataclass
class Certificate:
    """A certificate and its key, in files."""

    cert: Path
    key: Path

    def replace(self, other: Certificate) -> None:
        """Put another one in its place, the key first, as two steps of one's own."""
        self.key.write_bytes(other.key.read_bytes())
        self.cert.write_bytes(other.cert.read_bytes())


def openssl(*arguments: str | Path, cwd: Path) -> str:
    """Run openssl; give what it prints."""
    done = subprocess.run(
        ["openssl", *map(str, arguments)], cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class Authority:
    """Signs certificates."""

    def __init__(self, folder: Path, name: str = "authority") -> None:
        self.folder = folder
        self.cert, self.key = folder / f"{name}.pem", folder / f"{name}.key"
        subject = ["-subj", f"/O=daemun/CN={name}"]
        openssl("req", "-x509", *CURVE, "-keyout", self.key, "-out", self.cert, "-days", "30", *subject, cwd=folder)

    def sign(self, name: str, *hosts: str, days: int = 30, subject: str = "") -> Certificate:
        """Make a certificate in the files `name.pem` and `name.key`; without hosts it is a client's."""
        made = Certificate(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        request, extensions = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        extensions.write_text("subjectAltName=" + ",".join(f"DNS:{host}" for host in hosts or [name]))
        wanted = ["-subj", subject or f"/CN={name}"]
        openssl("req", "-new", *CURVE, "-keyout", made.key, "-out", request, *wanted, cwd=self.folder)
        signer = ["-CA", self.cert, "-CAkey", self.key, "-CAcreateserial", "-days", str(days)]
        openssl("x509", "-req", "-in", request, *signer, "-extfile", extensions, "-out", made.cert, cwd=self.folder)
        return made

    def staple(self, made: Certificate) -> Path:
        """Say that a certificate is good, as an OCSP responder would; give the file."""
        serial = openssl("x509", "-in", made.cert, "-noout", "-serial", cwd=self.folder).strip().partition("=")[2]
        index = self.folder / "index.txt"
        index.write_text(f"V\t491231235959Z\t\t{serial}\tunknown\t/CN=x\n")
        answer = self.folder / "staple.der"
        who = ["-index", index, "-rsigner", self.cert, "-rkey", self.key, "-CA", self.cert, "-issuer", self.cert]
        openssl("ocsp", *who, "-cert", made.cert, "-ndays", "30", "-respout", answer, cwd=self.folder)
        return answer
