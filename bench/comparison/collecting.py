"""What it costs to deploy static files: `daemun collect` beside `manage.py collectstatic`, processor and wall seconds.

The environment's Wagtail, REST framework and Django's administration: about 450 files. Each figure is the sum over the
whole process tree, interpreter included.
"""

from __future__ import annotations

import json
import resource
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from .peers import Setting
from .servers import environment

STORAGES = {
    "plain": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage",
    "compressed": "whitenoise.storage.CompressedManifestStaticFilesStorage",
}
# Each application with the package that must be there for it.
APPLICATIONS = {
    "wagtail": ["wagtail.admin", "wagtail.images", "wagtail.documents", "wagtail.users", "wagtail.search", "wagtail"],
    "taggit": ["taggit"],
    "modelcluster": ["modelcluster"],
    "rest_framework": ["rest_framework"],
    "django": [f"django.contrib.{name}" for name in ("admin", "auth", "contenttypes", "sessions", "messages")]
    + ["django.contrib.staticfiles"],
}
SETTINGS = """
SECRET_KEY = "not a secret: nothing is served"
STATIC_URL = "/static/"
STATIC_ROOT = {root!r}
INSTALLED_APPS = {applications!r}
WAGTAIL_SITE_NAME = "bench"
WAGTAILADMIN_BASE_URL = "http://localhost"
STORAGES = {{
    "default": {{"BACKEND": "django.core.files.storage.FileSystemStorage"}},
    "staticfiles": {{"BACKEND": {storage!r}}},
}}
"""
MODULE = 'import os\nos.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_settings")\n'
# Whitenoise's brotli of Wagtail's files takes half a minute.
DEADLINE = 600


class CollectError(Exception):
    """A program that collects did not."""


@dataclass(frozen=True)
class Cost:
    """Seconds of one build."""

    cpu: float
    wall: float


def builds(setting: Setting, rounds: int, storages: list[str]) -> dict[str, dict[str, list[Cost]]]:
    """Collect with both programs in turn: by storage, what each build of each program cost."""
    there = available(f"{setting.venv}/bin/python")
    figures: dict[str, dict[str, list[Cost]]] = {}
    for name in storages:
        storage = STORAGES[name]
        if storage.partition(".")[0] in there:
            figures[name] = {}
            for _ in range(rounds):
                _round(setting, [app for part in there for app in APPLICATIONS.get(part, [])], storage, figures[name])
    return figures


def available(python: str) -> list[str]:
    """Say which packages the environment has."""
    wanted = [*APPLICATIONS, "whitenoise"]
    program = f"import importlib.util, json; print(json.dumps([n for n in {wanted!r} if importlib.util.find_spec(n)]))"
    done = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True)
    found: list[str] = json.loads(done.stdout)
    return found


def _round(setting: Setting, applications: list[str], storage: str, costs: dict[str, list[Cost]]) -> None:
    with tempfile.TemporaryDirectory(prefix="daemun-bench-") as scratch:
        folder = Path(scratch) / "project"
        _write(folder, applications, storage)
        python = f"{setting.venv}/bin/python"
        django = [python, "manage.py", "collectstatic", "--noinput", "--verbosity", "0"]
        ours = [str(setting.daemun), "collect", ".", "--python", python]
        for who, command in (("collectstatic", django), ("daemun", ours)):
            _put_aside(folder / "out")
            costs.setdefault(f"{who}, first build", []).append(_cost(command, folder))
            costs.setdefault(f"{who}, second build", []).append(_cost(command, folder))
        _put_aside(folder / "out")
        costs.setdefault("daemun, empty folder, full cache", []).append(_cost(ours, folder))


def _write(folder: Path, applications: list[str], storage: str) -> None:
    """Write the smallest project that has something to collect."""
    folder.mkdir()
    text = SETTINGS.format(root=str(folder / "out"), storage=storage, applications=applications)
    (folder / "site_settings.py").write_text(text, "utf-8")
    wsgi = "from django.core.wsgi import get_wsgi_application\napplication = get_wsgi_application()\n"
    (folder / "wsgi.py").write_text(MODULE + wsgi, "utf-8")
    command = "import sys\nfrom django.core.management import execute_from_command_line\n"
    (folder / "manage.py").write_text(MODULE + command + "execute_from_command_line(sys.argv)\n", "utf-8")


def _cost(command: list[str], folder: Path) -> Cost:
    """Run a command; what it and all it starts cost."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=DEADLINE, check=False
    )
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - start
    if done.returncode or not any((folder / "out").iterdir()):
        raise CollectError(f"{command[0]}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    return Cost(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall)


def _put_aside(out: Path) -> None:
    """Make room for another build; a file system is slow to make files for seconds after many were removed."""
    if out.exists():
        out.rename(out.with_name(f"{out.name}-{len(list(out.parent.iterdir()))}"))
