"""CGI on the wire: RFC 3875 point by point, with the real server and real scripts."""

from __future__ import annotations

import os
import socket
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from server import Server

CONFIGURATION = """
[[route]]
path = "/cgi-bin/*"
cgi = {{ root = "cgi-bin"{settings} }}
{more}
"""


def script(folder: Path, name: str, text: str, mode: int = 0o755) -> Path:
    """Write a script; `#!/bin/sh` where it says nothing else."""
    path = folder / "cgi-bin" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    text = textwrap.dedent(text).lstrip("\n")
    path.write_text(text if text.startswith("#!") or mode & 0o111 == 0 else "#!/bin/sh\n" + text)
    path.chmod(mode)
    return path


ENVIRONMENT = """
    printf 'Content-Type: text/plain\\n\\n'
    env
    for word in "$@"; do echo "WORD=$word"; done
    [ "$REQUEST_METHOD" = POST ] && echo "STDIN=$(wc -c)"
    echo 'one line to stderr' >&2
"""


def write_appendix(folder: Path) -> None:
    """Write the scripts that every CGI server should be shown."""
    script(folder, "env.cgi", ENVIRONMENT)
    script(folder, "sub/env.cgi", ENVIRONMENT)
    script(folder, "nph-t.cgi", "printf 'HTTP/1.1 299 Nph by itself\\r\\nX-Nph: 1\\r\\n\\r\\nraw'")
    script(
        folder,
        "nph-chunks.cgi",
        "printf 'HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n3\\r\\nabc\\r\\n0\\r\\n\\r\\n'",
    )
    script(folder, "local.cgi", "printf 'Location: /cgi-bin/env.cgi/from/local?x=1\\n\\n'")
    script(folder, "loop.cgi", "printf 'Location: /cgi-bin/loop.cgi\\n\\n'")
    script(folder, "client.cgi", "printf 'Location: http://example.test/\\n\\n'")
    script(folder, "cookie.cgi", "printf 'Set-Cookie: a=b\\nSet-Cookie: c=d\\nLocation: /cgi-bin/env.cgi\\n\\n'")
    script(folder, "moved.cgi", "printf 'Status: 301 Moved\\nLocation: http://example.test/\\n\\ndocument'")
    script(folder, "st.cgi", "printf 'Status: 404 Nope\\nContent-Type: text/plain\\n\\nnope'")
    script(folder, "empty.cgi", ":")
    script(folder, "bad.cgi", "echo 'hello <b>without</b> headers'")
    script(
        folder,
        "hints.cgi",
        """
        printf 'Status: 103 Early Hints\\nLink: </a.css>; rel=preload\\n\\n'
        printf 'Status: 200 OK\\nContent-Type: text/plain\\n\\nbody'
        """,
    )
    script(folder, "split.cgi", "printf 'X-A: b\\rSet-Cookie: evil=1\\n\\nbody'")
    script(folder, "length.cgi", "printf 'Content-Length: 4\\n\\nfour and more'")


@pytest.fixture(name="server", scope="module")
def fixture_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve the scripts of the appendix."""
    folder = tmp_path_factory.mktemp("cgi")
    write_appendix(folder)
    (folder / "daemun.toml").write_text(CONFIGURATION.format(settings="", more=""))
    with Server(cwd=folder) as server:
        yield server


def environment(server: Server, target: str, headers: dict[str, str] | None = None) -> dict[str, str]:
    """Ask the environment script, and read what it printed."""
    answer = server.get(target, headers)
    assert answer.status == 200, answer.text
    return dict(line.split("=", 1) for line in answer.text.splitlines() if "=" in line)


def raw(server: Server, request: bytes) -> bytes:
    """Send bytes, and read until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        client.sendall(request)
        answer = b""
        while piece := client.recv(65536):
            answer += piece
        return answer


