"""CGI programs that misbehave, and how many of them there may be: nothing hangs, nothing leaks, the right status."""

from __future__ import annotations

import concurrent.futures
import ctypes
import functools
import http.client
import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from server import DEADLINE, Server, children
from test_cgi import CONFIGURATION, script


def serve(folder: Path, settings: str = "", more: str = "") -> Server:
    """Serve `cgi-bin` with these settings."""
    (folder / "daemun.toml").write_text(CONFIGURATION.format(settings=settings, more=more))
    return Server(cwd=folder)


def until(true: Callable[[], bool], what: str) -> None:
    """Look again and again, until it is so."""
    end = time.monotonic() + DEADLINE
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.01)


def is_gone(pid: int) -> bool:
    """Tell whether no process has this number; one that nobody has reaped is still there."""
    return not Path(f"/proc/{pid}").exists()


def role(server: Server, name: str) -> int:
    """Give the process that is started to be this."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        for pid in children(server.pid):
            try:
                if f"--role={name}" in Path(f"/proc/{pid}/cmdline").read_text():
                    return pid
            except OSError:
                continue
        time.sleep(0.01)
    raise AssertionError(f"there is no {name}")


STUBBORN = """
    trap '' TERM
    printf 'Content-Type: text/plain\\n\\n'
    (trap '' TERM; echo $BASHPID > child; while :; do read -t 100 < /dev/zero; done) 2>/dev/null &
    echo $$ > leader
    echo started
    while :; do sleep 100 & wait; done
