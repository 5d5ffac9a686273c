"""A worker that lies, floods, or hands over what it should not harms nobody but its own requests.

Its application reaches for the lane below it and does what no shim would. Another application on the same front is
asked all the while and never fails. The front stays the same process and within its memory, and the hostile one is
served again.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from server import DEADLINE, Server, eventually, front, resident
from wire import wire

HOSTILE = """\
import array, mmap, os, socket, struct, tempfile, threading, time

def frame(kind, request, payload=b""):
    return struct.pack("<IBI", len(payload), kind, request) + payload

def greet(path, version, thread, threads, serial):
    with socket.socket(socket.AF_UNIX) as other:
        other.settimeout(20)
        other.connect(path)
        other.sendall(frame(1, 0, struct.pack("<HHHI", version, thread, threads, serial)))
        return other.recv(100)

def hand_over(lane, *descriptors, length=10):
    # The head, then a file that is the body, with whatever descriptors.
    id = lane.called
    head, file = struct.pack("<I", 5) + b"200 OK", struct.pack("<QQ", 0, length)
    data = frame(8, id, head) + frame(14, id, file) + frame(10, id, b"\\0")
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    lane.socket.sendmsg([data], rights)

def flood(lane, *pieces):
    # Until it is cut off: at once, where it is noticed at all.
    piece = b"".join(pieces) * max(1, 65536 // sum(map(len, pieces)))
    sent = 0
    while sent < 2 << 30:
        lane.socket.sendall(piece)
        sent += len(piece)

def memfd(name):
    for number in os.listdir("/proc/self/fd"):
        try:
            if name in os.readlink("/proc/self/fd/" + number):
                return int(number)
        except OSError:
            pass
    raise LookupError(name)

def refused(act, *arguments):
    try:
        act(*arguments)
    except (OSError, ValueError) as error:
        return type(error).__name__
    return "done"

def write_to(descriptor):
    with mmap.mmap(descriptor, 4096, access=mmap.ACCESS_WRITE) as memory:
        memory[0] = 1

def act(name, lane):
    id, send = lane.called, lane.socket.sendall
    if name == "garbage":
        send(os.urandom(65536))
    elif name == "oversized":
        send(struct.pack("<IBI", 0xFFFFFFFF, 9, id) + b"x" * 65536)
    elif name == "half":
        send(struct.pack("<IBI", 1000, 12, id) + b"x" * 10)
        os._exit(0)
    elif name == "short":
        for kind in (12, 8, 10, 14, 5, 18):
            send(frame(kind, id, b""))
    elif name == "strangers":
        for stranger in (0, 1, id + 1, id + 64, id ^ 0xFFFFFFC0, 0xFFFFFFFF):
            for kind in (8, 9, 10, 11, 12, 15):
                send(frame(kind, stranger, struct.pack("<II", 0, 6) + b"200 OK" + b"not yours"))
        return b"fine"
    elif name == "laid for strangers":
        for _ in range(200):
            send(frame(18, id + 64, struct.pack("<II", 0, 65000)) * 1000)
        return b"fine"
    elif name.startswith("laid at"):
        send(frame(18, id, struct.pack("<II", *map(int, name.split()[2:]))))
    elif name == "laid twice":
        # Four times the same place, of which nothing was ever written but a word.
        lane.shelf[:4] = b"word"
        send(frame(8, id, struct.pack("<I", 5) + b"200 OK") + frame(18, id, struct.pack("<II", 0, 65536)) * 4)
        send(frame(10, id, b"\\0"))
        lane.current.ended = lane.current.started = True
    elif name == "laid without end":
        send(frame(8, id, struct.pack("<I", 5) + b"200 OK"))
        flood(lane, frame(18, id, struct.pack("<II", 0, 65536)))
    elif name == "shelves":
        shelves = memfd("memfd:daemun-answers")
        return ",".join(refused(os.ftruncate, shelves, size) for size in (0, 1 << 30)).encode()
    elif name == "twice":
        answer = frame(12, id, struct.pack("<II", 0, 6) + b"200 OK" + b"once")
        send(answer * 3 + frame(9, id, b"more") + frame(10, id, b"\\0"))
        lane.current.ended = lane.current.started = True
        return b""
    elif name == "for the front":
        send(frame(3, id, b"\\0" * 9))
    elif name == "skips":
        send(frame(11, id))
    elif name == "no head":
        send(frame(9, id, b"no head") + frame(10, id, b"\\0"))
        time.sleep(0.1)
    elif name == "page":
        page = memfd("memfd:daemun-worker")
        found = [refused(os.ftruncate, page, size) for size in (0, 1 << 30)]
        found.append(refused(os.fallocate if hasattr(os, "fallocate") else os.posix_fallocate, page, 0, 1 << 20))
        lane.page[:] = b"\\xff" * len(lane.page)
        return ",".join(found).encode()
    elif name == "arena":
        with open("/proc/self/maps") as maps:
            assert any("memfd:daemun-bodies" in line and line.split()[1].startswith("r--") for line in maps)
        arena = memfd("memfd:daemun-bodies")
        found = [refused(os.ftruncate, arena, 0), refused(write_to, arena), refused(os.pwrite, arena, b"x", 0)]
        return ",".join(found).encode()
    elif name == "pipe":
        hand_over(lane, os.pipe()[0])
    elif name == "fifo":
        path = tempfile.mktemp()
        os.mkfifo(path)
        hand_over(lane, os.open(path, os.O_RDWR))
    elif name == "device":
        hand_over(lane, os.open("/dev/zero", os.O_RDONLY))
    elif name == "folder":
        hand_over(lane, os.open("/", os.O_RDONLY))
    elif name == "socket":
        hand_over(lane, socket.socket().detach())
    elif name == "nothing":
        hand_over(lane)
    elif name == "forty":
        hand_over(lane, *[os.open("/dev/null", os.O_RDONLY) for _ in range(40)])
    elif name == "write only":
        hand_over(lane, os.open("written", os.O_WRONLY | os.O_CREAT))
        lane.current.ended = lane.current.started = True
    elif name == "cut file":
        with open("cut", "wb+") as file:
            file.truncate(64 << 20)
            hand_over(lane, file.fileno(), length=64 << 20)
            time.sleep(0.05)
            file.truncate(1 << 20)
        lane.current.ended = lane.current.started = True
    elif name == "endless file":
        hand_over(lane, os.open("hostile.py", os.O_RDONLY), length=1 << 62)
        lane.current.ended = lane.current.started = True
    elif name == "data":
        send(frame(8, id, struct.pack("<I", 5) + b"200 OK"))
        flood(lane, frame(9, id, b"x" * 65000))
    elif name == "hints":
        flood(lane, frame(15, id, b"103 Early Hints\\0Link\\0" + b"x" * 30000))
    elif name == "wishes":
        flood(lane, frame(5, id, b"\\xff\\xff\\xff\\xff"))
    elif name == "empty":
        flood(lane, frame(9, id, b""), frame(7, id, b""), frame(18, id, struct.pack("<II", 0, 0)))
    elif name == "strangers without end":
        for _ in range(200):
            send(frame(9, id + 64, b"x" * 65000) * 16)
        return b"fine"
    elif name == "deaf":
        # Asks for ever more of a body and reads none of it.
        while True:
            send(frame(5, id, b"\\xff\\xff\\xff\\x7f"))
            time.sleep(0.01)
    elif name == "closes":
        lane.socket.shutdown(socket.SHUT_RDWR)
        time.sleep(0.2)
    elif name == "never reads":
        time.sleep(3600)
    elif name == "hellos":
        path, serial, threads = lane.worker.path, lane.worker.serial, lane.worker.threads
        ways = [(2, 0, threads, serial), (2, 1, threads, serial), (2, 0, 65535, serial), (2, 9, threads, serial)]
        ways += [(9, 0, threads, serial), (2, 0, threads, serial + 1), (2, 65535, 65535, 0xFFFFFFFF)]
        found = [refused_hello(path, *way) for way in ways]
        return ",".join(found).encode()
    elif name == "connections":
        mute = []
        for _ in range(2000):
            one = socket.socket(socket.AF_UNIX)
            one.setblocking(False)
            try:
                one.connect(lane.worker.path)
                mute.append(one)
            except OSError:
                one.close()
                break
        time.sleep(0.5)
        return str(len(mute)).encode()
    raise RuntimeError("it should not have come here")

def refused_hello(*way):
    try:
        answer = greet(*way)
    except OSError as error:
        return type(error).__name__
    return "closed" if answer == b"" else "welcome"

def application(environ, start_response):
    name = environ["PATH_INFO"].strip("/").replace("_", " ")
    body = b"fine"
    if name:
        lane = environ["wsgi.early_hints"].__self__
        body = act(name, lane)
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""

GOOD = """\
def application(environ, start_response):
    body = b"good" * 1000 + environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""

SETTINGS = """\
[server]
max_body = "2GiB"
[app.hostile]
wsgi = "hostile:application"
processes = 1
threads = 2
timeout = "2s"
[app.good]
wsgi = "good:application"
processes = 1
threads = 2
[[route]]
path = "/hostile/*"
app = "hostile"
strip_prefix = "/hostile"
[[route]]
path = "/streamed/*"
app = "hostile"
strip_prefix = "/streamed"
request_buffering = false
[[route]]
path = "/*"
app = "good"
"""

# What the front may grow by under any flood: the arena of request bodies, whose pages count once they were used. What
# two requests and a debug build's heap take besides is far below it.
GROWTH = 16 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two applications on one front, one of them hostile."""
    folder = tmp_path_factory.mktemp("hostile")
    for name, text in {"hostile.py": HOSTILE, "good.py": GOOD, "daemun.toml": SETTINGS}.items():
        (folder / name).write_text(text)
    with Server(cwd=folder) as server:
        server.get("/")
        yield server


@contextmanager
def others(server: Server) -> Iterator[None]:
    """Ask the other application all the while; each answer must be right."""
    stop = threading.Event()
    wrong: list[object] = []
    asked = [0, 0]

    def ask(number: int) -> None:
        body = b"x" * 100_000 if number else None
        while not stop.is_set():
            try:
                answer = server.ask("/", "POST" if number else "GET", body)
                right = answer.status == 200 and answer.body == b"good" * 1000 + (body or b"")
            except OSError as error:
                wrong.append(error)
                return
            asked[number] += 1
            if not right:
                wrong.append(answer)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    try:
        yield
        before = list(asked)
        eventually(lambda: bool(wrong) or all(now > then for now, then in zip(asked, before, strict=True)), "others")
    finally:
        stop.set()
        for thread in threads:
            thread.join(DEADLINE)
    assert wrong == []


@contextmanager
def harmless(server: Server) -> Iterator[None]:
    """Hold that whatever happens meanwhile harms neither front nor others, and that the hostile one is served again."""
    eventually(lambda: server.get("/hostile/").text == "fine", "it is well before")
    pid = front(server)
    allowed = resident(pid) + GROWTH
    with others(server):
        yield
        assert resident(pid) < allowed, f"the front has grown to {resident(pid) >> 20} MiB"
        eventually(lambda: server.get("/hostile/").text == "fine", "it is well again")
    assert front(server) == pid, "the front has died"


def act(server: Server, name: str) -> tuple[int, bytes]:
    """Have it done; status 0 where the answer was cut."""
    with wire(server.port) as connection:
        connection.send(f"POST /hostile/{name} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".encode())
        reply = connection.reply("POST")
        return (reply.status, reply.body) if reply is not None and reply.complete else (0, b"")


@pytest.mark.parametrize(
    "name", ["garbage", "oversized", "half", "short", "for_the_front", "skips", "closes", "nothing", "forty"]
)
def test_what_is_no_frame_ends_the_lane_and_its_client_is_told(server: Server, name: str) -> None:
    with harmless(server):
        assert act(server, name)[0] == 502


def test_frames_for_requests_that_it_was_never_given_reach_nobody(server: Server) -> None:
    with harmless(server):
        assert act(server, "strangers") == (200, b"fine")
        assert act(server, "strangers_without_end") == (200, b"fine")


@pytest.mark.parametrize("place", ["1_10", "524288_1", "0_524289", "520192_4097", "4294963200_4096", "0_4294967295"])
def test_what_is_said_to_lie_where_nothing_can_ends_the_lane_and_its_client_is_told(server: Server, place: str) -> None:
    with harmless(server):
        assert act(server, f"laid_at_{place}")[0] == 502


def test_lies_about_what_lies_on_its_shelf_spoil_its_own_answers_alone(server: Server) -> None:
    with harmless(server):
        status, body = act(server, "laid_twice")
        assert (status, len(body), body[:4], body[65536:65540]) == (200, 4 * 65536, b"word", b"word")
        assert act(server, "laid_without_end")[0] == 0
        assert act(server, "laid_for_strangers") == (200, b"fine")
        assert act(server, "shelves") == (200, b"PermissionError,PermissionError")


def test_a_second_answer_reaches_nobody(server: Server) -> None:
    with harmless(server):
        assert act(server, "twice") == (200, b"once")


def test_a_body_without_a_head_is_an_error(server: Server) -> None:
    with harmless(server):
        assert act(server, "no_head")[0] == 500


def test_the_shared_page_cannot_be_cut_and_lies_in_it_harm_nobody(server: Server) -> None:
    with harmless(server):
        assert act(server, "page") == (200, b"PermissionError,PermissionError,PermissionError")


def test_bodies_of_others_cannot_be_written_nor_their_memory_be_cut(server: Server) -> None:
    with harmless(server):
        assert act(server, "arena") == (200, b"PermissionError,PermissionError,PermissionError")


@pytest.mark.parametrize("name", ["pipe", "fifo", "device", "folder", "socket"])
def test_only_a_regular_file_is_taken_for_a_body(server: Server, name: str) -> None:
    with harmless(server):
        # Its head has come: nothing of it was sent on before the body was seen.
        assert act(server, name)[0] in {0, 502}


@pytest.mark.parametrize("name", ["write_only", "cut_file", "endless_file"])
def test_a_file_that_does_not_hold_what_was_said_cuts_its_own_answer(server: Server, name: str) -> None:
    with harmless(server):
        assert act(server, name)[0] in {0, 500, 502}


@pytest.mark.parametrize("name", ["data", "hints", "wishes"])
def test_a_flood_is_cut_off_before_it_fills_memory(server: Server, name: str) -> None:
    with harmless(server), socket.create_connection(("127.0.0.1", server.port), DEADLINE) as client:
        # A client that reads nothing, so that everything would have to be kept.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        seen = len(server.errors.lines)
        client.sendall(f"POST /hostile/{name} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".encode())
        eventually(
            lambda: any("POST /hostile" in line or "POST /" + name in line for line in server.errors.lines[seen:]),
            "its end is told",
        )


def test_frames_that_say_nothing_do_not_keep_the_front_from_others(server: Server) -> None:
    with harmless(server):
        # Ended by its `timeout` alone: it breaks no rule.
        assert act(server, "empty")[0] == 504


def test_a_worker_that_asks_for_a_body_and_reads_none_of_it_is_cut_off(server: Server) -> None:
    with harmless(server), socket.create_connection(("127.0.0.1", server.port), DEADLINE) as client:
        client.sendall(b"POST /streamed/deaf HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000000\r\n\r\n")
        piece, sent = b"x" * (1 << 20), 0
        with suppress(OSError):
            while sent < 1_000_000_000:
                client.sendall(piece)
                sent += len(piece)
        assert sent < 500_000_000, "all of it was taken"
        server.wait_for("without reading what it was sent")


def test_a_worker_that_never_reads_is_ended_and_its_client_told(server: Server) -> None:
    with harmless(server):
        assert act(server, "never_reads")[0] == 504


def test_a_hello_that_is_not_as_the_worker_was_told_is_refused(server: Server) -> None:
    with harmless(server):
        assert act(server, "hellos") == (200, b",".join([b"closed"] * 7))


def test_connections_that_say_nothing_take_few_descriptors_of_the_front(server: Server) -> None:
    with harmless(server):
        before = len(list(Path(f"/proc/{front(server)}/fd").iterdir()))
        status, count = act(server, "connections")
        assert status == 200
        assert int(count) > 100
        assert len(list(Path(f"/proc/{front(server)}/fd").iterdir())) < before + 200