def test_every_meta_variable_says_what_rfc_3875_wants(server: Server) -> None:
    found = environment(server, "/cgi-bin/sub/env.cgi/a%20b?q=%31&r=2")
    root = Path(found["DOCUMENT_ROOT"])
    assert {name: found[name] for name in found if not name.startswith(("HTTP_", "REMOTE_PORT"))} == {
        "DOCUMENT_ROOT": str(root),
        "GATEWAY_INTERFACE": "CGI/1.1",
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "PATH_INFO": "/a b",
        "PATH_TRANSLATED": f"{root}/a b",
        "PWD": f"{root}/sub",
        "QUERY_STRING": "q=%31&r=2",
        "REDIRECT_STATUS": "200",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_HOST": "127.0.0.1",
        "REQUEST_METHOD": "GET",
        "REQUEST_SCHEME": "http",
        "REQUEST_URI": "/cgi-bin/sub/env.cgi/a%20b?q=%31&r=2",
        "SCRIPT_FILENAME": f"{root}/sub/env.cgi",
        "SCRIPT_NAME": "/cgi-bin/sub/env.cgi",
        "SERVER_ADDR": "127.0.0.1",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": str(server.port),
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": "daemun",
    }


def test_path_info_is_decoded_once_and_its_dots_are_resolved(server: Server) -> None:
    found = environment(server, "/cgi-bin/env.cgi/a%20b/%2e%2e/c%2Fd%2525?q=%31")
    assert found["PATH_INFO"] == "/c/d%25"
    assert found["SCRIPT_NAME"] == "/cgi-bin/env.cgi"
    assert "PATH_INFO" not in environment(server, "/cgi-bin/env.cgi")
    assert environment(server, "/cgi-bin/env.cgi/")["PATH_INFO"] == "/"


def test_an_encoded_slash_cannot_lead_upwards(server: Server) -> None:
    assert server.get("/cgi-bin/env.cgi/..%2F..%2Fetc/passwd").status == 404


def test_misleading_headers_never_reach_a_script(server: Server) -> None:
    headers = {"Proxy": "evil", "X_A": "under", "X-A": "dash", "Authorization": "Basic x", "Connection": "keep-alive"}
    found = environment(server, "/cgi-bin/env.cgi", headers)
    assert found["HTTP_X_A"] == "dash"
    assert not {"HTTP_PROXY", "HTTP_AUTHORIZATION", "HTTP_CONNECTION"} & found.keys()


def test_the_environment_is_built_from_nothing_of_the_servers(tmp_path: Path) -> None:
    script(tmp_path, "env.cgi", ENVIRONMENT)
    settings = ', authorization = true, env = { LANG = "C.UTF-8", PATH = "/opt/bin:/usr/bin:/bin" }'
    (tmp_path / "daemun.toml").write_text(CONFIGURATION.format(settings=settings, more=""))
    with Server(cwd=tmp_path, env={"SECRET": "of the server"}) as server:
        found = environment(server, "/cgi-bin/env.cgi", {"Authorization": "Basic x"})
    assert not {"SECRET", "HOME", "VIRTUAL_ENV"} & found.keys()
    assert (found["LANG"], found["PATH"]) == ("C.UTF-8", "/opt/bin:/usr/bin:/bin")
    assert found["HTTP_AUTHORIZATION"] == "Basic x"


def test_words_of_an_indexed_query_are_arguments(server: Server) -> None:
    def words(query: str) -> list[str]:
        lines = server.get(f"/cgi-bin/env.cgi?{query}").text.splitlines()
        return [line[5:] for line in lines if line.startswith("WORD=")]

    assert words("one+two%20three") == ["one", "two three"]
    assert words("a%3Bb") == ["a\\;b"]
    assert words("a=b") == words("-x") == words("a+-x") == []


@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "chunked"])
@pytest.mark.parametrize("size", [0, 5, 70_000, 300_000])
def test_a_body_arrives_whole_with_its_length(server: Server, size: int, chunked: bool) -> None:
    connection = server.connection()
    body = iter([b"x" * size]) if chunked and size else b"x" * size
    connection.request("POST", "/cgi-bin/env.cgi", body, encode_chunked=chunked)
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    assert f"STDIN={size}" in lines
    assert f"CONTENT_LENGTH={size}" in lines
    assert not [line for line in lines if line.startswith("HTTP_TRANSFER_ENCODING")]


def test_encodings_of_a_body_are_passed_on(server: Server) -> None:
    answer = server.ask(
        "/cgi-bin/env.cgi", "POST", b"\x1f\x8b....", {"Content-Encoding": "gzip", "Content-Type": "a/b"}
    )
    assert "HTTP_CONTENT_ENCODING=gzip" in answer.text
    assert "CONTENT_TYPE=a/b" in answer.text
    assert "HTTP_CONTENT_TYPE" not in answer.text


