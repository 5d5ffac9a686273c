"""The control socket: `daemun status`, `reload`, `drain`, `stop`, in the folder of a server or told where it is."""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from gate import Gate
from server import BINARY, DEADLINE, Server, alive, environment, run

CONFIGURATION = """\
[server]
listen = ["127.0.0.1:0"]
control = "run.control"

[app.one]
wsgi = "app:app"
processes = 1

[app.two]
wsgi = "app:app"
processes = 1

[[route]]
path = "/two/*"
app = "two"
strip_prefix = "/two"

[[route]]
path = "/*"
app = "one"
"""


def status(cwd: Path, *arguments: str) -> dict[str, object]:
    """What `daemun status --json` says."""
    told = run("status", "--json", *arguments, cwd=cwd)
    assert told.returncode == 0, told.stderr
    result: dict[str, object] = json.loads(told.stdout)
    return result


def test_a_server_is_found_by_the_folder_that_it_serves(flask: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with Server("app:app", "--workers", "1", cwd=flask) as server:
        server.get("/")
        told = status(flask)
        assert told["pid"] == server.pid
        assert told["phase"] == "serving"
        assert told["degraded"] == []
        traffic = told["traffic"]
        assert isinstance(traffic, dict)
        assert traffic["statuses"] == {"2xx": 1}
        assert status(elsewhere, "--directory", str(flask))["pid"] == server.pid
        text = run("status", "--check", cwd=flask)
        assert text.returncode == 0
        assert f"pid {server.pid} serving" in text.stdout
        nobody = run("status", cwd=elsewhere)
        assert nobody.returncode == 1
        assert "no server is running here; looked at /" in nobody.stderr


def test_the_socket_is_for_its_user_alone_and_goes_with_the_server(flask: Path) -> None:
    (flask / "daemun.toml").write_text(CONFIGURATION)
    with Server(cwd=flask, listen="") as server:
        path = flask / "run.control"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert status(flask)["pid"] == server.pid
        assert run("status", "--control", str(path), cwd=Path("/")).returncode == 0
        assert server.stop() == 0
        assert not path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can ask as somebody else")
def test_another_user_is_refused_by_the_kernels_word(flask: Path) -> None:
    path = Path("/tmp") / f"daemun-test-{os.getpid()}.control"
    with Server("app:app", "--workers", "1", "--control", path, cwd=flask):
        # Even where the access bits are wrong.
        path.chmod(0o666)
        asking = (
            "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]);"
            's.sendall(b\'{"command":"stop"}\\n\'); print(s.recv(1000).decode())'
        )
        command = ["python3", "-c", asking, str(path)]
        told = subprocess.run(command, user=65534, capture_output=True, text=True, timeout=DEADLINE)
        assert "may not command a server" in told.stdout
        assert status(flask, "--control", str(path))["phase"] == "serving"


def test_nonsense_on_the_socket_is_refused_and_harms_nobody(flask: Path) -> None:
    (flask / "daemun.toml").write_text(CONFIGURATION)
    with Server(cwd=flask, listen=""):
        for bytes_ in (b"\0" * 100_000, b'{"command":"halt"}\n', b"GET / HTTP/1.1\r\n\r\n", b""):
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(flask / "run.control"))
                client.settimeout(DEADLINE)
                try:
                    client.sendall(bytes_)
                    client.shutdown(socket.SHUT_WR)
                    assert b'"refused"' in client.recv(4096)
                    assert client.recv(1) == b"", "who was refused is not kept waiting"
                except OSError:
                    # What is too long is not read to its end.
                    assert len(bytes_) > 65536
        assert status(flask)["phase"] == "serving"


