"""A thousand WebSockets through a reload, and 200 MB pushed with git, through a proxy whose memory stays flat."""

from __future__ import annotations

import os
import resource
import selectors
import signal
import socket
import threading
from pathlib import Path

from server import DEADLINE, Server, front, resident
from test_cgi_git import commit, git
from test_proxy import configure

SOCKETS = 1000
MIB = 1 << 20
HELLO = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


def echo(listener: socket.socket) -> None:
    """Upgrade whoever comes, and send back what is sent."""
    waiting = selectors.DefaultSelector()
    waiting.register(listener, selectors.EVENT_READ, None)
    while True:
        for key, _ in waiting.select():
            if key.data is None:
                try:
                    peer, _ = listener.accept()
                except OSError:
                    return
                waiting.register(peer, selectors.EVENT_READ, bytearray())
                continue
            peer = key.fileobj
            assert isinstance(peer, socket.socket)
            data = peer.recv(65536)
            if not data:
                waiting.unregister(peer)
                peer.close()
            elif b"\r\n\r\n" in data:
                peer.sendall(HELLO)
            else:
                peer.sendall(data)


def test_a_thousand_websockets_outlive_a_reload(tmp_path: Path) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (8192, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    with socket.create_server(("127.0.0.1", 0), backlog=SOCKETS) as listener:
        threading.Thread(target=echo, args=(listener,), daemon=True).start()
        configure(tmp_path, f"http://127.0.0.1:{listener.getsockname()[1]}")
        with Server(cwd=tmp_path) as server:
            clients = [socket.create_connection(("127.0.0.1", server.port), DEADLINE) for _ in range(SOCKETS)]
            for client in clients:
                client.sendall(b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            for client in clients:
                seen = b""
                while not seen.endswith(b"\r\n\r\n"):
                    seen += client.recv(4096)
                assert seen.startswith(b"HTTP/1.1 101 ")
            for round_number in range(3):
                server.send(signal.SIGHUP)
                for number, client in enumerate(clients):
                    client.sendall(b"%d.%d" % (round_number, number))
                server.wait_for("reload")
                for number, client in enumerate(clients):
                    wanted = b"%d.%d" % (round_number, number)
                    assert client.recv(len(wanted), socket.MSG_WAITALL) == wanted
            for client in clients:
                client.close()


def test_git_pushes_200_mb_through_the_proxy_in_flat_memory(tmp_path: Path) -> None:
    behind, work = tmp_path / "behind", tmp_path / "work"
    (behind / "repositories").mkdir(parents=True)
    work.mkdir()

    bare = behind / "repositories" / "big.git"
    git("init", "--quiet", "--bare", "-b", "main", bare, cwd=behind)
    git("config", "http.receivepack", "true", cwd=bare)
    git("init", "--quiet", "-b", "main", cwd=work)
    commit(work, "noise", os.urandom(200 * MIB))
    env = f'GIT_PROJECT_ROOT = "{behind / "repositories"}", GIT_HTTP_EXPORT_ALL = "1"'
    (behind / "daemun.toml").write_text(
        '[server]\nmax_body = "1GiB"\n[[route]]\npath = "/*"\n'
        f'cgi = {{ program = ["git", "http-backend"], timeout = "300s", env = {{ {env} }} }}\n'
    )
    with Server(cwd=behind) as application:
        configure(tmp_path, f"http://127.0.0.1:{application.port}", more='read_timeout = "300s"')
        file = tmp_path / "daemun.toml"
        file.write_text('[server]\nmax_body = "1GiB"\n' + file.read_text())
        with Server(cwd=tmp_path) as server:
            before, most, done = resident(front(server)), [0], threading.Event()

            def watch() -> None:
                while not done.wait(0.05):
                    most[0] = max(most[0], resident(front(server)))

            watcher = threading.Thread(target=watch)
            watcher.start()
            git("push", "--quiet", f"http://127.0.0.1:{server.port}/big.git", "main", cwd=work)
            done.set()
            watcher.join()
            assert most[0] - before < 24 * MIB, (before, most)
            git("clone", "--quiet", f"http://127.0.0.1:{server.port}/big.git", "again", cwd=tmp_path)
            assert (tmp_path / "again" / "noise").stat().st_size == 200 * MIB
