"""Certificate authorities that are asked over the network, and a machine whose names lead where a test wants.

`Pebble` is a real one, that of the people behind Let's Encrypt. What it cannot be brought to do, such as refusing because
of a limit, `Stand` does: it answers what it is told to, and notes what it was asked.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
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
from server import BINARY

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
    run.write_text(f"#!/bin/sh\nPEBBLE_VA_NOSLEEP=1 exec {wrapped} -config {folder}/pebble.json >{folder}/pebble.log 2>&1\n")
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

    @property
    def url(self) -> str:
        """Where it is."""
        return f"https://localhost:{self.port}"

    def certificate(self, request: bytes) -> str:
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

    def answer(self, path: str, payload: dict[str, Any]) -> tuple[int, dict[str, str], Any]:
        """Give status, fields and body."""
        url = self.url
        order = {"status": "ready", "authorizations": [f"{url}/authorization"], "finalize": f"{url}/finalize"}
        if self.orders:
            order["identifiers"] = self.orders[-1]["identifiers"]
            if "replaces" in self.orders[-1]:
                order["replaces"] = self.orders[-1]["replaces"]
        match path.strip("/").split("/")[0]:
            case "directory":
                names = {"newNonce": "nonce", "newAccount": "account", "newOrder": "order", "revokeCert": "revoke"}
                found = {name: f"{url}/{place}" for name, place in {**names, "keyChange": "key"}.items()}
                return 200, {}, {**found, **({"renewalInfo": f"{url}/renewal"} if self.window else {})}
            case "nonce":
                return 200, {}, None
            case "account":
                self.accounts.append(payload)
                return 201, {"Location": f"{url}/account/1"}, {"status": "valid"}
            case "order" if self.refusals:
                status, kind, detail, after = self.refusals.pop(0)
                return status, {"Retry-After": after}, {"type": f"urn:ietf:params:acme:error:{kind}", "detail": detail}
            case "order":
                self.orders.append(payload)
                order["identifiers"] = payload["identifiers"]
                if "replaces" in payload:
                    order["replaces"] = payload["replaces"]
                return 201, {"Location": f"{url}/placed"}, order
            case "authorization":
                name = self.orders[-1]["identifiers"][0]
                return 200, {}, {"status": "valid", "identifier": name, "challenges": []}
            case "finalize":
                csr = payload["csr"]
                self.issued = self.certificate(base64.urlsafe_b64decode(csr + "=" * (-len(csr) % 4)))
                return 200, {}, {**order, "status": "valid", "certificate": f"{url}/certificate"}
            case "placed":
                done = hasattr(self, "issued")
                end = {"status": "valid", "certificate": f"{url}/certificate"} if done else {}
                return 200, {}, {**order, **end}
            case "certificate":
                return 200, {}, self.issued
            case "renewal":
                assert self.window
                window = {"start": self.window[0], "end": self.window[1]}
                return 200, {"Retry-After": "21600"}, {"suggestedWindow": window}
        return 404, {}, {"type": "about:blank", "detail": path}


@contextmanager
def stand(names: Names) -> Iterator[Stand]:
    """Run one."""
    folder = names.folder
    directory = Authority(folder, "stand")
    own = directory.sign("stand-host", "localhost")
    self = Stand(folder, Authority(folder, "issuer"), directory.cert)

    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self_handler) -> None:  # noqa: N802, N805
            payload: dict[str, Any] = {}
            length = int(self_handler.headers.get("Content-Length", 0))
            if length:
                signed = json.loads(self_handler.rfile.read(length))["payload"]
                payload = json.loads(base64.urlsafe_b64decode(signed + "=" * (-len(signed) % 4)) or b"{}")
            self.asked.append(self_handler.path)
            status, fields, body = self.answer(self_handler.path, payload)
            text = body if isinstance(body, str) else "" if body is None else json.dumps(body)
            self_handler.send_response(status)
            for name, value in {**fields, "Replay-Nonce": "bm9uY2U"}.items():
                self_handler.send_header(name, value)
            self_handler.send_header("Content-Length", str(len(text)))
            self_handler.end_headers()
            if self_handler.command != "HEAD":
                self_handler.wfile.write(text.encode())

        do_POST = do_HEAD = do_GET

        def log_message(self_handler, *_: object) -> None:  # noqa: N805
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    trusted = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trusted.load_cert_chain(own.cert, own.key)
    server.socket = trusted.wrap_socket(server.socket, server_side=True)
    self.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield self
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def serial(port: int, name: str) -> str:
    """Tell the certificate that is shown for a name from others."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    import socket

    with socket.create_connection(("127.0.0.1", port), timeout=60) as plain:
        with context.wrap_socket(plain, server_hostname=name) as secure:
            der = secure.getpeercert(binary_form=True)
    assert der
    done = subprocess.run(
        ["openssl", "x509", "-inform", "der", "-noout", "-serial"], input=der, capture_output=True, timeout=60, check=True
    )
    return done.stdout.decode().strip()