def test_a_status_is_sent_with_its_own_reason(server: Server) -> None:
    answer = raw(server, b"GET /cgi-bin/st.cgi HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 404 Nope\r\n")
    assert b"nope" in answer


def test_a_redirect_of_the_client_is_302_and_keeps_what_else_was_said(server: Server) -> None:
    answer = server.get("/cgi-bin/client.cgi")
    assert (answer.status, answer.headers["Location"]) == (302, "http://example.test/")
    cookies = server.get("/cgi-bin/cookie.cgi")
    assert (cookies.status, cookies.headers["Location"]) == (302, "/cgi-bin/env.cgi")
    assert cookies.headers.get_all("Set-Cookie") == ["a=b", "c=d"]
    moved = server.get("/cgi-bin/moved.cgi")
    assert (moved.status, moved.text) == (301, "document")


def test_a_local_redirect_is_answered_within_the_server(server: Server) -> None:
    found = environment(server, "/cgi-bin/local.cgi")
    assert (found["PATH_INFO"], found["QUERY_STRING"]) == ("/from/local", "x=1")
    posted = server.ask("/cgi-bin/local.cgi", "POST", b"body")
    assert "REQUEST_METHOD=GET" in posted.text


def test_a_loop_of_local_redirects_ends(server: Server) -> None:
    assert server.get("/cgi-bin/loop.cgi").status == 500


def test_a_script_may_write_its_whole_response(server: Server) -> None:
    answer = raw(server, b"GET /cgi-bin/nph-t.cgi HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 299 Nph by itself\r\nX-Nph: 1\r\n")
    assert b"raw" in answer
    assert server.get("/cgi-bin/nph-chunks.cgi").body == b"abc"


