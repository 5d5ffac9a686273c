"""What connections cost beside nginx, as CPU of the server alone: HTTP/2 over TLS, TLS handshakes, refused requests.

bench/connections.py --daemun target/release/daemun [--rounds 3]

Rounds alternate between the servers, so that a noisy machine is noisy for both; the median is told. Both have one
event loop, the same certificate (P-256), the same file, and no access log.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

GOOD = b"GET /a.txt HTTP/1.1\r\nHost: a\r\nUser-Agent: x\r\nConnection: close\r\n\r\n"
BAD = b"GET /a.txt HTTP/1.1\r\nHost: a\r\nUser-Agent: x\r\nContent-Length: 1, 2\r\n\r\n"

DAEMUN = """\
[server]
listen = ["127.0.0.1:{plain}", "https://127.0.0.1:{secure}"]
event_loops = 1
access_log = "off"
error_log = {{ path = "error.log", level = "error" }}
[[tls]]
cert = "c.pem"
key = "k.pem"
[[route]]
path = "/*"
static = {{ root = "files" }}
"""

NGINX = """\
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log crit;
events {{ worker_connections 4096; }}
http {{
  access_log off; sendfile on; open_file_cache max=100; keepalive_requests 100000000;
  ssl_session_cache off;
  server {{ listen 127.0.0.1:{plain}; root {folder}/files; }}
  server {{ listen 127.0.0.1:{secure} ssl http2; root {folder}/files;
    ssl_certificate {folder}/c.pem; ssl_certificate_key {folder}/k.pem; ssl_ecdh_curve X25519; }}
}}
"""


def unused() -> int:
    """A port that nobody has."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class Peer:
    """A server and what its processes have used."""

    def __init__(self, name: str, command: list[str], folder: Path, ports: tuple[int, int]) -> None:
        self.name = name
        self.plain, self.secure = ports
        self.process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        end = time.monotonic() + 20
        for port in ports:
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    assert time.monotonic() < end, f"{name} does not listen"
                    time.sleep(0.05)

    def used(self) -> float:
        """CPU seconds of the whole tree."""
        return sum(cpu(pid) for pid in tree(self.process.pid))


def tree(pid: int) -> list[int]:
    """A process and those below it."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            found += tree(int(child))
    return found


def cpu(pid: int) -> float:
    """CPU seconds of a process, to the nanosecond where the kernel says so."""
    return sum(int((task / "schedstat").read_text().split()[0]) for task in Path(f"/proc/{pid}/task").iterdir()) / 1e9


def http2(peer: Peer) -> int:
    """Ask for a small file over HTTP/2 and TLS."""
    count = 60_000
    url = f"https://127.0.0.1:{peer.secure}/a.txt"
    done = subprocess.run(
        ["h2load", "-n", str(count), "-c", "16", "-m", "16", url], check=True, capture_output=True, text=True
    )
    assert f"{count} succeeded" in done.stdout, done.stdout
    return count


def handshakes(peer: Peer) -> int:
    """Shake hands anew, again and again."""
    command = ["openssl", "s_time", "-connect", f"127.0.0.1:{peer.secure}", "-new", "-time", "3"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    found = re.search(r"(\d+) connections in \d+ real seconds", done.stdout)
    assert found, done.stdout
    return int(found[1])


def plain(request: bytes, status: bytes) -> Callable[[Peer], int]:
    """Send one request on each of many connections."""

    def run(peer: Peer) -> int:
        for _ in range(4000):
            with socket.create_connection(("127.0.0.1", peer.plain)) as client:
                client.sendall(request)
                said = client.recv(65536)
                assert said.startswith(b"HTTP/1.1 " + status), said
        return 4000

    return run


SCENARIOS: dict[str, Callable[[Peer], int]] = {
    "HTTP/2 over TLS, 1 KiB": http2,
    "TLS handshake": handshakes,
    "good request, own connection": plain(GOOD, b"200"),
    "refused request": plain(BAD, b"400"),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--daemun", required=True, type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "files").mkdir()
        (folder / "files" / "a.txt").write_bytes(b"x" * 1024)
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        command += ["-keyout", "k.pem", "-out", "c.pem", "-subj", "/CN=a", "-addext", "subjectAltName=IP:127.0.0.1"]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        ours, theirs = (unused(), unused()), (unused(), unused())
        (folder / "daemun.toml").write_text(DAEMUN.format(plain=ours[0], secure=ours[1]))
        (folder / "nginx.conf").write_text(NGINX.format(folder=folder, plain=theirs[0], secure=theirs[1]))
        nginx = shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin") or "nginx"
        peers = [
            Peer("daemun", [str(options.daemun.resolve()), "serve"], folder, ours),
            Peer("nginx", [nginx, "-p", name, "-c", str(folder / "nginx.conf")], folder, theirs),
        ]
        try:
            for title, scenario in SCENARIOS.items():
                cost: dict[str, list[float]] = {peer.name: [] for peer in peers}
                for _ in range(options.rounds):
                    for peer in peers:
                        before = peer.used()
                        count = scenario(peer)
                        cost[peer.name].append((peer.used() - before) / count * 1e6)
                median = {name: statistics.median(each) for name, each in cost.items()}
                told = ", ".join(f"{name} {value:.1f} µs" for name, value in median.items())
                print(f"{title}: {told}; {median['daemun'] / median['nginx']:.2f} of nginx", flush=True)
        finally:
            for peer in peers:
                peer.process.terminate()
                peer.process.wait(30)


if __name__ == "__main__":
    main()
