"""Much in one request, and many at once: WebDAV with files of 1 GiB, Django's streams, a crowd of listeners."""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from server import Server, children, environment, exchange, front, resident
from venvs import make_venv
from wire import Wire, wire

MIB = 1 << 20
SIZE = int(os.environ.get("DAV_MIB", "1024")) * MIB

DAV = """\
from wsgidav.wsgidav_app import WsgiDAVApp

application = WsgiDAVApp({
    "provider_mapping": {"/": "store"},
    "simple_dc": {"user_mapping": {"*": True}},
    "logging": {"enable": False},
})
"""
DAV_FILE = """\
[server]
max_body = "2GiB"

[app.dav]
wsgi = "dav:application"
python = "{python}"
processes = 1

[[route]]
path = "/*"
app = "dav"
{more}
"""


def workers(server: Server) -> list[int]:
    """Every Python process below the supervisor."""
    found = []
    for pid in children(server.pid):
        try:
            if b"daemun_worker.py" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
        except OSError:
            continue
    return found


@contextmanager
def flat(server: Server, most: int, what: str) -> Iterator[None]:
    """See that neither the front nor any worker grows by more than this, at any moment."""
    watched = {front(server): "front", **dict.fromkeys(workers(server), "worker")}
    before = {pid: resident(pid) for pid in watched}
    highest, done = dict(before), threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            for pid in watched:
                highest[pid] = max(highest[pid], resident(pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
    grown = dict.fromkeys(watched.values(), 0)
    for pid, name in watched.items():
        grown[name] = max(grown[name], highest[pid] - before[pid])
    print(f"{what}: " + ", ".join(f"{name} +{each / MIB:.1f} MiB" for name, each in grown.items()))
    assert all(each < most for each in grown.values()), grown


def sum_of(path: Path) -> str:
    """The contents in short."""
    with path.open("rb") as file:
        found = hashlib.sha256()
        while piece := file.read(MIB):
            found.update(piece)
    return found.hexdigest()


@pytest.mark.parametrize("more", ["", "request_buffering = false"], ids=["spooled", "streamed"])
def test_webdav_takes_and_gives_a_gigabyte_with_flat_memory(tmp_path: Path, more: str) -> None:
    cadaver = shutil.which("cadaver")
    assert cadaver, "no cadaver; run:  scripts/require dav"
    python = make_venv("wsgidav", sys.executable, "wsgidav") / "bin" / "python"
    (tmp_path / "dav.py").write_text(DAV)
    (tmp_path / "store").mkdir(mode=0o777)
    (tmp_path / "daemun.toml").write_text(DAV_FILE.format(python=python, more=more))
    block = os.urandom(MIB)
    with (tmp_path / "large").open("wb") as file:
        for number in range(SIZE // MIB):
            file.write(number.to_bytes(8, "big") + block[8:])

    with Server(cwd=tmp_path) as server:
        server.get("/")

        def dav(*words: str) -> str:
            """One session of the client."""
            done = subprocess.run(
                [cadaver, f"http://127.0.0.1:{server.port}/"],
                input="\n".join([*words, "quit"]) + "\n",
                cwd=tmp_path,
                env=environment({}),
                capture_output=True,
                text=True,
                timeout=600,
            )
            assert "failed" not in done.stdout, done.stdout
            return done.stdout

        dav("mkcol folder")
        with flat(server, 24 * MIB, "up"):
            dav("cd folder", "put large")
        assert sum_of(tmp_path / "store" / "folder" / "large") == sum_of(tmp_path / "large")
        with flat(server, 24 * MIB, "down"):
            dav("cd folder", "get large back")
        assert sum_of(tmp_path / "back") == sum_of(tmp_path / "large")
        dav("cd folder", "move large other")
        assert "other" in dav("ls folder")
        dav("rmcol folder")
        assert "other" not in dav("ls")


VIEWS = """\
import hashlib
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

@csrf_exempt
def upload(request):
    found, size = hashlib.sha256(), 0
    for piece in request.FILES["file"].chunks():
        found.update(piece)
        size += len(piece)
    return HttpResponse("%d %s %s" % (size, found.hexdigest(), request.POST["word"]))

def numbers():
    for number in range(200_000):
        yield "%079d\\n" % number

urlpatterns = [
    path("upload", upload),
    path("numbers", lambda request: StreamingHttpResponse(numbers(), content_type="text/plain")),
]
"""


def test_django_streams_and_takes_uploads_of_100_megabytes(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "django", "startproject", "shop", "."]
    subprocess.run(command, cwd=tmp_path, env=environment({}), check=True, timeout=60)
    with (tmp_path / "shop" / "settings.py").open("a") as file:
        file.write("\nDEBUG = False\nALLOWED_HOSTS = ['*']\n")
    (tmp_path / "shop" / "urls.py").write_text(VIEWS)
    (tmp_path / "daemun.toml").write_text('[server]\nmax_body = "200MB"\n[app.shop]\ntarget = "."\nprocesses = 1\n')
    (tmp_path / "file").write_bytes(os.urandom(MIB) * 100)
    wanted = f"{100 * MIB} {sum_of(tmp_path / 'file')} gate"
    with Server(cwd=tmp_path) as server:
        server.get("/numbers")
        with flat(server, 24 * MIB, "16 MB of a stream"):
            assert server.get("/numbers").body == "".join(f"{number:079d}\n" for number in range(200_000)).encode()
        with flat(server, 24 * MIB, "100 MiB of an upload"):
            url = f"http://127.0.0.1:{server.port}/upload"
            words = ["curl", "-sS", "-F", "word=gate", "-F", "file=@file", url]
            done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.stdout == wanted, done


LISTENED = """\
import threading

changed = threading.Condition()
said = []
listening = 0

def events():
    global listening
    with changed:
        listening += 1
        changed.notify_all()
    heard = 0
    while True:
        yield b"data: here\\n\\n" if not heard else b"data: %s\\n\\n" % said[heard - 1]
        heard += 1
        with changed:
            while len(said) < heard:
                changed.wait()

def application(environ, start_response):
    if environ["PATH_INFO"] == "/events":
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        return events()
    if environ["PATH_INFO"] == "/say":
        with changed:
            said.append(environ["QUERY_STRING"].encode())
            changed.notify_all()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d" % listening]
"""
LISTENERS = 1000


def test_1000_listeners_hear_what_is_said_while_others_are_answered(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8192), hard))
    (tmp_path / "heard.py").write_text(LISTENED)
    app = f'[app.heard]\nwsgi = "heard:application"\nprocesses = 1\nthreads = {LISTENERS + 8}\n'
    (tmp_path / "daemun.toml").write_text(f"[server]\nevent_loops = 1\n{app}")
    with Server(cwd=tmp_path) as server, ExitStack() as stack:
        server.get("/")
        before = {"front": resident(front(server)), "worker": max(map(resident, workers(server)))}
        listeners: list[Wire] = [stack.enter_context(wire(server.port)) for _ in range(LISTENERS)]
        for listener in listeners:
            listener.send(b"GET /events HTTP/1.1\r\nHost: a.test\r\n\r\n")
        for listener in listeners:
            head = listener.head()
            assert head is not None
            assert (head.status, listener.chunk()) == (200, b"data: here\n\n")
        connection = server.connection()
        assert exchange(connection, "/").text == str(LISTENERS)
        for word in ("one", "two", "three"):
            exchange(connection, f"/say?{word}")
            for listener in listeners:
                assert listener.chunk() == f"data: {word}\n\n".encode()
        assert exchange(connection, "/").status == 200
        connection.close()
        after = {"front": resident(front(server)), "worker": max(map(resident, workers(server)))}
        each = {name: (after[name] - before[name]) >> 10 for name in before}
        print(f"{LISTENERS} streams: " + ", ".join(f"{name} +{count} KiB" for name, count in each.items()))
        assert each["front"] < 64 << 10
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
