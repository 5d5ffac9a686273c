"""Questions to servers that run the same CGI scripts, each with what RFC 3875 (or plain sense) wants."""

from __future__ import annotations

import http.client
import os
import re
import select
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from compared import Case
from server import DEADLINE

SCRIPTS = {
    "env.cgi": r"""
        printf 'Content-Type: text/plain\n\n'
        env
        for word in "$@"; do echo "WORD=$word"; done
        [ "$REQUEST_METHOD" = POST ] && echo "STDIN=$(wc -c)"
        echo "one line to stderr $QUERY_STRING" >&2
    """,
    "nph-t.cgi": r"printf 'HTTP/1.1 299 Nph by itself\r\nX-Nph: 1\r\n\r\nraw'",
    "local.cgi": r"printf 'Location: /cgi-bin/env.cgi/from/local?x=1\n\n'",
    "client.cgi": r"printf 'Location: http://example.test/\n\n'",
    "st.cgi": r"printf 'Status: 404 Nope\nContent-Type: text/plain\n\nnope'",
    "empty.cgi": ":",
    "bad.cgi": "echo 'hello <b>without</b> headers'",
    "hints.cgi": r"""
        printf 'Status: 103 Early Hints\nLink: </a.css>; rel=preload\n\n'
        printf 'Status: 200 OK\nContent-Type: text/plain\n\nbody'
    """,
    "stream.cgi": r"""
        printf 'Content-Type: text/plain\n\none\n'
        read line < gate
        echo "$line"
    """,
    "split.cgi": r"printf 'Content-Type: text/plain\nX-A: b\rSet-Cookie: evil=1\n\nbody'",
    "cookies.cgi": r"printf 'Content-Type: text/plain\nSet-Cookie: a=1\nSet-Cookie: b=2\n\nbody'",
    "crash.cgi": r"""
        printf 'Content-Type: text/plain\n\nhalf'
        kill -9 $$
    """,
    "deaf.cgi": r"printf 'Content-Type: text/plain\n\nnot read'",
    "nobit.cgi": "echo SOURCE",
}
# How long a piece of output may be on its way before it counts as held back.
PATIENCE = 2.0


def write(folder: Path) -> None:
    """Write the scripts; `nobit.cgi` is not executable."""
    folder.mkdir()
    for name, text in SCRIPTS.items():
        lines = "\n".join(line.strip() for line in text.strip().splitlines())
        (folder / name).write_text(f"#!/bin/sh\n{lines}\n")
        (folder / name).chmod(0o644 if name == "nobit.cgi" else 0o755)
    os.mkfifo(folder / "gate")
    (folder / "gate").chmod(0o666)


