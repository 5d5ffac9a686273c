"""A supervisor and a front, small enough to read, that drive the shim over real sockets."""

import array
import contextlib
import json
import mmap
import os
import selectors
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SHIM = Path(__file__).resolve().parents[2] / "crates/daemun/src/app/shim.py"
PYTHON = os.environ.get("PYTHON_UNDER_TEST", sys.executable)
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", SHIM.parents[4] / "target"))

HELLO, WELCOME, REQUEST, BODY, CREDIT, CANCEL, STARTED, HEAD = range(1, 9)
DATA, DONE, SKIPPED, ANSWER, RETIRE, FILE, INFORM, FLUSH = range(9, 17)
LAID = 18
CLEAN, FAILED, INVALID, CUT = range(4)
HEADER = struct.Struct("<IBI")
SLOTS = 64
SHELF_BLOCK = 4096
SHELF_BLOCKS = 128
SHELF = SHELF_BLOCK * SHELF_BLOCKS
LANE_PAGE = 2 * SLOTS + SHELF_BLOCKS
INITIAL_CREDIT = 256 * 1024

# Every wait in these tests ends after this long, with the reason.
DEADLINE = float(os.environ.get("DAEMUN_TEST_DEADLINE", "20"))


def accelerator():
    """The module that the build has made last; it goes by the interpreter whether it can be loaded."""
    built = TARGET.glob("*/build/daemun-*/out/daemun_accelerator.so")
    newest = max(built, key=lambda path: path.stat().st_mtime, default=None)
    assert newest is not None, f"no accelerator below {TARGET}; run:  make build"
    return str(newest)


def can_accelerate():
    """Whether the interpreter under test is one that loads it."""
    usual = "sys.implementation.name == 'cpython' and sys.version_info >= (3, 8) and 't' not in sys.abiflags"
    script = f"import sys; print(int({usual}))"
    return subprocess.run([PYTHON, "-c", script], stdout=subprocess.PIPE, check=True).stdout.strip() == b"1"


class Gone(Exception):
    """The other side closed its connection."""


class Supervisor:
    """Starts a zygote and talks to it."""

    def __init__(self, directory, target="app:application", threads=1, **orders):
        self.directory = Path(directory)
        self.sockets = tempfile.TemporaryDirectory(prefix="daemun-")
        self.front = Front(Path(self.sockets.name) / "app.sock")
        self.log_path = self.directory / "log.txt"
        self.control, theirs = socket.socketpair()
        self.control.settimeout(DEADLINE)
        lifeline, self.lifeline = orders.pop("lifeline", None) or os.pipe()
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("DJANGO_", "PYTHON"))}
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
        environment.update(orders.pop("env", {}))
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [PYTHON, str(SHIM), str(theirs.fileno()), str(lifeline)],
                pass_fds=[theirs.fileno(), lifeline],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment,
            )
        theirs.close()
        os.close(lifeline)
        self.lines = self.control.makefile("r", encoding="utf-8")
        order = {
            "name": "shop",
            "mounts": [["", target]],
            "middleware": [],
            "directory": str(self.directory),
            "threads": threads,
            "processes": 1,
            "socket": str(self.front.path),
            "django": False,
            "settings_from": "wsgi",
            "collect": False,
            "argv0": "daemun",
            "import_warning": 10,
            "accelerator": None,
        }
        order.update(orders)
        self.tell(order)
        self.workers = []

    def tell(self, order):
        self.control.sendall((json.dumps(order) + "\n").encode())

    def event(self):
        return json.loads(self.lines.readline())

    def ready(self):
        event = self.event()
        assert event["event"] == "ready", event
        return event

    def fork(self, serial=1):
        self.tell({"fork": serial})
        event = self.event()
        assert event["event"] == "forked", event
        assert event["serial"] == serial
        self.workers.append(event["pid"])
        return event["pid"]

    def log(self):
        return self.log_path.read_text("utf-8", "replace")

    def wait_for_log(self, text):
        wait_until(lambda: text in self.log(), f"{text!r} in the log")
        return self.log()

    def close(self):
        self.control.close()
        self.lines.close()
        if self.lifeline is not None:
            os.close(self.lifeline)
        self.process.wait(DEADLINE)
        for pid in self.workers:
            wait_until(lambda pid=pid: not alive(pid), f"the end of worker {pid}")
        self.front.close()
        self.sockets.cleanup()

    def cut_lifeline(self):
        os.close(self.lifeline)
        self.lifeline = None


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition, what):
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"waited {DEADLINE:g} s for {what}"
        time.sleep(0.005)


