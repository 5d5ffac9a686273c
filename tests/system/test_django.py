"""A Django project as it lies there, served without a word about static files."""

from __future__ import annotations

import gzip
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

from server import Answer, Server, run

Startproject = Callable[..., Path]

DEPLOYED = "DEBUG = False\nALLOWED_HOSTS = ['localhost', '127.0.0.1']\n"
MANIFEST = """\
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"},
}
STATIC_ROOT = BASE_DIR / "staticfiles"
"""


def stylesheets(page: Answer) -> list[str]:
    """What a page links as its styles."""
    found = re.findall(r'<link[^>]*rel="stylesheet"[^>]*>', page.text)
    return [match[1] for link in found if (match := re.search(r'href="([^"]+)"', link))]


def assert_styled(server: Server, path: str = "/admin/login/") -> list[Answer]:
    """Each style sheet of a page comes, and as CSS."""
    page = server.get(path)
    assert page.status == 200
    links = stylesheets(page)
    assert links
    sheets = [server.get(link) for link in links]
    for link, sheet in zip(links, sheets, strict=True):
        assert sheet.status == 200, link
        assert sheet.headers["Content-Type"].startswith("text/css"), link
        assert sheet.body, link
    return sheets


def test_an_untouched_project_has_its_styles(startproject: Startproject) -> None:
    project = startproject()
    with Server(project, cwd=project.parent) as server:
        assert "The install worked successfully" in server.get("/").text
        assert_styled(server)
        assert sys.prefix in server.start_up, "the interpreter and why it was chosen"
        assert "shop.settings" in server.start_up
        assert "/static/" in server.start_up


def test_without_debug_and_static_root_the_styles_come_from_the_finders(startproject: Startproject) -> None:
    project = startproject(DEPLOYED)
    with Server(project, cwd=project) as server:
        for sheet in assert_styled(server):
            assert "immutable" not in (sheet.headers["Cache-Control"] or "")
        assert len(re.findall(r"(?i)warning.*finders|finders.*warning", server.start_up)) == 1, server.start_up


def test_a_manifest_storage_without_its_manifest_is_named_with_the_mend(startproject: Startproject) -> None:
    project = startproject(DEPLOYED + MANIFEST)
    with Server(project, cwd=project) as server:
        assert "manifest" in server.start_up
        assert "--collect" in server.start_up


def test_collect_makes_the_manifest_and_hashed_names_are_kept_for_good(startproject: Startproject) -> None:
    project = startproject(DEPLOYED + MANIFEST)
    with Server(project, "--collect", cwd=project) as server:
        page = server.get("/admin/login/")
        assert page.status == 200
        assert all(re.search(r"\.[0-9a-f]{12}\.css$", link) for link in stylesheets(page))
        for sheet in assert_styled(server):
            assert "immutable" in sheet.headers["Cache-Control"]
        plain = server.get("/static/admin/css/base.css")
        assert plain.status == 200
        assert "immutable" not in (plain.headers["Cache-Control"] or "")
    assert (project / "staticfiles" / "staticfiles.json").exists()


def test_files_that_cannot_be_collected_end_the_start_with_the_cause(startproject: Startproject) -> None:
    project = startproject(DEPLOYED)
    done = run("serve", project, "--collect", "--listen", "127.0.0.1:0", cwd=project)
    assert done.returncode == 1
    assert re.search(r"shop/settings\.py:\d+: STATIC_ROOT is not set; paste STATIC_ROOT = ", done.stderr)
    assert "Traceback" not in done.stderr
    assert "collect exited with code 1" in done.stderr.splitlines()[-1]
    assert done.stdout == ""


def test_a_style_sheet_that_the_browser_has_is_not_sent_again(startproject: Startproject) -> None:
    project = startproject()
    with Server(project, cwd=project) as server:
        sheet = server.get("/static/admin/css/base.css")
        again = server.get("/static/admin/css/base.css", {"If-None-Match": sheet.headers["ETag"]})
        assert (again.status, again.body) == (304, b"")


def test_empty_allowed_hosts_are_foretold_with_the_line_to_paste(startproject: Startproject) -> None:
    project = startproject("DEBUG = False\n")
    with Server(project, cwd=project) as server:
        assert re.search(r"ALLOWED_HOSTS = \[.+\]", server.start_up), server.start_up
        assert "settings.py" in server.start_up
        assert server.get("/").status == 400


def test_the_settings_are_those_of_the_wsgi_module(startproject: Startproject) -> None:
    project = startproject(below="cookie")
    package = project / "shop"
    settings = (package / "settings.py").read_text()
    (package / "settings.py").unlink()
    (package / "settings").mkdir()
    (package / "settings" / "__init__.py").touch()
    (package / "settings" / "base.py").write_text(settings.replace(".parent.parent", ".parent.parent.parent"))
    (package / "settings" / "local.py").write_text("from .base import *\n")
    (package / "settings" / "production.py").write_text(f"from .base import *\n{DEPLOYED}STATIC_URL = '/files/'\n")
    for name, kind in [("manage.py", "local"), ("shop/wsgi.py", "production")]:
        file = project / name
        file.write_text(file.read_text().replace("shop.settings", f"shop.settings.{kind}"))
    with Server(project, cwd=project) as server:
        assert "shop.settings.production" in server.start_up
        assert "shop.settings.local" not in server.start_up
        assert_styled(server)
        assert server.get("/files/admin/css/base.css").status == 200
        assert server.get("/static/admin/css/base.css").status == 404
    with Server(project, cwd=project, env={"DJANGO_SETTINGS_MODULE": "shop.settings.local"}) as server:
        assert "shop.settings.local" in server.start_up
        assert server.get("/static/admin/css/base.css").status == 200


