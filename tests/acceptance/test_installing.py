"""Both ways to install from a clone, and the wheel that is published: what each puts there serves a site."""

from __future__ import annotations

import os
import subprocess
import venv
from pathlib import Path

from server import ROOT, Server, environment

# A release is built and linked as one: minutes each. What is published is built twice.
BUILDING = 3600.0
ALONE = {"PATH": os.devnull, "VIRTUAL_ENV": ""}


def build(*command: str | Path, cwd: Path = ROOT) -> None:
    """Run to the end, or show what it said."""
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env=environment({}), capture_output=True, text=True, timeout=BUILDING
    )
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"


def test_cargo_installs_a_program_that_needs_no_python(tmp_path: Path) -> None:
    build("cargo", "install", "--locked", "--path", "crates/daemun", "--root", tmp_path)
    program = tmp_path / "bin" / "daemun"
    site = tmp_path / "site"
    site.mkdir()
    (site / "index.html").write_text("<h1>no snake</h1>")
    with Server(".", cwd=site, env=ALONE, program=program) as server:
        answer = server.get("/")
        assert (answer.status, answer.text) == (200, "<h1>no snake</h1>")
    told = subprocess.run(
        [program, "serve", "app:app"], cwd=site, env=ALONE, capture_output=True, text=True, timeout=60
    )
    assert told.returncode == 2
    assert "no Python was found" in told.stderr


def test_pip_installs_a_program_that_serves_the_project_with_its_styles(tmp_path: Path) -> None:
    pip_installs(ROOT, tmp_path)


def test_the_wheel_that_is_published_serves_the_project_with_its_styles(tmp_path: Path) -> None:
    build("scripts/guided", "--wheel", tmp_path / "dist")
    (wheel,) = (tmp_path / "dist").iterdir()
    pip_installs(wheel, tmp_path)


def pip_installs(what: Path, tmp_path: Path) -> None:
    """Install it into an empty environment, and see that it serves a new project with its styles."""
    folder = tmp_path / "environment"
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    build(python, "-m", "pip", "install", "--quiet", what, "django", cwd=tmp_path)
    project = tmp_path / "project"
    project.mkdir()
    build(python, "-m", "django", "startproject", "shop", ".", cwd=project)
    build(python, "manage.py", "migrate", cwd=project)
    installed = {"VIRTUAL_ENV": str(folder), "PATH": os.pathsep.join([str(folder / "bin"), os.environ["PATH"]])}
    with Server(cwd=project, env=installed, program=folder / "bin" / "daemun") as server:
        login = server.get("/admin/login/")
        assert login.status == 200
        style = login.text.split('rel="stylesheet" href="')[1].split('"')[0]
        styles = server.get(style)
        assert (styles.status, styles.headers["Content-Type"]) == (200, "text/css; charset=utf-8")
