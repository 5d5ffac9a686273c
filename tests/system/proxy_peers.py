"""nginx, HAProxy and Caddy in front of the same servers, each with what its manual has for servers that fail."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from peers import free_port, program, started
from proxy_cases import TIMEOUT
from server import Server

DAEMUN = """\
[upstream.behind]
servers = [{servers}]
balance = "least-connections"
read_timeout = "{timeout}s"
{more}
[[route]]
path = "/*"
upstream = "behind"
"""
NGINX = """\
daemon off; master_process off; pid {run}/nginx.pid; error_log {run}/nginx.log;
events {{}}
http {{
    access_log off;
    client_body_temp_path {run}/b; proxy_temp_path {run}/p; fastcgi_temp_path {run}/f; uwsgi_temp_path {run}/u;
    scgi_temp_path {run}/s;
    client_max_body_size 100m;
    upstream behind {{ least_conn; {servers} keepalive 32; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://behind; proxy_http_version 1.1; proxy_read_timeout {timeout}s;
            proxy_set_header Host $host; proxy_set_header Connection "";
        }}
    }}
}}
"""
HAPROXY = """\
defaults
    mode http
    timeout connect 2s
    timeout client 30s
    timeout server {timeout}s
    retries 3
    retry-on all-retryable-errors
    option redispatch 1
    http-reuse safe
listen gate
    bind 127.0.0.1:{port}
    balance leastconn
    {servers}
"""
CADDY = """\
{{
    admin off
    auto_https off
}}
http://:{port} {{
    bind 127.0.0.1
    reverse_proxy {servers} {{
        lb_policy least_conn
        {more}
        transport http {{
            response_header_timeout {timeout}s
            read_timeout {timeout}s
        }}
    }}
}}
"""


def daemun(behind: Sequence[int], folder: Path, more: str = "") -> Server:
    """Run daemun with these settings of the upstream besides."""
    servers = ", ".join(f'"http://127.0.0.1:{port}"' for port in behind)
    (folder / "daemun.toml").write_text(DAEMUN.format(servers=servers, timeout=TIMEOUT, more=more))
    return Server(cwd=folder)


@contextmanager
def nginx(behind: Sequence[int], run: Path) -> Iterator[int]:
    """Start nginx, keeping connections to the servers behind."""
    port, log = free_port(), run / "nginx.log"
    servers = " ".join(f"server 127.0.0.1:{one};" for one in behind)
    (run / "nginx.conf").write_text(NGINX.format(port=port, run=run, servers=servers, timeout=TIMEOUT))
    with started([program("nginx"), "-e", str(log), "-c", str(run / "nginx.conf")], port, log):
        yield port


@contextmanager
def haproxy(behind: Sequence[int], run: Path) -> Iterator[int]:
    """Start HAProxy; of several servers it watches what they answer."""
    port = free_port()
    watch = "observe layer7 error-limit 3 on-error mark-down check inter 10s" if len(behind) > 1 else ""
    servers = "\n    ".join(f"server s{one} 127.0.0.1:{one} {watch}" for one in behind)
    text = HAPROXY.format(port=port, servers=servers, timeout=TIMEOUT)
    (run / "haproxy.cfg").write_text(text)
    with started([program("haproxy"), "-db", "-q", "-f", str(run / "haproxy.cfg")], port, run / "haproxy.log"):
        yield port


@contextmanager
def caddy(behind: Sequence[int], run: Path) -> Iterator[int]:
    """Start Caddy; of several servers it tries another one, and leaves alone who failed."""
    port = free_port()
    more = "lb_try_duration 5s\n        fail_duration 10s\n        max_fails 3" if len(behind) > 1 else ""
    servers = " ".join(f"127.0.0.1:{one}" for one in behind)
    (run / "Caddyfile").write_text(CADDY.format(port=port, servers=servers, timeout=TIMEOUT, more=more))
    home = [program("env"), f"XDG_DATA_HOME={run}", f"XDG_CONFIG_HOME={run}"]
    command = [*home, program("caddy"), "run", "--adapter", "caddyfile", "--config", str(run / "Caddyfile")]
    with started(command, port, run / "caddy.log"):
        yield port


def missing() -> list[str]:
    """Programs that a comparison needs and that are not there."""
    path = os.environ["PATH"] + os.pathsep + "/usr/sbin"
    return [name for name in ("nginx", "haproxy", "caddy") if not shutil.which(name, path=path)]
