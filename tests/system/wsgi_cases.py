"""Questions to servers that run the same WSGI application, each with what PEP 3333 (or plain sense) wants."""

from __future__ import annotations

import http.client
import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from compared import Case
from gate import Gate
from load import Load
from server import alive
from wire import Reply, Wire, wire
from wsgi_peers import NoSuchOptionError

# How long a piece of an answer may be on its way before it counts as held back.
PATIENCE = 2.0
# How long a whole answer may be before it counts as none.
NO_ANSWER = 6.0
# The variable that stands in the environment of each server, and is nobody's business.
SECRET = "A_SECRET_OF_THE_SHELL"


@dataclass(frozen=True)
class Asked:
    """Whom to ask. `probes` serves `probes.py`; `hurt` starts one of its kind over `misdeeds.py` in two processes."""

    port: int
    gate: Gate
    said: Callable[[], str]
    hurt: Callable[..., AbstractContextManager[Hurt]]

    @contextmanager
    def wire(self) -> Iterator[Wire]:
        """A connection of one's own that is not waited on for ever."""
        with wire(self.port) as opened:
            opened.socket.settimeout(NO_ANSWER)
            yield opened

    def ask(self, target: str, method: str = "GET", body: bytes = b"", fields: str = "", version: str = "1.1") -> Reply:
        """One request on a connection of its own."""
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        head = f"{method} {target} HTTP/{version}\r\nHost: a.test\r\n{length}{fields}\r\n"
        with self.wire() as opened:
            opened.send(head.encode("latin-1") + body)
            reply = opened.reply(method)
        if reply is None:
            raise http.client.RemoteDisconnected("no answer")
        return reply

    def environ(self, target: str = "", fields: str = "", version: str = "1.1") -> dict[str, Any]:
        """What the application gets."""
        reply = self.ask(f"/environment{target}", fields=fields, version=version)
        found: dict[str, Any] = json.loads(reply.body)["environ"] if reply.status == 200 else {"": str(reply.status)}
        return found


