"""Files that an application has the server send: `X-Sendfile` and `X-Accel-Redirect`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from server import Server, run

APPLICATION = """\
import os
from urllib.parse import parse_qsl

def app(environ, start_response):
    query = dict(parse_qsl(environ["QUERY_STRING"], encoding="latin-1"))
    status = query.pop("status", "200 OK")
    body = query.pop("body", "").encode()
    fields = [(name.replace("_", "-"), value) for name, value in query.items()]
    start_response(status, fields)
    return [body]
"""

CONTENT = bytes(range(256)) * 1000


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """An application that answers with the fields that the query names, and folders of files."""
    (tmp_path / "app.py").write_text(APPLICATION)
    media = tmp_path / "media"
    (media / "deep").mkdir(parents=True)
    (media / "film.mp4").write_bytes(CONTENT)
    (media / "deep" / "a b?%.txt").write_text("spaced")
    (media / ".hidden").write_text("hidden")
    (media / "out").symlink_to(tmp_path / "secret.txt")
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "media-other").mkdir()
    (tmp_path / "media-other" / "a.txt").write_text("other")
    (tmp_path / "daemun.toml").write_text(
        '[app.shop]\nwsgi = "app:app"\nprocesses = 1\n'
        'sendfile = { "/protected/" = "media", "/protected/deep/" = "media/deep" }\n'
    )
    return tmp_path


def test_the_file_is_sent_with_the_fields_of_the_application(site: Path) -> None:
    with Server(cwd=site) as server:
        for wish in ["X-Accel-Redirect=/protected/film.mp4", f"X-Sendfile={site}/media/film.mp4"]:
            more = "&Content-Disposition=attachment&Set-Cookie=a%3Db&Cache-Control=private"
            more += "&ETag=%22app%22&X-Frame-Options=DENY"
            answer = server.get(f"/?{wish}{more}&body=ignored")
            assert (answer.status, answer.body) == (200, CONTENT)
            headers = answer.headers
            assert headers["Content-Type"] == "video/mp4"
            assert headers["Content-Length"] == str(len(CONTENT))
            assert (headers["Content-Disposition"], headers["Set-Cookie"]) == ("attachment", "a=b")
            assert (headers["Cache-Control"], headers["X-Frame-Options"]) == ("private", "DENY")
            assert headers["Accept-Ranges"] == "bytes"
            assert headers["ETag"] != '"app"'
            assert not any(name.lower().startswith(("x-sendfile", "x-accel")) for name in headers)
            part = server.get(f"/?{wish}", {"Range": "bytes=256-259"})
            assert (part.status, part.body) == (206, CONTENT[:4])
            assert part.headers["Content-Range"] == f"bytes 256-259/{len(CONTENT)}"
            known = server.get(f"/?{wish}&Content-Disposition=attachment", {"If-None-Match": headers["ETag"]})
            assert (known.status, known.body, known.headers["Content-Disposition"]) == (304, b"", None)
            head = server.ask(f"/?{wish}", "HEAD")
            assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", str(len(CONTENT)))
            posted = server.ask(f"/?{wish}", "POST", b"x=y")
            assert (posted.status, posted.body) == (200, CONTENT)


def test_a_type_of_the_application_counts_and_an_empty_one_leaves_it_to_the_server(site: Path) -> None:
    with Server(cwd=site) as server:
        wish = "/?X-Accel-Redirect=/protected/film.mp4"
        assert server.get(f"{wish}&Content-Type=text/x-own").headers["Content-Type"] == "text/x-own"
        assert server.get(f"{wish}&Content-Type=").headers["Content-Type"] == "video/mp4"


def test_urls_are_decoded_and_paths_are_not(site: Path) -> None:
    with Server(cwd=site) as server:
        for wish in [
            "X-Accel-Redirect=/protected/deep/a%2520b%253F%2525.txt",
            "X-Accel-Redirect=/protected/x/../deep/a%2520b%253F%2525.txt%3Fversion%3D2",
            f"X-Sendfile={site}/media/deep/a%20b%3F%25.txt",
        ]:
            answer = server.get(f"/?{wish}")
            assert (answer.status, answer.text) == (200, "spaced"), wish


def test_what_lies_outside_or_is_not_there_is_told_in_the_log_and_to_nobody_else(site: Path) -> None:
    with Server(cwd=site) as server:
        for wish, status in [
            ("X-Accel-Redirect=/elsewhere/film.mp4", 500),
            ("X-Accel-Redirect=/protected/../secret.txt", 500),
            ("X-Accel-Redirect=/protected/%252e%252e/secret.txt", 500),
            ("X-Accel-Redirect=film.mp4", 500),
            ("X-Accel-Redirect=/protected/none.mp4", 404),
            ("X-Accel-Redirect=/protected/deep", 404),
            ("X-Accel-Redirect=/protected/", 404),
            ("X-Accel-Redirect=/protected/.hidden", 404),
            ("X-Accel-Redirect=/protected/out", 404),
            (f"X-Sendfile={site}/secret.txt", 500),
            (f"X-Sendfile={site}/media/../secret.txt", 500),
            (f"X-Sendfile={site}/media-other/a.txt", 500),
            (f"X-Sendfile={site}/media/out", 404),
            ("X-Sendfile=media/film.mp4", 500),
            ("X-Sendfile=/etc/passwd", 500),
        ]:
            answer = server.get(f"/?{wish}")
            assert answer.status == status, wish
            assert str(site) not in answer.text + str(answer.headers), wish
            assert "secret" not in answer.text, wish
        server.wait_for(r"X-Accel-Redirect: `/protected/none.mp4` cannot be sent: .*/media has no such file")
        server.wait_for(r"X-Sendfile: `/etc/passwd` cannot be sent: no folder of `sendfile` holds it")


def test_an_error_of_the_application_stays_an_error(site: Path) -> None:
    with Server(cwd=site) as server:
        answer = server.get("/?status=403+Forbidden&body=no&X-Accel-Redirect=/protected/film.mp4")
        assert (answer.status, answer.text, answer.headers["X-Accel-Redirect"]) == (403, "no", None)


def test_without_folders_a_path_reaches_a_proxy_and_nobody_else(site: Path) -> None:
    file = site / "daemun.toml"
    file.write_text('[app.shop]\nwsgi = "app:app"\nprocesses = 1\n')
    with Server(cwd=site) as server:
        answer = server.get("/?X-Accel-Redirect=/protected/film.mp4")
        assert (answer.status, answer.headers["X-Accel-Redirect"]) == (500, None)
        server.wait_for(r"\[app.shop\] has no `sendfile`")
    file.write_text('[server]\ntrusted_proxies = ["127.0.0.1"]\n[app.shop]\nwsgi = "app:app"\nprocesses = 1\n')
    with Server(cwd=site) as server:
        answer = server.get("/?X-Accel-Redirect=/protected/film.mp4")
        assert (answer.status, answer.headers["X-Accel-Redirect"]) == (200, "/protected/film.mp4")


def test_a_cgi_program_has_a_file_sent_and_shows_nobody_where_it_lies(site: Path) -> None:
    (site / "cgi-bin").mkdir()
    program = site / "cgi-bin" / "send"
    program.write_text(
        '#!/bin/sh\nprintf "Content-Type:\\nContent-Disposition: attachment\\n%s\\n\\nignored" "$QUERY_STRING"\n'
        f"touch {site}/cgi-bin/ended\n"
    )
    program.chmod(0o755)
    route = '[[route]]\npath = "/cgi-bin/*"\ncgi = { root = "cgi-bin", sendfile = { "/protected/" = "media" } }\n'
    file = site / "daemun.toml"
    file.write_text(route)
    wishes = ["X-Accel-Redirect:/protected/film.mp4", f"X-Sendfile:{site}/media/film.mp4"]
    with Server(cwd=site, listen="127.0.0.1:0") as server:
        for wish in wishes:
            answer = server.get(f"/cgi-bin/send?{wish}", {"Range": "bytes=256-511"})
            assert (answer.status, answer.body) == (206, CONTENT[256:512])
            assert answer.headers["Content-Disposition"] == "attachment"
            assert answer.headers["Content-Type"] == "video/mp4"
            assert not {"X-Accel-Redirect", "X-Sendfile"} & set(answer.headers.keys())
        assert server.get(f"/cgi-bin/send?X-Sendfile:{site}/secret.txt").status == 500
        server.wait_for("no folder of `sendfile` holds it")
    assert (site / "cgi-bin" / "ended").exists(), "a program that names a file comes to its end"
    file.write_text(route.replace(', sendfile = { "/protected/" = "media" }', ""))
    with Server(cwd=site) as server:
        for wish in wishes:
            answer = server.get(f"/cgi-bin/send?{wish}")
            assert (answer.status, b"media" in answer.body) == (500, False)
            assert not {"X-Accel-Redirect", "X-Sendfile"} & set(answer.headers.keys())
            server.wait_for(r"the route's `cgi` has no `sendfile`")
    file.write_text(
        '[server]\ntrusted_proxies = ["127.0.0.1"]\n' + route.replace(', sendfile = { "/protected/" = "media" }', "")
    )
    with Server(cwd=site) as server:
        answer = server.get(f"/cgi-bin/send?{wishes[0]}")
        assert (answer.status, answer.headers["X-Accel-Redirect"]) == (200, "/protected/film.mp4")


def test_prefixes_and_folders_are_checked_before_anything_is_served(site: Path) -> None:
    (site / "daemun.toml").write_text('[app.shop]\nwsgi = "app:app"\nsendfile = { "protected" = "app.py" }\n')
    result = run("serve", cwd=site)
    assert result.returncode == 2
    assert re.search(r"daemun.toml:3:28.*expected a prefix such as", result.stderr), result.stderr
    assert "expected a folder" in result.stderr
