"""`daemun check`: each mistake is found with code, file and line, and a healthy project has none."""

from __future__ import annotations

import importlib.util
import json
import os
import pwd
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
from conftest import manage
from server import BINARY, DEADLINE, ROOT, environment, run

SECRET = "SECRET_KEY = 'of a test 0123456789 abcdefghijklmnopqrstuvwxyz ABCDEFGHIJ'\n"
HEALTHY = (
    SECRET
    + """\
DEBUG = False
ALLOWED_HOSTS = ["example.com", "localhost"]
STATIC_ROOT = BASE_DIR / "staticfiles"
DATABASES["default"]["OPTIONS"] = {"transaction_mode": "IMMEDIATE"}
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"},
}
"""
)
PLAIN = HEALTHY.replace("ManifestStaticFilesStorage", "StaticFilesStorage")
SITE = '<!doctype html>\n{% load static %}\n<link rel="stylesheet" href="{% static "shop/site.css" %}">\n'

Finding = Mapping[str, object]
Make = Callable[..., Path]


def check(folder: Path, *words: str, env: Mapping[str, str] | None = None) -> tuple[int, dict[str, list[Finding]]]:
    """Give the exit code and what was found, by code."""
    done = run("check", ".", "--json", "--listen", "127.0.0.1:0", *words, cwd=folder, env=env)
    report = json.loads(done.stdout)
    found: dict[str, list[Finding]] = {}
    for finding in report["findings"]:
        # The tests themselves may run as root.
        if finding["code"] not in {"D410", "D406"}:
            found.setdefault(finding["code"], []).append(finding)
    assert set(found).isdisjoint(report["passed"])
    return done.returncode, found


def line_of(file: Path, text: str) -> int:
    """Count the lines up to a text."""
    before, found, _ = file.read_text().partition(text)
    assert found, text
    return before.count("\n") + 1


@pytest.fixture
def shop(tmp_path: Path) -> Make:
    """A Django project with an application that has a page and a style, settings appended, collected if asked for."""

    def make(settings: str = HEALTHY, collected: bool = True, files: Mapping[str, str] | None = None) -> Path:
        folder = tmp_path / "shop"
        folder.mkdir()
        manage(folder, "-m", "django", "startproject", "shop", ".")
        file = folder / "shop" / "settings.py"
        apps = 'INSTALLED_APPS += ["shop", "blog"]\n'
        file.write_text(file.read_text() + apps + settings)
        for name, text in {
            "blog/__init__.py": "",
            "shop/static/shop/site.css": "body { color: red }\n",
            "shop/templates/site.html": SITE,
        }.items():
            write(folder / name, text)
        if collected:
            manage(folder, "manage.py", "collectstatic", "--noinput", "--verbosity", "0")
        for name, text in (files or {}).items():
            write(folder / name, text)
        return folder

    return make


