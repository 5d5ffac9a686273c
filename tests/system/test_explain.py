"""`daemun explain`: what it says is what happens."""

from __future__ import annotations

import json
import os
import random
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from conftest import Startproject
from gateways import tell_fastcgi, tell_scgi, tell_uwsgi
from schema import faults
from server import BINARY, DEADLINE, ROOT, Server, environment
from upstreams import Upstream, plain, unused_port

Told = dict[str, Any]
Headers = dict[str, str]

SEED = 20261122
REQUESTS = 10_000
SCHEMA = json.loads((ROOT / "docs/manual/explain.schema.json").read_text())


def upstream(name: str) -> str:
    """An upstream of this name with a site of its own; where its server is stands there later."""
    return f"""\
[upstream.{name}]
servers = ["{{{name}}}"]

[[site]]
hosts = ["{name}.example"]
upstream = "{name}"

"""


# Every kind of handler, of host, of path and of condition, and every filter.
CONFIGURATION = (
    """\
[server]
trusted_proxies = ["127.0.0.2/32"]
max_body = "1MB"

[app.shop]
target = "app:app"
processes = 1

[app.wiki]
mounts = { "/" = "app:app", "/deep" = "app:other" }
processes = 1

[[site]]
hosts = ["shop.example", "www.shop.example", "*.shop.example"]
app = "shop"
headers = { set = { "X-Site" = "shop" }, security = true }
rate_limit = { rate = "1000000/s", burst = 1000000 }

[[site.route]]
path = "/static/*"
static = { root = "files", index = ["index.html"], max_age = "1h" }

[[site.route]]
path = "/admin/*"
app = "shop"
deny = ["0.0.0.0/0"]

[[site.route]]
path = "/private/*"
app = "shop"
basic_auth = { users = { ada = "{password}" } }

[[site.route]]
path = "/old/*"
redirect = { to = "/new/{rest}", status = 308 }

[[site.route]]
path = "/api/*"
method = ["GET", "POST"]
app = "shop"
strip_prefix = "/api"
max_body = "10B"
headers = { cors = { origins = ["https://friend.example"] } }

[[site.route]]
path = "/api/*"
method = ["DELETE"]
header = { "X-Beta" = "yes*" }
respond = { status = 204 }

[[site]]
hosts = ["wiki.example"]
app = "wiki"
compress = true
server_timing = true

[[site.route]]
path = "/cgi-bin/*"
cgi = { root = "cgi" }

[[site.route]]
path = "/render/*"
rewrite = { pattern = "^/render/(?<name>.*)$", to = "/page/{name}?from=render" }
app = "wiki"
cache = { ttl = "1s" }

[upstream.back]
servers = ["http://127.0.0.1:9"]
connect_timeout = "1s"

[[site]]
hosts = ["back.example"]
upstream = "back"

"""
    + upstream("web")
    + """\
[[site.route]]
path = "/kept/*"
upstream = "web"
strip_prefix = "/kept"
cache = { ttl = "1m" }

[upstream.php]
servers = ["{fastcgi}"]

[[site]]
hosts = ["php.example"]
static = { root = "php", missing = "next", index = ["index.html"] }

[[site.route]]
path = "*.php"
upstream = { name = "php", root = "php", params = { STAGE = "test" } }

[[site.route]]
path = "/index.php/*"
upstream = { name = "php", root = "php", params = { STAGE = "test" } }

[[site.route]]
path = "/front/*"
upstream = { name = "php", root = "php", missing = "/index.php" }

"""
    + upstream("scgi")
    + """\
[[site.route]]
path = "/below/*"
upstream = "scgi"
strip_prefix = "/below"

"""
    + upstream("uwsgi")
    + """\
[[site]]
hosts = ["files.example"]
static = { root = "files", missing = "next", index = ["index.html"] }

[[site.route]]
path = "*.css"
static = { root = "files/css" }

[[route]]
host = "feeds.example"
path = "/*"
static = { root = "files" }
xslt = true

[[route]]
host = "feeds.example"
path = "/made/*"
app = "wiki"
xslt = { stylesheet = "files/feed.xsl", on_error = "pass" }

[[route]]
host = "feeds.example"
path = "/run/*"
cgi = { root = "cgi" }
xslt = { stylesheet = "files/feed.xsl" }

[[route]]
path = "/robots.txt"
respond = { body = "User-agent: *" }
timeout = "5s"

[[route]]
path = "/spa/*"
static = { root = "files", missing = "/index.html" }
errors = { 404 = "files/index.html" }
"""
)

