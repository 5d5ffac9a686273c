"""What the zygote finds out about a Django project, asked of a generated one."""

import subprocess
import sys

import pytest
import support

# The tests' own interpreter has it (requirements-dev.txt); another one that is chosen may not.
pytestmark = pytest.mark.skipif(
    sys.executable != support.PYTHON
    and subprocess.run([support.PYTHON, "-c", "import django"], capture_output=True, check=False).returncode != 0,
    reason="the interpreter under test has no Django",
)

WSGI = """
import os
from django.core.wsgi import get_wsgi_application
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings")
application = get_wsgi_application()
"""
MANAGE = """
import os
def main():
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "mysite.settings_dev")
"""
SETTINGS = """
from pathlib import Path
BASE_DIR = Path(__file__).resolve().parent.parent
SECRET_KEY = "x"
DEBUG = False
ALLOWED_HOSTS = ["example.test"]
INSTALLED_APPS = ["django.contrib.staticfiles", "shop"]
MIDDLEWARE = ["django.middleware.common.CommonMiddleware"]
ROOT_URLCONF = "mysite.urls"
STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "collected"
STATICFILES_DIRS = [BASE_DIR / "assets", ("vendor", BASE_DIR / "third")]
MEDIA_URL = "/media/"
MEDIA_ROOT = BASE_DIR / "uploads"
"""
MANIFEST = """
import django
if django.VERSION >= (4, 2):
    STORAGES = {
        "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"},
    }
else:
    STATICFILES_STORAGE = "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"
"""
URLS = """
from django.http import HttpResponse, StreamingHttpResponse, FileResponse
from django.urls import path
urlpatterns = [
    path("", lambda request: HttpResponse("hello")),
    path("stream", lambda request: StreamingHttpResponse(iter(["a", "b"]))),
    path("file", lambda request: FileResponse(open(__file__, "rb"))),
    path("post", lambda request: HttpResponse(request.body)),
]
"""
FINDER = """
from django.contrib.staticfiles.finders import BaseFinder
class Own(BaseFinder):
    def find(self, path, *args, **kwargs): return []
    def list(self, ignore_patterns): return []
"""


@pytest.fixture
def project(tmp_path, start):
    """`project(settings)` generates a project and returns a supervisor for it."""

    def generate(settings=SETTINGS, **orders):
        for name in ("mysite", "shop", "shop/static", "assets", "third"):
            (tmp_path / name).mkdir()
        for name in ("mysite", "shop"):
            (tmp_path / name / "__init__.py").touch()
        (tmp_path / "mysite/wsgi.py").write_text(WSGI)
        (tmp_path / "mysite/settings.py").write_text(settings)
        (tmp_path / "mysite/settings_dev.py").write_text("from .settings import *\nDEBUG = True\n")
        (tmp_path / "mysite/urls.py").write_text(URLS)
        (tmp_path / "manage.py").write_text(MANAGE)
        (tmp_path / "shop/whitenoise.py").write_text("def middleware(get_response): return get_response\n")
        (tmp_path / "shop/finders.py").write_text(FINDER)
        return start(target="mysite.wsgi:application", django=True, **orders)

    return generate


def test_a_project_is_described(project, tmp_path):
    ready = project().ready()
    assert "django_error" not in ready
    assert (ready["settings_module"], ready["settings_reason"]) == ("mysite.settings", "set by mysite/wsgi.py")
    found = ready["django"]
    assert found["version"]
    lines = found.pop("lines")
    assert lines["STATIC_URL"] == 1 + SETTINGS.split("\n").index('STATIC_URL = "static/"')
    expected = {
        "debug": False,
        "allowed_hosts": ["example.test"],
        "static_url": "/static/",
        "static_root": f"{tmp_path}/collected",
        "media_url": "/media/",
        "media_root": f"{tmp_path}/uploads",
        "staticfiles_installed": True,
        "storage": "django.contrib.staticfiles.storage.StaticFilesStorage",
        "storage_needs_manifest": False,
        "manifest_path": None,
        "manifest_exists": False,
        "manifest_strict": False,
        "finders": [
            {"prefix": "", "path": f"{tmp_path}/assets", "application": None},
            {"prefix": "vendor", "path": f"{tmp_path}/third", "application": None},
            {"prefix": "", "path": f"{tmp_path}/shop/static", "application": "shop"},
        ],
        "other_finders": [],
        "settings_file": f"{tmp_path}/mysite/settings.py",
        "dead_settings": [],
        "whitenoise": False,
    }
    assert {key: found[key] for key in expected} == expected