def test_manage_py_may_lie_one_folder_down(startproject: Startproject) -> None:
    project = startproject(below="repository/src")
    with Server(cwd=project.parent) as server:
        assert_styled(server)


def test_the_database_and_the_sources_are_never_sent(startproject: Startproject) -> None:
    project = startproject()
    with Server(project, cwd=project) as server:
        for path in [
            "/db.sqlite3",
            "/manage.py",
            "/shop/settings.py",
            "/static/../db.sqlite3",
            "/static/%2e%2e/manage.py",
        ]:
            answer = server.get(path)
            assert answer.status in {400, 404}, path
            assert b"SQLite format" not in answer.body


def test_a_project_that_cannot_be_imported_ends_with_its_traceback(startproject: Startproject) -> None:
    project = startproject()
    module = project / "shop" / "wsgi.py"
    module.write_text("import a_module_that_is_not_there\n" + module.read_text())
    done = run("serve", project, "--listen", "127.0.0.1:0", cwd=project)
    assert done.returncode == 1
    assert "a_module_that_is_not_there" in done.stderr
    assert "Traceback" in done.stderr
    assert "daemun_worker.py" not in done.stderr, "the project's own frames only"


def test_uploads_are_never_run_with_the_origin_of_the_site(startproject: Startproject) -> None:
    project = startproject("MEDIA_URL = 'media/'\nMEDIA_ROOT = BASE_DIR / 'uploads'\n")
    uploads = project / "uploads"
    uploads.mkdir()
    for name in ["a.html", "a.svg", "a.php", "a.py", "a.png"]:
        (uploads / name).write_text("<script>steal()</script>")
    with Server(project, cwd=project) as server:
        for name in ["a.html", "a.svg"]:
            answer = server.get(f"/media/{name}")
            assert (answer.status, answer.headers["Content-Security-Policy"][-7:]) == (200, "sandbox")
        picture = server.get("/media/a.png")
        assert (picture.headers["Content-Security-Policy"], picture.headers["X-Content-Type-Options"]) == (
            None,
            "nosniff",
        )
        for name in ["a.php", "a.py"]:
            assert server.get(f"/media/{name}").status == 404


def test_what_whitenoise_was_told_is_followed(startproject: Startproject) -> None:
    project = startproject(
        DEPLOYED
        + MANIFEST
        + "STATIC_URL = 'https://cdn.example.com/assets/'\nWHITENOISE_ROOT = BASE_DIR / 'root'\n"
        + "WHITENOISE_MAX_AGE = 5\nWHITENOISE_MIMETYPES = {'.txt': 'text/x-own'}\n"
        + "WHITENOISE_IMMUTABLE_FILE_TEST = 'x'\n"
    )
    (project / "root" / "deep").mkdir(parents=True)
    (project / "root" / "robots.txt").write_text("robots")
    (project / "root" / "deep" / "a.txt").write_text("deep")
    with Server(project, "--collect", cwd=project) as server:
        assert "path of STATIC_URL https://cdn.example.com/assets/" in server.start_up
        assert "WHITENOISE_IMMUTABLE_FILE_TEST is not followed" in server.start_up
        robots = server.get("/robots.txt")
        assert (robots.text, robots.headers["Content-Type"]) == ("robots", "text/x-own")
        assert robots.headers["Cache-Control"] == "public, max-age=5"
        assert server.get("/deep/a.txt").text == "deep"
        names = json.loads((project / "staticfiles" / "staticfiles.json").read_text())["paths"]
        hashed = server.get("/assets/" + names["admin/css/base.css"])
        assert hashed.headers["Cache-Control"] == "public, max-age=31536000, immutable"
        assert hashed.headers["Access-Control-Allow-Origin"] == "*"
        plain = server.get("/assets/admin/css/base.css")
        assert (plain.status, plain.headers["Cache-Control"]) == (200, "public, max-age=5")


def test_files_that_were_compressed_beforehand_are_sent_so(startproject: Startproject) -> None:
    project = startproject(DEPLOYED + MANIFEST)
    with Server(project, "--collect", cwd=project) as server:
        names = json.loads((project / "staticfiles" / "staticfiles.json").read_text())["paths"]
        name = names["admin/css/base.css"]
        content = server.get("/static/" + name).body
        assert server.stop() == 0
    file = project / "staticfiles" / name
    file.with_name(file.name + ".gz").write_bytes(gzip.compress(content))
    with Server(project, cwd=project) as server:
        packed = server.get("/static/" + name, {"Accept-Encoding": "gzip"})
        assert (packed.headers["Content-Encoding"], packed.headers["Vary"]) == ("gzip", "Accept-Encoding")
        assert gzip.decompress(packed.body) == content
        assert "immutable" in packed.headers["Cache-Control"]


VIEWS = """
import os
from django.http import HttpResponse
from django.urls import path

BORN = os.getpid()
urlpatterns = [path("", lambda request: HttpResponse("before" if BORN != os.getpid() else "after"))]
"""


def test_views_are_imported_once_and_before_workers_are_forked(startproject: Startproject) -> None:
    folder = startproject(DEPLOYED)
    (folder / "shop" / "urls.py").write_text(VIEWS)
    with Server(folder, "--workers", "2", cwd=folder) as server:
        assert {server.get("/").text for _ in range(10)} == {"before"}


def test_views_that_cannot_be_imported_are_told_by_the_first_request(startproject: Startproject) -> None:
    folder = startproject(DEPLOYED)
    (folder / "shop" / "urls.py").write_text("import a_module_that_is_not_there\n")
    with Server(folder, "--workers", "1", cwd=folder) as server:
        assert server.get("/").status == 500
        server.wait_for("No module named 'a_module_that_is_not_there'")
