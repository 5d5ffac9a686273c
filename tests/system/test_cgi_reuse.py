"""`reuse = "fork"`: a warm interpreter forks for each request, and a script cannot tell."""

from __future__ import annotations

import http.client
import time
from pathlib import Path

import pytest
from server import Server
from test_cgi import CONFIGURATION, script

PROBE = """
    #!/usr/bin/env python3
    import atexit, json, os, resource, sys
    atexit.register(lambda: print("at exit", file=sys.stderr))

    def of_main():
        return VALUE

    VALUE = "global"
    query = os.environ["QUERY_STRING"]
    print("Content-Type: application/json\\n")
    print(json.dumps({
        "name": __name__, "file": __file__, "argv": sys.argv, "cwd": os.getcwd(), "stdin": sys.stdin.read(),
        "path": sys.path[0], "main": sys.modules["__main__"].of_main(), "method": os.environ["REQUEST_METHOD"],
        "environ": sorted(os.environ), "descriptors": sorted(os.listdir("/proc/self/fd"))[:3],
        "group": os.getpgid(0) == os.getpid(), "parent": os.getppid(),
        "decimal": "decimal" in sys.modules, "cpu": resource.getrlimit(resource.RLIMIT_CPU)[0],
    }))
    if query == "x=exit":
        sys.exit("for a reason")
    if query == "x=raise":
        raise ValueError("told")
    if query == "x=kill":
        sys.stdout.flush()
        os.kill(os.getpid(), 9)
"""

REUSE = ', reuse = "fork", warm = ["decimal"], limits = { cpu = "9s" }, env = { LANG = "C.UTF-8" }'


def ask(server: Server, target: str, body: bytes | None = None) -> dict[str, object]:
    answer = server.ask(target, "POST" if body else "GET", body)
    assert answer.status == 200, answer.text
    import json

    found: dict[str, object] = json.loads(answer.text)
    return found


def serve(folder: Path, settings: str = REUSE) -> Server:
    script(folder, "probe.py", PROBE)
    (folder / "daemun.toml").write_text(CONFIGURATION.format(settings=settings, more=""))
    return Server(cwd=folder)


def test_a_script_finds_everything_as_a_fresh_interpreter_would_show_it(tmp_path: Path) -> None:
    with serve(tmp_path, settings=', limits = { cpu = "9s" }, env = { LANG = "C.UTF-8" }') as server:
        plain = [ask(server, "/cgi-bin/probe.py?a+b"), ask(server, "/cgi-bin/probe.py", b"body")]
    with serve(tmp_path) as server:
        warm = [ask(server, "/cgi-bin/probe.py?a+b"), ask(server, "/cgi-bin/probe.py", b"body")]
    assert [found.pop("decimal") for found in plain + warm] == [False, False, True, True]
    parents = [found.pop("parent") for found in plain + warm]
    assert parents[2] == parents[3], "both were forked by one interpreter"
    assert warm == plain
    assert (warm[0]["argv"][1:], warm[1]["stdin"]) == (["a", "b"], "body")  # type: ignore[index]


def test_exits_and_exceptions_are_those_of_a_main_program(tmp_path: Path) -> None:
    with serve(tmp_path) as server:
        assert server.get("/cgi-bin/probe.py?x=exit").status == 200
        server.wait_for(r"probe\.py: for a reason")
        assert server.get("/cgi-bin/probe.py?x=raise").status == 200
        server.wait_for(r"probe\.py: ValueError: told")
        server.wait_for(r"probe\.py: at exit")
        with pytest.raises((http.client.IncompleteRead, ConnectionResetError)):
            server.get("/cgi-bin/probe.py?x=kill")
        server.wait_for("was killed by signal 9")


def test_a_script_that_was_changed_runs_as_it_is_now(tmp_path: Path) -> None:
    with serve(tmp_path) as server:
        script(tmp_path, "now.py", "#!/usr/bin/env python3\nprint('X: y\\n\\none', end='')")
        assert server.get("/cgi-bin/now.py").text == "one"
        script(tmp_path, "now.py", "#!/usr/bin/env python3\nprint('X: y\\n\\nsecond', end='')")
        assert server.get("/cgi-bin/now.py").text == "second"
        script(tmp_path, "now.py", "#!/usr/bin/env python3\nprint(")
        assert server.get("/cgi-bin/now.py").status == 500
        server.wait_for("SyntaxError")


def test_a_warm_script_that_hangs_is_ended_as_any_other(tmp_path: Path) -> None:
    text = "#!/usr/bin/env python3\nimport os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(1000)"
    script(tmp_path, "hang.py", text)
    with serve(tmp_path, REUSE + ', timeout = "500ms"') as server:
        assert server.get("/cgi-bin/hang.py").status == 504
        pid = (tmp_path / "cgi-bin" / "pid").read_text()
        end = time.monotonic() + 30
        while Path(f"/proc/{pid}").exists():
            assert time.monotonic() < end, "it goes on"
            time.sleep(0.01)
        assert ask(server, "/cgi-bin/probe.py")["name"] == "__main__"


def test_other_scripts_of_the_route_are_started_as_ever(tmp_path: Path) -> None:
    script(tmp_path, "sh.cgi", "printf 'X: y\\n\\nshell'")
    with serve(tmp_path) as server:
        assert server.get("/cgi-bin/sh.cgi").text == "shell"
