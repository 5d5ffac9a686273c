"""The image that `daemun init --docker` describes, built step by step and run, as podman does with an OCI runtime.

No registry is asked: the base that the file names is made of Debian's packages, and pip finds what it is to install in
a folder of that base.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from server import DEADLINE, ROOT, children, environment, eventually, run
from test_container import is_zombie

# Packages for a base, a wheel of the debug binary, an image: on a machine with other work.
BUILDING = 900.0

# What python:3.13-slim has: `python` on PATH and a pip without Debian's refusal, which environments have.
BASE = """\
FROM scratch
ADD base.tar /
COPY wheels /wheels
RUN ln -s /usr/bin/python3 /usr/local/bin/python
RUN printf '[global]\\nno-index = true\\nfind-links = /wheels\\n' > /etc/pip.conf
"""

# As an operator of a cluster would run it.
HARDENED = ("--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")

PROJECT = """\
[project]
name = "gate"
version = "1"
dependencies = ["flask"]

[tool.setuptools]
py-modules = ["gate"]
"""

CONFIGURATION = """\
[server]
grace = "{grace}"
drain_delay = "0s"

[app.gate]
wsgi = "gate:app"
processes = 1
threads = 2
"""

APPLICATION = """\
import os
import subprocess
from pathlib import Path

from flask import Flask

app = Flask(__name__)


@app.get("/")
def home():
    return f"{os.getppid()} {os.getuid()}"


@app.get("/orphan")
def orphan():
    subprocess.run(["sh", "-c", "sleep 0.1 & exit"])
    return "left alone"


@app.get("/held")
def held():
    # Both ends wait for the other.
    os.mkfifo("/tmp/held")
    return Path("/tmp/held").read_text()
"""

DJANGO = """
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1"]
STATIC_ROOT = BASE_DIR / "staticfiles"
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"},
}
"""


def call(*words: str | Path, cwd: Path = ROOT) -> str:
    """Run to the end; its standard output."""
    command = [str(word) for word in words]
    done = subprocess.run(
        command, cwd=cwd, env=environment({}), capture_output=True, text=True, timeout=BUILDING, errors="replace"
    )
    assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout[-4000:]}{done.stderr[-4000:]}"
    return done.stdout


class Podman:
    """Images and containers in a folder of their own."""

    def __init__(self, folder: Path) -> None:
        store = ["--root", folder / "images", "--runroot", folder / "running", "--tmpdir", folder / "tmp"]
        # Docker's own runtime; and no service of systemd, which a test's machine need not run.
        options = ["--runtime", "runc", "--storage-driver", "overlay", "--cgroup-manager", "cgroupfs"]
        self._words = ["podman", *store, *options, "--events-backend", "none"]
        # Above these a machine may refuse to go.
        self._limits = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"]

    def call(self, *words: str | Path) -> str:
        """Run a command of it to its end."""
        return call(*self._words, *words)

    def build(self, folder: Path, name: str, file: str = "Dockerfile") -> None:
        """Follow a Dockerfile, with no network; only Docker's format knows HEALTHCHECK."""
        words = ["build", "--format", "docker", "--network", "none", "--pull-never", *self._limits]
        self.call(*words, "--file", folder / file, "--tag", name, folder)

    def run(self, image: str, *words: str) -> Container:
        """Start a container with a loopback interface of its own."""
        identity = self.call("run", "--detach", "--network", "none", *self._limits, *words, image).strip()
        return Container(self, identity)

    def end(self) -> None:
        """Nothing runs, nothing is mounted."""
        self.call("rm", "--all", "--force", "--time", "0")
        self.call("rmi", "--all", "--force")


class Container:
    """One that runs."""

    def __init__(self, podman: Podman, identity: str) -> None:
        self.podman, self.identity = podman, identity
        self.pid = int(self.tells("State", "Pid"))

    def tells(self, *keys: str) -> str:
        """What `inspect` says of it."""
        told = json.loads(self.podman.call("inspect", "--type", "container", self.identity))[0]
        for key in keys:
            told = told[key]
        return str(told)

    def log(self) -> str:
        """What it said."""
        done = subprocess.run(
            [*self.podman._words, "logs", self.identity], capture_output=True, text=True, timeout=DEADLINE
        )
        return done.stdout + done.stderr

    def started(self) -> Container:
        """Wait until it listens."""
        eventually(lambda: "listening on" in self.log() or self.tells("State", "Status") == "exited", "it listens")
        assert self.tells("State", "Status") == "running", self.log()
        return self

    def command(self, path: str, port: int = 8000) -> list[str]:
        """What asks it, inside its network."""
        url = f"http://127.0.0.1:{port}{path}"
        return ["nsenter", "-t", str(self.pid), "-n", "curl", "-sS", "--max-time", str(DEADLINE), "-f", url]

    def get(self, path: str, port: int = 8000) -> str:
        """Ask it."""
        return call(*self.command(path, port))

    def exit_code(self) -> int:
        """Wait for its end."""
        return int(self.podman.call("wait", self.identity))


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    """Podman with the base."""
    for program in ["podman", "runc", "mmdebstrap"]:
        assert shutil.which(program), f"no {program}; run:  scripts/require containers"
    folder = tmp_path_factory.mktemp("containers")
    wheels = folder / "base" / "wheels"
    wheels.mkdir(parents=True)
    packages = "--include=python3,python3-venv,ca-certificates"
    call("mmdebstrap", "--quiet", "--variant=minbase", packages, "trixie", folder / "base" / "base.tar")
    maturin = [sys.executable, "-m", "maturin", "build", "--profile", "dev", "--strip", "true", "--out"]
    call(*maturin, wheels)
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--only-binary", ":all:", "--python-version", "3.13"]
    # The last is what pip builds a project with.
    call(*pip, "--dest", wheels, "django>=5.2,<6", "flask>=3,<4", "setuptools")
    (folder / "base" / "Dockerfile").write_text(BASE)
    podman = Podman(folder)
    try:
        podman.build(folder / "base", "localhost/python:3.13-slim")
        shutil.rmtree(folder / "base")
        yield podman
    finally:
        podman.end()
        shutil.rmtree(folder)


