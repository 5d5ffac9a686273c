"""Certificate authorities that are asked over the network, and a machine whose names lead where a test wants.

`Pebble` is a real one, that of the people behind Let's Encrypt. What it cannot be brought to do, such as refusing
because of a limit, `Stand` does: it answers what it is told to, and notes what it was asked.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from authority import Authority, openssl
from peers import free_port, program, started
from server import BINARY, DEADLINE

Payload = dict[str, Any]
Told = tuple[int, dict[str, str], Any]

WRAPPER = """\
#!/bin/sh
{enter} sh -c 'mount --bind "$1" /etc/hosts && shift && exec {leave} "$@"' sh {hosts} {program} "$@"
"""


class Names:
    """Where names lead, for the programs of one test alone: they see an /etc/hosts of its own."""

    def __init__(self, folder: Path, **leads: str) -> None:
        self.folder = folder
        self.hosts = folder / "hosts"
        self.lead(**leads)

    def lead(self, **leads: str) -> None:
        """Say where names lead; a double underscore stands for a dot."""
        lines = [f"{address} {name.replace('__', '.')}" for name, address in leads.items()]
        # In place: what is mounted is this very file.
        self.hosts.write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))

    def program(self, path: str | Path) -> Path:
        """Give a program that sees these names."""
        wrapper = self.folder / f"{Path(path).name}-with-names"
        enter, leave = "exec unshare -m", ""
        if os.getuid() != 0:
            enter = "exec unshare -rm"
            leave = f"unshare -U --map-user={os.getuid()} --map-group={os.getgid()}"
        wrapper.write_text(WRAPPER.format(enter=enter, leave=leave, hosts=self.hosts, program=path))
        wrapper.chmod(0o755)
        return wrapper

    @property
    def daemun(self) -> Path:
        """The server, with these names."""
        return self.program(BINARY)


@dataclass
class Pebble:
    """A real authority."""

    folder: Path
    port: int
    management: int
    ca: Path

    @property
    def directory(self) -> str:
        """Its address."""
        return f"https://localhost:{self.port}/dir"

    @property
    def log(self) -> str:
        """What it has said."""
        return (self.folder / "pebble.log").read_text()

    def root(self) -> Path:
        """Give the certificate that all it issues leads to; it makes another at each start."""
        trusted = ssl.create_default_context(cafile=str(self.ca))
        with urllib.request.urlopen(f"https://localhost:{self.management}/roots/0", context=trusted) as answer:
            path = self.folder / "issued-root.pem"
            path.write_bytes(answer.read())
        return path


@contextmanager
def pebble(names: Names, http: int, tls: int, validity: int = 90 * 86400) -> Iterator[Pebble]:
    """Run one that looks at these ports, and issues certificates that are valid for so many seconds."""
    assert shutil.which("pebble"), "no pebble; run:  scripts/require acme"
    folder = names.folder
    authority = folder / "directory.pem"
    if not authority.exists():
        Authority(folder, "directory").sign("directory-host", "localhost")
    port, management = free_port(), free_port()
    settings = {
        "listenAddress": f"127.0.0.1:{port}",
        "managementListenAddress": f"127.0.0.1:{management}",
        "certificate": str(folder / "directory-host.pem"),
        "privateKey": str(folder / "directory-host.key"),
        "httpPort": http,
        "tlsPort": tls,
        "certificateValidityPeriod": validity,
    }
    (folder / "pebble.json").write_text(json.dumps({"pebble": settings}))
    run = folder / "pebble.sh"
    wrapped = names.program(program("pebble"))
    command = f"exec {wrapped} -config {folder}/pebble.json >{folder}/pebble.log 2>&1"
    run.write_text(f"#!/bin/sh\nPEBBLE_VA_NOSLEEP=1 {command}\n")
    run.chmod(0o755)
    with started([str(run)], port, folder / "pebble.log"):
        yield Pebble(folder, port, management, authority)


@dataclass
class Stand:
    """An authority that believes everything, and says what it is told to."""

    folder: Path
    signer: Authority
    ca: Path
    port: int = 0
    # Answers to new orders that come before certificates: status, problem, Retry-After.
    refusals: list[tuple[int, str, str, str]] = field(default_factory=list)
    # When the authority wants certificates renewed: start and end, by RFC 3339.
    window: tuple[str, str] | None = None
    days: int = 90
    orders: list[dict[str, Any]] = field(default_factory=list)
    accounts: list[dict[str, Any]] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    issued: str = ""

    @property
    def url(self) -> str:
        """Where it is."""
        return f"https://localhost:{self.port}"

    def sign(self, request: bytes) -> str:
        """Sign what is asked for."""
        (self.folder / "request.der").write_bytes(request)
        signed, extensions = self.folder / "issued.pem", self.folder / "issued.ext"
        names = self.orders[-1]["identifiers"]
        extensions.write_text(
            "authorityKeyIdentifier=keyid\nsubjectAltName=" + ",".join(f"DNS:{name['value']}" for name in names)
        )
        openssl(
            *("x509", "-req", "-inform", "der", "-in", self.folder / "request.der", "-days", str(self.days)),
            *("-CA", self.signer.cert, "-CAkey", self.signer.key, "-CAcreateserial"),
            *("-extfile", extensions, "-out", signed),
            cwd=self.folder,
        )
        return signed.read_text() + self.signer.cert.read_text()

    def order(self) -> dict[str, Any]:
        """Tell of the last order, as far as it has come."""
        kept: dict[str, Any] = {
            name: self.orders[-1][name] for name in ("identifiers", "replaces") if name in self.orders[-1]
        }
        told: dict[str, Any] = {
            "status": "valid" if self.issued else "ready",
            "authorizations": [f"{self.url}/authorization"],
            "finalize": f"{self.url}/finalize",
            **kept,
        }
        return {**told, "certificate": f"{self.url}/certificate"} if self.issued else told

    def directory(self, _: Payload) -> Told:
        """Say where everything is."""
        names = {"newNonce": "nonce", "newAccount": "account", "newOrder": "place", "revokeCert": "revoke"}
        if self.window:
            names["renewalInfo"] = "renewal"
        return 200, {}, {name: f"{self.url}/{place}" for name, place in {**names, "keyChange": "key"}.items()}

    def nonce(self, _: Payload) -> Told:
        """Give one; every answer has one."""
        return 200, {}, None

    def account(self, payload: Payload) -> Told:
        """Make one."""
        self.accounts.append(payload)
        return 201, {"Location": f"{self.url}/account/1"}, {"status": "valid"}

    def place(self, payload: Payload) -> Told:
        """Take an order, or refuse it."""
        if self.refusals:
            status, kind, detail, after = self.refusals.pop(0)
            return status, {"Retry-After": after}, {"type": f"urn:ietf:params:acme:error:{kind}", "detail": detail}
        self.orders.append(payload)
        self.issued = ""
        return 201, {"Location": f"{self.url}/placed"}, self.order()

    def placed(self, _: Payload) -> Told:
        """Tell of an order."""
        return 200, {}, self.order()

    def authorization(self, _: Payload) -> Told:
        """Believe it."""
        name = self.orders[-1]["identifiers"][0]
        return 200, {}, {"status": "valid", "identifier": name, "challenges": []}

    def finalize(self, payload: Payload) -> Told:
        """Sign."""
        self.issued = self.sign(unpadded(payload["csr"]))
        return 200, {}, self.order()

    def certificate(self, _: Payload) -> Told:
        """Give what was signed."""
        return 200, {}, self.issued

    def renewal(self, _: Payload) -> Told:
        """Say when to renew."""
        assert self.window
        window = {"start": self.window[0], "end": self.window[1]}
        return 200, {"Retry-After": "21600"}, {"suggestedWindow": window}

    def answer(self, path: str, payload: Payload) -> Told:
        """Give status, fields and body."""
        self.asked.append(path)
        answers = [
            *(self.directory, self.nonce, self.account, self.place, self.placed, self.authorization),
            *(self.finalize, self.certificate, self.renewal),
        ]
        wanted = path.strip("/").split("/")[0]
        return next(answer for answer in answers if answer.__name__ == wanted)(payload)


def unpadded(text: str) -> bytes:
    """Decode base64 as it stands in URLs."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