APPLICATION = """\
def app(environ, start_response):
    fields = [("X-" + name, environ[name.upper()]) for name in ("Script_Name", "Path_Info")]
    fields = [(name.replace("_", "-"), value) for name, value in fields]
    start_response("200 OK", [("Content-Type", "text/plain"), *fields])
    return [b"hello"]

def other(environ, start_response):
    return app(environ, start_response)
"""

STYLESHEET = """\
<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform">
<xsl:output method="html"/><xsl:template match="/"><p>feed</p></xsl:template>
</xsl:stylesheet>
"""

SCRIPT = """\
#!/bin/sh
printf 'Content-Type: text/plain\\nX-Script-Name: %s\\nX-Path-Info: %s\\n\\n' "$SCRIPT_NAME" "$PATH_INFO"
"""


def explain(*arguments: str, cwd: Path, stdin: str = "", env: Headers | None = None) -> str:
    """Give the output of a successful run."""
    command = [str(BINARY), "explain", *arguments]
    done = subprocess.run(
        command,
        cwd=cwd,
        input=stdin,
        env=environment(env or {}),
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def told(*arguments: str, cwd: Path) -> Told:
    """Give the JSON of one request, which fits the schema."""
    answer: Told = json.loads(explain(*arguments, "--json", cwd=cwd))
    assert faults(answer, SCHEMA) == []
    return answer


@pytest.fixture
def everything(tmp_path: Path) -> Iterator[Path]:
    """A folder with every kind of route, and the servers that some lead to."""
    behaviours = {"web": plain, "fastcgi": tell_fastcgi, "scgi": tell_scgi, "uwsgi": tell_uwsgi}
    configuration = CONFIGURATION
    with ExitStack() as stack:
        for name, behaviour in behaviours.items():
            server = stack.enter_context(Upstream(name, behaviour))
            scheme = "http" if name == "web" else name
            configuration = configuration.replace(f"{{{name}}}", f"{scheme}://127.0.0.1:{server.port}")
        lay_out(tmp_path, configuration)
        yield tmp_path


def lay_out(tmp_path: Path, configuration: str) -> None:
    """Write what the routes lead to."""
    password = subprocess.run(
        ["openssl", "passwd", "-apr1", "-salt", "saltsalt", "secret"], capture_output=True, text=True, check=True
    ).stdout.strip()
    files = {
        "daemun.toml": configuration.replace("{password}", password),
        "app.py": APPLICATION,
        "cgi/env.cgi": SCRIPT,
        "cgi/sub/deep": SCRIPT,
        "cgi/dead": "#!/bin/sh\n",
        "files/index.html": "<p>index",
        "files/a.txt": "a",
        "files/site.css": "p {}",
        "files/css/site.css": "b {}" * 100,
        "files/css/site.css.gz": "zz",
        "files/.hidden": "x",
        "php/index.php": "<?php",
        "php/sub/page.php": "<?php",
        "php/a.txt": "a",
        "files/feed.xsl": STYLESHEET,
        "files/feed.xml": '<?xml-stylesheet type="text/xsl" href="/feed.xsl"?><rss/>',
        "files/wrong.xml": '<?xml-stylesheet type="text/xsl" href="/none.xsl"?><rss/>',
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    for name in ("env.cgi", "sub/deep"):
        (tmp_path / "cgi" / name).chmod(0o755)
    for folder in (tmp_path, *(path for path in tmp_path.rglob("*") if path.is_dir())):
        folder.chmod(0o755)


PLACES = [
    *("", "static/", "static/a.txt", "static", "static/css", "static/css/site.css", "static/nothing", "static/.hidden"),
    *("feed.xml", "wrong.xml", "feed.xsl", "made/feed", "run/env.cgi", "static/feed.xml"),
    *("admin/", "admin", "private/x", "old/x/y", "api/orders", "api", "cgi-bin/env.cgi/more", "cgi-bin/sub/deep"),
    *("cgi-bin/dead", "cgi-bin/nothing", "cgi-bin/.x", "render/a", "page", "deep/b", "site.css", "a.txt", "a.css"),
    *(
        "index.php",
        "index.php/more",
        "sub/page.php/a/b",
        "sub/none.php",
        "a.txt/x.php",
        "front/x",
        "front/sub/page.php",
        "kept/x",
        "below/a",
        "below",
        "robots.txt",
        "spa/",
        "spa/x/y",
        "index.html",
        "css",
        "css/site.css",
        "%2e%2e/x",
        "a%2Fb",
        "%zz",
        "static/%61.txt",
    ),
]
HOSTS = [
    *(
        "shop.example",
        "www.shop.example",
        "a.shop.example",
        "wiki.example",
        "wiki.example",
        "files.example",
        "feeds.example",
        "back.example",
        "web.example",
        "php.example",
        "php.example",
        "scgi.example",
        "uwsgi.example",
    ),
    *("SHOP.example.", "other.example", "127.0.0.1", "shop.example:8080"),
]
METHODS = ["GET"] * 6 + ["HEAD", "POST", "DELETE", "OPTIONS", "PUT"]
FIELDS = [
    *({}, {}, {}, {"X-Beta": "yes please"}, {"Accept-Encoding": "gzip"}, {"Range": "bytes=0-1"}),
    *({"Authorization": "Basic YWRhOnNlY3JldA=="}, {"Authorization": "Basic YWRhOndyb25n"}),
    *({"If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT"},),
    *({"Origin": "https://friend.example", "Access-Control-Request-Method": "GET"}, {"X-Forwarded-For": "10.0.0.1"}),
]


def questions() -> list[Told]:
    """Give the same requests each time."""
    chosen = random.Random(SEED)
    letters = "abcdefghijklmnopqrstuvwxyz-_.~%/ é"
    asked = []
    for _ in range(REQUESTS):
        path = chosen.choice(PLACES)
        if chosen.random() < 0.4:
            path += chosen.choice(["", "/"]) + "".join(chosen.choice(letters) for _ in range(chosen.randint(1, 6)))
        target = "/" + quote(path, safe="%/~") + chosen.choice(["", "", "?q=1"])
        fields = dict(chosen.choice(FIELDS))
        method = chosen.choice(METHODS)
        asked.append({"url": target, "method": method, "host": chosen.choice(HOSTS), "fields": fields})
    return asked


class Client:
    """One connection, opened again when the server closes it."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.open()

    def open(self) -> None:
        self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE)
        self.file = self.socket.makefile("rb")

    def ask(self, question: Told) -> Headers:
        """Send it; its answer's fields in lower case."""
        lines = [f"{question['method']} {question['url']} HTTP/1.1", f"Host: {question['host']}"]
        lines += [f"{name}: {value}" for name, value in question["fields"].items()]
        self.socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        status = int(self.file.readline().split()[1])
        fields = {}
        while (line := self.file.readline().decode("latin-1").rstrip("\r\n")) != "":
            name, _, value = line.partition(":")
            fields[name.lower()] = value.strip()
        if question["method"] != "HEAD" and status not in (204, 304):
            self.body(fields)
        if fields.get("connection") == "close":
            self.socket.close()
            self.open()
        return fields

    def body(self, fields: Headers) -> None:
        if fields.get("transfer-encoding") != "chunked":
            self.file.read(int(fields.get("content-length", "0")))
            return
        while (length := int(self.file.readline(), 16)) > 0:
            self.file.read(length + 2)
        self.file.readline()


def shown(value: bytes) -> str:
    """Bytes as `explain` shows them: what is not readable is escaped, and then quotes and backslashes too."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        escapes = {byte: "\\" + chr(byte) for byte in b"\\'\""}
        return "".join(escapes.get(byte) or (chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}") for byte in value)
    return text


def differences(question: Told, said: Told, line: Told, fields: Headers) -> list[str]:
    """Tell where what was said is not what happened."""
    found = []

    def compare(what: str, want: object, got: object) -> None:
        if want != got:
            found.append(f"{question}: {what}: explain says {want!r}, and it was {got!r}")

    route = said["route"]
    if "refused" not in line:
        compare("route", route and route["origin"], line["route"])
        compare("handler", said["handler"], line["handler"])
    if said["answer"]["status"] is not None:
        compare("status", said["answer"]["status"], line["status"])
    target = said["target"] or {}
    if (gateway := target.get("gateway")) and said["ended_by"] == "handler" and line["status"] == 200:
        compare("script", gateway["script"] or "", fields["x-script"])
        compare("SCRIPT_NAME", gateway["script_name"], fields["x-script-name"])
        compare("PATH_INFO", gateway["path_info"].strip(" "), shown(fields["x-path-info"].encode("latin-1")))
    if target.get("kind") in ("application", "program") and "x-script-name" in fields and said["ended_by"] == "handler":
        compare("SCRIPT_NAME", target["script_name"], fields["x-script-name"])
        compare("PATH_INFO", target["path_info"].strip(" "), shown(fields["x-path-info"].encode("latin-1")))
    if said["ended_by"] == "handler" and target.get("kind") in ("file", "redirect", "respond"):
        for name, value in said["answer"]["headers"]:
            if name.lower() not in ("date", "server-timing"):
                compare(name, value, fields.get(name.lower()))
    return found


def test_ten_thousand_random_requests_take_the_way_that_is_told(everything: Path) -> None:
    asked = questions()
    lines = []
    for question in asked:
        headers = [f"{name}: {value}" for name, value in {"Host": question["host"], **question["fields"]}.items()]
        lines.append(json.dumps({"url": question["url"], "method": question["method"], "headers": headers}))
    said = [json.loads(line) for line in explain("--batch", cwd=everything, stdin="\n".join(lines)).splitlines()]
    assert len(said) == REQUESTS
    with Server("daemun.toml", "--log-format", "json", cwd=everything) as server:
        client = Client(server.port)
        answers = [client.ask(question) for question in asked]
        client.socket.close()
        server.get("/the-last")
        server.wait_for("/the-last", server.access)
        log = [json.loads(line) for line in server.access.lines[:-1]]
    found = [
        difference
        for question, told, line, fields in zip(asked, said, log, answers, strict=True)
        for difference in differences(question, told, line, fields)
    ]
    assert found == [], f"{len(found)} differences, the first:\n" + "\n".join(found[:10])
    # Each kind of ending and of handler was among them, or nothing was shown.
    assert {told["ended_by"] for told in said} == {"server", "router", "filter", "handler"}
    assert {told["handler"] for told in said} == {"static", "app", "cgi", "redirect", "respond", "upstream", None}
    kinds = {one["handler"] if not (one["target"] or {}).get("gateway") else one["target"]["name"] for one in said}
    assert {"php", "scgi", "uwsgi", "upstream"} <= kinds
    assert {line["status"] for one, line in zip(said, log, strict=True) if (one["target"] or {}).get("gateway")} == {
        200
    }
    assert [fault for one in said[:1000] for fault in faults(one, SCHEMA)] == []


def test_a_file_is_told_with_its_variant_and_a_missing_one_with_the_nearest(everything: Path) -> None:
    (everything / "files/css/site.css.gz").write_text("zz")
    said = told("-H", "Accept-Encoding: gzip", "http://shop.example/static/css/site.css", cwd=everything)
    assert said["target"]["path"] == str(everything / "files/css/site.css")
    assert ["Content-Encoding", "gzip"] in said["answer"]["headers"]
    assert any("the variant .gz is sent" in reason for reason in said["target"]["reasons"])
    missing = told("http://shop.example/static/css/site.cs", cwd=everything)
    assert (missing["answer"]["status"], missing["target"]["nearest"]) == (404, "css/site.css")


def test_client_headers_and_method_decide(everything: Path) -> None:
    def ended(*arguments: str) -> tuple[str, int | None, list[str]]:
        said = told(*arguments, cwd=everything)
        return said["ended_by"], said["answer"]["status"], [one["name"] for one in said["filters"] if one["ended"]]

    assert ended("--client", "10.0.0.1", "http://shop.example/admin/") == ("filter", 403, ["allow, deny"])
    assert ended("--client", "2001:db8::1", "http://shop.example/admin/") == ("handler", None, [])
    assert ended("http://shop.example/private/x") == ("filter", 401, ["basic_auth"])
    assert ended("-H", "Content-Length: 11", "-X", "POST", "http://shop.example/api/a") == ("filter", 413, ["max_body"])
    assert ended("-X", "DELETE", "-H", "X-Beta: yes", "http://shop.example/api/a") == ("handler", 204, [])
    said = told("-X", "DELETE", "http://shop.example/api/a", cwd=everything)
    assert {"asks for: header x-beta = yes*", "is for the methods GET, POST"} <= {one["why"] for one in said["others"]}
    assert any("rate_limit" in line for line in said["unknown"])


def test_the_last_known_of_an_upstream_is_told_while_a_server_runs(tmp_path: Path) -> None:
    with Upstream() as good, unused_port() as port:
        bad = f"http://127.0.0.1:{port}"
        (tmp_path / "daemun.toml").write_text(
            f'[upstream.back]\nservers = ["{good.url}", "{bad}"]\nbalance = "round-robin"\nfailures = 1\n'
            'eject = "1h"\n[[route]]\nupstream = "back"\n'
        )
        alone = told("/", cwd=tmp_path)
        assert alone["target"]["seen"] is None
        assert any("no server is running here" in line for line in alone["unknown"])
        with Server("daemun.toml", cwd=tmp_path) as server:
            before = told("/", cwd=tmp_path)["target"]["seen"]["servers"]
            assert {one["age"] for one in before} == {None}
            for _ in range(4):
                assert server.get("/").status == 200
            seen = told("/", cwd=tmp_path)["target"]["seen"]
            states = {one["url"]: (one["state"], one["failures"]) for one in seen["servers"]}
            assert states == {good.url: ("up", 0), bad: ("ejected", 1)}
            assert all(one["age"] >= 0 for one in seen["servers"])
            picture = explain("/", cwd=tmp_path)
            assert f"pid {server.pid}" in picture
            assert re.search(r"ejected,\s+heard\s+of", picture)
            assert max(map(len, picture.splitlines())) <= 80


def test_the_script_of_a_fastcgi_route_is_told_with_its_variables(everything: Path) -> None:
    said = told("-H", "X-A: b", "http://php.example/index.php/x?q=1", cwd=everything)
    gateway = said["target"]["gateway"]
    assert (gateway["script"], gateway["script_name"], gateway["path_info"]) == (
        str(everything / "php/index.php"),
        "/index.php",
        "/x",
    )
    assert {("STAGE", "test"), ("QUERY_STRING", "q=1"), ("HTTP_X_A", "b")} <= {
        tuple(one) for one in gateway["variables"]
    }
    picture = explain("http://php.example/index.php/x", cwd=everything)
    assert re.search(r"script +/.*", picture)
    assert "PATH_INFO=/x" in picture
    missing = told("http://php.example/sub/none.php", cwd=everything)
    assert (missing["answer"]["status"], missing["handler"]) == (404, "static")
    assert told("http://scgi.example/below/a", cwd=everything)["target"]["gateway"]["script_name"] == "/below"


def test_all_routes_are_shown_with_what_hides_them(everything: Path) -> None:
    table = json.loads(explain("--all", "--json", cwd=everything))
    assert faults(table, {"$ref": "#/$defs/table"}, SCHEMA) == []
    robots = next(route for route in table["routes"] if route["path"] == "/robots.txt")
    assert any(line.startswith("shop.example: /* at daemun.toml:") for line in robots["shadowed"])
    assert "SHADOWED on shop.example" in explain("--all", cwd=everything)


def test_djangos_routes_name_setting_and_line(startproject: Startproject) -> None:
    project = startproject()
    said = told("/static/admin/css/base.css", cwd=project)
    assert re.match(r"from Django: STATIC_URL, settings\.py:\d+", said["route"]["origin"])
    assert said["target"]["application"] == "django.contrib.admin"
    assert said["target"]["source"] is None
    assert said["answer"]["status"] == 200
    assert told("/admin/", cwd=project)["handler"] == "app"


def test_a_server_that_runs_tells_what_its_project_has_told_until_a_setting_changes(startproject: Startproject) -> None:
    project = startproject("with open('imports', 'a') as imports:\n    imports.write('x')\n")
    imports = project / "imports"
    settings = project / "shop" / "settings.py"
    imports.unlink()
    path = "/static/admin/css/base.css"
    alone = told(path, cwd=project)
    assert imports.read_text() == "x", "nobody runs: the project itself is asked"
    with Server(cwd=project):
        begun = len(imports.read_text())
        assert told(path, cwd=project) == alone
        assert len(imports.read_text()) == begun
        settings.write_text(settings.read_text() + 'STATIC_URL = "assets/"\n')
        assert told("/assets/admin/css/base.css", cwd=project)["handler"] == "static"
        assert len(imports.read_text()) == begun + 1


SHOP = """
DEBUG = False
ALLOWED_HOSTS = ["*"]
STATIC_ROOT = BASE_DIR / "out"
STATICFILES_DIRS = [BASE_DIR / "assets", ("vendor", BASE_DIR / "vendor")]
INSTALLED_APPS += ["cart"]
MANIFEST = "django.contrib.staticfiles.storage.ManifestStaticFilesStorage"
STORAGES = {"staticfiles": {"BACKEND": MANIFEST}}
"""


@pytest.fixture
def shop(startproject: Startproject) -> Path:
    """A project with files of an application, of two settings and of Django's admin; one hides another."""
    project = startproject()
    files = {
        "cart/__init__.py": "",
        "cart/static/css/site.css": "cart {}",
        "cart/static/css/cart.css": "cart {}",
        "assets/css/site.css": "site {}",
        "vendor/grid.css": "grid {}",
    }
    for name, text in files.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text)
    with (project / "shop/settings.py").open("a") as file:
        file.write(SHOP)
    return project


def collect(project: Path, way: str) -> dict[str, str]:
    """Collect by our command or by Django's, and give the hashed names."""
    ours = [str(BINARY), "collect", ".", "--python", sys.executable]
    theirs = [sys.executable, "manage.py", "collectstatic", "--noinput", "--verbosity", "0"]
    command = ours if way == "daemun collect" else theirs
    subprocess.run(command, cwd=project, env=environment({}), capture_output=True, timeout=DEADLINE, check=True)
    names: dict[str, str] = json.loads((project / "out/staticfiles.json").read_text())["paths"]
    return names


@pytest.mark.parametrize("way", ["daemun collect", "manage.py collectstatic"])
def test_of_a_collected_file_it_is_told_which_application_brought_it(shop: Path, way: str) -> None:
    hashed = collect(shop, way)
    dirs = re.compile(r"STATICFILES_DIRS, settings\.py:\d+")
    for name in ("css/cart.css", hashed["css/cart.css"]):
        target = told(f"/static/{name}", cwd=shop)["target"]
        assert (target["application"], target["setting"]) == ("cart", None)
        assert target["path"] == str(shop / "out" / name)
        assert target["source"] == str(shop / "cart/static/css/cart.css")
    target = told("/static/" + hashed["css/site.css"], cwd=shop)["target"]
    assert target["source"] == str(shop / "assets/css/site.css")
    assert target["application"] is None
    assert dirs.fullmatch(target["setting"])
    assert f"it hides {shop}/cart/static/css/site.css of cart" in target["reasons"]
    target = told("/static/vendor/grid.css", cwd=shop)["target"]
    assert target["source"] == str(shop / "vendor/grid.css")
    assert dirs.fullmatch(target["setting"])
    picture = explain("/static/admin/css/base.css", cwd=shop)
    assert "of the application django.contrib.admin" in picture
    assert "collected from" in picture


def test_without_collecting_the_application_is_told_too(shop: Path) -> None:
    target = told("/static/css/cart.css", cwd=shop)["target"]
    assert (target["application"], target["source"]) == ("cart", None)
    assert target["path"] == str(shop / "cart/static/css/cart.css")
    target = told("/static/css/site.css", cwd=shop)["target"]
    assert target["path"] == str(shop / "assets/css/site.css")
    assert target["setting"].startswith("STATICFILES_DIRS")
    assert f"it hides {shop}/cart/static/css/site.css of cart" in target["reasons"]


def test_what_was_collected_too_early_or_never_is_told_with_its_source(shop: Path) -> None:
    collect(shop, "daemun collect")
    late, changed, gone = (shop / "cart/static/css" / name for name in ("late.css", "cart.css", "gone.css"))
    late.write_text("late {}")
    os.utime(changed, (time.time() + 60, time.time() + 60))
    (shop / "out/css" / gone.name).write_text("gone {}")
    said = told("/static/css/late.css", cwd=shop)
    assert said["answer"]["status"] == 404
    assert f"it was not collected: {late} of cart has it; run daemun collect" in said["target"]["reasons"]
    reasons = told("/static/css/cart.css", cwd=shop)["target"]["reasons"]
    assert f"{changed} has changed since it was collected: run daemun collect" in reasons
    target = told("/static/css/gone.css", cwd=shop)["target"]
    assert target["application"] is target["setting"] is target["source"] is None
    assert any(reason.startswith("no folder of Django's finders has it") for reason in target["reasons"])


def test_the_nearest_name_may_lie_in_another_folder_or_have_another_hash(shop: Path) -> None:
    hashed = collect(shop, "daemun collect")
    for name, nearest in [
        ("css/crat.css", "css/cart.css"),
        ("cart.css", "css/cart.css"),
        ("css/grid.css", "vendor/grid.css"),
        ("css/cart.000000000000.css", hashed["css/cart.css"]),
        ("nothing/like/it.xyz", None),
    ]:
        target = told(f"/static/{name}", cwd=shop)["target"]
        assert (target["path"], target["nearest"]) == (None, nearest), name


def test_the_picture_has_eighty_columns_and_no_colour(everything: Path) -> None:
    for arguments in (["--all"], ["http://wiki.example/cgi-bin/env.cgi/x"], ["/"], ["http://back.example/"]):
        picture = explain(*arguments, cwd=everything)
        assert max(map(len, picture.splitlines())) <= 80
        assert "\x1b" not in picture


def test_a_wrong_question_is_told(everything: Path) -> None:
    for arguments, part in (
        (["ftp://a/b"], "no scheme of ours"),
        (["/", "-H", "nonsense"], "expected -H 'Name: value'"),
        (["/", "-X", "A\nB"], "a line break"),
        (["--config", "none.toml", "/"], "none.toml"),
        ([], "required"),
    ):
        done = subprocess.run(
            [str(BINARY), "explain", *arguments],
            cwd=everything,
            env=environment({}),
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, part in done.stderr) == (2, True), done.stderr
