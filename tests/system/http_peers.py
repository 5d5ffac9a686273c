"""nginx, Apache, lighttpd and h2o in front of one server, set up as their manuals have it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from peers import free_port, program, started

NGINX = """\
daemon off; master_process off; pid {run}/nginx.pid; error_log {run}/nginx.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {run}/b; proxy_temp_path {run}/p; fastcgi_temp_path {run}/f; uwsgi_temp_path {run}/u;
    scgi_temp_path {run}/s;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{behind}; proxy_http_version 1.1;
            proxy_set_header Host $host; proxy_set_header Connection "";
        }}
    }}
}}
"""
APACHE = """\
ServerName localhost
Listen 127.0.0.1:{port}
PidFile {run}/nobody.pid
ErrorLog {run}/apache.log
DefaultRuntimeDir {run}
{modules}
{user}
ProxyPreserveHost On
ProxyPass / http://127.0.0.1:{behind}/
"""
APACHE_MODULES = ["mpm_event", "authz_core", "proxy", "proxy_http"]
LIGHTTPD = """\
server.bind = "127.0.0.1"
server.port = {port}
server.document-root = "{run}"
server.errorlog = "{run}/lighttpd.log"
server.modules = ( "mod_proxy" )
proxy.server = ( "" => (( "host" => "127.0.0.1", "port" => {behind} )) )
"""
H2O = """\
listen: {{ host: 127.0.0.1, port: {port} }}
pid-file: {run}/h2o.pid
error-log: {run}/h2o.log
hosts:
  default:
    paths:
      "/":
        proxy.reverse.url: "http://127.0.0.1:{behind}/"
        proxy.preserve-host: ON
"""


@contextmanager
def nginx(behind: int, run: Path) -> Iterator[int]:
    """Start nginx, keeping connections to the server behind."""
    port, log = free_port(), run / "nginx.log"
    (run / "nginx.conf").write_text(NGINX.format(port=port, run=run, behind=behind))
    with started([program("nginx"), "-e", str(log), "-c", str(run / "nginx.conf")], port, log):
        yield port


@contextmanager
def apache(behind: int, run: Path) -> Iterator[int]:
    """Start Apache with mod_proxy."""
    port, folder = free_port(), Path("/usr/lib/apache2/modules")
    modules = "\n".join(f"LoadModule {name}_module {folder}/mod_{name}.so" for name in APACHE_MODULES)
    user = "User daemon\nGroup daemon" if os.geteuid() == 0 else ""
    text = APACHE.format(port=port, run=run, modules=modules, behind=behind, user=user)
    (run / "apache.conf").write_text(text)
    command = [program("apache2", "httpd"), "-DFOREGROUND", "-f", str(run / "apache.conf")]
    with started(command, port, run / "apache.log"):
        yield port


@contextmanager
def lighttpd(behind: int, run: Path) -> Iterator[int]:
    """Start lighttpd with mod_proxy."""
    port = free_port()
    (run / "lighttpd.conf").write_text(LIGHTTPD.format(port=port, run=run, behind=behind))
    command = [program("lighttpd"), "-D", "-f", str(run / "lighttpd.conf")]
    with started(command, port, run / "lighttpd.log"):
        yield port


@contextmanager
def h2o(behind: int, run: Path) -> Iterator[int]:
    """Start h2o."""
    port = free_port()
    (run / "h2o.conf").write_text(H2O.format(port=port, run=run, behind=behind))
    with started([program("h2o"), "-m", "worker", "-c", str(run / "h2o.conf")], port, run / "h2o.log"):
        yield port


def missing() -> list[str]:
    """Programs that a comparison needs and that are not there."""
    path = os.environ["PATH"] + os.pathsep + "/usr/sbin"
    return [name for name in ("nginx", "apache2", "lighttpd", "h2o") if not shutil.which(name, path=path)]
