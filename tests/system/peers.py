"""nginx and Apache beside daemun over the same folder, each on a port of the kernel's choice."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from server import DEADLINE
from wire import Reply, Wire

NGINX = """\
daemon off; master_process off; pid {run}/nginx.pid; error_log {run}/nginx.log;
events {{}}
http {{
    include /etc/nginx/mime.types; default_type application/octet-stream; charset utf-8;
    charset_types text/html text/xml text/plain text/css application/javascript;
    access_log off; server_tokens off; absolute_redirect off;
    client_body_temp_path {run}/b; proxy_temp_path {run}/p; fastcgi_temp_path {run}/f; uwsgi_temp_path {run}/u;
    scgi_temp_path {run}/s;
    server {{ listen 127.0.0.1:{port}; root {root}; gzip_static on;
        location /list/ {{ autoindex on; }} }}
}}
"""
APACHE = """\
ServerName localhost
Listen 127.0.0.1:{port}
PidFile {run}/apache.pid
ErrorLog {run}/apache.log
DefaultRuntimeDir {run}
ServerTokens Prod
{modules}
TypesConfig /etc/mime.types
AddDefaultCharset utf-8
AddCharset utf-8 .css .js
DocumentRoot {root}
DirectoryIndex index.html
<Directory {root}>
    Require all granted
    Options FollowSymLinks
</Directory>
<Directory {root}/list>
    Options Indexes
</Directory>
AddEncoding gzip .gz
RewriteEngine on
RewriteCond %{{HTTP:Accept-Encoding}} gzip
RewriteCond {root}%{{REQUEST_URI}}.gz -s
RewriteRule ^/(.*)\\.css$ /$1.css.gz [T=text/css,E=no-gzip:1,L]
"""
MODULES = ["mpm_event", "authz_core", "dir", "mime", "rewrite", "autoindex"]


def program(*names: str) -> str:
    """Find a program, also where Debian hides it from users."""
    path = os.environ["PATH"] + os.pathsep + "/usr/sbin"
    found = next(filter(None, (shutil.which(name, path=path) for name in names)), None)
    assert found, f"no {names[0]}; run:  scripts/require peers"
    return found


def free_port() -> int:
    """Give a port that nobody has at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def started(command: list[str], port: int, log: Path) -> Iterator[int]:
    """Run a server until the end of the block; it answers when the block begins."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + DEADLINE
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                said = log.read_text() if log.exists() else ""
                assert process.poll() is None, f"{command[0]} ended: {said}"
                assert time.monotonic() < end, f"{command[0]} never listened: {said}"
        yield port
    finally:
        process.terminate()
        process.wait(DEADLINE)


@contextmanager
def nginx(root: Path, run: Path) -> Iterator[int]:
    """Serve `root` with nginx."""
    port = free_port()
    (run / "nginx.conf").write_text(NGINX.format(root=root, run=run, port=port))
    command = [program("nginx"), "-e", str(run / "nginx.log"), "-c", str(run / "nginx.conf")]
    with started(command, port, run / "nginx.log") as listening:
        yield listening


@contextmanager
def apache(root: Path, run: Path) -> Iterator[int]:
    """Serve `root` with Apache."""
    port = free_port()
    folder = Path("/usr/lib/apache2/modules")
    modules = "\n".join(f"LoadModule {name}_module {folder}/mod_{name}.so" for name in MODULES)
    (run / "apache.conf").write_text(APACHE.format(root=root, run=run, port=port, modules=modules))
    command = [program("apache2", "httpd"), "-DFOREGROUND", "-f", str(run / "apache.conf")]
    with started(command, port, run / "apache.log") as listening:
        yield listening


def told(port: int, method: str, target: str, fields: Mapping[str, str]) -> dict[str, str | None]:
    """Ask, and give what two servers can be compared by."""
    wire = Wire(port)
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    wire.send(f"{method} {target} HTTP/1.1\r\nHost: site.example\r\nConnection: close\r\n{lines}\r\n".encode())
    reply = wire.reply(method)
    wire.socket.close()
    assert reply is not None, target
    assert reply.complete, target
    return comparable(reply)


COMPARED = ["Content-Type", "Content-Length", "Content-Range", "Content-Encoding", "Vary", "Accept-Ranges"]
COMPARED += ["Last-Modified", "Location", "Allow", "Cache-Control"]


def comparable(reply: Reply) -> dict[str, str | None]:
    """Status, fields and content, without what differs by nature: boundaries, tags, the words of error pages."""
    facts: dict[str, str | None] = {"status": str(reply.status)}
    for name in COMPARED:
        values = reply.all(name)
        facts[name] = ", ".join(values) if values else None
    facts["ETag"] = "yes" if reply.get("ETag") else None
    if facts["Location"]:
        facts["Location"] = re.sub(r"^http://[^/]+", "", facts["Location"])
    content = reply.body
    match = re.match(r"multipart/byteranges; boundary=(\S+)", facts["Content-Type"] or "")
    if match:
        facts["Content-Type"] = "multipart/byteranges"
        facts["Content-Length"] = None
        parts = content.split(b"--" + match[1].encode())[1:-1]
        content = b"|".join(part.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n") for part in parts)
    if reply.status >= 300:
        # Words of a page are each server's own.
        facts["Content-Length"] = facts["Content-Type"] = None
        content = b""
    facts["content"] = content.decode("latin-1")
    return facts