DEEP = """\
import os, threading

def deep(left):
    return deep(left - 1) if left else 0

def application(environ, start_response):
    for _ in range(300):
        for depth in range(20):
            deep(200 + 20 * depth)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d" % os.getpid()]
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may send signals to another's processes")
def test_stacks_are_shown_of_threads_that_run_and_harm_none(tmp_path: Path) -> None:
    (tmp_path / "deep.py").write_text(DEEP)
    with (
        Server("deep:application", "--workers", "1", "--threads", "3", cwd=tmp_path) as server,
        ThreadPoolExecutor() as pool,
    ):
        pid = server.get("/").text
        asked = [pool.submit(server.get, "/") for _ in range(6)]
        while not all(one.done() for one in asked):
            # As the supervisor does, only more often.
            os.kill(int(pid), 40)
            time.sleep(0.004)
        assert [one.result().text for one in asked] == [pid] * 6
        assert run("stacks", cwd=tmp_path).returncode == 0
        assert server.get("/").text == pid


def test_stacks_name_the_function_that_a_view_waits_in(flask: Path, gate: Gate) -> None:
    with Server("app:app", "--workers", "1", cwd=flask, env=gate.env) as server, ThreadPoolExecutor() as pool:
        held = pool.submit(server.get, "/held")
        gate.entered()
        told = run("stacks", cwd=flask)
        assert (told.returncode, told.stderr) == (0, "")
        assert re.search(r"^app: worker 1 \(pid \d+\)$", told.stdout, re.MULTILINE), told.stdout
        assert re.search(rf'^  File "{flask}/app.py", line \d+ in held$', told.stdout, re.MULTILINE), told.stdout
        assert "  waits for a request\n" in told.stdout, "the other threads"
        assert told.stdout.endswith("1 worker\n")
        unknown = run("stacks", "none", cwd=flask)
        assert (unknown.returncode, "there is no application `none`" in unknown.stderr) == (1, True)
        gate.open()
        assert held.result(DEADLINE).text == "finished"


def test_a_reload_waits_and_says_what_came_of_it(flask: Path) -> None:
    source = (flask / "app.py").read_text()
    with Server("app:app", "--workers", "1", cwd=flask) as server:
        (flask / "app.py").write_text(source.replace('"one"', '"two"'))
        told = run("reload", cwd=flask)
        assert (told.returncode, told.stdout) == (0, "reloading\nreloaded: the new code serves\n")
        assert server.get("/").text == "two"
        (flask / "app.py").write_text("import a_module_that_is_not_there\n")
        told = run("reload", cwd=flask)
        assert told.returncode == 1
        assert "the old code serves on" in told.stderr
        assert "No module named 'a_module_that_is_not_there'" in told.stderr
        assert server.get("/").text == "two"
        assert run("status", "--check", cwd=flask).returncode == 1
        (flask / "app.py").write_text(source)
        assert run("reload", cwd=flask).returncode == 0
        assert run("status", "--check", cwd=flask).returncode == 0


def test_one_application_is_reloaded_and_the_other_left_alone(flask: Path) -> None:
    (flask / "daemun.toml").write_text(CONFIGURATION)
    with Server(cwd=flask, listen="") as server:
        one, two = server.get("/pid").text, server.get("/two/pid").text
        assert run("reload", "two", cwd=flask).returncode == 0
        assert server.get("/pid").text == one
        assert server.get("/two/pid").text != two
        unknown = run("reload", "three", cwd=flask)
        assert unknown.returncode == 1
        assert "there is no application `three`; there is: one, two" in unknown.stderr
        # Everything is reloaded after that as before.
        assert run("reload", cwd=flask).returncode == 0
        assert server.get("/pid").text != one


def test_reloads_that_are_asked_for_at_once_all_get_their_answer(flask: Path) -> None:
    with Server("app:app", "--workers", "1", cwd=flask) as server:
        answers: list[int] = []
        threads = [
            threading.Thread(target=lambda: answers.append(run("reload", cwd=flask).returncode)) for _ in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(DEADLINE)
        assert answers == [0, 0, 0, 0]
        assert server.get("/").text == "one"


def test_a_server_that_drains_serves_on_and_asks_for_close(flask: Path) -> None:
    with Server("app:app", "--workers", "1", "--health", "127.0.0.1:0", cwd=flask) as server:
        health = server.wait_for(r"health on http://127.0.0.1:(\d+)")[1]
        assert server.get("/").headers["Connection"] is None
        assert run("drain", cwd=flask).returncode == 0
        assert server.get("/").headers["Connection"] == "close"
        server.port = int(health)
        assert server.get("/readyz").status == 503
        assert server.get("/healthz").status == 200
        assert run("status", "--check", cwd=flask).returncode == 1
        unknown = run("drain", "legacy", "http://10.0.0.5:8080", cwd=flask)
        assert unknown.returncode == 1
        assert "there is no upstream `legacy`" in unknown.stderr


def test_a_stop_waits_for_the_end(flask: Path, gate: Gate) -> None:
    with Server("app:app", "--workers", "1", cwd=flask, env=gate.env) as server:
        held = threading.Thread(target=server.ask, args=("/held",))
        held.start()
        gate.entered()
        stopping = subprocess.Popen(
            [str(BINARY), "stop"], cwd=flask, env=environment({}), stdout=subprocess.PIPE, text=True
        )
        assert stopping.stdout is not None
        assert stopping.stdout.readline().startswith("stopping: what is in flight has 25 s")
        assert alive(server.pid)
        gate.open()
        assert stopping.communicate(timeout=DEADLINE)[0] == "stopped\n"
        assert stopping.returncode == 0
        assert server.exit_code() == 0
        held.join(DEADLINE)


def test_a_second_server_of_the_same_folder_serves_but_leaves_the_socket_alone(flask: Path) -> None:
    with Server("app:app", "--workers", "1", cwd=flask) as first:
        with Server("app:app", "--workers", "1", cwd=flask) as second:
            second.wait_for("no control socket .*another server answers there")
            assert second.get("/").text == "one"
        assert status(flask)["pid"] == first.pid


def test_a_socket_that_a_killed_server_left_is_replaced(flask: Path) -> None:
    (flask / "daemun.toml").write_text(CONFIGURATION)
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(flask / "run.control"))
    with Server(cwd=flask, listen="") as server:
        assert status(flask)["pid"] == server.pid
