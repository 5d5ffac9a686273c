"""A WSGI application of everything that one should not do, a path each. Tests serve copies; it notes its tries."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

print("printed while imported")

Misdeed = Callable[[dict[str, Any]], "bytes | None"]
MISDEEDS: dict[str, Misdeed] = {}
LOCK = threading.Lock()
KEPT: list[bytearray] = []


def misdeed(function: Misdeed) -> Misdeed:
    """Give a misdeed the path of its name."""
    MISDEEDS[function.__name__.replace("_", "-")] = function
    return function


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Do what the path says, and answer as if nothing had been."""
    do = MISDEEDS.get(environ["PATH_INFO"].strip("/"))
    body = (do(environ) if do else None) or b"fine"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


# === Ends ===


@misdeed
def segfault(environ: dict[str, Any]) -> None:
    ctypes.string_at(0)


@misdeed
def leave(environ: dict[str, Any]) -> None:
    os._exit(3)


@misdeed
def system_exit(environ: dict[str, Any]) -> None:
    raise SystemExit(3)


@misdeed
def keyboard(environ: dict[str, Any]) -> None:
    raise KeyboardInterrupt


@misdeed
def kill_self(environ: dict[str, Any]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@misdeed
def once(environ: dict[str, Any]) -> bytes:
    """Die the first time only."""
    tries = Path(__file__).with_name("tries")
    with tries.open("a") as file:
        file.write(environ["REQUEST_METHOD"] + "\n")
    if len(tries.read_text().splitlines()) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return b"second"


# === Ends of time ===


@misdeed
def sleep(environ: dict[str, Any]) -> None:
    time.sleep(600)


@misdeed
def spin(environ: dict[str, Any]) -> None:
    while True:
        pass


@misdeed
def deadlock(environ: dict[str, Any]) -> None:
    """Whoever comes second waits for a lock that nobody gives back."""
    LOCK.acquire()
    LOCK.acquire()


# === Ends of what there is ===


@misdeed
def recursion(environ: dict[str, Any]) -> None:
    recursion(environ)


@misdeed
def memory(environ: dict[str, Any]) -> None:
    """More than any machine has, at once."""
    bytearray(1 << 62)


@misdeed
def hoard(environ: dict[str, Any]) -> None:
    """Ever more, and none of it given back, up to the limit of the address space that this process then has."""
    import resource

    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + (64 << 20), resource.RLIM_INFINITY))
    while True:
        KEPT.append(bytearray(1 << 20))


@misdeed
def open_files(environ: dict[str, Any]) -> None:
    """Every descriptor that may be had, kept."""
    while True:
        os.dup(0)


# === What belongs to others ===


@misdeed
def close_all(environ: dict[str, Any]) -> None:
    os.closerange(3, 4096)


@misdeed
def close_standard(environ: dict[str, Any]) -> None:
    os.closerange(0, 3)


@misdeed
def fork(environ: dict[str, Any]) -> bytes | None:
    return b"the child came back" if os.fork() == 0 else None


@misdeed
def fork_exit(environ: dict[str, Any]) -> None:
    if os.fork() == 0:
        sys.exit(0)


@misdeed
def threads(environ: dict[str, Any]) -> None:
    for _ in range(5):
        threading.Thread(target=time.sleep, args=(3600,)).start()


@misdeed
def printing(environ: dict[str, Any]) -> None:
    print("printed to stdout")
    sys.stdout.write("x" * 100_000 + "\n")


@misdeed
def terminate(environ: dict[str, Any]) -> None:
    signal.raise_signal(signal.SIGTERM)


@misdeed
def chdir(environ: dict[str, Any]) -> None:
    os.chdir("/")


@misdeed
def umask(environ: dict[str, Any]) -> None:
    os.umask(0o777)


@misdeed
def nap(environ: dict[str, Any]) -> None:
    """No misdeed: a view that takes a second."""
    time.sleep(1)


@misdeed
def pid(environ: dict[str, Any]) -> bytes:
    """No misdeed: who answers."""
    return str(os.getpid()).encode()