def write(path: Path, text: str) -> Path:
    """Write a file, and the folders above."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_a_healthy_project_has_no_mistake(shop: Make) -> None:
    code, found = check(shop())
    assert (code, found) == (0, {})


def test_a_new_project_is_told_what_keeps_it_from_production_and_no_more(tmp_path: Path) -> None:
    manage(tmp_path, "-m", "django", "startproject", "shop", ".")
    code, found = check(tmp_path)
    assert code == 0
    assert sorted(found) == ["D201", "D204", "D212"]


def test_a_project_with_split_settings_has_no_mistake(shop: Make) -> None:
    folder = shop()
    package = folder / "shop" / "settings"
    package.mkdir()
    (folder / "shop" / "settings.py").rename(package / "base.py")
    base = (package / "base.py").read_text().replace(".parent.parent", ".parent.parent.parent")
    (package / "base.py").write_text(base)
    write(package / "__init__.py", "")
    write(package / "production.py", "from .base import *\n")
    write(package / "local.py", "from .base import *\nDEBUG = True\n")
    for name, which in (("manage.py", "local"), ("shop/wsgi.py", "production")):
        text = (folder / name).read_text().replace("'shop.settings'", f"'shop.settings.{which}'")
        assert which in text
        (folder / name).write_text(text)
    assert check(folder) == (0, {})


def test_a_flask_application_has_no_mistake_and_what_is_djangos_did_not_run(flask: Path) -> None:
    assert check(flask) == (0, {})
    told = run("check", "app:app", "--listen", "127.0.0.1:0", cwd=flask).stdout
    assert "there is no Django project: D101 to D204, D206 to D217" in told
    assert "rules passed" in told


# Each: settings behind the healthy ones, the code, the text whose line is told, exit code.
SETTINGS = {
    "D101": ('STATICFILES_DIRS = [BASE_DIR / "all"]\nSTATIC_ROOT = BASE_DIR / "all" / "out"\n', "STATIC_ROOT = ", 1),
    "D102": ('STATIC_URL = "/static/"\nSTATIC_ROOT = "/static/"\n', "STATIC_ROOT = ", 1),
    "D103": ("STATIC_ROOT = None\n", "", 0),
    "D104": ("", "STATIC_ROOT = ", 0),
    "D109": ('STATICFILES_STORAGE = "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"\n', None, 0),
    "D109 default": ('DEFAULT_FILE_STORAGE = "django.core.files.storage.FileSystemStorage"\n', None, 0),
    "D111": ('STATIC_URL = "https://cdn.example.com/"\n', None, 0),
    "D112": ('MEDIA_URL = "/media"\n', None, 1),
    "D113": ('MEDIA_ROOT = STATIC_ROOT / "media"\nMEDIA_URL = "/media/"\n', "MEDIA_ROOT = ", 0),
    "D115": ('MIDDLEWARE = ["shop.wn.WhiteNoiseMiddleware"]\n', None, 0),
    "D116": ('MIDDLEWARE = ["django.middleware.gzip.GZipMiddleware", "shop.wn.WhiteNoiseMiddleware"]\n', None, 0),
    "D118": ('MEDIA_ROOT = BASE_DIR\nMEDIA_URL = "/media/"\n', "MEDIA_ROOT = ", 0),
    "D119": ('WHITENOISE_ROOT = BASE_DIR / "pubilc"\n', None, 0),
    "D120": ("WHITENOISE_ADD_HEADERS_FUNCTION = print\n", None, 0),
    "D121": ('STATICFILES_FINDERS = [*FINDERS, "shop.finder.Own"]\n', "", 0),
    "D201": ("DEBUG = True\n", "DEBUG = True\n", 0),
    "D202": ("ALLOWED_HOSTS = []\n", None, 1),
    "D204": ("SECRET_KEY = 'django-insecure-0123456789 abcdefghijklmnopqrstuvwxyz ABCDEFG'\n", None, 0),
    "D206": ('SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTOCOL", "https")\n', None, 0),
    "D207": ("SECURE_SSL_REDIRECT = True\n", None, 1),
    "D214": ('SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")\n', None, 0),
    "D214 cookies": ("SESSION_COOKIE_SECURE = True\n", None, 0),
    "D209": ('CSRF_TRUSTED_ORIGINS = ["example.com"]\n', None, 1),
}
OTHER_FINDER = """\
from django.contrib.staticfiles.finders import BaseFinder

class Own(BaseFinder):
    def check(self, **kwargs):
        return []

    def find(self, path, *args, **kwargs):
        return []

    def list(self, ignore_patterns):
        return []
