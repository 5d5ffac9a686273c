"""Sites, hosts and conditions, seen on the wire."""

from __future__ import annotations

import signal
from pathlib import Path

from server import Server, eventually, run
from wire import Wire, ask, wire


def get(server: Server, host: str, path: str = "/", method: str = "GET", extra: str = "") -> tuple[int, str]:
    """Status, and the location or the body."""
    head = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{extra}\r\n"
    reply = ask(server.port, head.encode(), method)
    return reply.status, reply.get("Location") or reply.body.decode()


def write(folder: Path, files: dict[str, str]) -> None:
    """Make files."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


TWO = """\
[[site]]
hosts = ["example.com", "www.example.com", "*.example.com", "127.0.0.1"]
respond = { body = "com" }
headers = { set = { "X-Site" = "com" } }

[[site.route]]
path = "/static/*"
respond = { body = "files" }

[[site]]
hosts = ["example.org", "www.example.org"]
canonical = false
respond = { body = "org" }
"""


def test_hosts_find_their_site_and_other_names_are_sent_to_the_first(tmp_path: Path) -> None:
    write(tmp_path, {"daemun.toml": TWO})
    with Server("daemun.toml", cwd=tmp_path) as server:
        assert get(server, "example.com") == (200, "com")
        assert get(server, "EXAMPLE.com.:8000", "/static/x") == (200, "files")
        assert get(server, "a.example.com") == (200, "com")
        assert get(server, "127.0.0.1") == (200, "com")
        assert get(server, "www.example.com", "/a%20b?q=1") == (308, "http://example.com/a%20b?q=1")
        assert get(server, "www.example.com:8000", "//evil.example") == (308, "http://example.com:8000/evil.example")
        assert get(server, "www.example.org") == (200, "org")
        assert get(server, "other.example")[0] == 421
        reply = ask(server.port, b"GET /static/x HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n")
        assert reply.get("X-Site") == "com", "filters of a site are those of its routes"


def test_one_site_answers_any_host_and_a_site_without_hosts_is_the_default(tmp_path: Path) -> None:
    one = TWO.partition("\n\n[[site]]")[0] + "\n"
    write(tmp_path, {"daemun.toml": one})
    with Server("daemun.toml", cwd=tmp_path) as server:
        assert get(server, "other.example") == (200, "com")
        assert get(server, "www.example.com") == (308, "http://example.com/")
        write(tmp_path, {"daemun.toml": TWO + '\n[[site]]\nrespond = { body = "default" }\n'})
        server.send(signal.SIGHUP)
        server.until("/", "com")
        eventually(lambda: get(server, "other.example") == (200, "default"), "the default site")


CONDITIONS = """\
[[route]]
path = "/api"
respond = { body = "any" }
header = { "X-Version" = "1*" }

[[route]]
path = "/api"
method = ["POST", "PUT"]
respond = { body = "post" }

[[route]]
path = "/api"
method = "GET"
header = { "X-Version" = "2", "Cookie" = false }
respond = { body = "two" }

[[route]]
path = "/only"
method = ["GET", "POST"]
respond = { body = "only" }
"""


def test_conditions_choose_and_a_wrong_method_is_told_which_are_right(tmp_path: Path) -> None:
    ties = CONDITIONS.replace(
        'method = ["POST", "PUT"]\n', 'method = ["POST", "PUT"]\nheader = { "X-Version" = "0" }\n'
    )
    write(tmp_path, {"daemun.toml": ties})
    with Server("daemun.toml", cwd=tmp_path) as server:
        assert get(server, "x", "/api", extra="X-Version: 1.5\r\n") == (200, "any")
        assert get(server, "x", "/api", extra="X-Version: 2\r\n") == (200, "two")
        assert get(server, "x", "/api", extra="X-Version: 2\r\nCookie: a=b\r\n")[0] == 404
        assert get(server, "x", "/api", "POST", "X-Version: 0\r\nContent-Length: 0\r\n") == (200, "post")
        assert get(server, "x", "/only", "HEAD")[0] == 200
        reply = ask(server.port, b"DELETE /only HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert (reply.status, reply.get("Allow")) == (405, "GET, POST, HEAD")
    write(tmp_path, {"daemun.toml": CONDITIONS})
    failed = run("serve", "daemun.toml", cwd=tmp_path)
    assert failed.returncode == 2
    assert (
        "daemun.toml:6:1: a route for `/api` stands already at daemun.toml:1:1; which of them answers?" in failed.stderr
    )


def test_a_route_that_a_site_hides_is_told(tmp_path: Path) -> None:
    hidden = '\n[[route]]\npath = "/robots.txt"\nrespond = { body = "all" }\n'
    write(tmp_path, {"daemun.toml": TWO + hidden})
    with Server("daemun.toml", cwd=tmp_path) as server:
        assert "daemun.toml:15:1: the route for `/robots.txt` is never asked on host `example.com`" in server.start_up
        assert get(server, "example.com", "/robots.txt") == (200, "com")
        assert get(server, "other.example", "/robots.txt") == (200, "all")


def test_one_faulty_site_of_ten_changes_nothing(tmp_path: Path) -> None:
    site = '[[site]]\nhosts = ["s{0}.example"]\nrespond = {{ body = "site {0}" }}\n'
    files = {f"sites/{number}.toml": site.format(number) for number in range(10)}
    write(tmp_path, {"daemun.toml": 'include = ["sites/*.toml"]\n', **files})
    with Server("daemun.toml", cwd=tmp_path) as server:
        assert [get(server, f"s{number}.example") for number in range(10)] == [
            (200, f"site {number}") for number in range(10)
        ]
        write(tmp_path, {"sites/3.toml": site.format(3) + "compres = true\nrate_limit = { rate = 5 }\n"})
        write(tmp_path, {"sites/4.toml": site.format(4).replace("site 4", "new 4")})
        server.send(signal.SIGHUP)
        server.wait_for(r"sites/3\.toml:4:1: unknown key `compres` in \[\[site\]\]; did you mean `compress`\?")
        server.wait_for(
            r"sites/3\.toml:5:23: `rate` in `rate_limit`: expected a rate such as \"50/s\", found the number 5"
        )
        assert get(server, "s4.example") == (200, "site 4")
        write(tmp_path, {"sites/3.toml": site.format(3)})
        server.send(signal.SIGHUP)
        eventually(lambda: get(server, "s4.example") == (200, "new 4"), "the new site")


def test_a_kept_connection_meets_what_a_reload_has_changed_and_a_fault_changes_nothing(tmp_path: Path) -> None:
    one = '[[route]]\npath = "/"\nrespond = { body = "one" }\nheaders = { set = { "X-Number" = "1" } }\n'
    write(tmp_path, {"daemun.toml": one})

    def told(connection: Wire) -> tuple[bytes, str | None]:
        connection.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        reply = connection.reply()
        assert reply is not None, "the connection was closed"
        return reply.body, reply.get("X-Number")

    with Server("daemun.toml", cwd=tmp_path) as server, wire(server.port) as kept:
        assert told(kept) == (b"one", "1")
        two = one.replace("one", "two").replace("1", "2")
        write(tmp_path, {"daemun.toml": two + '[[route]]\npath = "/more"\nrepsond = { body = "more" }\n'})
        server.send(signal.SIGHUP)
        server.wait_for("did you mean `respond`")
        assert told(kept) == (b"one", "1")
        write(tmp_path, {"daemun.toml": two})
        server.send(signal.SIGHUP)
        server.wait_for("info: reloaded")
        assert told(kept) == (b"two", "2")
