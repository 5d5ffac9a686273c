"""What an application may not do to the processes that hold the clients' connections, keys and settings."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
from server import BINARY, DEADLINE, Server, children, front

# Runs in a worker. Every way of reading or steering another process of the same user; each should fail.
INTRUDER = """\
import ctypes, json, os, platform, socket, struct

VM_READ, PTRACE = {"x86_64": (310, 101), "aarch64": (270, 117)}[platform.machine()]

libc = ctypes.CDLL(None, use_errno=True)

def call(*arguments):
    libc.syscall.restype = ctypes.c_long
    done = libc.syscall(*[ctypes.c_long(each) if isinstance(each, int) else each for each in arguments])
    if done < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return done

def read(path):
    with open(path, "rb") as file:
        return len(file.read(4096))

def memory(pid):
    with open("/proc/%d/mem" % pid, "r+b", buffering=0) as file:
        file.seek(0x1000)

def descriptors(pid):
    return os.listdir("/proc/%d/fd" % pid)

def descriptor(pid):
    found = None
    for number in range(64):
        try:
            return os.open("/proc/%d/fd/%d" % (pid, number), os.O_RDWR)
        except FileNotFoundError:
            continue
        except OSError as error:
            found = error
    raise found or OSError("none is there")

def steal(pid):
    handle = call(434, pid, 0)  # pidfd_open
    found = None
    for number in range(64):
        try:
            return call(438, handle, number, 0)  # pidfd_getfd
        except OSError as error:
            found = error
    raise found

def vm_read(pid):
    with open("/proc/self/maps") as maps:
        start = int(maps.readline().split("-")[0], 16)
    buffer = ctypes.create_string_buffer(16)
    local = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 16)
    remote = (ctypes.c_void_p * 2)(start, 16)
    return call(VM_READ, pid, local, 1, remote, 1, 0)  # process_vm_readv

def attach(pid):
    call(PTRACE, 16, pid, 0, 0)  # PTRACE_ATTACH
    return let_go(pid)

def seize(pid):
    call(PTRACE, 0x4206, pid, 0, 0)  # PTRACE_SEIZE
    call(PTRACE, 0x4207, pid, 0, 0)  # PTRACE_INTERRUPT
    return let_go(pid)

def let_go(pid):
    # Else its end would be told to us, and its parent would wait for ever.
    os.waitpid(pid, 0)
    return call(PTRACE, 17, pid, 0, 0)  # PTRACE_DETACH

WAYS = {
    "mem": memory,
    "fd": descriptors,
    "open fd": descriptor,
    "environ": lambda pid: read("/proc/%d/environ" % pid),
    "maps": lambda pid: read("/proc/%d/maps" % pid),
    "auxv": lambda pid: read("/proc/%d/auxv" % pid),
    "exe": lambda pid: os.readlink("/proc/%d/exe" % pid),
    "cwd": lambda pid: os.listdir("/proc/%d/cwd" % pid),
    "root": lambda pid: os.listdir("/proc/%d/root" % pid),
    "pidfd_getfd": steal,
    "process_vm_readv": vm_read,
    "ptrace attach": attach,
    "ptrace seize": seize,
}

def reach(path):
    # The hello of a worker: version 2, thread 0 of 1, number 1.
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(path)
        payload = struct.pack("<HHHI", 2, 0, 1, 1)
        client.sendall(struct.pack("<IBI", len(payload), 1, 0) + payload)
        return len(client.recv(100))

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "application/json")])
    if environ["PATH_INFO"] == "/reach":
        try:
            return [json.dumps(reach(environ["QUERY_STRING"])).encode()]
        except OSError as error:
            return [json.dumps(type(error).__name__).encode()]
    if environ["PATH_INFO"] == "/uid":
        return [json.dumps([os.getuid(), os.getgid(), os.getgroups(), os.environ.get("HOME")]).encode()]
    pid = int(environ["QUERY_STRING"])
    ways = {}
    for name, way in WAYS.items():
        try:
            ways[name] = "SUCCEEDED: %r" % (way(pid),)
        except OSError as error:
            ways[name] = error.strerror or str(error)
    return [json.dumps(ways).encode()]
