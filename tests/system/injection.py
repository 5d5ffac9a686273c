"""Calls of a process that fail at a place of our choice.

The kernel's answers are changed by strace, so that every way to make a call is met.
"""

from __future__ import annotations

import collections
import http.client
import os
import random
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from server import BINARY, DEADLINE, LISTENING, Server, alive, children, eventually, front

# Beyond whatever a short scenario does.
NEVER = 60_000

SEED = int(os.environ.get("DAEMUN_INJECT_SEED", "1"))
# `all`, or a part of all: `2/5` is the second of five.
EACH = os.environ.get("DAEMUN_INJECT", "")
# Seconds in which strace lets go of whom it traces.
LETTING_GO = 5
# How many calls of a kind fail where not each of them does.
SAMPLE = 2

READS = "recvfrom,recvmsg,readv,read,pread64"
# Without `recvfrom`, which is none of ours: see `test_the_call_that_is_left_out_reads_nothing_of_ours`.
OWN_READS = "recvmsg,readv,read,pread64"
SENDS = "sendto,sendmsg,writev"
WRITES = "sendto,sendmsg,writev,write,pwrite64"
OPENS = "openat,openat2,open,newfstatat,fstat,statx,readlinkat,readlink"
PIPES = "pipe2,pipe,socketpair,socket,memfd_create,dup,dup3,fcntl,epoll_ctl"
FORKS = "fork,vfork,clone,clone3"
WAITS = "poll,ppoll,select,pselect6,epoll_wait,epoll_pwait"

# It opens a file, so that each of its requests meets a fault of that kind too.
APPLICATION = """\
def application(environ, start_response):
    with open(__file__):
        body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d" % len(body)]
"""

SCRIPT = """\
#!/bin/sh
printf 'Content-Type: text/plain\\n\\n'
cat
"""

# An application, files and programs, below what a test says of the server.
# What most of them have in [server].
SERVER = """\
listen = ["127.0.0.1:0"]
access_log = "access.log"
control = "control"
event_loops = 1
"""

ROUTES = """\
[app.a]
wsgi = "application:application"
processes = 1
threads = 2
queue = { timeout = "5s" }

[[route]]
path = "/files/*"
static = { root = "files" }

[[route]]
path = "/programs/*"
cgi = { root = "programs" }

[[route]]
path = "/*"
app = "a"
"""

# More than fits into memory where bodies wait.
LARGE = b"x" * 1_000_000

# Path, body, answer.
Requests = Sequence[tuple[str, bytes | None, bytes]]

EVERYTHING: Requests = [
    ("/files/small.txt", None, b"small"),
    ("/files/large.bin", None, LARGE),
    ("/", None, b"0"),
    ("/", LARGE, b"%d" % len(LARGE)),
    ("/programs/echo.sh", b"said", b"said"),
]


def lay_out(folder: Path, server: str) -> None:
    """Write what `ROUTES` names, and a configuration that says this of the server."""
    (folder / "application.py").write_text(APPLICATION)
    (folder / "files").mkdir()
    (folder / "files" / "small.txt").write_text("small")
    (folder / "files" / "large.bin").write_bytes(LARGE)
    (folder / "programs").mkdir()
    script = folder / "programs" / "echo.sh"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    (folder / "daemun.toml").write_text(f"[server]\n{server}\n{ROUTES}")


def works(server: Server, requests: Requests = EVERYTHING) -> None:
    """Every request is answered as it should be."""
    for path, body, wanted in requests:
        reply = server.ask(path, "GET" if body is None else "POST", body)
        assert (reply.status, reply.body == wanted) == (200, True), f"{path}: {reply.status}\n{server.errors.text}"


def disturbed(server: Server, requests: Requests = EVERYTHING) -> None:
    """Ask for everything; what fails does so at once, by an answer or the connection's end."""
    for path, body, _ in requests:
        try:
            server.ask(path, "GET" if body is None else "POST", body)
        except TimeoutError:
            raise
        except (OSError, http.client.HTTPException):
            pass


@dataclass(frozen=True)
class Fault:
    """Calls of a process that fail, and how."""

    role: str
    calls: str
    error: str
    # Whether processes that it forks meanwhile meet the same.
    descends: bool = False

    @property
    def name(self) -> str:
        """What pytest shows."""
        heirs = " and heirs" if self.descends else ""
        return f"{self.role}{heirs} {self.calls.split(',')[0]} {self.error}"


def words(pid: int) -> list[bytes]:
    """Give the words that a process was started with; none of one that has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return []


def began(pid: int) -> tuple[int, int]:
    """When a process began; the earlier number goes first where the clock does not tell."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]), pid
    except (FileNotFoundError, ProcessLookupError):
        return 0, pid


def interpreters(server: Server) -> list[int]:
    """The Python processes, the oldest first: of one application, the zygote and then its workers."""
    of_shim = (pid for pid in children(server.pid) if any(b"daemun_worker" in word for word in words(pid)))
    return sorted(of_shim, key=began)


def process(server: Server, role: str) -> int:
    """Give the process with this role."""
    if role == "supervisor":
        return server.pid
    if role == "front":
        return front(server)
    if role in {"zygote", "worker"}:
        return interpreters(server)[0 if role == "zygote" else -1]
    for child in children(server.pid):
        if has_role(child, role):
            return child
    raise AssertionError(f"no {role} below {server.pid}")


def chosen(fault: Fault, count: int) -> list[int]:
    """Which of so many calls fail: some of them, by the seed, or each where that is asked for."""
    everything = range(1, count + 1)
    if part := re.fullmatch(r"(\d+)/(\d+)", EACH):
        return [number for number in everything if number % int(part[2]) == int(part[1]) % int(part[2])]
    if EACH == "all" or count <= SAMPLE:
        return list(everything)
    # Near the begin all differ; far behind most are the same again.
    return sorted(random.Random(f"{SEED} {fault.name}").sample(everything, SAMPLE))


