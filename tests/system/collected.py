"""Projects whose static files are collected twice, by Django and by daemun, and the comparison of the two trees."""

from __future__ import annotations

import gzip
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from server import BINARY, ROOT, environment

# Compressing a framework's files with Django's own command, on a machine that does other things too.
COLLECTING = 600.0
# Made by scripts/require.
ENVIRONMENTS = Path(os.environ.get("DAEMUN_COLLECT_ENVIRONMENTS", ROOT / ".tools" / "collect"))

DJANGO = "django.contrib.staticfiles.storage."
WHITENOISE = "whitenoise.storage."
OURS = "daemun.django.storage."

MODULE = 'import os\nos.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")\n'
CONTRIB = ["admin", "auth", "contenttypes", "sessions", "messages", "staticfiles"]
SETTINGS = """\
import os
from pathlib import Path

import django

BASE_DIR = Path(__file__).parent.parent
SECRET_KEY = "of a test, and of no use elsewhere"
ALLOWED_HOSTS = ["*"]
INSTALLED_APPS = {apps!r}
STATIC_URL = "/static/"
STATIC_ROOT = os.environ.get("OUT") or BASE_DIR / "out"
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "db.sqlite3"}}}}
WAGTAIL_SITE_NAME = "shop"
WAGTAILADMIN_BASE_URL = "http://localhost"
if django.VERSION < (4, 2):
    STATICFILES_STORAGE = {storage!r}
else:
    STORAGES = {{
        "default": {{"BACKEND": "django.core.files.storage.FileSystemStorage"}},
        "staticfiles": {{"BACKEND": {storage!r}, "OPTIONS": {options!r}}},
    }}
{more}
"""


def python_of(name: str) -> Path:
    """Give the Python of an environment that scripts/require makes."""
    python = ENVIRONMENTS / name / "bin" / "python"
    assert python.exists(), f"{python} is not there; run:  scripts/require collect"
    return python


def make_project(folder: Path, storage: str, apps: Sequence[str] = (), more: str = "", options: object = None) -> Path:
    """Write a project with Django's admin and these applications."""
    (folder / "shop").mkdir(parents=True)
    every = [*(f"django.contrib.{name}" for name in CONTRIB), *apps]
    settings = SETTINGS.format(apps=every, storage=storage, options=options or {}, more=more)
    (folder / "shop" / "__init__.py").write_text("")
    (folder / "shop" / "settings.py").write_text(settings)
    wsgi = "from django.core.wsgi import get_wsgi_application\napplication = get_wsgi_application()\n"
    (folder / "shop" / "wsgi.py").write_text(MODULE + wsgi)
    manage = "import sys\nfrom django.core.management import execute_from_command_line\n"
    (folder / "manage.py").write_text(MODULE + manage + "execute_from_command_line(sys.argv)\n")
    return folder


def by_django(project: Path, python: Path, out: Path) -> Path:
    """Collect with `manage.py collectstatic`."""
    command = [str(python), "manage.py", "collectstatic", "--noinput", "--verbosity", "0"]
    done = subprocess.run(command, cwd=project, env=told(out), capture_output=True, text=True, timeout=COLLECTING)
    assert done.returncode == 0, done.stderr
    return out


def by_daemun(project: Path, python: Path, out: Path, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Collect with `daemun collect`."""
    command = [str(BINARY), "collect", str(project), "--python", str(python), *words]
    done = subprocess.run(command, cwd=project, env=told(out), capture_output=True, text=True, timeout=COLLECTING)
    assert done.returncode == code, done.stderr
    return done


def told(out: Path) -> dict[str, str]:
    """Give the environment that names the destination and knows our package."""
    return environment({"OUT": str(out), "PYTHONPATH": str(ROOT / "python")})


def tree(folder: Path) -> dict[str, bytes]:
    """Every file's name and bytes; of a gzip sibling, what it comes to."""
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: gzip.decompress(data) if name.endswith(".gz") else data for name, data in files.items()}


def assert_same(theirs: Path, ours: Path) -> None:
    """No file more, no file less, no byte different."""
    one, other = tree(theirs), tree(ours)
    assert sorted(one) == sorted(other)
    differ = [name for name in one if one[name] != other[name]]
    # A brotli sibling has no decoder in Python's library: with another encoder's version its bytes may differ.
    assert not [name for name in differ if not name.endswith(".br")]
    assert len(one) > 100
