"""Folders of files that come, go and are replaced while the server runs."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

from server import Server

Startproject = Callable[..., Path]

# What is promised is about 2 s; a debug build on busy cores gets some more.
SOON = 15.0


def soon(server: Server, path: str, wanted: str) -> None:
    """Ask until the answer is this one."""
    end = time.monotonic() + SOON
    while server.get(path).text != wanted:
        assert time.monotonic() < end, server.get(path)


def test_uploads_into_a_folder_that_was_not_there_at_the_start_are_served(startproject: Startproject) -> None:
    project = startproject("MEDIA_URL = 'media/'\nMEDIA_ROOT = BASE_DIR / 'uploads'\n")
    with Server(project, cwd=project) as server:
        assert "/media/*" in server.start_up
        assert server.get("/media/a.txt").status == 404
        (project / "uploads").mkdir()
        (project / "uploads" / "a.txt").write_text("uploaded")
        # At once: it is the page after the upload that asks.
        assert server.get("/media/a.txt").text == "uploaded"
        (project / "uploads" / "b.txt").write_text("another")
        assert server.get("/media/b.txt").text == "another"


def test_the_folder_of_a_first_upload_is_found_by_the_first_who_asks(flask: Path) -> None:
    names = [f"media{number}" for number in range(12)]
    routes = "".join(f'[[route]]\npath = "/{name}/*"\nstatic = {{ root = "{name}" }}\n' for name in names)
    (flask / "daemun.toml").write_text('[server]\nlisten = ["127.0.0.1:0"]\n' + routes)
    with Server(cwd=flask, listen="") as server:
        for name in names:
            # Somebody else has just been told that there is nothing.
            assert server.get(f"/{name}/other.txt").status == 404
            (flask / name).mkdir()
            (flask / name / "a.txt").write_text(name)
            answer = server.get(f"/{name}/a.txt")
            assert (answer.status, answer.text) == (200, name)


def test_a_folder_that_is_replaced_by_a_release_is_served_anew(flask: Path) -> None:
    root = flask / "files"
    (flask / "daemun.toml").write_text(
        '[server]\nlisten = ["127.0.0.1:0"]\n[[route]]\npath = "/*"\nstatic = { root = "files" }\n'
    )
    for text in ["first", "second"]:
        (flask / text).mkdir()
        (flask / text / "a.txt").write_text(text)
    root.symlink_to("first")
    with Server(cwd=flask, listen="") as server:
        assert server.get("/a.txt").text == "first"
        root.unlink()
        root.symlink_to("second")
        soon(server, "/a.txt", "second")
        root.unlink()
        root.mkdir()
        (root / "a.txt").write_text("third")
        soon(server, "/a.txt", "third")
        shutil.rmtree(root)
        root.mkdir()
        (root / "a.txt").write_text("fourth")
        soon(server, "/a.txt", "fourth")
