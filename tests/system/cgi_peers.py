"""Apache with mod_cgid, lighttpd, and nginx with fcgiwrap over one folder of CGI scripts, set up as Debian has them."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from peers import free_port, program, started
from server import DEADLINE


@dataclass(frozen=True)
class Peer:
    """A server that runs the scripts below `/cgi-bin/`, and what it writes down."""

    port: int
    log: Path

    def said(self) -> str:
        """Everything in its log so far."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


APACHE = """\
ServerName localhost
Listen 127.0.0.1:{port}
PidFile {run}/apache.pid
ErrorLog {run}/apache.log
DefaultRuntimeDir {run}
ScriptSock {run}/cgid
{modules}
{user}
ScriptAlias /cgi-bin/ {scripts}/
<Directory {scripts}>
    AllowOverride None
    Options +ExecCGI -MultiViews +SymLinksIfOwnerMatch
    Require all granted
</Directory>
"""
APACHE_MODULES = ["mpm_event", "authz_core", "alias", "cgid", "env"]


@contextmanager
def apache(scripts: Path, run: Path) -> Iterator[Peer]:
    """Apache, as `a2enmod cgid` has it."""
    port, folder = free_port(), Path("/usr/lib/apache2/modules")
    modules = "\n".join(f"LoadModule {name}_module {folder}/mod_{name}.so" for name in APACHE_MODULES)
    user = "User daemon\nGroup daemon" if os.geteuid() == 0 else ""
    text = APACHE.format(port=port, run=run, modules=modules, scripts=scripts, user=user)
    (run / "apache.conf").write_text(text)
    log = run / "apache.log"
    command = [program("apache2", "httpd"), "-DFOREGROUND", "-f", str(run / "apache.conf")]
    with started(command, port, log):
        yield Peer(port, log)


LIGHTTPD = """\
server.bind = "127.0.0.1"
server.port = {port}
server.document-root = "{run}"
server.errorlog = "{run}/lighttpd.log"
server.modules = ( "mod_alias", "mod_cgi" )
alias.url = ( "/cgi-bin/" => "{scripts}/" )
$HTTP["url"] =~ "^/cgi-bin/" {{ cgi.assign = ( "" => "" ) }}
"""


@contextmanager
def lighttpd(scripts: Path, run: Path) -> Iterator[Peer]:
    """Start lighttpd, as `lighty-enable-mod cgi` has it."""
    port, log = free_port(), run / "lighttpd.log"
    (run / "lighttpd.conf").write_text(LIGHTTPD.format(port=port, run=run, scripts=scripts))
    # What scripts write to standard error goes to the server's own.
    command = [
        "/bin/sh",
        "-c",
        'exec "$0" -D -f "$1" 2>>"$2"',
        program("lighttpd"),
        str(run / "lighttpd.conf"),
        str(log),
    ]
    with started(command, port, log):
        yield Peer(port, log)


NGINX = """\
daemon off; master_process off; pid {run}/nginx.pid; error_log {run}/nginx.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {run}/b; proxy_temp_path {run}/p; fastcgi_temp_path {run}/f; uwsgi_temp_path {run}/u;
    scgi_temp_path {run}/s;
    client_max_body_size 100m;
    server {{
        listen 127.0.0.1:{port};
        location /cgi-bin/ {{
            gzip off;
            root {root};
            fastcgi_pass unix:{run}/fcgiwrap;
            include /etc/nginx/fastcgi_params;
            fastcgi_param SCRIPT_FILENAME {root}$fastcgi_script_name;
        }}
    }}
}}
"""


@contextmanager
def fcgiwrap(scripts: Path, run: Path) -> Iterator[Peer]:
    """Start nginx with fcgiwrap behind it, as its example has it, with as many processes as others have at a time."""
    port, log, socket = free_port(), run / "nginx.log", run / "fcgiwrap"
    (run / "fcgiwrap.conf").write_text(NGINX.format(port=port, run=run, root=scripts.parent))
    wrapper = subprocess.Popen(
        [program("fcgiwrap"), "-f", "-c", "8", "-s", f"unix:{socket}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        end = time.monotonic() + DEADLINE
        while not socket.exists():
            assert wrapper.poll() is None, "fcgiwrap ended"
            assert time.monotonic() < end, "fcgiwrap never listened"
        with started([program("nginx"), "-e", str(log), "-c", str(run / "fcgiwrap.conf")], port, log):
            yield Peer(port, log)
    finally:
        wrapper.terminate()
        wrapper.wait(DEADLINE)


def missing() -> list[str]:
    """Programs that a comparison needs and that are not there."""
    path = os.environ["PATH"] + os.pathsep + "/usr/sbin"
    return [name for name in ("apache2", "lighttpd", "nginx", "fcgiwrap") if not shutil.which(name, path=path)]