def test_a_manifest_that_is_missing_is_told(project, tmp_path):
    found = project(SETTINGS + MANIFEST).ready()["django"]
    assert found["storage_needs_manifest"] is True
    assert found["manifest_strict"] is True
    assert found["manifest_path"] == f"{tmp_path}/collected/staticfiles.json"
    assert found["manifest_exists"] is False


def test_a_manifest_that_is_there_is_told(project, tmp_path):
    (tmp_path / "collected").mkdir()
    (tmp_path / "collected/staticfiles.json").write_text('{"version": "1.0", "paths": {}}')
    assert project(SETTINGS + MANIFEST).ready()["django"]["manifest_exists"] is True


def test_a_manifest_that_cannot_be_read_is_told(project, tmp_path):
    (tmp_path / "collected").mkdir()
    (tmp_path / "collected/staticfiles.json").write_text("{")
    ready = project(SETTINGS + MANIFEST).ready()
    assert "manifest" in ready["django_error"]
    assert ready["django"]["storage_needs_manifest"] is True


def test_a_manifest_storage_without_a_root_does_not_fail_the_start(project):
    found = project((SETTINGS + MANIFEST).replace("STATIC_ROOT =", "NOTHING =")).ready()["django"]
    assert found["storage_needs_manifest"] is True
    assert (found["static_root"], found["manifest_path"]) == (None, None)


def test_dead_settings_and_whitenoise_are_named(project):
    extra = 'STATICFILES_STORAGE = "anything"\nMIDDLEWARE.append("shop.whitenoise.middleware")\n'
    found = project(SETTINGS + extra).ready()["django"]
    assert found["whitenoise"] is True
    if int(found["version"].split(".")[0]) > 5 or found["version"] >= "5.1":
        assert found["dead_settings"] == ["STATICFILES_STORAGE"]


def test_settings_of_whitenoise_are_told(project, tmp_path):
    extra = """
WHITENOISE_ROOT = BASE_DIR / "root" if "BASE_DIR" in globals() else "/srv/root"
WHITENOISE_MAX_AGE = None
WHITENOISE_INDEX_FILE = True
WHITENOISE_MIMETYPES = {".x": "x/x"}
WHITENOISE_ALLOW_ALL_ORIGINS = False
WHITENOISE_IMMUTABLE_FILE_TEST = lambda path, url: True
"""
    found = project(SETTINGS + extra).ready()["django"]["whitenoise_settings"]
    assert found["root"].endswith("/root")
    del found["root"]
    assert found == {
        "static_prefix": None,
        "max_age": -1,
        "index_file": "index.html",
        "mimetypes": {".x": "x/x"},
        "allow_all_origins": False,
        "unsupported": ["WHITENOISE_IMMUTABLE_FILE_TEST"],
    }


def test_finders_that_are_no_folders_are_named(project):
    finders = 'STATICFILES_FINDERS = ["django.contrib.staticfiles.finders.AppDirectoriesFinder", "shop.finders.Own"]\n'
    found = project(SETTINGS + finders).ready()["django"]
    assert found["other_finders"] == ["shop.finders.Own"]
    assert [folder["path"].rpartition("/")[2] for folder in found["finders"]] == ["static"]


def test_a_question_that_fails_is_told_and_the_others_are_answered(project):
    ready = project(SETTINGS + 'STATICFILES_FINDERS = ["shop.missing.Finder"]\n').ready()
    assert "shop.missing" in ready["django_error"]
    assert ready["django"]["static_url"] == "/static/"


def test_dev_takes_the_settings_of_manage(project):
    ready = project(settings_from="manage").ready()
    assert (ready["settings_module"], ready["settings_reason"]) == ("mysite.settings_dev", "set by manage.py")
    assert ready["django"]["debug"] is True


def test_the_environment_chooses_the_settings_first(project):
    ready = project(settings_from="manage", env={"DJANGO_SETTINGS_MODULE": "mysite.settings"}).ready()
    assert (ready["settings_module"], ready["settings_reason"]) == ("mysite.settings", "DJANGO_SETTINGS_MODULE")


def test_a_project_answers(project):
    supervisor = project()
    supervisor.ready()
    supervisor.fork()
    lane = supervisor.front.accept()
    answer = lane.ask("/")
    assert (answer.status, answer.body, answer.kinds) == ("200 OK", b"hello", [support.ANSWER])
    assert lane.ask("/stream").body == b"ab"
    assert lane.ask("/file").kinds == [support.HEAD, support.FILE, support.DONE]
    assert lane.ask("/missing").status == "404 Not Found"
    assert lane.ask("/", HTTP_HOST="other.test").status == "400 Bad Request"