class Front:
    """Accepts lanes as the server's front does."""

    def __init__(self, path):
        self.path = path
        self.lanes = {}
        self.connections = []
        self.open()

    def open(self):
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(self.path))
        self.listener.listen(64)
        self.listener.settimeout(DEADLINE)
        self.page = self.arena = self.shelves = self.monitor = None

    def accept(self, page=4096, arena=0, shelves=0):
        """One lane, welcomed; lane 0 gets fresh memory."""
        connection, _ = self.listener.accept()
        # Several workers have a lane of the same number.
        self.connections.append(connection)
        lane = Lane(connection)
        kind, request, payload = lane.read()
        assert (kind, request) == (HELLO, 0)
        version, lane.thread, lane.threads, lane.serial = struct.unpack("<HHHI", payload)
        assert version == 2
        if lane.thread == lane.threads:
            # The monitor's, which comes whenever its thread gets to run: welcomed in passing.
            lane.send(frame(WELCOME, 0, struct.pack("<HBIII", 2, 0, page, arena, shelves)))
            self.monitor = lane
            return self.accept(page, arena, shelves)
        descriptors = []
        if lane.thread == 0:
            for name, size in (("page", page), ("arena", arena), ("shelves", shelves)):
                if size:
                    descriptor = os.memfd_create(name)
                    os.ftruncate(descriptor, size)
                    setattr(self, name, mmap.mmap(descriptor, size))
                    descriptors.append(descriptor)
        lane.page, lane.shelves, lane.page_start = self.page, self.shelves, LANE_PAGE * lane.thread
        lane.send(frame(WELCOME, 0, struct.pack("<HBIII", 2, len(descriptors), page, arena, shelves)), descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        self.lanes[lane.thread] = lane
        return lane

    def meet_monitor(self):
        """Waits for the monitor's lane, where it has not come in passing."""
        while self.monitor is None:
            connection, _ = self.listener.accept()
            self.connections.append(connection)
            lane = Lane(connection)
            _, _, payload = lane.read()
            _, lane.thread, lane.threads, lane.serial = struct.unpack("<HHHI", payload)
            assert lane.thread == lane.threads
            lane.send(frame(WELCOME, 0, struct.pack("<HBIII", 2, 0, 0, 0, 0)))
            self.monitor = lane
        return self.monitor

    def die(self):
        self.close_connections()
        self.lanes.clear()
        self.listener.close()
        self.path.unlink()

    def close(self):
        self.close_connections()
        self.listener.close()

    def close_connections(self):
        for connection in self.connections:
            connection.close()
        self.connections.clear()


class Lane:
    """The front's end of one lane."""

    def __init__(self, connection):
        self.connection = connection
        self.connection.settimeout(DEADLINE)
        self.buffer = b""
        self.descriptors = []
        self.generation = 0

    def send(self, data, descriptors=()):
        if descriptors:
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))]
            sent = self.connection.sendmsg([data], rights)
            data = data[sent:]
        self.connection.sendall(data)

    def read(self):
        """The next frame."""
        while True:
            if len(self.buffer) >= 9:
                length, kind, request = HEADER.unpack_from(self.buffer)
                if len(self.buffer) >= 9 + length:
                    payload, self.buffer = self.buffer[9 : 9 + length], self.buffer[9 + length :]
                    return kind, request, payload
            self.fill()

    def fill(self):
        data, ancillary, _, _ = self.connection.recvmsg(1 << 20, socket.CMSG_SPACE(64))
        for _, kind, rights in ancillary:
            if kind == socket.SCM_RIGHTS:
                self.descriptors.extend(array.array("i", rights))
        if not data:
            raise Gone
        self.buffer += data

    def take_laid(self, payload):
        """The piece that a LAID frame tells of, and its blocks free again."""
        offset, length = struct.unpack("<II", payload)
        assert offset % SHELF_BLOCK == 0
        assert offset + length <= SHELF
        start, count = SHELF * self.thread + offset, -(-length // SHELF_BLOCK)
        piece = self.shelves[start : start + length]
        first = self.page_start + 2 * SLOTS + offset // SHELF_BLOCK
        assert self.page[first : first + count] == b"\1" * count
        self.page[first : first + count] = bytes(count)
        return piece

    def next_id(self):
        self.generation += 1
        return self.generation << 6 | self.generation % SLOTS

    def request(self, path="/", *, body=b"", method="GET", request=None, **variables):
        """Sends a request with an inline body; returns its id."""
        request = request or self.next_id()
        self.send(request_frame(request, environ(path, method, body, variables), 1 if body else 0, body))
        return request

    def answer(self, request, credit=True):
        """Gathers the answer to `request`: frames of others must not come in between."""
        return Answer(self, request, credit)

    def ask(self, path="/", **options):
        return self.answer(self.request(path, **options))

    def has_nothing(self, seconds=0.1):
        """No frame comes for this long."""
        if self.buffer:
            return False
        selector = selectors.DefaultSelector()
        selector.register(self.connection, selectors.EVENT_READ)
        with contextlib.closing(selector):
            return not selector.select(seconds)


class Answer:
    """What the front has got to know when an answer has ended."""

    def __init__(self, lane, request, credit):
        self.status = self.head = self.ending = self.microseconds = None
        self.headers, self.kinds, self.pieces, self.file = [], [], [], None
        while self.ending is None:
            kind, about, payload = lane.read()
            assert about == request, (kind, about, request)
            self.kinds.append(kind)
            if kind == ANSWER:
                self.microseconds, length = struct.unpack_from("<II", payload)
                self.take_head(payload[8 : 8 + length])
                self.pieces.append(payload[8 + length :])
                self.ending = CLEAN
            elif kind == HEAD:
                (self.microseconds,) = struct.unpack_from("<I", payload)
                self.take_head(payload[4:])
            elif kind in (DATA, LAID):
                self.pieces.append(payload if kind == DATA else lane.take_laid(payload))
                if credit:
                    lane.send(frame(CREDIT, request, struct.pack("<I", len(self.pieces[-1]))))
            elif kind == FILE:
                self.file = (*struct.unpack("<QQ", payload), lane.descriptors.pop(0))
            elif kind == DONE:
                self.ending = payload[0]
            elif kind == SKIPPED:
                self.ending = "skipped"
        self.body = b"".join(self.pieces)
        if lane.page is not None:
            lane.page[LANE_PAGE * lane.thread + (request & 63)] = 0

    def take_head(self, head):
        status, *fields = head.decode("latin-1").split("\0")
        self.status = status
        self.headers = list(zip(fields[::2], fields[1::2], strict=True))


def frame(kind, request, payload=b""):
    return HEADER.pack(len(payload), kind, request) + payload


def environ(path="/", method="GET", body=b"", variables=None):
    path, _, query = path.partition("?")
    fields = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "REQUEST_URI": path + ("?" + query if query else ""),
        "SERVER_NAME": "example.test",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": "example.test",
        "wsgi.url_scheme": "http",
    }
    if body:
        fields["CONTENT_LENGTH"] = str(len(body))
    fields.update(variables or {})
    return "".join(f"{name}\0{value}\0" for name, value in fields.items()).encode("latin-1")


def request_frame(request, block, kind=0, tail=b""):
    return frame(REQUEST, request, struct.pack("<BI", kind, len(block)) + block + tail)