def written(folder: Path) -> None:
    """Write the Dockerfile of a project."""
    told = run("init", "--docker", cwd=folder)
    assert told.returncode == 0, told.stderr
    (folder / "Dockerfile").write_text(told.stdout)


def test_an_image_of_a_django_project_serves_it_without_rights(podman: Podman, tmp_path: Path) -> None:
    call(sys.executable, "-m", "django", "startproject", "shop", tmp_path)
    with (tmp_path / "shop" / "settings.py").open("a") as settings:
        settings.write(DJANGO)
    (tmp_path / "requirements.txt").write_text("django\n")
    written(tmp_path)
    assert (tmp_path / "Dockerfile").read_text() == (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8")
    podman.build(tmp_path, "shop")
    (image,) = json.loads(podman.call("inspect", "--type", "image", "shop"))
    settings = image["Config"]
    assert (settings["User"], settings["StopSignal"]) == ("10001", "SIGTERM")
    assert set(settings["ExposedPorts"]) == {"8000/tcp", "9181/tcp"}

    site = podman.run("shop", *HARDENED).started()
    status = dict(line.split(":\t", 1) for line in Path(f"/proc/{site.pid}/status").read_text().splitlines())
    assert status["Name"] == "daemun"
    assert status["NSpid"].split()[-1] == "1"
    assert set(status["Uid"].split()) == {"10001"}
    assert (int(status["CapEff"], 16), status["NoNewPrivs"]) == (0, "1")
    page = site.get("/admin/login/")
    style = next(part.split('"')[0] for part in page.split('href="') if part.startswith("/static/admin/css/base."))
    assert style != "/static/admin/css/base.css", "under its hashed name"
    assert "--primary" in site.get(style)
    assert site.get("/readyz", 9181).strip() == "ready"
    podman.call("healthcheck", "run", site.identity)
    assert "daemun_requests_total" in site.get("/metrics", 9181)
    refused = subprocess.run(
        [*podman._words, "exec", site.identity, "touch", "/srv/site/x"], capture_output=True, timeout=DEADLINE
    )
    assert b"Read-only file system" in refused.stderr
    podman.call("stop", "--time", "60", site.identity)
    assert site.exit_code() == 0, site.log()
    assert "stopping" in site.log()


def test_what_is_in_flight_is_answered_and_what_never_ends_is_ended(podman: Podman, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (tmp_path / "gate.py").write_text(APPLICATION)
    # Longer than any machine takes to write into a pipe.
    (tmp_path / "daemun.toml").write_text(CONFIGURATION.format(grace="300s"))
    written(tmp_path)
    podman.build(tmp_path, "gate")

    site = podman.run("gate", *HARDENED).started()
    assert site.get("/").split() == ["1", "10001"]
    for _ in range(5):
        site.get("/orphan")
    everybody = children(site.pid)
    assert everybody
    eventually(lambda: not any(is_zombie(pid) for pid in children(site.pid)), "orphans are reaped")
    waiting = hold(site)
    podman.call("kill", "--signal", "TERM", site.identity)
    eventually(lambda: "stopping" in site.log(), "it knows")
    podman.call("exec", site.identity, "sh", "-c", "echo answered > /tmp/held")
    assert waiting.communicate(timeout=DEADLINE)[0] == "answered\n"
    assert site.exit_code() == 0, site.log()

    # The same with a file beside it that gives no grace: podman would kill after five minutes, with 137.
    (tmp_path / "daemun.toml").write_text(CONFIGURATION.format(grace="1s"))
    (tmp_path / "daemun.toml").chmod(0o644)
    site = podman.run("gate", *HARDENED, "--volume", f"{tmp_path / 'daemun.toml'}:/srv/site/daemun.toml:ro").started()
    waiting = hold(site)
    podman.call("stop", "--time", "300", site.identity)
    assert waiting.communicate(timeout=DEADLINE)[0] == "", "cut off"
    assert site.exit_code() != 137, site.log()
    assert "Traceback" not in site.log()


def hold(site: Container) -> subprocess.Popen[str]:
    """Ask for what is only answered when told so; wait until it has begun."""
    waiting = subprocess.Popen(site.command("/held"), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    there = Path(f"/proc/{site.pid}/root/tmp/held")
    eventually(lambda: there.exists() or waiting.poll() is not None, "the application has the request")
    assert waiting.poll() is None, site.log()
    return waiting