"""


@pytest.mark.parametrize("name", SETTINGS)
def test_a_mistake_in_settings_is_found_on_its_line(shop: Make, name: str) -> None:
    settings, where, exit_code = SETTINGS[name]
    code = name[:4]
    settings = settings.replace("*FINDERS", '"django.contrib.staticfiles.finders.AppDirectoriesFinder"')
    folder = shop(PLAIN + "#\n" + settings, collected=False, files={"shop/finder.py": OTHER_FINDER})
    (folder / "all").mkdir()
    if code in {"D115", "D116"}:
        write(folder / "shop" / "wn.py", "def WhiteNoiseMiddleware(get_response):\n    return get_response\n")
    status, found = check(folder)
    # Nothing was collected in any of them.
    assert set(found) - {"D104", "D103", "D115"} | {code} == {code} | ({"D101"} & {code})
    assert status == exit_code, found
    file = folder / "shop" / "settings.py"
    text = settings if where is None else where
    assert found[code][0]["file"] == str(file)
    if text:
        last = file.read_text().rindex(text)
        assert found[code][0]["line"] == file.read_text()[:last].count("\n") + 1


def test_a_static_root_that_is_the_whole_file_system_is_told_once(shop: Make) -> None:
    folder = shop(PLAIN + 'STATIC_ROOT = "/"\n', collected=False)
    status, found = check(folder)
    assert status == 1
    [finding] = found["D102"]
    settings = folder / "shop" / "settings.py"
    assert (finding["file"], finding["line"]) == (str(settings), line_of(settings, 'STATIC_ROOT = "/"'))


def test_a_manifest_storage_without_its_manifest_is_an_error(shop: Make) -> None:
    status, found = check(shop(collected=False))
    assert status == 1
    assert list(found) == ["D106"]


def test_sources_that_were_edited_since_they_were_collected_are_told(shop: Make) -> None:
    folder = shop(files={"shop/static/shop/site.css": "body { color: blue }\n"})
    status, found = check(folder)
    assert (status, list(found)) == (0, ["D105"])
    assert "shop/site.css" in str(found["D105"][0]["message"])


def test_touched_sources_of_the_same_content_are_no_mistake(shop: Make) -> None:
    folder = shop()
    os.utime(folder / "shop" / "static" / "shop" / "site.css", (2_000_000_000, 2_000_000_000))
    assert check(folder) == (0, {})


BROKEN = """\
{# {% static "hidden.css" %} #}
{% comment %}
{% load staticfiles %}
{% endcomment %}
{% load static %}
{% static "shop/" %}{% static name %}
{% static 'shop/stie.css' %}
{% load i18n staticfiles %}
{% load admin_static %}
"""


@pytest.mark.parametrize(("settings", "code", "severity"), [(HEALTHY, "D107", "error"), (PLAIN, "D108", "warning")])
def test_templates_are_read_with_lines(shop: Make, settings: str, code: str, severity: str) -> None:
    folder = shop(settings, files={"shop/templates/broken.html": BROKEN})
    status, found = check(folder)
    assert status == 1
    assert sorted(found) == [code, "D110"]
    template = folder / "shop" / "templates" / "broken.html"
    [missing], [gone, also_gone] = found[code], found["D110"]
    assert (missing["file"], missing["line"], missing["severity"]) == (str(template), 7, severity)
    assert missing["mend"] == "write 'shop/site.css'"
    assert (gone["file"], gone["line"], gone["severity"]) == (str(template), 8, "error")
    assert (also_gone["file"], also_gone["line"], also_gone["severity"]) == (str(template), 9, "error")


def test_two_applications_with_one_file_are_told_unless_it_is_the_same(shop: Make) -> None:
    files = {"shop/static/a.css": "a{}", "blog/static/a.css": "b{}", "blog/static/shop/site.css": "x"}
    files["blog/static/shop/site.css"] = "body { color: red }\n"
    folder = shop(PLAIN, files=files)
    manage(folder, "manage.py", "collectstatic", "--noinput", "--verbosity", "0")
    status, found = check(folder)
    assert (status, list(found)) == (0, ["D114"])
    assert [one["file"] for one in found["D114"]] == [str(folder / "blog" / "static" / "a.css")]


def test_a_source_map_that_collecting_would_miss_is_told(shop: Make) -> None:
    folder = shop(files={"shop/static/shop/a.js": "let a;\n//# sourceMappingURL=a.js.map\n"})
    _, found = check(folder)
    [finding] = found["D117"]
    assert (finding["file"], finding["line"]) == (str(folder / "shop" / "static" / "shop" / "a.js"), 2)


def test_settings_that_manage_and_wsgi_do_not_share_are_told(shop: Make) -> None:
    folder = shop()
    manage_py = folder / "manage.py"
    manage_py.write_text(manage_py.read_text().replace("shop.settings", "oldshop.settings"))
    status, found = check(folder)
    assert (status, list(found)) == (0, ["D210"])
    wsgi = folder / "shop" / "wsgi.py"
    assert (found["D210"][0]["file"], found["D210"][0]["line"]) == (str(wsgi), line_of(wsgi, "os.environ.set"))


def test_a_project_without_its_key_is_told_so(shop: Make) -> None:
    folder = shop(HEALTHY + 'import os\nSECRET_KEY = os.environ["SHOP_SECRET_KEY"]\n', collected=False)
    status, found = check(folder)
    assert (status, list(found)) == (1, ["D205"])
    settings = folder / "shop" / "settings.py"
    assert (found["D205"][0]["file"], found["D205"][0]["line"]) == (str(settings), line_of(settings, "SECRET_KEY = os"))
    _, found = check(folder, "--env", "SHOP_SECRET_KEY=" + SECRET)
    assert "D205" not in found


DATABASE = """\
DATABASES["default"] = {"ENGINE": "shop.db.postgresql", "NAME": "shop", %s}
"""
WRAPPER = "from django.db.backends.sqlite3.base import DatabaseWrapper\n"


@pytest.mark.parametrize(
    ("written", "words", "codes", "exit_code"),
    [
        ('"CONN_MAX_AGE": 600', ["--processes", "8", "--threads", "4"], [], 0),
        ('"CONN_MAX_AGE": 600', ["--processes", "25", "--threads", "4"], ["D216"], 0),
        ('"OPTIONS": {"pool": {"max_size": 8}}', ["--processes", "4", "--threads", "8"], [], 0),
        ('"OPTIONS": {"pool": {"max_size": 4}}', ["--processes", "4", "--threads", "8"], ["D215"], 0),
        ('"OPTIONS": {"pool": True}', ["--processes", "30", "--threads", "4"], ["D216"], 0),
        ('"CONN_MAX_AGE": None, "OPTIONS": {"pool": True}', ["--processes", "2", "--threads", "4"], ["D217"], 1),
    ],
)
def test_connections_to_a_database_are_counted(
    shop: Make, written: str, words: list[str], codes: list[str], exit_code: int
) -> None:
    files = {"shop/db/__init__.py": "", "shop/db/postgresql/__init__.py": "", "shop/db/postgresql/base.py": WRAPPER}
    folder = shop(files=files)
    settings = folder / "shop" / "settings.py"
    settings.write_text(settings.read_text() + DATABASE % written)
    status, found = check(folder, *words)
    assert (status, list(found)) == (exit_code, codes)
    for code in codes:
        assert found[code][0]["line"] == line_of(settings, 'DATABASES["default"] = ')


def test_https_that_a_trusted_proxy_brings_needs_no_setting_and_one_of_its_own_is_no_loop(shop: Make) -> None:
    trusted = '[server]\ntrusted_proxies = ["127.0.0.1/32"]\n[app.shop]\ntarget = "."\n'
    secure = "SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = True\n"
    folder = shop(HEALTHY + secure, files={"daemun.toml": trusted})
    assert check(folder) == (0, {})
    (folder / "daemun.toml").unlink()
    assert list(check(folder)[1]) == ["D207"]
    # Whoever named a field that daemun passes on is told that anybody can send it, and no more.
    settings = folder / "shop" / "settings.py"
    settings.write_text(settings.read_text() + 'SECURE_PROXY_SSL_HEADER = ("HTTP_X_SCHEME", "https")\n')
    assert list(check(folder)[1]) == ["D206"]


def test_what_an_import_leaves_behind_is_told(tmp_path: Path) -> None:
    quiet = "def app(environ, start_response):\n    pass\n"
    write(tmp_path / "app.py", quiet)
    assert check(tmp_path) == (0, {})
    thread = "import threading\nthreading.Thread(target=threading.Event().wait, name='refresh', daemon=True).start()\n"
    child = "import os, signal\nif os.fork() == 0:\n    signal.alarm(60)\n    signal.pause()\n"
    for code, text, word in (
        ("D006", "print('hello from here')\n", "hello from here"),
        ("D007", thread, "refresh"),
        ("D008", child, "1 process"),
    ):
        write(tmp_path / "app.py", text + quiet)
        status, found = check(tmp_path)
        assert (status, list(found)) == (0, [code])
        assert word in str(found[code][0]["message"])


def test_a_virtual_environment_of_another_python_is_told(tmp_path: Path) -> None:
    write(tmp_path / "app.py", "import flask\n\ndef app(environ, start_response):\n    pass\n")
    venv = tmp_path / ".venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True, timeout=DEADLINE)
    own = next((venv / "lib").iterdir())
    write(own / "site-packages" / "flask.py", "")
    assert check(tmp_path, env={"VIRTUAL_ENV": ""}) == (0, {})
    own.rename(own.with_name("python3.5"))
    status, found = check(tmp_path, env={"VIRTUAL_ENV": ""})
    assert (status, sorted(found)) == (1, ["D002", "D005"])
    assert "has the packages of Python 3.5" in str(found["D005"][0]["message"])


def test_too_few_open_files_are_told(tmp_path: Path) -> None:
    write(tmp_path / "app.py", "def app(environ, start_response):\n    pass\n")
    words = f"ulimit -n 256; exec {BINARY} check app:app --listen 127.0.0.1:0"
    done = subprocess.run(
        ["sh", "-c", words], cwd=tmp_path, env=environment({}), capture_output=True, text=True, timeout=DEADLINE
    )
    assert done.returncode == 0
    assert "warning D406: " in done.stdout


def test_a_broken_import_is_told_with_its_line(tmp_path: Path) -> None:
    write(tmp_path / "app.py", "import nosuchmodule\napp = None\n")
    status, found = check(tmp_path)
    assert (status, list(found)) == (1, ["D002"])
    assert (found["D002"][0]["file"], found["D002"][0]["line"]) == (str(tmp_path / "app.py"), 1)


def test_a_virtual_environment_whose_interpreter_is_gone_is_told(tmp_path: Path) -> None:
    write(tmp_path / "app.py", "app = None\n")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "python").symlink_to("/nowhere/python3.1")
    status, found = check(tmp_path, env={"VIRTUAL_ENV": ""})
    assert (status, list(found)) == (1, ["D003"])


def test_a_fault_of_the_configuration_is_told_with_its_line(tmp_path: Path) -> None:
    write(tmp_path / "daemun.toml", '[server]\nlistne = "8000"\n')
    done = run("check", cwd=tmp_path)
    assert done.returncode == 1
    assert "daemun.toml:2: error D001:" in done.stdout
    assert "the configuration cannot be used: " in done.stdout


HOSTS = """\
[app.shop]
target = "."

[[site]]
hosts = ["example.com", "www.example.com"]
app = "shop"
"""


def test_a_served_host_that_is_not_allowed_and_a_redirect_to_and_fro_are_told(shop: Make) -> None:
    settings = HEALTHY + 'ALLOWED_HOSTS = ["example.org"]\nPREPEND_WWW = True\n'
    folder = shop(settings, files={"daemun.toml": HOSTS + '[[site]]\nhosts = ["example.org"]\napp = "shop"\n'})
    status, found = check(folder)
    assert (status, sorted(found)) == (1, ["D203", "D207"])
    assert "lacks example.com," in str(found["D203"][0]["message"])
    assert len(found["D203"]) == 1


def test_the_host_of_the_only_site_has_to_be_allowed_although_the_site_answers_any(shop: Make) -> None:
    more = '\n[[site.route]]\npath = "/admin/*"\napp = "shop"\n'
    folder = shop(HEALTHY + 'ALLOWED_HOSTS = ["example.org"]\n', files={"daemun.toml": HOSTS + more})
    status, found = check(folder)
    assert (status, sorted(found)) == (1, ["D203"])
    (one,) = found["D203"]
    assert "lacks example.com, which is served" in str(one["message"])


SCRIPTS = {
    "D301": ("#!/bin/sh\necho Content-Type: text/plain\n", 0o644, None, 1),
    "D302": ("#!/bin/sh\r\necho Content-Type: text/plain\r\n", 0o755, 1, 1),
    "D303": ("#!/opt/nowhere/perl\n", 0o755, 1, 1),
    "D304": ("print 1;\n", 0o755, 1, 1),
    "D305": ("\ufeff#!/bin/sh\n", 0o755, 1, 1),
    "D306": ("#!/bin/sh\necho Content-Type: text/plain\n", 0o757, None, 0),
    "D308": ("#!/bin/sh\necho hello\n", 0o755, None, 0),
}


@pytest.mark.parametrize("code", SCRIPTS)
def test_a_classic_mistake_in_a_script_is_found(tmp_path: Path, code: str) -> None:
    text, mode, line, exit_code = SCRIPTS[code]
    script = write(tmp_path / "cgi-bin" / "a.cgi", text)
    script.chmod(mode)
    good = write(tmp_path / "cgi-bin" / "good", "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'\n")
    good.chmod(0o755)
    write(tmp_path / "cgi-bin" / "README", "no script\n")
    write(tmp_path / "daemun.toml", '[[route]]\npath = "/cgi-bin/*"\ncgi = { root = "cgi-bin" }\n')
    status, found = check(tmp_path)
    assert (status, list(found)) == (exit_code, [code])
    assert (found[code][0]["file"], found[code][0]["line"]) == (str(script), line)


def test_what_is_not_for_visitors_in_a_static_root_is_told(tmp_path: Path) -> None:
    write(tmp_path / "daemun.toml", '[[route]]\npath = "/*"\nstatic = { root = "htdocs" }\n')
    write(tmp_path / "htdocs" / "index.html", "hello")
    assert check(tmp_path) == (0, {})
    for name in (".env", ".git/HEAD", "db.sqlite3", "page.php", "form.cgi"):
        write(tmp_path / "htdocs" / name, "#!/bin/sh\n")
    status, found = check(tmp_path)
    assert (status, sorted(found)) == (0, ["D307", "D409"])
    told = [Path(str(one["file"])).name for one in found["D409"]]
    assert told == [".env", ".git", "db.sqlite3", "page.php"]
    assert found["D307"][0]["file"] == str(tmp_path / "htdocs" / "form.cgi")


def test_a_port_in_use_is_told_with_who_has_it(tmp_path: Path) -> None:
    write(tmp_path / "app.py", "def app(environ, start_response):\n    pass\n")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("check", "app:app", "--port", str(port), cwd=tmp_path)
    assert done.returncode == 1
    assert f"error D401: 127.0.0.1:{port} is in use by " in done.stdout
    assert f"(pid {os.getpid()})" in done.stdout


def test_an_address_of_another_machine_is_told(tmp_path: Path) -> None:
    write(tmp_path / "app.py", "def app(environ, start_response):\n    pass\n")
    done = run("check", "app:app", "--listen", "192.0.2.1:8000", cwd=tmp_path)
    assert done.returncode == 1
    assert "error D402: 192.0.2.1:8000 cannot be listened on" in done.stdout


CERTIFIED = """\
[server]
listen = ["https://127.0.0.1:0"]

[[tls]]
hosts = ["www.example.com"]
cert = "cert.pem"
key = "key.pem"

[app.app]
wsgi = "app:app"
"""


@pytest.mark.parametrize(("days", "severity", "exit_code"), [(3, "warning", 0), (400, None, 0)])
def test_a_certificate_is_read(tmp_path: Path, days: int, severity: str | None, exit_code: int) -> None:
    write(tmp_path / "app.py", "def app(environ, start_response):\n    pass\n")
    write(tmp_path / "daemun.toml", CERTIFIED)
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    name = ["-subj", "/CN=example.com", "-addext", "subjectAltName=DNS:example.com", "-days", str(days)]
    files = ["-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run([*make, *name, *files], cwd=tmp_path, check=True, capture_output=True, timeout=DEADLINE)
    done = run("check", "--json", cwd=tmp_path)
    found = {one["code"]: one for one in json.loads(done.stdout)["findings"] if one["code"] != "D410"}
    assert done.returncode == exit_code
    assert "D411" in found
    assert found.get("D403", {}).get("severity") == severity
    assert found["D411"]["file"] == "daemun.toml"
    assert found["D411"]["line"] == 4


def test_routes_that_are_never_asked_and_balancers_that_wait_longer_are_told(shop: Make) -> None:
    more = '[server]\ntrusted_proxies = ["10.0.0.0/8"]\nkeep_alive = "15s"\n' + HOSTS
    more += '[app.wiki]\nwsgi = "shop.wsgi:application"\n'
    more += '[[route]]\npath = "/blog/*"\nrespond = { body = "blog" }\n'
    _, found = check(shop(files={"daemun.toml": more}))
    assert sorted(set(found) - {"D203"}) == ["D404", "D405", "D412"]
    assert found["D404"][0]["file"] == "daemun.toml"
    assert isinstance(found["D404"][0]["line"], int)


def test_cookies_in_the_clear_are_told_where_all_is_https(shop: Make) -> None:
    folder = shop(files={"daemun.toml": CERTIFIED.replace('wsgi = "app:app"', 'target = "."')})
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "400"]
    name = ["-subj", "/CN=www.example.com", "-addext", "subjectAltName=DNS:www.example.com"]
    files = ["-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run([*make, *name, *files], cwd=folder, check=True, capture_output=True, timeout=DEADLINE)
    done = run("check", "--json", cwd=folder)
    codes = [one["code"] for one in json.loads(done.stdout)["findings"] if one["code"] != "D410"]
    assert codes == ["D208", "D208"]


@pytest.fixture
def elsewhere() -> Iterator[Path]:
    """A folder that another user can enter."""
    if os.geteuid() != 0:
        pytest.skip("only root can run an application as another user")
    folder = Path(tempfile.mkdtemp(prefix="daemun-check-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_what_the_applications_user_may_not_write_and_what_it_may_are_told(elsewhere: Path) -> None:
    manage(elsewhere, "-m", "django", "startproject", "shop", ".")
    media = 'MEDIA_ROOT = BASE_DIR / "media"\nMEDIA_URL = "/media/"\nMEDIA_ROOT.mkdir(exist_ok=True)\n'
    settings = elsewhere / "shop" / "settings.py"
    settings.write_text(settings.read_text() + PLAIN + media)
    manage(elsewhere, "manage.py", "migrate", "--verbosity", "0")
    manage(elsewhere, "manage.py", "collectstatic", "--noinput", "--verbosity", "0")
    configuration = write(elsewhere / "daemun.toml", '[server]\nuser = "nobody"\n[app.shop]\ntarget = "."\n')
    nobody = pwd.getpwnam("nobody")
    os.chown(configuration, nobody.pw_uid, nobody.pw_gid)
    (elsewhere / "media").chmod(stat.S_IRWXU)
    # An interpreter and a Django that every user can read.
    python = shutil.which("python3", path="/usr/bin:/bin:/usr/local/bin")
    assert python, "this test needs a python3 of the system"
    for name in ("django", "asgiref", "sqlparse"):
        source = importlib.util.find_spec(name)
        assert source is not None
        assert source.submodule_search_locations is not None
        left_out = shutil.ignore_patterns("__pycache__")
        shutil.copytree(source.submodule_search_locations[0], elsewhere / "lib" / name, ignore=left_out)
    status, found = check(elsewhere, "--python", python, env={"PYTHONPATH": str(elsewhere / "lib")})
    assert status == 1
    assert {"D211", "D213", "D407", "D408"} <= set(found), found
    assert "cannot be written by user nobody" in str(found["D211"][0]["message"])
    assert found["D408"][0]["file"] == str(configuration)
    # A database that may be written does not help where its journal cannot be made beside it.
    os.chown(elsewhere / "db.sqlite3", nobody.pw_uid, nobody.pw_gid)
    _, found = check(elsewhere, "--python", python, env={"PYTHONPATH": str(elsewhere / "lib")})
    assert "the folder of the SQLite database" in str(found["D211"][0]["message"])
    # Nor is a program safe that the applications' user may replace.
    own = shutil.copy(BINARY, elsewhere / "daemun")
    os.chown(own, nobody.pw_uid, nobody.pw_gid)
    words = [own, "check", ".", "--json", "--python", python]
    env = environment({"PYTHONPATH": str(elsewhere / "lib")})
    done = subprocess.run(words, cwd=elsewhere, env=env, capture_output=True, text=True, timeout=DEADLINE)
    told = [one["file"] for one in json.loads(done.stdout)["findings"] if one["code"] == "D408"]
    assert str(own) in told


def test_an_interpreter_that_the_applications_user_cannot_run_is_told(elsewhere: Path) -> None:
    write(elsewhere / "app.py", "app = None\n")
    python = elsewhere / "closed" / "python3"
    python.parent.mkdir(mode=0o700)
    python.symlink_to(sys.executable)
    status, found = check(elsewhere, "--user", "nobody", "--python", str(python))
    assert (status, list(found)) == (1, ["D002"])
    assert "cannot be run" in str(found["D002"][0]["message"])


def test_an_application_that_would_run_as_root_is_told(elsewhere: Path) -> None:
    write(elsewhere / "app.py", "def app(environ, start_response):\n    pass\n")
    found = json.loads(run("check", "--json", "--listen", "127.0.0.1:0", cwd=elsewhere).stdout)["findings"]
    assert [one["code"] for one in found if one["code"].startswith("D4")] == ["D410"]


def test_folders_that_the_front_cannot_enter_are_told(elsewhere: Path) -> None:
    for name in ("files", "sheets"):
        write(elsewhere / name / "a.xsl", "<x/>")
    write(
        elsewhere / "daemun.toml",
        '[[route]]\npath = "/*"\nstatic = { root = "files" }\nxslt = { stylesheet = "sheets/a.xsl" }\n',
    )
    assert check(elsewhere) == (0, {})
    for name in ("files", "sheets"):
        (elsewhere / name).chmod(0o700)
    status, found = check(elsewhere)
    assert (status, list(found)) == (0, ["D407"])
    assert [name for one in found["D407"] for name in ("files", "sheets") if f"/{name} has mode 700" in str(one)] == [
        "files",
        "sheets",
    ]


def test_manage_py_check_tells_the_same(shop: Make) -> None:
    folder = shop(files={"shop/templates/broken.html": BROKEN})
    with (folder / "shop" / "settings.py").open("a") as file:
        file.write('INSTALLED_APPS += ["daemun.django"]\n')
    done = subprocess.run(
        [sys.executable, "manage.py", "check", "--deploy"],
        cwd=folder,
        env=environment({"PYTHONPATH": str(ROOT / "python")}),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == 1
    assert "(daemun.D107)" in done.stderr
    assert "(daemun.D110)" in done.stderr
    assert "broken.html:8)" in done.stderr


def test_the_warnings_at_start_have_the_same_codes(shop: Make) -> None:
    folder = shop(PLAIN + "DEBUG = True\n")
    from server import Server

    with Server(cwd=folder) as server:
        assert "settings.py:" in server.start_up
        assert "[D201]" in server.start_up


def test_help_explains_codes_and_commands(tmp_path: Path) -> None:
    told = run("help", "d106", cwd=tmp_path)
    assert told.returncode == 0
    assert told.stdout.startswith("D106 (error): ")
    assert "Cause: " in told.stdout
    assert "Mend: " in told.stdout
    assert "Usage: daemun serve" in run("help", "serve", cwd=tmp_path).stdout
    wrong = run("help", "D1O6", cwd=tmp_path)
    assert wrong.returncode == 2
    assert "no command or code" in wrong.stderr
