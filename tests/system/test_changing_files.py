"""Files that are rewritten, truncated, replaced and removed while a hundred clients read them."""

from __future__ import annotations

import os
import shutil
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
        if size == 1000 and kind == "replaced":
            assert len(set(reply.body)) == 1, "half of one version and half of the other"
    assert {reply.status for reply in replies} <= {200, 404, 503}
    # An answer that could not be ended is cut, never filled up: the client sees it.
    for reply in replies:
        assert reply.complete or len(reply.body) < int(reply.get("Content-Length") or 0)
    assert whole


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
