"""One run of a client, and what it counted: wrk, h2load over HTTP/2, openssl for handshakes."""

from __future__ import annotations

import json
import math
import re
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from .scenarios import Request

# wrk prints for people; this prints one line for us. Nothing else is overridden, so that the request is made only once.
DONE = r"""
done = function(summary, latency, requests)
    local e = summary.errors
    io.write(string.format(
        'JSON {"requests": %d, "bytes": %d, "seconds": %.6f, "errors": %d, "p50": %.3f, "p99": %.3f}\n',
        summary.requests, summary.bytes, summary.duration / 1e6, e.connect + e.read + e.write + e.timeout + STATUS,
        latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
"""

# After its end wrk waits for nothing but its own threads.
END_DEADLINE = 15.0


class LoadError(Exception):
    """The load generator is not there or failed."""


@dataclass(frozen=True)
class Load:
    """What the client saw: latencies in milliseconds."""

    requests: int
    # What was received, of answers too that were not whole when time was over.
    bytes: int
    seconds: float
    errors: int
    p50: float | None
    p99: float | None


def script(request: Request, folder: Path, *, refused: bool = False) -> Path:
    """Write the request as a Lua script; where it must be refused, a status of an error is none."""
    lines = [f"wrk.method = {json.dumps(request.method)}"]
    lines += [f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in request.headers.items()]
    if request.body:
        lines.append(f"wrk.body = {json.dumps(request.body.decode('ascii'))}")
    path = folder / "request.lua"
    done = DONE.replace("STATUS", "0" if refused else "e.status")
    path.write_text("\n".join(lines) + done, "utf-8")
    return path


def run(url: str, lua: Path, *, seconds: float, connections: int, threads: int = 1) -> Load:
    """Ask for so long. wrk counts in whole seconds: it is interrupted earlier, which it takes as its end."""
    program = shutil.which("wrk")
    if program is None:
        raise LoadError("wrk is not there; run:  apt-get install wrk")
    command = [program, f"-t{threads}", f"-c{connections}", f"-d{math.ceil(seconds) + 5}s", "--timeout", "10s"]
    wrk = subprocess.Popen([*command, "-s", str(lua), url], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        try:
            output, _ = wrk.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            wrk.send_signal(signal.SIGINT)
            output, _ = wrk.communicate(timeout=END_DEADLINE)
    except subprocess.TimeoutExpired as error:
        raise LoadError(f"wrk did not end within {END_DEADLINE:.0f} s of its interrupt") from error
    finally:
        wrk.kill()
        wrk.wait()
    for line in output.splitlines():
        if line.startswith("JSON "):
            return Load(**json.loads(line[5:]))
    if wrk.returncode == -signal.SIGINT:
        # It was over before wrk had begun, as on a busy machine.
        return Load(0, 0, seconds, 0, None, None)
    raise LoadError(f"wrk said nothing that can be read: exit {wrk.returncode}\n{output}")


def over_http2(url: str, folder: Path, *, seconds: float, connections: int, streams: int = 16) -> Load:
    """Ask over HTTP/2 for so long. h2load counts in whole seconds, and writes how long each request took."""
    program = shutil.which("h2load")
    if program is None:
        raise LoadError("h2load is not there; run:  apt-get install nghttp2-client")
    log = folder / "h2load.log"
    words = ["-D", str(math.ceil(seconds)), "-c", str(connections), "-m", str(streams), "--log-file", str(log)]
    log.unlink(missing_ok=True)
    done = subprocess.run([program, *words, url], capture_output=True, text=True, timeout=seconds + 60, check=False)
    if done.returncode or "Application protocol: h2" not in done.stdout:
        raise LoadError(f"h2load: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return counted(done.stdout, log.read_text("ascii"), math.ceil(seconds))


def counted(said: str, log: str, seconds: float) -> Load:
    """Read what h2load says and its log: begin, status and microseconds of each request in a line."""
    totals = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", said)
    received = re.search(r"\((\d+)\) total", said)
    if totals is None or received is None:
        raise LoadError(f"h2load said nothing that can be read:\n{said}")
    succeeded, *wrong = map(int, totals.groups())
    taken = sorted(int(line.split("\t")[2]) for line in log.splitlines())

    def at(part: float) -> float | None:
        return taken[int(part * (len(taken) - 1))] / 1e3 if taken else None

    return Load(succeeded, int(received[1]), seconds, sum(wrong), at(0.5), at(0.99))


def handshakes(port: int, *, seconds: float) -> Load:
    """Shake hands anew, again and again, for so long in whole seconds."""
    words = ["s_time", "-connect", f"127.0.0.1:{port}", "-new", "-time", str(math.ceil(seconds))]
    began = time.monotonic()
    try:
        done = subprocess.run(["openssl", *words], capture_output=True, text=True, timeout=seconds + 60, check=False)
    except FileNotFoundError as error:
        raise LoadError("openssl is not there; run:  apt-get install openssl") from error
    found = re.search(r"(\d+) connections in \d+ real seconds", done.stdout)
    if found is None:
        raise LoadError(f"openssl s_time: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return Load(int(found[1]), 0, time.monotonic() - began, 0, None, None)
