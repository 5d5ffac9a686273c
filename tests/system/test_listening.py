"""Where the server listens: sockets of every kind, ports that are taken, the pid file."""

from __future__ import annotations

import signal
import socket
import stat
import subprocess
from pathlib import Path

from server import BINARY, DEADLINE, Server, environment, run


def ask(listener: socket.socket, fields: bytes = b"") -> bytes:
    """One request on a connected socket, read to the end."""
    with listener:
        listener.settimeout(DEADLINE)
        listener.sendall(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + fields + b"\r\n")
        return listener.makefile("rb").read()


def test_a_unix_socket_has_the_mode_that_was_asked_for_and_goes_with_the_server(flask: Path) -> None:
    path = flask / "s"
    (flask / "daemun.toml").write_text(
        f'[server]\nlisten = ["127.0.0.1:0", {{ address = "unix:{path}", mode = "660" }}]\n'
        '[app.one]\nwsgi = "app:app"\n'
    )
    with Server(cwd=flask, listen="") as server:
        server.wait_for(f"listening on unix:{path}")
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(path))
        assert ask(connection).endswith(b"one")
        done = run("serve", "app:app", "--listen", f"unix:{path}", cwd=flask)
        assert (done.returncode, str(path) in done.stderr) == (1, True)
        assert server.stop() == 0
    assert not path.exists()


SAID = b"X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.test\r\n"


def write_forwarding_application(folder: Path, server: str) -> None:
    names = ["wsgi.url_scheme", "HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_HOST"]
    (folder / "app.py").write_text(
        f"def app(e, s):\n    s('200 OK', [])\n    return ['|'.join(e[name] for name in {names}).encode()]\n"
    )
    (folder / "daemun.toml").write_text(f'[server]\n{server}\n[app.one]\nwsgi = "app:app"\n')


def test_who_speaks_on_a_unix_socket_is_trusted_to_say_where_a_request_came_from(tmp_path: Path) -> None:
    path = tmp_path / "s"
    write_forwarding_application(tmp_path, f'listen = ["127.0.0.1:0", "unix:{path}"]')
    with Server(cwd=tmp_path, listen="") as server:
        server.wait_for(f"listening on unix:{path}")
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(str(path))
        assert ask(connection, SAID).endswith(b"\r\n\r\nhttps|192.0.2.7|https|shop.test")
        # On the other listener anybody may speak.
        connection = socket.create_connection(("127.0.0.1", server.port))
        assert ask(connection, SAID).endswith(b"\r\n\r\nhttp|127.0.0.1|http|a")


def test_a_proxy_that_is_named_is_trusted_to_say_where_a_request_came_from(tmp_path: Path) -> None:
    write_forwarding_application(tmp_path, 'trusted_proxies = ["127.0.0.0/8"]')
    with Server(cwd=tmp_path) as server:
        connection = socket.create_connection(("127.0.0.1", server.port))
        assert ask(connection, SAID).endswith(b"\r\n\r\nhttps|192.0.2.7, 127.0.0.1|https|shop.test")


def test_a_socket_that_was_opened_by_whoever_starts_us_is_served(flask: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number = listener.fileno()
        process = subprocess.Popen(
            [BINARY, "serve", "app:app", "--listen", f"fd:{number}"],
            cwd=flask,
            env=environment({}),
            pass_fds=[number],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            # Nobody has to wait for the start: the connection lies in the socket until it is taken.
            answer = ask(socket.create_connection(listener.getsockname(), timeout=DEADLINE))
            assert answer.endswith(b"one")
        finally:
            process.terminate()
            _, said = process.communicate(timeout=DEADLINE)
        assert process.returncode == 0, said


def test_a_descriptor_that_is_no_listening_socket_is_refused(flask: Path) -> None:
    done = run("serve", "app:app", "--listen", "fd:0", cwd=flask)
    assert done.returncode == 1
    assert "fd:0 is not a listening socket" in done.stderr


def test_the_pid_file_is_there_while_the_server_is_and_another_leaves_it_alone(flask: Path) -> None:
    file = flask / "pid"
    with Server("app:app", "--pid-file", file, cwd=flask) as server:
        assert int(file.read_text()) == server.pid
        done = run("serve", "app:app", "--pid-file", file, "--listen", f"127.0.0.1:{server.port}", cwd=flask)
        assert done.returncode == 1
        assert int(file.read_text()) == server.pid
        assert server.stop(signal.SIGINT) == 0
    assert not file.exists()
