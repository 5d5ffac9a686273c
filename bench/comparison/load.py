"""One run of wrk, and what it counted."""

from __future__ import annotations

import json
import math
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .scenarios import Request

# wrk prints for people; this prints one line for us. Nothing else is overridden, so that the request is made only once.
DONE = r"""
done = function(summary, latency, requests)
    local e = summary.errors
    io.write(string.format(
        'JSON {"requests": %d, "bytes": %d, "seconds": %.6f, "errors": %d, "p50": %.3f, "p99": %.3f}\n',
        summary.requests, summary.bytes, summary.duration / 1e6, e.connect + e.read + e.write + e.status + e.timeout,
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
    p50: float
    p99: float


def script(request: Request, folder: Path) -> Path:
    """Write the request as a Lua script."""
    lines = [f"wrk.method = {json.dumps(request.method)}"]
    lines += [f"wrk.headers[{json.dumps(name)}] = {json.dumps(value)}" for name, value in request.headers.items()]
    if request.body:
        lines.append(f"wrk.body = {json.dumps(request.body.decode('ascii'))}")
    path = folder / "request.lua"
    path.write_text("\n".join(lines) + DONE, "utf-8")
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
    finally:
        wrk.kill()
        wrk.wait()
    for line in output.splitlines():
        if line.startswith("JSON "):
            return Load(**json.loads(line[5:]))
    raise LoadError(f"wrk said nothing that can be read: exit {wrk.returncode}\n{output}")
