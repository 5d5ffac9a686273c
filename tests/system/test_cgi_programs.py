"""Programs that people run as CGI: php-cgi by the ending of a file, and a Perl script with CGI.pm."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator

import pytest
from server import Server, exchange
from test_cgi import script

CONFIGURATION = """
[[route]]
path = "*.php"
cgi = { root = "site", interpreters = { ".php" = "php-cgi" } }

[[route]]
path = "/app/*"
cgi = { root = "app", interpreters = { ".php" = "php-cgi" } }

[[route]]
path = "/*"
static = { root = "site" }

[[route]]
path = "/cgi-bin/*"
cgi = { root = "cgi-bin" }
"""

PHP = """<?php
header("X-Mode: " . PHP_SAPI);
if (isset($_GET["cookie"])) { setcookie("seen", $_GET["cookie"]); }
if (isset($_GET["away"])) { header("Location: http://example.test/away", true, 303); exit; }
if (isset($_GET["missing"])) { http_response_code(404); }
header("Content-Type: application/json");
$file = $_FILES["file"] ?? null;
echo json_encode([
    "self" => $_SERVER["PHP_SELF"], "script" => $_SERVER["SCRIPT_NAME"], "info" => $_SERVER["PATH_INFO"] ?? null,
    "get" => $_GET, "post" => $_POST, "argv" => $_SERVER["argv"] ?? [],
    "file" => $file ? [$file["name"], $file["size"], md5_file($file["tmp_name"])] : null, "dir" => getcwd(),
]);
"""

PERL = """
    #!/usr/bin/env perl
    use strict;
    use warnings;
    use CGI;
    my $q = CGI->new;
    my $size = 0;
    if (my $handle = $q->upload('file')) {
        while (read($handle, my $piece, 65536)) { $size += length $piece; }
    }
    my $cookie = $q->cookie(-name => 'seen', -value => 'yes');
    print $q->header(-type => 'text/plain', -charset => 'utf-8', -cookie => $cookie);
    print join('|', $q->request_method, $q->param('name') // '', $q->path_info, $q->url(-absolute => 1), $size), "\\n";
"""


@pytest.fixture(name="server", scope="module")
def fixture_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve a folder of PHP beside its files, and a folder of Perl."""
    folder = tmp_path_factory.mktemp("programs")
    (folder / "site" / "inner").mkdir(parents=True)
    (folder / "app").mkdir()
    (folder / "app" / "page.php").write_text(PHP)
    (folder / "site" / "page.php").write_text(PHP)
    (folder / "site" / "inner" / "page.php").write_text(PHP)
    (folder / "site" / "style.css").write_text("a { color: red }")
    script(folder, "form.pl", PERL)
    (folder / "daemun.toml").write_text(CONFIGURATION)
    with Server(cwd=folder) as server:
        yield server


def form(fields: dict[str, str], file: bytes) -> tuple[bytes, dict[str, str]]:
    """Make a form with a file as browsers send one."""
    boundary = uuid.uuid4().hex
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n'.encode()
    body = b"".join(parts) + head + file + f"\r\n--{boundary}--\r\n".encode()
    return body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}


def php(
    server: Server, target: str, body: bytes | None = None, headers: dict[str, str] | None = None
) -> dict[str, object]:
    """What a PHP page saw."""
    answer = server.ask(target, "POST" if body is not None else "GET", body, headers)
    assert answer.status == 200, answer.text
    assert answer.headers["X-Mode"] == "cgi-fcgi"
    assert answer.headers["Content-Type"] == "application/json"
    found: dict[str, object] = json.loads(answer.text)
    return found


def test_php_runs_by_the_ending_of_the_file_beside_what_is_sent_as_it_is(server: Server) -> None:
    seen = php(server, "/inner/page.php?a=1&b[]=x")
    assert (seen["self"], seen["script"]) == ("/inner/page.php", "/inner/page.php")
    assert seen["get"] == {"a": "1", "b": ["x"]}
    assert str(seen["dir"]).endswith("/site/inner")
    assert server.get("/style.css").text == "a { color: red }"
    info = php(server, "/app/page.php/extra/path")
    assert (info["script"], info["info"]) == ("/app/page.php", "/extra/path")


def test_php_reads_forms_and_files(server: Server) -> None:
    posted = php(server, "/page.php", b"name=Ada+L.&x=%C3%A9", {"Content-Type": "application/x-www-form-urlencoded"})
    assert posted["post"] == {"name": "Ada L.", "x": "é"}
    body, headers = form({"name": "Ada"}, b"\0" * 300_000)
    with_file = php(server, "/page.php", body, headers)
    assert with_file["post"] == {"name": "Ada"}
    assert with_file["file"] == ["a.bin", 300_000, "4a21de7a58fb8ecb9a1b1f08a3068269"]


def test_what_php_says_of_status_cookies_and_places_is_what_the_client_gets(server: Server) -> None:
    assert server.get("/page.php?missing").status == 404
    away = server.get("/page.php?away=1")
    assert (away.status, away.headers["Location"]) == (303, "http://example.test/away")
    assert server.get("/page.php?cookie=yes").headers["Set-Cookie"].startswith("seen=yes")


def test_no_query_is_an_option_of_php(server: Server) -> None:
    # CVE-2012-1823 and CVE-2024-4577: with `-s` php-cgi shows the source.
    for query in ["-s", "-d+allow_url_include%3d1", "%AD-s", "a+-s"]:
        answer = server.get(f"/page.php?{query}")
        assert answer.headers["X-Mode"] == "cgi-fcgi", query
        assert "json_encode" not in answer.text, query


def test_a_perl_script_with_cgi_pm_reads_forms_and_files(server: Server) -> None:
    answer = server.get("/cgi-bin/form.pl/a%20b?name=Ada%20L.")
    assert answer.text.strip() == "GET|Ada L.|/a b|/cgi-bin/form.pl|0"
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.headers["Set-Cookie"].startswith("seen=yes")
    body, headers = form({"name": "Ada"}, b"x" * 300_000)
    connection = server.connection()
    posted = exchange(connection, "/cgi-bin/form.pl", "POST", body, headers)
    connection.close()
    assert posted.text.strip() == "POST|Ada||/cgi-bin/form.pl|300000"