def test_hints_go_ahead_of_the_answer(server: Server) -> None:
    answer = raw(server, b"GET /cgi-bin/hints.cgi HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    first, second = answer.split(b"\r\n\r\n", 1)
    assert first == b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload"
    assert second.startswith(b"HTTP/1.1 200 OK\r\n")
    old = raw(server, b"GET /cgi-bin/hints.cgi HTTP/1.0\r\nHost: a\r\n\r\n")
    assert old.startswith(b"HTTP/1.1 200 OK\r\n"), "HTTP/1.0 knows none"


def test_head_gets_the_fields_and_no_body(server: Server) -> None:
    answer = raw(server, b"HEAD /cgi-bin/st.cgi HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 404 Nope\r\n")
    assert answer.endswith(b"\r\n\r\n")


def test_a_length_that_the_script_says_is_kept(server: Server) -> None:
    answer = server.get("/cgi-bin/length.cgi")
    assert (answer.headers["Content-Length"], answer.text) == ("4", "four")


@pytest.mark.parametrize("name", ["empty.cgi", "bad.cgi", "split.cgi"])
def test_output_without_a_valid_head_is_500_and_quoted_in_the_log(server: Server, name: str) -> None:
    answer = server.get(f"/cgi-bin/{name}")
    assert answer.status == 500
    assert "evil" not in str(answer.headers)
    quoted = {"empty.cgi": "no output at all", "bad.cgi": "hello <b>without</b> headers", "split.cgi": "X-A: b"}
    line = server.wait_for(rf"error: .*/{name}: .*").group()
    assert quoted[name] in line


def test_standard_error_goes_to_the_log_with_the_request_it_belongs_to(server: Server) -> None:
    server.get("/cgi-bin/env.cgi")
    server.wait_for(r"warning: [0-9a-f]{16}: .*/cgi-bin/env\.cgi: one line to stderr$")


def test_output_with_pauses_is_heard_to_its_end(tmp_path: Path) -> None:
    # What a short program writes is read when it ends; one that lasts is listened to from some moment on.
    parts = "".join(f"printf {number}; sleep 0.0{number};" for number in range(1, 6))
    script(tmp_path, "slow.cgi", f"printf 'Content-Type: text/plain\\n\\n'; {parts} printf end")
    (tmp_path / "site").mkdir()
    with Server("site", "--cgi", "/cgi-bin=cgi-bin", cwd=tmp_path) as server:
        answers = [server.get("/cgi-bin/slow.cgi") for _ in range(5)]
        assert [(answer.status, answer.text) for answer in answers] == [(200, "12345end")] * 5


def test_output_is_streamed_as_it_comes(tmp_path: Path) -> None:
    script(
        tmp_path,
        "stream.cgi",
        """
        printf 'Content-Type: text/plain\\n\\none\\n'
        read line < go
        echo "$line"
        """,
    )
    gate = tmp_path / "cgi-bin" / "go"
    os.mkfifo(gate, 0o666)
    (tmp_path / "daemun.toml").write_text(CONFIGURATION.format(settings="", more=""))
    with Server(cwd=tmp_path) as server:
        connection = server.connection()
        connection.request("GET", "/cgi-bin/stream.cgi")
        answer = connection.getresponse()
        assert answer.read(4) == b"one\n", "before the script goes on"
        gate.write_text("two\n")
        assert answer.read() == b"two\n"
        connection.close()


def test_a_script_is_run_or_refused_and_its_source_never_sent(tmp_path: Path) -> None:
    script(tmp_path, "nobit.cgi", "echo SOURCE", mode=0o644)
    script(tmp_path, "crlf.cgi", "#!/bin/sh\r\necho SOURCE\r\n")
    script(tmp_path, "missing.cgi", "#!/opt/nowhere/perl\nSOURCE\n")
    script(tmp_path, "env-missing.cgi", "#!/usr/bin/env nosuchperl\nSOURCE\n")
    script(tmp_path, ".hidden", "echo SOURCE")
    (tmp_path / "outside.cgi").write_text("#!/bin/sh\necho SOURCE")
    (tmp_path / "cgi-bin" / "link.cgi").symlink_to(tmp_path / "outside.cgi")
    (tmp_path / "cgi-bin" / "plain.cgi").write_text("SOURCE")
    (tmp_path / "cgi-bin" / "plain.cgi").chmod(0o755)
    (tmp_path / "cgi-bin" / "folder").mkdir()
    (tmp_path / "daemun.toml").write_text(CONFIGURATION.format(settings="", more=""))
    with Server(cwd=tmp_path) as server:
        for name, status, mend in [
            ("nobit.cgi", 500, r"nobit\.cgi is not executable; run chmod \+x .*nobit\.cgi"),
            ("crlf.cgi", 500, r"crlf\.cgi, `#!/bin/sh`, ends with CR LF.*run sed"),
            ("missing.cgi", 500, r"interpreter /opt/nowhere/perl in the first line of .*missing\.cgi is not there"),
            ("env-missing.cgi", 500, r"interpreter nosuchperl in the first line of .*env-missing\.cgi is not there"),
            ("plain.cgi", 500, r"plain\.cgi is neither a program nor does it begin with a line such as"),
            ("link.cgi", 404, r"link\.cgi is a link that leads out of .*cgi-bin"),
            (".hidden", 404, r"\.hidden begins with a dot"),
        ]:
            answer = server.get(f"/cgi-bin/{name}")
            assert (answer.status, b"SOURCE" in answer.body) == (status, False), name
            server.wait_for(mend)
        for name in ["", "folder", "folder/", "nothing", "nothing/x"]:
            assert server.get(f"/cgi-bin/{name}").status == 404, name


def test_an_ending_chooses_the_interpreter_whatever_the_bit(tmp_path: Path) -> None:
    script(tmp_path, "a.sh", "printf 'X: y\\n\\nshell %s' \"$#\"", mode=0o644)
    (tmp_path / "daemun.toml").write_text(CONFIGURATION.format(settings=', interpreters = { ".sh" = "sh" }', more=""))
    with Server(cwd=tmp_path) as server:
        assert server.get("/cgi-bin/a.sh?words+are+not+for+interpreters").text == "shell 0"


def test_one_program_answers_a_whole_path(tmp_path: Path) -> None:
    script(tmp_path, "one.cgi", ENVIRONMENT)
    program = tmp_path / "cgi-bin" / "one.cgi"
    (tmp_path / "daemun.toml").write_text(
        f'[[route]]\npath = "/git/*"\ncgi = {{ program = ["{program}", "-x"], env = {{ A = "b" }} }}\n'
        f'[[route]]\npath = "/exact"\ncgi = {{ program = "{program}" }}\n'
    )
    with Server(cwd=tmp_path) as server:
        found = environment(server, "/git/repo.git/info/refs?service=x")
        assert (found["SCRIPT_NAME"], found["PATH_INFO"]) == ("/git", "/repo.git/info/refs")
        assert (found["WORD"], found["A"]) == ("-x", "b")
        assert environment(server, "/git/")["PATH_INFO"] == "/"
        exact = environment(server, "/exact")
        assert exact["SCRIPT_NAME"] == "/exact"
        assert "PATH_INFO" not in exact


def test_static_files_never_send_what_lies_below_a_cgi_root(tmp_path: Path) -> None:
    # The front has a user of its own where the tests run as root, and enters only what all may enter.
    tmp_path = tmp_path / "site"
    script(tmp_path, "env.cgi", "echo SOURCE")
    (tmp_path / "page.php").write_text("SOURCE")
    (tmp_path / "a.css").write_text("style")
    static = '[[route]]\npath = "/*"\nstatic = { root = "." }\n[[route]]\npath = "/files/*"\nstatic = { root = "." }\n'
    php = '[[route]]\npath = "*.php"\ncgi = { root = ".", interpreters = { ".php" = "sh" } }\n'
    (tmp_path / "daemun.toml").write_text(CONFIGURATION.format(settings="", more=static + php))
    with Server(cwd=tmp_path) as server:
        assert server.get("/files/a.css").text == "style"
        for path in ["/files/cgi-bin/env.cgi", "/files/page.php", "/files/cgi-bin/"]:
            answer = server.get(path)
            assert answer.status in {403, 404}, path
            assert b"SOURCE" not in answer.body
    inside = '[[route]]\npath = "/static/*"\nstatic = { root = "cgi-bin" }\n'
    (tmp_path / "daemun.toml").write_text(CONFIGURATION.format(settings="", more=inside))
    server = Server(cwd=tmp_path)
    assert server.exit_code() == 2
    assert "lie below the CGI root" in server.errors.text


def test_an_option_names_a_folder_of_scripts(tmp_path: Path) -> None:
    script(tmp_path, "st.cgi", "printf 'Status: 201\\n\\n'")
    (tmp_path / "site").mkdir()
    with Server("site", "--cgi", "/cgi-bin=cgi-bin", cwd=tmp_path) as server:
        assert server.get("/cgi-bin/st.cgi").status == 201


def test_listings_do_not_name_what_a_cgi_route_runs(tmp_path: Path) -> None:
    # The front has a user of its own where the tests run as root, and enters only what all may enter.
    tmp_path = tmp_path / "site"
    script(tmp_path, "env.cgi", "echo SOURCE")
    (tmp_path / "page.php").write_text("SOURCE")
    (tmp_path / "a.css").write_text("style")
    more = '[[route]]\npath = "/files/*"\nstatic = { root = ".", listing = true }\n'
    more += '[[route]]\npath = "*.php"\ncgi = { root = ".", interpreters = { ".php" = "sh" } }\n'
    (tmp_path / "daemun.toml").write_text(CONFIGURATION.format(settings="", more=more))
    with Server(cwd=tmp_path) as server:
        listing = server.get("/files/").text
        assert "a.css" in listing
        assert "page.php" not in listing
        assert "cgi-bin" not in listing
        assert server.get("/files/cgi-bin/").status == 404


def test_a_site_may_be_a_folder_of_scripts_or_one_program(tmp_path: Path) -> None:
    script(tmp_path, "env.cgi", ENVIRONMENT)
    program = tmp_path / "cgi-bin" / "env.cgi"
    (tmp_path / "daemun.toml").write_text(
        '[[site]]\nhosts = ["a.test"]\ncgi = { root = "cgi-bin" }\n'
        f'[[site]]\nhosts = ["b.test"]\ncgi = {{ program = "{program}" }}\n'
    )
    with Server(cwd=tmp_path) as server:
        found = environment(server, "/env.cgi/a", {"Host": "a.test"})
        assert (found["SCRIPT_NAME"], found["PATH_INFO"]) == ("/env.cgi", "/a")
        found = environment(server, "/any/thing", {"Host": "b.test"})
        assert (found["SCRIPT_NAME"], found["PATH_INFO"]) == ("", "/any/thing")