"""

AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start programs as somebody else")


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder that every user may enter, with the intruder."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "intruder.py").write_text(INTRUDER)
    for each in [folder, *folder.parents]:
        if each.stat().st_uid == os.geteuid() and str(each) != "/" and tmp_path.parent.parent in [each, *each.parents]:
            each.chmod(each.stat().st_mode | 0o755)
    return folder


def python_for_all() -> str:
    """A Python that any user may run: that of the tests may lie in a home."""
    for candidate in ["/usr/bin/python3", "/usr/local/bin/python3"]:
        if Path(candidate).exists():
            return candidate
    pytest.skip("no Python outside of homes")


def assert_closed(server: Server, pid: int) -> None:
    """No way into this process succeeds."""
    ways = json.loads(server.get(f"/?{pid}").body)
    assert len(ways) > 10
    open_ways = {name: found for name, found in ways.items() if found.startswith("SUCCEEDED")}
    assert open_ways == {}, f"process {pid}: {open_ways}"


class OtherUser(Server):
    """The program, started by an ordinary user."""

    def __init__(self, user: str, folder: Path) -> None:
        self._user = user
        copy = folder / "daemun"
        shutil.copy(BINARY, copy)
        copy.chmod(0o755)
        account = pwd.getpwnam(user)
        command = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups", str(copy)]
        wrapper = folder / "start"
        wrapper.write_text("#!/bin/sh\nexec " + " ".join(command) + ' "$@"\n')
        wrapper.chmod(0o755)
        super().__init__(
            *("intruder:application", "--python", python_for_all(), "--workers", "1"), cwd=folder, program=wrapper
        )


def wait_for_program(pid: int, name: str) -> None:
    """Wait until a process has become this program, and with it the user that it is to run as."""
    end = time.monotonic() + DEADLINE
    while Path(f"/proc/{pid}/comm").read_text().strip() != name:
        assert time.monotonic() < end, f"{pid} is not {name}"
        time.sleep(0.01)


@AS_ROOT
def test_front_cannot_be_read_from_a_worker_of_the_same_user(shared: Path) -> None:
    with OtherUser("nobody", shared) as server:
        uid = json.loads(server.get("/uid").body)[0]
        assert uid == pwd.getpwnam("nobody").pw_uid
        # The ways are ways: they lead into a process of the same user that does not protect itself.
        other = subprocess.Popen(["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "sleep", "60"])
        try:
            wait_for_program(other.pid, "sleep")
            ways = json.loads(server.get(f"/?{other.pid}").body)
            assert sum(found.startswith("SUCCEEDED") for found in ways.values()) > 5, ways
        finally:
            other.kill()
            other.wait()
        assert_closed(server, front(server))
        assert_closed(server, server.pid)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every process; the test above starts as another user")
def test_front_cannot_be_read_from_a_worker_when_we_are_no_root(shared: Path) -> None:
    with Server("intruder:application", cwd=shared) as server:
        assert_closed(server, front(server))
        assert_closed(server, server.pid)


@AS_ROOT
def test_front_cannot_be_read_from_a_worker_when_started_as_root(shared: Path) -> None:
    arguments = ("intruder:application", "--python", python_for_all(), "--workers", "1", "--user", "nobody")
    with Server(*arguments, cwd=shared) as server:
        uid, gid, groups, home = json.loads(server.get("/uid").body)
        nobody = pwd.getpwnam("nobody")
        assert (uid, gid, home) == (nobody.pw_uid, nobody.pw_gid, nobody.pw_dir)
        assert 0 not in groups
        assert_closed(server, front(server))
        assert_closed(server, server.pid)
        owner = Path(f"/proc/{front(server)}/status").read_text().split("Uid:")[1].split()[:4]
        assert str(nobody.pw_uid) not in owner, "the front shares the application's user"
        assert "0" not in owner, "the front is root"


@AS_ROOT
def test_the_socket_of_another_application_cannot_be_reached(shared: Path) -> None:
    (shared / "daemun.toml").write_text(f"""\
[app.one]
wsgi = "intruder:application"
python = "{python_for_all()}"
processes = 1
user = "nobody"
[app.two]
wsgi = "intruder:application"
python = "{python_for_all()}"
processes = 1
user = "daemon"
[[route]]
path = "/*"
app = "one"
[[route]]
host = "two.test"
path = "/*"
app = "two"
""")
    with Server(cwd=shared) as server:
        sockets = [
            line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines() if line.endswith("/two.sock")
        ]
        ours = [path for path in sockets if str(server.pid) in path]
        assert ours
        assert json.loads(server.get(f"/reach?{ours[0]}").body) == "PermissionError"
        # Its own user may connect, and is refused all the same: it is no worker that was announced.
        assert json.loads(server.get("/uid", {"Host": "two.test"}).body)[0] == pwd.getpwnam("daemon").pw_uid


def test_a_process_that_is_no_worker_is_refused_on_the_workers_socket(shared: Path) -> None:
    with Server("intruder:application", "--workers", "1", cwd=shared) as server:
        paths = [line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines() if line.endswith(".sock")]
        path = next(path for path in paths if f"daemun-{server.pid}/" in path)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(30)
            client.connect(path)
            # The hello of a worker: version 2, thread 0 of 1, number 1.
            client.sendall(bytes.fromhex("0a000000010000000001000000010001000000"))
            assert client.recv(100) == b"", "a stranger was welcomed"
        server.wait_for(r"(?i)refused|no worker")
        assert server.get("/uid").status == 200


def test_a_worker_has_none_of_the_servers_descriptors(shared: Path) -> None:
    with Server("intruder:application", "--workers", "1", cwd=shared) as server:
        server.get("/uid")
        for child in children(server.pid):
            if b"daemun_worker.py" not in Path(f"/proc/{child}/cmdline").read_bytes():
                continue
            targets = [path.readlink() for path in Path(f"/proc/{child}/fd").iterdir()]
            listening = (
                subprocess.run(["ss", "-ltnpH"], capture_output=True, text=True).stdout if shutil.which("ss") else ""
            )
            assert f"pid={child}," not in listening
            assert len(targets) < 24, targets
