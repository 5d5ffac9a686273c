"""Files that are rewritten, truncated, replaced and removed while a hundred clients read them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from server import DEADLINE, Server
from wire import Reply, Wire

CLIENTS = 100
ROUNDS = 2
CHANGES = ["rewritten in place", "truncated", "replaced", "removed", "grown"]


def content(letter: str, size: int) -> bytes:
    """Content that tells which version it is of."""
    return letter.encode() * size


def change(path: Path, kind: str, step: int, size: int) -> None:
    """Do to a file what deployments and editors do."""
    new = content("ab"[step % 2], size)
    if kind == "rewritten in place":
        with path.open("r+b") as file:
            file.write(new)
    elif kind == "truncated":
        os.truncate(path, 0 if step % 2 else size // 3)
        path.write_bytes(new)
    elif kind == "replaced":
        other = path.with_suffix(f".{step}")
        other.write_bytes(new)
        other.replace(path)
    elif kind == "removed":
        path.unlink()
        path.write_bytes(new)
    else:
        with path.open("ab") as file:
            file.write(new[:1000])


@pytest.mark.parametrize("size", [1000, 600_000])
@pytest.mark.parametrize("kind", CHANGES)
def test_a_file_that_changes_is_never_cut_as_if_whole(tmp_path: Path, kind: str, size: int) -> None:
    root = tmp_path / "root"
    root.mkdir()
    path = root / "a.bin"
    path.write_bytes(content("a", size))
    done = threading.Event()

    def go_on() -> None:
        step = 0
        while not done.is_set():
            step += 1
            change(path, kind, step, size)

    replies: list[Reply] = []
    with Server(root, cwd=tmp_path) as server:
        changing = threading.Thread(target=go_on)
        changing.start()
        try:
            # A file that is gone half of the time: somebody meets it sooner or later.
            go_on_until = whole_of if kind == "removed" else None
            words = (server.port, replies, go_on_until)
            clients = [threading.Thread(target=ask, args=words) for _ in range(CLIENTS)]
            for client in clients:
                client.start()
            for client in clients:
                client.join()
        finally:
            done.set()
            changing.join()
        # Whatever was in flight, the server goes on.
        path.write_bytes(b"the end")
        server.until("/a.bin", "the end")
    whole = whole_of(replies)
    assert len(replies) >= CLIENTS * ROUNDS
    for reply in whole:
        assert len(reply.body) == int(reply.get("Content-Length") or -1)
        assert not reply.body.strip(b"ab"), "something else than either version"
        # What is rewritten in place while it is opened has its new time already, and bytes of both.
        if kind == "replaced":
            assert len(set(reply.body)) == 1, "half of one version and half of the other"
    assert {reply.status for reply in replies} <= {200, 404, 503}
    # An answer that could not be ended is cut, never filled up: the client sees it.
    for reply in replies:
        assert reply.complete or len(reply.body) < int(reply.get("Content-Length") or 0)
    # One that is rewritten all the time may be met by nobody whole.
    assert whole or kind in {"rewritten in place", "truncated"}


def unread(port: int) -> Wire:
    """Ask for the file and take no more of the answer than its first byte; not much of it fits in between."""
    wire = Wire(port)
    wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    wire.send(b"GET /a.bin HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert wire.socket.recv(1, socket.MSG_PEEK)
    return wire


def test_what_waits_in_a_socket_stays_as_it_was_when_a_file_that_was_just_written_shrinks(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "a.bin").write_bytes(b"a" * 600_000)
    with Server(root, cwd=tmp_path) as server:
        wire = unread(server.port)
        # All of it lies in the sockets, or the server still waits to send the rest: both must come out right.
        os.truncate(root / "a.bin", 200_000)
        reply = wire.reply()
        wire.close()
    assert reply is not None
    assert not reply.body.strip(b"a"), "bytes that were never in the file"
    assert reply.complete == (len(reply.body) == 600_000)


@pytest.mark.parametrize("kind", ["truncated", "rewritten in place"])
def test_an_answer_whose_file_changes_under_a_slow_client_never_gets_its_end(tmp_path: Path, kind: str) -> None:
    """What sockets hold of a file that was long at rest are pages of it, which change with it: so the end waits."""
    size = 50_000_000
    root = tmp_path / "root"
    root.mkdir()
    path = root / "a.bin"
    path.write_bytes(b"a" * size)
    os.utime(path, (1_000_000_000, 1_000_000_000))
    with Server(root, cwd=tmp_path) as server:
        wire = unread(server.port)
        if kind == "truncated":
            os.truncate(path, size // 2)
        else:
            with path.open("r+b") as file:
                file.write(b"b" * size)
        reply = wire.reply()
        wire.close()
        assert reply is not None
        assert not reply.complete
        why = "shorter" if kind == "truncated" else "was rewritten while it was sent"
        server.wait_for(rf"error: a file .*{why}.*; the connection was cut")


def test_a_file_that_grows_while_it_is_sent_is_sent_as_long_as_it_was(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    path = root / "a.bin"
    path.write_bytes(b"a" * 50_000_000)
    with Server(root, cwd=tmp_path) as server:
        wire = unread(server.port)
        with path.open("ab") as file:
            file.write(b"b")
        reply = wire.reply()
        wire.close()
    assert reply is not None
    assert reply.complete
    assert len(reply.body) == 50_000_000
    assert not reply.body.strip(b"a")


def whole_of(replies: list[Reply]) -> list[Reply]:
    """Give the answers that came to their end."""
    return [reply for reply in replies if reply.status == 200 and reply.complete]


def ask(port: int, replies: list[Reply], go_on_until: Callable[[list[Reply]], object] | None) -> None:
    """Ask on a new connection each time: one that was cut cannot be used again."""
    deadline = time.monotonic() + DEADLINE
    asked = 0
    while asked < ROUNDS or (go_on_until and not go_on_until(replies) and time.monotonic() < deadline):
        asked += 1
        wire = Wire(port)
        wire.send(b"GET /a.bin HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        reply = wire.reply()
        wire.socket.close()
        assert reply is not None
        replies.append(reply)


def client(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a program that downloads."""
    program = shutil.which(name)
    assert program, f"no {name}; run:  scripts/require peers"
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)


def test_a_download_that_broke_off_is_resumed_by_curl_and_wget(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    whole = bytes(range(256)) * 4000
    (root / "a.iso").write_bytes(whole)
    with Server(root, cwd=tmp_path) as server:
        url = f"http://127.0.0.1:{server.port}/a.iso"
        for name, arguments in [("curl", ["-sf", "-C", "-", "-o"]), ("wget", ["-q", "-c", "-O"])]:
            target = tmp_path / name
            target.write_bytes(whole[:300_001])
            result = client(name, *arguments, target, url)
            assert result.returncode == 0, result.stderr
            assert target.read_bytes() == whole
        lines = [line for line in server.access.lines if '" 206 ' in line]
        assert len(lines) == 2, server.access.text
