"""The examples do what their page says."""

from __future__ import annotations

import filecmp
import json
import re
import shutil
import signal
from pathlib import Path

from peers import program
from playwright.sync_api import Page
from server import ROOT, Answer, Server, eventually
from test_changing_files import client
from wire import ask

EXAMPLES = ROOT / "examples"


def test_the_site_of_files() -> None:
    with Server(cwd=EXAMPLES / "site", env={"LISTEN": "127.0.0.1:0"}, listen="") as server:
        assert "without any Python" in server.get("/").text
        assert server.get("/css/site.css").headers["Content-Type"].startswith("text/css")
        moved = server.get("/start.html")
        assert (moved.status, moved.headers["Location"]) == (308, "/")
        assert "User-agent" in server.get("/robots.txt").text


def test_the_scripts_of_cgi() -> None:
    with Server(cwd=EXAMPLES / "cgi") as server:
        assert "the query is: name=Ada" in server.get("/cgi-bin/hello?name=Ada").text
        assert "<h1>Hello, &lt;Ada&gt;!</h1>" in server.get("/py/hello.py?name=<Ada>").text
        assert server.get("/").headers["Location"].endswith("/cgi-bin/hello")


def test_hello_flask() -> None:
    with Server("app:app", cwd=EXAMPLES / "hello-flask") as server:
        assert "Hello from Flask" in server.get("/").text


def test_the_least_django_project_has_its_styles() -> None:
    with Server(cwd=EXAMPLES / "django-minimal") as server:
        page = server.get("/")
        link = re.search(r'href="(.*\.css)"', page.text)
        assert link is not None
        assert "#2f4858" in server.get(link[1]).text


def test_the_php_site() -> None:
    program("php-cgi")
    with Server(cwd=EXAMPLES / "php") as server:
        assert "PHP behind daemun" in server.get("/").text
        assert "/a/permalink" in server.get("/a/permalink").text
        assert server.get("/media/note.txt").text == "A file of a visitor.\n"


ANYWHERE = {"LISTEN": "127.0.0.1:0"}


def test_the_single_page_site(page: Page) -> None:
    with Server(cwd=EXAMPLES / "spa", env=ANYWHERE, listen="") as server:
        deep = server.get("/people/7")
        assert (deep.status, deep.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert deep.headers["Cache-Control"] == "no-cache"
        assert "immutable" in server.get("/assets/app-7d793037.js").headers["Cache-Control"]
        lost = server.get("/assets/app-00000000.js")
        assert (lost.status, lost.headers["Cache-Control"]) == (404, None)
        assert server.get("/api/nothing").status == 404
        assert server.get("/api/hello").text == '{"hello": "from the API"}'
        # In a browser: an address deep in the application, a link without a reload, and back.
        failures: list[str] = []
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.goto(f"http://127.0.0.1:{server.port}/people/7")
        page.wait_for_selector("text=Person 7, from the API")
        page.click("text=Home")
        page.wait_for_selector("text=Home, from the API")
        assert page.url.endswith(f":{server.port}/")
        page.go_back()
        page.wait_for_selector("text=Person 7, from the API")
        assert failures == []


def test_protected_media_of_a_django_project() -> None:
    with Server(cwd=EXAMPLES / "protected-media", env=ANYWHERE, listen="") as server:
        path = "/documents/ada/notes.txt"
        for stranger in [path, "/protected/ada/notes.txt", "/private/ada/notes.txt"]:
            assert server.get(stranger).status in {403, 404}, stranger

        def cookie(name: str) -> dict[str, str]:
            return {"Cookie": server.get(f"/enter/{name}").headers["Set-Cookie"].partition(";")[0]}

        assert server.get(path, cookie("bob")).status == 403
        ada = cookie("ada")
        answer = server.get(path, ada)
        assert (answer.status, answer.text) == (200, "Notes on the Analytical Engine, for nobody else.\n")
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert answer.headers["Content-Disposition"] == 'inline; filename="notes.txt"'
        assert answer.headers["Cache-Control"] == "private"
        assert answer.headers["X-Accel-Redirect"] is None
        part = server.get(path, {**ada, "Range": "bytes=0-4"})
        assert (part.status, part.text) == (206, "Notes")
        assert server.get(path, {**ada, "If-None-Match": answer.headers["ETag"]}).status == 304
        assert server.get("/documents/ada/none.txt", ada).status == 404


def test_downloads_are_listed_and_resumed(tmp_path: Path) -> None:
    folder = tmp_path / "downloads"
    shutil.copytree(EXAMPLES / "downloads", folder)
    whole = folder / "files" / "large" / "a.iso"
    whole.write_bytes(bytes(range(251)) * 100_000)
    with Server(cwd=folder, env=ANYWHERE, listen="") as server:
        page = server.get("/", {"Accept": "text/html"})
        assert '<a href="./README.txt">README.txt</a>' in page.text
        assert page.headers["Content-Security-Policy"].startswith("default-src 'none'")
        listed = server.get("/", {"Accept": "application/json"})
        assert [(entry["name"], entry["type"]) for entry in json.loads(listed.text)] == [
            ("large", "directory"),
            ("README.txt", "file"),
        ]
        assert "a.iso" in server.get("/large/").text
        assert server.get("/large/a.iso").headers["Content-Disposition"] == "attachment"
        url = f"http://127.0.0.1:{server.port}/large/a.iso"
        for name, arguments in [("curl", ["-sf", "-C", "-", "-o"]), ("wget", ["-q", "-c", "-O"])]:
            target = tmp_path / name
            # What a first attempt has left.
            target.write_bytes(whole.read_bytes()[:7_000_003])
            result = client(name, *arguments, target, url)
            assert result.returncode == 0, result.stderr
            assert filecmp.cmp(target, whole, shallow=False)
        assert len([line for line in server.access.lines if '" 206 18099997 ' in line]) == 2, server.access.text


TREES = ["apple", "birch", "cedar", "dogwood", "elm", "fir", "ginkgo", "hazel", "ivy", "juniper"]


def test_ten_sites_and_one_faulty_file(tmp_path: Path) -> None:
    folder = tmp_path / "sites"
    shutil.copytree(EXAMPLES / "ten-sites", folder)

    def title(host: str) -> str | None:
        reply = ask(server.port, f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        found = re.search(rb"<h1>(.*)</h1>", reply.body)
        return found[1].decode() if found else reply.get("Location")

    with Server(cwd=folder, env=ANYWHERE, listen="") as server:
        assert [title(f"{tree}.example") for tree in TREES] == [tree.capitalize() for tree in TREES]
        assert title("www.elm.example") == "http://elm.example/"
        answer: Answer = server.get("/", {"Host": "oak.example"})
        assert (answer.status, answer.text) == (404, "There is no such site here.\n")
        # One file has two faults and another a good change: nothing changes, and both faults are told.
        broken = folder / "sites" / "cedar.toml"
        good = broken.read_text()
        broken.write_text(good.replace("index =", "idnex =") + "compress = 3\n")
        changed = folder / "sites" / "fir.toml"
        changed.write_text(changed.read_text().replace("fir.html", "elm.html"))
        server.send(signal.SIGHUP)
        server.wait_for(r"sites/cedar\.toml:3:\d+: unknown key `idnex`.*did you mean `index`\?")
        server.wait_for(r"sites/cedar\.toml:4:\d+: .*compress")
        assert [title(f"{tree}.example") for tree in TREES] == [tree.capitalize() for tree in TREES]
        broken.write_text(good)
        server.send(signal.SIGHUP)
        eventually(lambda: title("fir.example") == "Elm", "the changed site")
        assert title("cedar.example") == "Cedar"