@dataclass(frozen=True)
class Hurt:
    """A server over the misdeeds."""

    port: int
    pid: int
    reload: signal.Signals | None
    # Seconds that it may go on for after it has decided to end.
    lingers: float

    def status(self, path: str, method: str = "GET", patience: float = NO_ANSWER) -> str:
        """Status or what came instead."""
        return self.ask(path, method, patience)[0]

    def ask(self, path: str, method: str = "GET", patience: float = NO_ANSWER) -> tuple[str, str]:
        """Status (or what came instead) and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=patience)
        try:
            connection.request(method, path, b"x" if method == "POST" else None)
            answer = connection.getresponse()
            return str(answer.status), answer.read().decode("latin-1")
        except TimeoutError:
            return "no answer", ""
        except (OSError, http.client.HTTPException):
            return "cut", ""
        finally:
            connection.close()

    def falls(self) -> bool:
        """Whether all of it ends, which some take a while for: theirs is the time, not ours."""
        end = time.monotonic() + self.lingers
        while time.monotonic() < end and alive(self.pid):
            select.select([], [], [], 0.05)
        return not alive(self.pid)

    def serves(self, within: float = 10.0) -> bool:
        """Whether it answers again, many times over."""
        end, good = time.monotonic() + within, 0
        while good < 10 and time.monotonic() < end:
            good = good + 1 if self.status("/fine", patience=2) == "200" else 0
            if not good:
                select.select([], [], [], 0.05)
        return good == 10


# === Heads ===


def lazy(asked: Asked) -> str:
    reply = asked.ask("/lazy")
    lost = "" if reply.get("X-Lazy") and reply.body == b"lazy" else ", headers or body lost"
    return f"{reply.status}{lost}"


def written(asked: Asked) -> str:
    reply = asked.ask("/written")
    return "all, in order" if reply.body == b"one two three" else f"{reply.status}, `{reply.body[:20]!r}`"


def twice(asked: Asked) -> str:
    reply = asked.ask("/twice")
    return "an error, 500" if reply.status == 500 else f"accepted, {reply.status}"


def never(asked: Asked) -> str:
    return str(asked.ask("/never").status)


def replaced(asked: Asked) -> str:
    reply = asked.ask("/replaced")
    if reply.status == 503 and reply.body == b"replaced" and not reply.get("X-First"):
        return "replaces the head"
    return f"{reply.status}" + ("" if reply.body == b"replaced" else ", body lost")


def replaced_late(asked: Asked) -> str:
    reply = asked.ask("/replaced-after-nothing")
    right = reply.status == 503 and reply.body == b"replaced"
    return "replaces the head" if right else f"{reply.status}, `{reply.body[:20]!r}`"


def let_go(asked: Asked, target: str) -> Reply:
    """Have what the application has begun, then what comes once it goes on."""
    with asked.wire() as opened:
        opened.send(f"GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n".encode())
        asked.gate.entered()
        asked.gate.open()
        reply = opened.reply()
    if reply is None:
        raise http.client.RemoteDisconnected("no answer")
    return reply


def end_of(reply: Reply) -> str:
    """How an answer in whose middle something happened looks to its client."""
    # Without a length and without chunks only HTTP/1.0 may end so.
    framed = reply.get("Content-Length") or reply.get("Transfer-Encoding")
    if reply.status != 200:
        return f"{reply.status}"
    return "looks whole" if reply.complete and (framed or reply.body) else "cut"


def too_late(asked: Asked) -> str:
    return end_of(let_go(asked, "/too-late"))


def midway(asked: Asked) -> str:
    return end_of(let_go(asked, "/raises-midway"))


def reason(asked: Asked) -> str:
    reply = asked.ask("/answer", "POST", json.dumps({"status": "299 My Own Reason", "body": ["x"]}).encode())
    return f"`{reply.status} {reply.reason}`"


def odd(name: str) -> Callable[[Asked], str]:
    """Have the application answer with a head that is none."""

    def ask(asked: Asked) -> str:
        reply = asked.ask(f"/odd?{name}")
        return f"{reply.status}, as it is" if reply.all("X-Evil") else str(reply.status)

    return ask


def wide(asked: Asked) -> str:
    said = {"status": "200 OK", "headers": [["X-A", "\xe9"], ["X-A", "b"]], "body": ["x"]}
    found = asked.ask("/answer", "POST", json.dumps(said).encode()).all("X-A")
    return "both, as they are" if found == ["\xe9", "b"] else f"`{found}`"


# === Bodies of answers ===


def longer(asked: Asked) -> str:
    said = {"status": "200 OK", "headers": [["Content-Length", "3"]], "body": ["toolong"]}
    with asked.wire() as opened:
        opened.send(f"POST /answer HTTP/1.1\r\nHost: a\r\nContent-Length: {len(json.dumps(said))}\r\n\r\n".encode())
        opened.send(json.dumps(said).encode())
        reply = opened.reply()
        if reply is None or reply.body != b"too":
            return f"`{reply and reply.body[:20]!r}`"
        with suppress(TimeoutError):
            opened.socket.settimeout(PATIENCE)
            return "cut to it" if opened.ended() else "the rest follows, as if it were the next answer"
        return "cut to it"


def shorter(asked: Asked) -> str:
    said = {"status": "200 OK", "headers": [["Content-Length", "10"]], "body": ["short"]}
    try:
        reply = asked.ask("/answer", "POST", json.dumps(said).encode())
    except TimeoutError:
        return "the client waits for the rest"
    return "cut" if not reply.complete else f"{reply.status} of {len(reply.body)} bytes, whole"


def text(asked: Asked) -> str:
    reply = asked.ask("/text")
    return str(reply.status) + ("" if reply.complete else ", cut")


def computed(asked: Asked) -> str:
    return "set" if asked.ask("/whole").get("Content-Length") == "5" else "not set"


def head(asked: Asked) -> str:
    reply = asked.ask("/whole", "HEAD")
    with asked.wire() as opened:
        opened.send(b"HEAD /whole HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
        opened.reply("HEAD")
        sent = opened.first()
    return f"{reply.status}, " + ("a body" if sent else "no body")


def flushed(asked: Asked) -> str:
    with asked.wire() as opened:
        opened.send(b"GET /flushed HTTP/1.1\r\nHost: a.test\r\n\r\n")
        asked.gate.entered()
        seen = b""
        opened.socket.settimeout(PATIENCE)
        with suppress(TimeoutError):
            while b"first" not in seen and (piece := opened.first()):
                seen += piece
        asked.gate.open()
    return "at once" if b"first" in seen else "held back"


def wrapper(asked: Asked) -> str:
    from probes import CONTENT

    reply = asked.ask("/wrapper?offset")
    if reply.status == 500:
        return "absent"
    return "from its position" if reply.body == CONTENT[1000:] else f"{len(reply.body)} bytes"


def closed(target: str, event: str, leave: bool = False) -> Callable[[Asked], str]:
    """Whether close() is called, after an error or when the client has gone."""

    def ask(asked: Asked) -> str:
        if leave:
            with asked.wire() as opened:
                opened.send(f"GET {target} HTTP/1.1\r\nHost: a.test\r\n\r\n".encode())
                opened.first()
        else:
            let_go(asked, target)
        end = time.monotonic() + NO_ANSWER
        while event not in json.loads(asked.ask("/events").body):
            if time.monotonic() > end:
                return "not called"
            select.select([], [], [], 0.05)
        return "called"

    return ask


def hints(asked: Asked) -> str:
    with asked.wire() as opened:
        opened.send(b"GET /hinted HTTP/1.1\r\nHost: a.test\r\n\r\n")
        first = opened.reply()
        second = opened.reply() if first and first.status == 103 else None
    return "103, then 200" if second and second.status == 200 else "absent"


# === Bodies of requests ===


def reads(ways: str, body: bytes, right: list[Any]) -> Callable[[Asked], str]:
    """Read in these ways, one after the other."""

    def ask(asked: Asked) -> str:
        try:
            reply = asked.ask(f"/body?{ways}", "POST", body)
        except TimeoutError:
            return "no answer"
        if reply.status != 200:
            return str(reply.status)
        return "exact" if json.loads(reply.body) == right else "wrong: `" + reply.body.decode()[:60] + "`"

    return ask


def chunked(asked: Asked) -> str:
    body = b"x" * 100_000
    pieces = b"".join(b"%x\r\n%s\r\n" % (len(body) // 10, body[:10_000]) for _ in range(10))
    with asked.wire() as opened:
        opened.send(
            b"POST /digest HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n"
        )
        try:
            reply = opened.reply()
        except TimeoutError:
            return "no answer"
    if reply is None:
        return "cut"
    return "read whole" if reply.body.startswith(b"100000 ") else f"{reply.status}, `{reply.body[:8].decode()}`"


def half(fields: str, sent: bytes) -> Callable[[Asked], str]:
    """A body of which the rest never comes: an application that reads it must not find an end."""

    def ask(asked: Asked) -> str:
        with asked.wire() as opened:
            opened.send(f"POST /swallow HTTP/1.1\r\nHost: a.test\r\n{fields}\r\n\r\n".encode() + sent)
            opened.half_close()
            # An answer, or the end of the connection: whatever the application does, it has done then.
            with suppress(TimeoutError):
                opened.reply()
        whole = any(event.startswith("swallowed") for event in json.loads(asked.ask("/events").body))
        asked.ask("/forget")
        return "taken for whole" if whole else "not taken for whole"

    return ask


# === The environment ===


def flags(asked: Asked) -> str:
    found = asked.environ()
    names = [name for name in ("multithread", "multiprocess", "run_once") if found.get(f"wsgi.{name}")]
    return ", ".join(names) or "none"


def protocol(asked: Asked) -> str:
    return f"`{asked.environ(version='1.0').get('SERVER_PROTOCOL')}`"


def leaks(asked: Asked) -> str:
    return "leaks" if SECRET in asked.environ() else "kept"


def path(asked: Asked) -> str:
    found = asked.environ("/%EB%8C%80%20b").get("PATH_INFO", "").encode("latin-1", "replace")
    return "its bytes as latin-1" if found == "/environment/대 b".encode() else f"`{found!r}`"


def underscore(asked: Asked) -> str:
    found = asked.environ(fields="X-User: dash\r\nX_User: underscore\r\n")
    return f"`{found.get('HTTP_X_USER', found.get(''))}`"


def terminated(asked: Asked) -> str:
    return "set" if asked.environ().get("wsgi.input_terminated") == "<bool>" else "not set"


# === Failures ===


def one_dies(path: str) -> Callable[[Asked], str]:
    """A misdeed; whether the server serves on."""

    def ask(asked: Asked) -> str:
        with asked.hurt() as hurt:
            hurt.status(path, "POST")
            if hurt.falls():
                return "the server is gone"
            return "serves on" if hurt.serves() else "the server is gone"

    return ask


def beside(asked: Asked) -> str:
    """A misdeed while each process has other requests, none of which has been answered a byte."""
    with asked.hurt() as hurt, ThreadPoolExecutor() as pool:
        others = [pool.submit(hurt.status, "/nap") for _ in range(6)]
        hurt.ask("/segfault", "POST")
        failed = [each.result() for each in others if each.result() != "200"]
        return f"{', '.join(sorted(set(failed)))}" if failed else "answered"


def replayed(asked: Asked) -> str:
    with asked.hurt() as hurt:
        status, body = hurt.ask("/once")
        return "200 from another" if (status, body) == ("200", "second") else status


def late(path: str) -> Callable[[Asked], str]:
    """A request that lasts beyond the limit of two seconds."""

    def ask(asked: Asked) -> str:
        try:
            with asked.hurt(timeout=2) as hurt:
                # mod_wsgi takes what its threads have on average, so that one of four has four times the limit.
                status = hurt.status(path, "POST", 15)
                return status + ("" if hurt.serves() else ", and the server is gone")
        except NoSuchOptionError:
            return "no such limit"

    return ask


def slow(data: bytes, count: int = 32) -> Callable[[Asked], str]:
    """So many clients that send this and wait."""

    def ask(asked: Asked) -> str:
        with asked.hurt() as hurt, ExitStack() as stack:
            for _ in range(count):
                client = stack.enter_context(socket.create_connection(("127.0.0.1", hurt.port), timeout=5))
                client.sendall(data)
            status = hurt.status("/fine")
            return "others are answered" if status == "200" else f"others: {status}"

    return ask


def recycled(asked: Asked) -> str:
    """A hundred requests under load, each process good for ten."""
    try:
        with asked.hurt(max_requests=10, processes=1) as hurt:
            seen: set[str] = set()
            with Load(hurt.port, "/fine", clients=4, wanted=b"fine") as load:
                load.more(50)
                for _ in range(50):
                    status, body = hurt.ask("/pid")
                    seen.add(body if status == "200" else "")
            failed = len(load.failures) + ("" in seen)
            if failed:
                return "requests fail"
            return "replaced, no request fails" if len(seen) > 1 else "not replaced"
    except NoSuchOptionError:
        return "no such limit"


def reloaded(asked: Asked) -> str:
    """The signal for new code, five times under eight clients on kept connections."""
    with asked.hurt() as hurt:
        if hurt.reload is None:
            return "no such signal"
        with Load(hurt.port, "/pid", clients=8) as load:
            for _ in range(5):
                load.more(20)
                before = {hurt.ask("/pid")[1] for _ in range(8)}
                os.kill(hurt.pid, hurt.reload)
                end = time.monotonic() + PATIENCE * 5
                while hurt.ask("/pid")[1] in {*before, ""}:
                    if time.monotonic() > end:
                        return "the old code serves on"
                load.more(20)
        return "requests fail" if load.failures else "no request fails"


POSTED = b"one\ntwolong\nthree\nfourfive"
LINES = ["one\n", "two", "long\n", "thr", "ee\nfourfive"]
PEP = "PEP 3333, "
CALLABLE, LENGTH, INPUT = PEP + "start_response()", PEP + "Content-Length", PEP + "Input and Error Streams"

CASES: list[Case[Asked]] = [
    Case("A generator calls `start_response('404 …')` at its first `next()`", CALLABLE, lazy, "404"),
    Case("`write()`, then what is returned", PEP + "write()", written, "all, in order"),
    Case("`start_response` twice without `exc_info`", CALLABLE, twice, "an error, 500"),
    Case("No `start_response` at all", PEP + "Specification Details", never, "500"),
    Case("`start_response(…, exc_info)` before the answer", CALLABLE, replaced, "replaces the head"),
    Case("The same after an empty string was yielded", CALLABLE, replaced_late, "replaces the head"),
    Case("The same after the answer has begun", CALLABLE, too_late, "cut"),
    Case("An exception in mid-stream", PEP + "Error Handling", midway, "cut"),
    Case("The reason phrase of `299 My Own Reason`", CALLABLE, reason, "`299 My Own Reason`"),
    Case("Two fields of one name, one with a byte above 127", CALLABLE, wide, "both, as they are"),
    Case("CR LF in the value of a field", CALLABLE, odd("value-crlf"), "500"),
    Case("CR LF in the status", CALLABLE, odd("status-control"), "500"),
    Case("`Transfer-Encoding` of the application", PEP + "Other HTTP Features", odd("hop-transfer"), "500"),
    Case("Text instead of bytes", PEP + "Unicode Issues", text, "500"),
    Case("More bytes than `Content-Length` says", LENGTH, longer, "cut to it"),
    Case("Fewer bytes than `Content-Length` says", LENGTH, shorter, "cut"),
    Case("`Content-Length` of a list with one string", LENGTH, computed, "set"),
    Case("HEAD", PEP + "Other HTTP Features", head, "200, no body"),
    Case("The first of two pieces", PEP + "Buffering and Streaming", flushed, "at once"),
    Case(
        "`close()` after an exception",
        PEP + "Specification Details",
        closed("/raises-midway", "close midway"),
        "called",
    ),
    Case(
        "`close()` when the client has gone",
        PEP + "Specification Details",
        closed("/stream?gone", "close gone", True),
        "called",
    ),
    Case(
        "`wsgi.file_wrapper` around an open file",
        PEP + "Optional Platform-Specific File Handling",
        wrapper,
        "from its position",
    ),
    Case(
        "`readline()`, `readline(3)`, `readline()`, `read(3)`, `read()`",
        INPUT,
        reads("readline,readline3,readline,read3,read", POSTED, LINES),
        "exact",
    ),
    Case(
        "`for line in wsgi.input`",
        INPUT,
        reads("iter", POSTED, [["one\n", "twolong\n", "three\n", "fourfive"]]),
        "exact",
    ),
    Case("`readlines()`", INPUT, reads("readlines", POSTED, [["one\n", "twolong\n", "three\n", "fourfive"]]), "exact"),
    Case("`read(-1)`, then `read()` at the end", INPUT, reads("read-1,read", POSTED, [POSTED.decode(), ""]), "exact"),
    Case("A body of 100,000 bytes in chunks", INPUT, chunked, "read whole"),
    Case(
        "A body that ends within a chunk",
        INPUT,
        half("Transfer-Encoding: chunked", b"5\r\nhello\r\n5\r\nwo"),
        "not taken for whole",
    ),
    Case(
        "A body that ends before its `Content-Length`",
        INPUT,
        half("Content-Length: 10", b"hello"),
        "not taken for whole",
    ),
    Case(
        "`wsgi.multithread`, `multiprocess`, `run_once` of one process with four threads",
        PEP + "environ Variables",
        flags,
        "multithread",
    ),
    Case("`SERVER_PROTOCOL` of a request in HTTP/1.0", PEP + "environ Variables", protocol, "`HTTP/1.0`"),
    Case("`PATH_INFO` of `/%EB%8C%80%20b`", PEP + "Unicode Issues", path, "its bytes as latin-1"),
    Case("A secret in the environment of the server", PEP + "environ Variables", leaks, "kept"),
    Case("`X-User: dash` beside `X_User: underscore`", "house", underscore, "`dash`"),
    Case("`wsgi.early_hints`", "RFC 8297", hints, "103, then 200"),
    Case("A worker that segfaults", "house", one_dies("/segfault"), "serves on"),
    Case("A worker that calls `os._exit(3)`", "house", one_dies("/leave"), "serves on"),
    Case("GETs in the same process as a segfault", "house", beside, "answered"),
    Case("A GET whose first worker dies", "house", replayed, "200 from another"),
    Case("A view that sleeps beyond the limit of 2 s", "house", late("/sleep"), "504"),
    Case("A view that loops beyond the limit of 2 s", "house", late("/spin"), "504"),
    Case(
        "32 clients that send half a head", "house", slow(b"GET / HTTP/1.1\r\nHost: x\r\nX-a:"), "others are answered"
    ),
    Case(
        "32 clients that send 3 bytes of 100,000",
        "house",
        slow(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\nabc"),
        "others are answered",
    ),
    Case("Processes that are replaced after ten requests", "house", recycled, "replaced, no request fails"),
    Case("New code by signal, five times under load", "house", reloaded, "no request fails"),
]
