"""Two hundred reloads in a row under load, on kept and on new connections: none fails, and nothing is left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from load import Load
from server import Server, children, environment, eventually, front, resident, run

RELOADS = int(os.environ.get("RELOADS", "200"))
MIB = 1 << 20


def descriptors(pid: int) -> int:
    """How many a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_no_request_fails_and_nothing_leaks_in_200_reloads_in_a_row(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "django", "startproject", "shop", "."]
    subprocess.run(command, cwd=tmp_path, env=environment({}), check=True, timeout=60)
    with (tmp_path / "shop" / "settings.py").open("a") as file:
        file.write("\nDEBUG = False\nALLOWED_HOSTS = ['*']\n")
    (tmp_path / "shop" / "urls.py").write_text(
        "import time\nfrom django.http import HttpResponse\nfrom django.urls import path\n"
        "BORN = str(time.time_ns())\n"
        "urlpatterns = [path('', lambda request: HttpResponse('fine')),"
        " path('born', lambda request: HttpResponse(BORN))]\n"
    )
    with (
        Server(tmp_path, "--workers", "2", cwd=tmp_path) as server,
        Load(server.port, "/", clients=4, wanted=b"fine") as kept,
        Load(server.port, "/", clients=2, wanted=b"fine", keep=False) as fresh,
    ):

        def reload() -> None:
            before = server.get("/born").text
            told = run("reload", cwd=tmp_path)
            assert told.returncode == 0, told.stderr
            assert server.get("/born").text != before, "the code before answers after its successor was announced"

        def held() -> dict[str, int]:
            """Processes and descriptors, once those of the version before have gone."""
            return {
                "processes": len(children(server.pid)),
                "descriptors of the supervisor": descriptors(server.pid),
                "descriptors of the front": descriptors(front(server)),
            }

        kept.more()
        # What is made once, on the first occasion, is no leak.
        for _ in range(10):
            reload()
        at_first = held()
        memory = {name: resident(pid) for name, pid in (("supervisor", server.pid), ("front", front(server)))}
        for _ in range(RELOADS):
            reload()
        kept.more()
        fresh.more(20)

        def as_at_first() -> bool:
            now = held()
            # A connection that comes or goes just then is a descriptor.
            return all(now[name] <= count + 8 for name, count in at_first.items())

        eventually(as_at_first, f"as few as before: {at_first}, now {held()}")
        grown = {
            "supervisor": resident(server.pid) - memory["supervisor"],
            "front": resident(front(server)) - memory["front"],
        }
        print(f"{RELOADS} reloads\nkept: {kept.summary}\nnew: {fresh.summary}")
        told = ", ".join(f"{name} +{each >> 10} KiB" for name, each in grown.items())
        print(f"before: {at_first}, after: {held()}; memory: {told}")
        assert kept.failures == []
        assert fresh.failures == []
        assert all(each < 8 * MIB for each in grown.values()), grown