@contextmanager
def failing(pids: Sequence[int], fault: Fault, number: int, log: Path, *told: str) -> Iterator[None]:
    """Let the n-th of these calls fail in each thread of these processes; strace may be told more."""
    threads = [task for pid in pids for task in tasks(pid)]
    tracing = ["strace", "-qq", "-o", str(log), "-e", "signal=none", *told]
    # The supervisor's children are processes of other roles, and not meant.
    if fault.role not in {"supervisor", "zygote"} or fault.descends:
        tracing += ["-f", *(word for pid in pids for word in ("-p", str(pid)))]
    else:
        tracing += [word for task in threads for word in ("-p", task.name)]
    tracing += expressions(fault, number)
    tracer = subprocess.Popen(tracing, stderr=subprocess.PIPE, text=True)
    try:
        eventually(lambda: tracer.poll() is not None or all(traced(task, tracer.pid) for task in threads), "traced")
        assert tracer.poll() is None, tracer.stderr.read() if tracer.stderr else ""
        yield
    finally:
        tracer.terminate()
        try:
            tracer.communicate(timeout=LETTING_GO)
        except subprocess.TimeoutExpired:
            # It waits for the first thread of a process that ended meanwhile, which the kernel keeps for the others.
            tracer.kill()
            tracer.communicate(timeout=DEADLINE)


@contextmanager
def starting(fault: Fault, number: int, log: Path, folder: Path) -> Iterator[Server]:
    """Start the server of a folder, of whose processes those of one role meet this from their first instruction on."""
    gate = folder / "gate"
    gate.write_text("")
    # -D: what is started is the server itself, and strace beside it; -I1: which is told when to end.
    tracing = ["strace", "-D", "-I1", "-qq", "-o"]
    if fault.role == "supervisor":
        tracing += [str(log), "-e", "signal=none", *expressions(fault, number)]
    else:
        tracing += [str(gate), *HOLDING]
    program = folder / "traced"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(tracing)} {BINARY} "$@"\n')
    program.chmod(0o755)
    server = Server(cwd=folder, listen="", program=program)
    with ExitStack() as stack:
        stack.push(server)
        if fault.role != "supervisor":
            pids = held(server, fault.role, gate)
            stack.enter_context(failing(pids, fault, number, log))
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        yield server


# Each program stops before its first instruction.
HOLDING = ["-f", "-e", "trace=execve", "-e", "signal=SIGSTOP", "-e", "inject=execve:signal=SIGSTOP:when=1"]


def held(server: Server, role: str, gate: Path) -> list[int]:
    """Let everybody begin but this role; give its processes, which are stopped and traced by nobody."""
    seen: set[int] = set()
    found: list[int] = []
    # There are several transformers, all begun before the server listens.
    while not found or (role == "transformer" and not LISTENING.search(server.errors.text)):
        for pid in stopped(gate) - seen:
            seen.add(pid)
            if has_role(pid, role):
                found.append(pid)
            else:
                os.kill(pid, signal.SIGCONT)
        assert alive(server.pid), server.errors.text
    everybody = [pid for pid in children(server.pid) if has_role(pid, role)]
    eventually(lambda: stopped(gate).issuperset(everybody), f"all of {everybody} are stopped")
    let_go(server.pid)
    for other in {server.pid, *children(server.pid)} - {*everybody}:
        os.kill(other, signal.SIGCONT)
    return everybody


def has_role(pid: int, role: str) -> bool:
    """Whether a process was started for this."""
    return f"--role={role}".encode() in words(pid)


def let_go(pid: int) -> None:
    """End whoever traces a process, which stays as it is."""
    process = Path(f"/proc/{pid}")
    tracer = tracer_of(process)
    if tracer == 0:
        return
    os.kill(tracer, signal.SIGTERM)
    eventually(lambda: tracer_of(process) == 0 and not alive(tracer), "it is let go, and nobody is stopped any more")


def stopped(gate: Path) -> set[int]:
    """Give those who have stopped so far."""
    return {int(pid) for pid in re.findall(r"^(\d+) +--- stopped by SIGSTOP", gate.read_text(), re.MULTILINE)}


def tracer_of(process: Path) -> int:
    """Who traces a process or thread; 0 where nobody does, or it is gone."""
    try:
        found = re.search(r"^TracerPid:\t(\d+)$", (process / "status").read_text(), re.MULTILINE)
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(found[1]) if found else 0


def expressions(fault: Fault, number: int) -> list[str]:
    """What strace is told."""
    # Where a kernel has no such call, strace is asked not to mind.
    calls = ",".join(f"?{call}" for call in fault.calls.split(","))
    return ["-e", f"trace={calls}", "-e", f"inject={calls}:error={fault.error}:when={number}"]


def met(log: Path) -> bool:
    """Whether a call has failed."""
    return "(INJECTED)" in log.read_text()


def calls_in(log: Path) -> int:
    """How many calls the busiest thread has made. Where only one was traced its number is left out."""
    found = re.findall(r"^(?:(\d+) +)?\w+\(", log.read_text(), re.MULTILINE)
    return max(collections.Counter(found).values(), default=0)


def tasks(pid: int) -> list[Path]:
    """Give the threads of a process."""
    return list(Path(f"/proc/{pid}/task").iterdir())


def traced(task: Path, tracer: int) -> bool:
    """Whether a thread is traced, or has ended."""
    return tracer_of(task) == tracer or not task.exists()


def descriptors(pid: int) -> int:
    """Count the open files of a process."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))