@dataclass(frozen=True)
class Asked:
    """Whom to ask, where its scripts lie, and what it has written down so far."""

    port: int
    folder: Path
    said: Callable[[], str]

    def ask(
        self, path: str, method: str = "GET", body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[str, http.client.HTTPMessage, str]:
        """Ask; the status with its reason, the fields, the body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        try:
            connection.request(method, f"/cgi-bin/{path}", body, dict(headers or {}))
            response = connection.getresponse()
            return f"{response.status} {response.reason}", response.headers, response.read().decode("latin-1")
        finally:
            connection.close()

    def environment(self, path: str, headers: Mapping[str, str] | None = None) -> dict[str, str]:
        """What the environment script printed; empty where it was not run."""
        status, _, text = self.ask(path, headers=headers)
        if not status.startswith("200"):
            return {"": status[:3]}
        return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)

    def raw(self, path: str) -> str:
        """Ask in HTTP/1.1, and give every byte of the answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE) as client:
            client.sendall(f"GET /cgi-bin/{path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while piece := client.recv(65536):
                answer += piece
        return answer.decode("latin-1")


def chunked(asked: Asked) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", asked.port, timeout=DEADLINE)
    try:
        connection.request("POST", "/cgi-bin/env.cgi", iter([b"x" * 300_000]), encode_chunked=True)
        text = connection.getresponse().read().decode("latin-1")
    finally:
        connection.close()
    length = re.search(r"^CONTENT_LENGTH=(.*)$", text, re.MULTILINE)
    read = re.search(r"^STDIN=(\d+)$", text, re.MULTILINE)
    leaked = "; Transfer-Encoding passed on" if "HTTP_TRANSFER_ENCODING" in text else ""
    told = f"CONTENT_LENGTH {length[1]}" if length and length[1] else "no CONTENT_LENGTH"
    return f"{told}, {read[1] if read else 'nothing'} read{leaked}"


def proxy(asked: Asked) -> str:
    return "reaches the script" if "HTTP_PROXY" in asked.environment("env.cgi", {"Proxy": "evil"}) else "dropped"


def authorization(asked: Asked) -> str:
    found = asked.environment("env.cgi", {"Authorization": "Basic x"})
    return "passed on" if "HTTP_AUTHORIZATION" in found else "dropped"


def underscore(asked: Asked) -> str:
    found = asked.environment("env.cgi", {"X-A": "dash", "X_A": "underscore"})
    return f"`{found.get('HTTP_X_A', found.get('', 'neither'))}`"


def path_info(asked: Asked) -> str:
    found = asked.environment("env.cgi/a%20b/%2e%2e/c%2Fd?q=%31")
    return found.get("", "") or f"`{found.get('PATH_INFO', 'not set')}`"


def query(asked: Asked) -> str:
    return f"`{asked.environment('env.cgi?q=%31&r=a+b').get('QUERY_STRING')}`"


def translated(asked: Asked) -> str:
    return "set" if asked.environment("env.cgi/a").get("PATH_TRANSLATED", "").endswith("/a") else "not set"


def words(asked: Asked) -> str:
    _, _, text = asked.ask("env.cgi?one+two%20three")
    found = [line[5:] for line in text.splitlines() if line.startswith("WORD=")]
    return ", ".join(f"`{word}`" for word in found) or "none"


def option(asked: Asked) -> str:
    _, _, text = asked.ask("env.cgi?-s")
    return "passed" if "WORD=-s" in text else "not passed"


def nph(asked: Asked) -> str:
    line, _, rest = asked.raw("nph-t.cgi").partition("\r\n")
    return f"`{line.partition(' ')[2]}`" + ("" if "raw" in rest else ", without its body")


def local(asked: Asked) -> str:
    status, fields, text = asked.ask("local.cgi")
    if "PATH_INFO=/from/local" in text or ("REQUEST_URI" in text and "x=1" in text):
        return "answered within the server"
    return f"{status[:3]} to the client" if fields["Location"] else status[:3]


def client(asked: Asked) -> str:
    status, fields, _ = asked.ask("client.cgi")
    return f"{status[:3]}, `{fields['Location']}`"


def status(asked: Asked) -> str:
    return f"`{asked.ask('st.cgi')[0]}`"


def hints(asked: Asked) -> str:
    text = asked.raw("hints.cgi")
    first, _, second = text.partition("\r\n\r\n")
    if first.startswith("HTTP/1.1 103") and second.startswith("HTTP/1.1 200"):
        return "103, then 200"
    return f"`{first.splitlines()[0]}`, and the 200 is in its body" if "200 OK" in second else f"`{text[:40]!r}`"


def stream(asked: Asked) -> str:
    with socket.create_connection(("127.0.0.1", asked.port), timeout=DEADLINE) as opened:
        opened.sendall(b"GET /cgi-bin/stream.cgi HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        seen = b""
        while b"one\n" not in seen and select.select([opened], [], [], PATIENCE)[0]:
            piece = opened.recv(65536)
            if not piece:
                break
            seen += piece
        # Opened for both, so that it never waits for a script that may have gone.
        gate = os.open(asked.folder / "gate", os.O_RDWR)
        os.write(gate, b"two\n")
        rest = b""
        while piece := opened.recv(65536):
            rest += piece
        os.close(gate)
    if b"two" not in seen + rest:
        return "cut"
    return "as it comes" if b"one\n" in seen else "held back until the end"


def empty(asked: Asked) -> str:
    return asked.ask("empty.cgi")[0][:3]


def headless(asked: Asked) -> str:
    return asked.ask("bad.cgi")[0][:3]


def split(asked: Asked) -> str:
    try:
        answered, fields, _ = asked.ask("split.cgi")
    except http.client.HTTPException as error:
        return f"a malformed answer ({type(error).__name__})"
    return "`Set-Cookie` becomes a field" if fields["Set-Cookie"] or "Set-Cookie" in str(fields) else answered[:3]


def cookies(asked: Asked) -> str:
    found = asked.ask("cookies.cgi")[1].get_all("Set-Cookie") or []
    return "both" if found == ["a=1", "b=2"] else f"{len(found)} of them"


def crash(asked: Asked) -> str:
    try:
        answered, _, text = asked.ask("crash.cgi")
    except (http.client.IncompleteRead, ConnectionResetError, http.client.RemoteDisconnected):
        return "cut"
    return "looks whole" if text == "half" and answered.startswith("200") else answered[:3]


def deaf(asked: Asked) -> str:
    try:
        answered, _, text = asked.ask("deaf.cgi", "POST", b"x" * 5_000_000)
    except OSError as error:
        return type(error).__name__
    return "200" if text == "not read" else answered[:3]


def source(asked: Asked) -> str:
    answered, _, text = asked.ask("nobit.cgi")
    return "its source is sent" if "SOURCE" in text else answered[:3]


def head(asked: Asked) -> str:
    text = asked.ask("st.cgi", "HEAD")
    return "none" if not text[2] else "sent"


def complaint(asked: Asked) -> str:
    mark = f"mark{asked.port}"
    asked.ask(f"env.cgi?{mark}=1")
    for _ in range(500):
        lines = [line for line in asked.said().splitlines() if f"one line to stderr {mark}" in line]
        if lines:
            told = re.search(r"[0-9a-f]{16}: |\[client |client: ", lines[0])
            return "logged with its request" if told else "logged, of no request"
        select.select([], [], [], 0.01)
    return "not in the log"


CASES = [
    Case("POST of 300,000 bytes in chunks", "4.1.2, 4.2", chunked, "CONTENT_LENGTH 300000, 300000 read"),
    Case("`Proxy: evil` (httpoxy)", "CVE-2016-5385", proxy, "dropped"),
    Case("`Authorization`, where nobody asked for it", "9.2", authorization, "dropped"),
    Case("`X-A: dash` and `X_A: underscore`", "4.1.18", underscore, "`dash`"),
    Case("`PATH_INFO` of `/a%20b/%2e%2e/c%2Fd`", "4.1.5", path_info, "`/c/d`"),
    Case("`QUERY_STRING` of `?q=%31&r=a+b`", "4.1.7", query, "`q=%31&r=a+b`"),
    Case("`PATH_TRANSLATED`", "4.1.6", translated, "set"),
    Case("Arguments of `?one+two%20three`", "4.4", words, "`one`, `two three`"),
    Case("The argument `-s`", "CVE-2012-1823", option, "not passed"),
    Case("An `nph-` script says 299", "5", nph, "`299 Nph by itself`"),
    Case("`Status: 404 Nope`", "6.3.3", status, "`404 Nope`"),
    Case("`Location: /path`", "6.2.2", local, "answered within the server"),
    Case("`Location: http://…`", "6.2.3", client, "302, `http://example.test/`"),
    Case("`Status: 103`, then the answer", "RFC 8297", hints, "103, then 200"),
    Case("Output that comes slowly", "6.1", stream, "as it comes"),
    Case("No output at all", "6.2", empty, "500"),
    Case("Text without a header", "6.2", headless, "500"),
    Case("A CR within a header", "6.3", split, "500"),
    Case("Two `Set-Cookie`", "6.3.4", cookies, "both"),
    Case("Killed in the middle of its output", "6.1", crash, "cut"),
    Case("5 MB that the script never reads", "4.2", deaf, "200"),
    Case("A script without its execute bit", "9.4", source, "500"),
    Case("The body of an answer to HEAD", "4.3.2", head, "none"),
    Case("A line on standard error", "house", complaint, "logged with its request"),
]