"""


def pids(folder: Path) -> list[int]:
    """Wait for the numbers that a stubborn script has written."""
    files = [folder / "cgi-bin" / name for name in ("leader", "child")]
    until(lambda: all(file.exists() and file.read_text().strip() for file in files), "the script has started")
    return [int(file.read_text()) for file in files]


@pytest.mark.parametrize("reset", [False, True], ids=["closes", "resets"])
def test_a_client_that_leaves_ends_the_whole_process_group_even_if_it_ignores_term(tmp_path: Path, reset: bool) -> None:
    script(tmp_path, "stubborn.cgi", "#!/bin/bash\n" + STUBBORN)
    with serve(tmp_path) as server:
        client = socket.create_connection(("127.0.0.1", server.port))
        client.sendall(b"GET /cgi-bin/stubborn.cgi HTTP/1.1\r\nHost: a\r\n\r\n")
        started = pids(tmp_path)
        assert b"started" in client.recv(65536)
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        # Later than a client that only closes its sending half would.
        time.sleep(0.2)
        client.close()
        for pid in started:
            until(functools.partial(is_gone, pid), "the process group goes on")


def test_a_script_without_a_head_in_time_is_504_and_gone(tmp_path: Path) -> None:
    script(tmp_path, "hang.cgi", "#!/bin/bash\ntrap '' TERM; echo $$ > pid; while :; do sleep 100 & wait; done")
    with serve(tmp_path, ', timeout = "300ms"') as server:
        assert server.get("/cgi-bin/hang.cgi").status == 504
        server.wait_for("hang.cgi: no header within the route's `timeout`")
        pid = int((tmp_path / "cgi-bin" / "pid").read_text())
        until(lambda: is_gone(pid), "the script goes on")


@pytest.mark.parametrize(
    ("settings", "text", "said"),
    [
        (', stream_idle = "200ms"', "echo half; sleep 100", "no output within the route's `stream_idle`"),
        (', total_timeout = "400ms"', "while :; do echo x; sleep 0.05; done", "not done within the route's"),
        ("", "echo half; kill -9 $$", "was killed by signal 9 in the middle of its output"),
    ],
    ids=["silent", "endless", "crashes"],
)
def test_an_answer_that_breaks_off_never_looks_whole(tmp_path: Path, settings: str, text: str, said: str) -> None:
    script(tmp_path, "half.cgi", f"printf 'Content-Type: text/plain\\n\\n'\n{text}")
    with serve(tmp_path, settings) as server:
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            server.get("/cgi-bin/half.cgi")
        server.wait_for(said)


def test_a_crash_before_the_head_is_500(tmp_path: Path) -> None:
    script(tmp_path, "crash.cgi", "kill -SEGV $$")
    with serve(tmp_path) as server:
        assert server.get("/cgi-bin/crash.cgi").status == 500
        server.wait_for("crash.cgi: it was killed by signal 11 before it ended its headers")


def test_a_flood_of_standard_error_is_capped_and_hinders_nobody(tmp_path: Path) -> None:
    flood = "head -c 100000000 /dev/zero | tr '\\0' 'e' | fold -w 1000 >&2; printf 'Status: 200\\n\\ndone'"
    script(tmp_path, "flood.cgi", flood)
    with serve(tmp_path) as server:
        assert server.get("/cgi-bin/flood.cgi").text == "done"
        server.wait_for("more on standard error is left out")
        assert len(server.errors.text) < 200_000


def test_a_flood_of_output_goes_through_as_fast_as_the_client_takes_it(tmp_path: Path) -> None:
    script(tmp_path, "flood.cgi", "printf 'Content-Type: a/b\\n\\n'; head -c 50000000 /dev/zero")
    with serve(tmp_path) as server:
        front = role(server, "front")
        connection = server.connection()
        connection.request("GET", "/cgi-bin/flood.cgi")
        answer = connection.getresponse()
        # Nobody takes the rest yet: the program waits in its pipe, and the front holds next to nothing of it.
        assert len(answer.read(1000)) == 1000
        status = Path(f"/proc/{front}/status").read_text()
        resident = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
        assert resident < 100_000
        assert len(answer.read()) == 50_000_000 - 1000
        connection.close()


def test_a_body_that_nobody_reads_hinders_nobody(tmp_path: Path) -> None:
    script(tmp_path, "deaf.cgi", "printf 'Content-Type: text/plain\\n\\nlength %s' $CONTENT_LENGTH")
    with serve(tmp_path) as server:
        assert server.ask("/cgi-bin/deaf.cgi", "POST", b"x" * 5_000_000).text == "length 5000000"


def test_a_process_that_is_left_behind_holds_up_no_answer_and_ends_with_its_request(tmp_path: Path) -> None:
    script(tmp_path, "fork.cgi", "printf 'Content-Type: text/plain\\n\\ndone'\nsleep 1000 &\necho $! > pid")
    with serve(tmp_path) as server:
        assert server.get("/cgi-bin/fork.cgi").text == "done"
        pid = int((tmp_path / "cgi-bin" / "pid").read_text())
        until(lambda: is_gone(pid), "what was left behind goes on")


def test_a_daemon_that_a_script_begins_outlives_it_and_holds_up_no_answer(tmp_path: Path) -> None:
    text = "setsid sh -c 'echo $$ > pid; exec sleep 1000' >/dev/null 2>&1 </dev/null &"
    script(
        tmp_path, "daemon.cgi", f"printf 'Content-Type: text/plain\\n\\ndone'\n{text}\nwhile [ ! -s pid ]; do :; done"
    )
    (tmp_path / "cgi-bin").chmod(0o777)
    with serve(tmp_path) as server:
        assert server.get("/cgi-bin/daemon.cgi").text == "done"
        pid = int((tmp_path / "cgi-bin" / "pid").read_text())
        until(lambda: children(role(server, "launcher")) == [], "the script goes on")
        try:
            assert not is_gone(pid), "who begins a session of its own asks for that"
        finally:
            os.kill(pid, signal.SIGKILL)


def test_a_script_gets_three_descriptors_default_signals_and_a_group_of_its_own_without_a_terminal(
    tmp_path: Path,
) -> None:
    script(
        tmp_path,
        "look.cgi",
        """
        printf 'Content-Type: text/plain\\n\\n'
        ls /proc/$$/fd | sed 's/^/fd /'
        # By the shell itself: while it starts a child it blocks all signals.
        while read -r line; do
            case $line in SigIgn*|SigBlk*|NoNewPrivs*) echo "$line" ;; esac
        done < /proc/$$/status
        echo "$$ $(cut -d' ' -f5,6,7 /proc/$$/stat)"
        (: < /dev/tty) 2>/dev/null && echo "a terminal"
        """,
    )
    with serve(tmp_path) as server:
        lines = server.get("/cgi-bin/look.cgi").text.splitlines()
    # The shell reads its script through 255 (bash) or 10 (dash), which it opened itself.
    opened = [int(line[3:]) for line in lines if line.startswith("fd ")]
    assert [number for number in opened if number not in {10, 255}] == [0, 1, 2]
    assert "SigIgn:\t0000000000000000" in lines
    assert "SigBlk:\t0000000000000000" in lines
    assert "NoNewPrivs:\t1" in lines
    pid, group, session, terminal = lines[-1].split()
    assert (group, terminal) == (pid, "0")
    assert int(session) != os.getsid(0), "of the launcher, which has no terminal"


def test_limits_of_a_route_hold_for_its_programs(tmp_path: Path) -> None:
    script(tmp_path, "limits.cgi", "printf 'Status: 200\\n\\n'; ulimit -t; ulimit -n; ulimit -v; ulimit -f")
    limits = ', limits = { cpu = "7s", memory = "512MiB", files = 64, file_size = "1MiB" }'
    with serve(tmp_path, limits) as server:
        assert server.get("/cgi-bin/limits.cgi").text.split() == ["7", "64", "524288", "2048"]


def has_landlock() -> bool:
    """Ask the kernel for the version of its sandbox (`landlock_create_ruleset` with its version flag)."""
    return int(ctypes.CDLL(None).syscall(444, None, 0, 1)) > 0


def test_a_sandbox_leaves_a_program_its_folder_the_system_and_what_is_named(tmp_path: Path) -> None:
    script(
        tmp_path,
        "look.cgi",
        f"""
        printf 'Content-Type: text/plain\\n\\n'
        cat beside.txt
        cat {tmp_path}/secret.txt {tmp_path}/read/a.txt 2>/dev/null
        (echo x > written.txt) 2>/dev/null && echo "written beside"
        (echo x > {tmp_path}/write/a.txt) 2>/dev/null && echo "written where it may"
        test -r /etc/passwd && echo "the system is there"
        """,
    )
    (tmp_path / "cgi-bin" / "beside.txt").write_text("beside\n")
    (tmp_path / "secret.txt").write_text("secret\n")
    for name in ("read", "write"):
        (tmp_path / name).mkdir(mode=0o777)
    (tmp_path / "read" / "a.txt").write_text("named\n")
    with serve(tmp_path, f', sandbox = {{ read = ["{tmp_path}/read"], write = ["{tmp_path}/write"] }}') as server:
        answer = server.get("/cgi-bin/look.cgi")
        if has_landlock():
            assert answer.text.splitlines() == ["beside", "named", "written where it may", "the system is there"]
        else:
            assert answer.status == 500
            server.wait_for("sandbox of a CGI route cannot be made, and nothing runs there")


def test_many_at_once_wait_for_a_place_while_others_are_answered(tmp_path: Path) -> None:
    script(
        tmp_path,
        "count.cgi",
        """
        printf 'Content-Type: text/plain\\n\\n'
        mkdir "running/$$"
        ls running | wc -l
        rmdir "running/$$"
        """,
    )
    (tmp_path / "cgi-bin" / "running").mkdir(mode=0o777)
    more = '[[route]]\npath = "/quick"\nrespond = { body = "quick" }'
    with serve(tmp_path, ", max_processes = 16", more) as server, concurrent.futures.ThreadPoolExecutor(200) as pool:
        answers = [pool.submit(server.get, "/cgi-bin/count.cgi") for _ in range(200)]
        assert server.get("/quick").text == "quick"
        seen = [answer.result() for answer in answers]
    assert {answer.status for answer in seen} == {200}
    assert max(int(answer.text) for answer in seen) <= 16


def test_a_queue_that_is_full_or_too_slow_is_503_with_a_time_to_come_back(tmp_path: Path) -> None:
    script(tmp_path, "slow.cgi", "printf 'Status: 200\\n\\n'; echo x > started; read line < go")
    os.mkfifo(tmp_path / "go")
    (tmp_path / "cgi-bin").chmod(0o777)
    os.mkfifo(tmp_path / "cgi-bin" / "go", 0o666)
    queue = ', max_processes = 1, queue = { max = 1, timeout = "300ms" }'
    with serve(tmp_path, queue) as server, concurrent.futures.ThreadPoolExecutor(3) as pool:
        first = pool.submit(server.get, "/cgi-bin/slow.cgi")
        until((tmp_path / "cgi-bin" / "started").exists, "the first runs")
        others = [pool.submit(server.get, "/cgi-bin/slow.cgi") for _ in range(2)]
        for other in others:
            answer = other.result()
            assert (answer.status, answer.headers["Retry-After"]) == (503, "2")
        (tmp_path / "cgi-bin" / "go").write_text("\n")
        assert first.result().status == 200


def test_a_launcher_that_dies_is_started_again_and_its_programs_end_with_it(tmp_path: Path) -> None:
    script(tmp_path, "hang.cgi", "echo $$ > pid; read line < go; printf 'Status: 200\\n\\n'")
    script(tmp_path, "ok.cgi", "printf 'Status: 200\\n\\nok'")
    os.mkfifo(tmp_path / "cgi-bin" / "go", 0o666)
    with serve(tmp_path) as server, concurrent.futures.ThreadPoolExecutor(1) as pool:
        hanging = pool.submit(server.get, "/cgi-bin/hang.cgi")
        until((tmp_path / "cgi-bin" / "pid").exists, "it runs")
        os.kill(role(server, "launcher"), signal.SIGKILL)
        assert hanging.result().status == 502
        server.wait_for(r"launcher \(pid \d+\) was killed by signal 9 \(SIGKILL\); CGI programs that ran are lost")
        assert server.get("/cgi-bin/ok.cgi").text == "ok"


def test_a_front_that_dies_takes_its_programs_along(tmp_path: Path) -> None:
    script(tmp_path, "stubborn.cgi", "#!/bin/bash\n" + STUBBORN)
    script(tmp_path, "ok.cgi", "printf 'Status: 200\\n\\nok'")
    with serve(tmp_path) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"GET /cgi-bin/stubborn.cgi HTTP/1.1\r\nHost: a\r\n\r\n")
            started = pids(tmp_path)
            os.kill(role(server, "front"), signal.SIGKILL)
            for pid in started:
                until(functools.partial(is_gone, pid), "the process group goes on")
        server.wait_for("front .* is started again")
        until(lambda: answers(server), "the next front answers")


def answers(server: Server) -> bool:
    """Tell whether a script is answered."""
    try:
        return server.get("/cgi-bin/ok.cgi").text == "ok"
    except OSError:
        return False


def test_many_runs_leave_no_zombie_and_no_descriptor(tmp_path: Path) -> None:
    script(tmp_path, "ok.cgi", "printf 'Status: 200\\n\\nok'")
    script(tmp_path, "crash.cgi", "kill -9 $$")

    def opened() -> tuple[int, ...]:
        roles = [role(server, "front"), role(server, "launcher")]
        return tuple(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in roles)

    with serve(tmp_path) as server:
        server.get("/cgi-bin/ok.cgi")
        server.get("/cgi-bin/crash.cgi")
        before = opened()
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            paths = ["/cgi-bin/ok.cgi", "/cgi-bin/crash.cgi", "/cgi-bin/nothing"] * 40
            assert {answer.status for answer in pool.map(server.get, paths)} == {200, 404, 500}
        until(lambda: all(now <= then for now, then in zip(opened(), before, strict=True)), "descriptors are left")
        until(lambda: children(role(server, "launcher")) == [], "a zombie is left")


def test_nothing_is_left_when_the_server_stops(tmp_path: Path) -> None:
    script(tmp_path, "stubborn.cgi", "#!/bin/bash\n" + STUBBORN)
    with serve(tmp_path, more='[server]\ngrace = "200ms"') as server:
        launcher = role(server, "launcher")
        with socket.create_connection(("127.0.0.1", server.port)) as client:
            client.sendall(b"GET /cgi-bin/stubborn.cgi HTTP/1.1\r\nHost: a\r\n\r\n")
            started = pids(tmp_path)
            server.stop()
    for pid in [launcher, *started]:
        until(functools.partial(is_gone, pid), "something is left")
