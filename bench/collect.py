"""What it costs to deploy static files: `daemun collect` beside `manage.py collectstatic`, CPU and wall seconds.

    python3 bench/collect.py [--python VENV/bin/python] [--daemun target/release/daemun] [--rounds 3]

The environment needs Django, Wagtail, Django REST framework, whitenoise and Brotli: about 240 files. Without one, it is
made in `.bench/collect`. Each row is the sum over the whole process tree, interpreter included.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STORAGES = {
    "without compression": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage",
    "gzip 9, brotli 11": "whitenoise.storage.CompressedManifestStaticFilesStorage",
}

PACKAGES = ["django", "wagtail", "djangorestframework", "whitenoise", "Brotli"]

SETTINGS = """
SECRET_KEY = "not a secret: nothing is served"
STATIC_URL = "/static/"
STATIC_ROOT = {root!r}
INSTALLED_APPS = [
    *("wagtail.admin", "wagtail.images", "wagtail.documents", "wagtail.users", "wagtail.search", "wagtail", "taggit"),
    *("modelcluster", "rest_framework", "django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes"),
    *("django.contrib.sessions", "django.contrib.messages", "django.contrib.staticfiles"),
]
WAGTAIL_SITE_NAME = "bench"
WAGTAILADMIN_BASE_URL = "http://localhost"
STORAGES = {{
    "default": {{"BACKEND": "django.core.files.storage.FileSystemStorage"}},
    "staticfiles": {{"BACKEND": {storage!r}}},
}}
"""

MODULE = 'import os\nos.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_settings")\n'


def make_environment() -> str:
    """Make the environment, which is kept between runs."""
    folder = Path(__file__).parent.parent / ".bench" / "collect"
    python = folder / "bin" / "python"
    if not (folder / "made").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *PACKAGES], check=True)
        (folder / "made").touch()
    return str(python)


def make_project(folder: Path, storage: str) -> None:
    """Write the smallest project that has something to collect."""
    folder.mkdir()
    (folder / "site_settings.py").write_text(SETTINGS.format(root=str(folder / "out"), storage=storage))
    wsgi = "from django.core.wsgi import get_wsgi_application\napplication = get_wsgi_application()\n"
    (folder / "wsgi.py").write_text(MODULE + wsgi)
    command = "import sys\nfrom django.core.management import execute_from_command_line\n"
    (folder / "manage.py").write_text(MODULE + command + "execute_from_command_line(sys.argv)\n")


def cost(command: list[str], folder: Path) -> tuple[float, float]:
    """CPU and wall seconds of a command and all it starts."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    after, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - start
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def put_aside(out: Path) -> None:
    """Make room for another build; a file system is slow to make files for seconds after many were removed."""
    if out.exists():
        out.rename(out.with_name(f"{out.name}-{len(list(out.parent.iterdir()))}"))


def measure(name: str, storage: str, words: argparse.Namespace) -> None:
    """Print one block: both programs, cold and again."""
    rows: dict[str, list[tuple[float, float]]] = {}
    for _ in range(words.rounds):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "project"
            make_project(folder, storage)
            python = os.path.abspath(words.python)  # noqa: PTH100 - a link out of the environment must stay one
            django = [python, "manage.py", "collectstatic", "--noinput", "--verbosity", "0"]
            ours = [str(Path(words.daemun).resolve()), "collect", ".", "--python", python]
            for who, command in (("collectstatic", django), ("daemun", ours)):
                put_aside(folder / "out")
                rows.setdefault(f"{who}, first build", []).append(cost(command, folder))
                rows.setdefault(f"{who}, second build", []).append(cost(command, folder))
                if who == "daemun":
                    put_aside(folder / "out")
                    rows.setdefault("daemun, empty folder, full cache", []).append(cost(command, folder))
    print(f"{name}\n{'':36}   CPU s  wall s")
    for row, costs in rows.items():
        cpu, wall = (statistics.median(column) for column in zip(*costs, strict=True))
        print(f"  {row:34} {cpu:7.2f} {wall:7.2f}")


def main() -> None:
    """Measure each storage."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--python", help="interpreter of an environment with the packages (default: made here)")
    parser.add_argument("--daemun", default="target/release/daemun")
    parser.add_argument("--rounds", type=int, default=3)
    words = parser.parse_args()
    words.python = words.python or make_environment()
    for name, storage in STORAGES.items():
        measure(name, storage, words)


if __name__ == "__main__":
    main()