class Answers(BaseHTTPRequestHandler):
    """The stand-in as a server."""

    protocol_version = "HTTP/1.1"
    stand: Stand

    def handle_one(self) -> None:
        """Answer, whatever the method."""
        length = int(self.headers.get("Content-Length", 0))
        signed = json.loads(self.rfile.read(length))["payload"] if length else ""
        status, fields, body = self.stand.answer(self.path, json.loads(unpadded(signed) or b"{}"))
        text = body if isinstance(body, str) else "" if body is None else json.dumps(body)
        self.send_response(status)
        for name, value in {**fields, "Replay-Nonce": "bm9uY2U"}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text.encode())

    def do_GET(self) -> None:
        """Answer."""
        self.handle_one()

    def do_HEAD(self) -> None:
        """Answer without a body."""
        self.handle_one()

    def do_POST(self) -> None:
        """Answer what was signed."""
        self.handle_one()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def stand(names: Names) -> Iterator[Stand]:
    """Run one."""
    folder = names.folder
    directory = Authority(folder, "stand")
    own = directory.sign("stand-host", "localhost")
    told = Stand(folder, Authority(folder, "issuer"), directory.cert)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Asked", (Answers,), {"stand": told}))
    trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trusted.load_cert_chain(own.cert, own.key)
    server.socket = trusted.wrap_socket(server.socket, server_side=True)
    told.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield told
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def serial(port: int, name: str) -> str:
    """Tell the certificate that is shown for a name from others."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with (
        socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as wire,
        context.wrap_socket(wire, server_hostname=name) as spoken,
    ):
        der = spoken.getpeercert(binary_form=True)
    assert der
    command = ["openssl", "x509", "-inform", "der", "-noout", "-serial"]
    done = subprocess.run(command, input=der, capture_output=True, timeout=DEADLINE, check=True)
    return done.stdout.decode().strip()
