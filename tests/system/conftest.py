"""Projects that a user would have."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from gate import Gate
from playwright.sync_api import Page, sync_playwright
from server import DEADLINE, environment


@pytest.fixture
def gate() -> Iterator[Gate]:
    """A gate."""
    gate = Gate()
    yield gate
    gate.close()


@pytest.fixture
def flask(tmp_path: Path) -> Path:
    """A folder with a Flask application in `app.py`, which can be held, and names its process."""
    (tmp_path / "gate.py").write_text(Gate.MODULE)
    (tmp_path / "app.py").write_text("""\
import os
from flask import Flask, request
from gate import hold

app = Flask(__name__)

@app.get("/")
def hello():
    return "one"

@app.get("/pid")
def pid():
    return str(os.getpid())

@app.route("/held", methods=["GET", "POST"])
def held():
    hold()
    return "finished"

@app.post("/length")
def length():
    return str(len(request.get_data()))

@app.get("/boom")
def boom():
    raise RuntimeError("the test asked for it")
""")
    return tmp_path


Startproject = Callable[..., Path]


@pytest.fixture
def startproject(tmp_path: Path) -> Startproject:
    """`django-admin startproject shop`, migrated, with lines appended to its settings."""

    def start(settings: str = "", below: str = "shop") -> Path:
        folder = tmp_path / below
        folder.mkdir(parents=True)
        manage(folder, "-m", "django", "startproject", "shop", ".")
        if settings:
            with (folder / "shop" / "settings.py").open("a") as file:
                file.write("\n" + settings)
        manage(folder, "manage.py", "migrate", "--verbosity", "0")
        return folder

    return start


def manage(folder: Path, *arguments: str) -> None:
    """Run this Python in `folder`."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment({}), capture_output=True, text=True, timeout=DEADLINE
    )
    assert done.returncode == 0, done.stderr


# What a browser does of its own, or cannot do in a container, is switched off.
BROWSER_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    """A page of a browser that knows nothing yet."""
    chromium = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
    assert chromium, "no Chromium; run:  scripts/require chromium"
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path / "profile", executable_path=chromium, args=BROWSER_FLAGS, viewport={"width": 1200, "height": 800}
        )
        try:
            yield context.pages[0] if context.pages else context.new_page()
        finally:
            context.close()
