#!/usr/bin/env python3
"""Measures what no rate shows: fast requests beside sleeping ones, memory of forked workers, how long a reload takes.

python3 bench/workers.py [--measure sleepers,memory,reload] [--daemun BINARY] [--python VENV/bin/python]

The environment needs wagtail and gunicorn; without one, it is made in `.bench/workers`.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from comparison import load, processes
from comparison.peers import APPLICATIONS
from comparison.scenarios import Request
from comparison.servers import POLL, START_DEADLINE, environment, free_port

HERE = Path(__file__).resolve().parent
PACKAGES = ["wagtail", "gunicorn"]
WORKERS = 4
# What each worker has answered before its memory is looked at: what is loaded on first use is loaded then.
WARM = 400
RELOADS = 7


def make_environment() -> str:
    """Make the environment, which is kept between runs."""
    folder = HERE.parent / ".bench" / "workers"
    if not (folder / "made").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        pip = [f"{folder}/bin/python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *PACKAGES], check=True)
        (folder / "made").touch()
    return f"{folder}/bin/python"


def make_site(python: str, folder: Path) -> Path:
    """`wagtail start`, migrated: a page out of a database, and the administration loaded beside it."""
    site = folder / "site"
    site.mkdir()
    subprocess.run([f"{Path(python).parent}/wagtail", "start", "mysite", str(site)], check=True, capture_output=True)
    subprocess.run([python, "manage.py", "migrate", "--verbosity", "0"], cwd=site, check=True, capture_output=True)
    return site


@contextlib.contextmanager
def running(command: list[str], folder: Path, port: int, path: str = "/") -> Iterator[int]:
    """Run a server until the end of the block; it answers when the block begins. Gives its first process."""
    with tempfile.TemporaryFile() as output:
        # Answers go out without a debugger's help, and a development site allows a loopback host only then.
        process = subprocess.Popen(
            command, cwd=folder, env=environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
        try:
            until = time.monotonic() + START_DEADLINE
            while ask(port, path) is None:
                output.seek(0)
                if process.poll() is not None or time.monotonic() > until:
                    raise SystemExit(f"{command[0]} does not answer:\n{output.read().decode(errors='replace')}")
                time.sleep(POLL)
            yield process.pid
        finally:
            tree = processes.tree(process.pid)
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            processes.end([each for each in tree if processes.alive(each)], signal.SIGKILL)
            process.wait()


def ask(port: int, path: str) -> float | None:
    """Seconds until a whole answer that is a 200, or nothing."""
    began = time.monotonic()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return time.monotonic() - began if answer.status == 200 else None


def daemun(binary: Path, folder: Path, port: int, lines: list[str]) -> list[str]:
    """Write the file beside the site, and give the command."""
    file = folder / "daemun.toml"
    head = ["[server]", f'listen = ["127.0.0.1:{port}"]', 'access_log = "off"', "[app.bench]"]
    file.write_text("\n".join([*head, *lines]) + "\n", "utf-8")
    return [str(binary), "serve", "--config", str(file)]


def sleepers(binary: Path, python: str, folder: Path) -> None:
    """Have 16 fast clients ask while 4 others ask for a view that sleeps for 100 ms, one process with 8 threads."""
    port = free_port()
    lines = ['wsgi = "plain:sleeper"', f'directory = "{APPLICATIONS}"', f'python = "{python}"']
    command = daemun(binary, folder, port, [*lines, "processes = 1", "threads = 8"])
    with running(command, folder, port):
        lua = load.script(Request(), folder)
        url = f"http://127.0.0.1:{port}/"
        load.run(url, lua, seconds=1, connections=16)
        alone = load.run(url, lua, seconds=5, connections=16)
        done, slept = threading.Event(), [0] * 4

        def sleep(number: int) -> None:
            while not done.is_set():
                slept[number] += ask(port, "/sleep") is not None

        threads = [threading.Thread(target=sleep, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        beside = load.run(url, lua, seconds=5, connections=16)
        done.set()
        for thread in threads:
            thread.join()
    print("16 fast clients, one process of 8 threads\n                          p50 ms  p99 ms     rate  errors")
    for name, seen in (("alone", alone), ("beside 4 that sleep", beside)):
        print(f"  {name:22} {seen.p50:7.2f} {seen.p99:7.2f} {seen.requests / seen.seconds:8.0f} {seen.errors:7}")
    print(f"  {sum(slept)} sleeping requests answered meanwhile")


def memory(binary: Path, python: str, folder: Path) -> None:
    """Compare PSS of a Wagtail site's workers, forked by daemun and started by gunicorn, each alone on the machine."""
    site = make_site(python, folder)
    figures = {}
    for name in ("gunicorn", "daemun"):
        port = free_port()
        bind = ["--bind", f"127.0.0.1:{port}", "--workers", str(WORKERS)]
        command = [f"{Path(python).parent}/gunicorn", *bind, "mysite.wsgi:application"]
        if name == "daemun":
            lines = ['target = "."', f'python = "{python}"', f"processes = {WORKERS}", "threads = 1"]
            command = daemun(binary, site, port, lines)
        with running(command, site, port) as pid:
            lua = load.script(Request(headers={"Connection": "close"}), folder)
            asked = load.run(f"http://127.0.0.1:{port}/", lua, seconds=15, connections=16)
            if asked.errors or asked.requests < WARM:
                raise SystemExit(f"{name}: {asked}")
            time.sleep(1)
            tree = processes.tree(pid)
            roles = processes.roles(tree)
            held = {each.pid: processes.proportional_kib(each.pid) or 0 for each in tree}
            figures[name] = (sum(held.values()), {roles[number]: 0 for number in held})
            for number, size in held.items():
                figures[name][1][roles[number]] += size
    print(f"PSS of a Wagtail site with {WORKERS} workers, MiB")
    for name, (whole, by_role) in figures.items():
        each = ", ".join(f"{role} {size / 1024:.1f}" for role, size in by_role.items())
        print(f"  {name:10} {whole / 1024:7.1f}  ({each})")
    print(f"  daemun's is {figures['daemun'][0] / figures['gunicorn'][0]:.2f} of gunicorn's, everything counted")


def reload(binary: Path, python: str, folder: Path) -> None:
    """Reload an unchanged Wagtail site while somebody asks without pause, beside what its import alone takes."""
    site = make_site(python, folder)
    port = free_port()
    # Its views are imported by the first request elsewhere; daemun has them before it takes any.
    program = "from mysite.wsgi import application; from django.urls import get_resolver; get_resolver().reverse_dict"
    imports, reloads, waited, failed = [], [], [0.0], 0
    lines = ['target = "."', f'python = "{python}"', "processes = 2"]
    command = daemun(binary, site, port, lines)
    with running(command, site, port):
        for _ in range(RELOADS):
            began = time.monotonic()
            subprocess.run([python, "-c", program], cwd=site, env=environment(), check=True, capture_output=True)
            imports.append(time.monotonic() - began)
            done = threading.Event()

            def keep_asking(done: threading.Event = done) -> None:
                nonlocal failed
                while not done.is_set():
                    took = ask(port, "/")
                    failed += took is None
                    waited.append(took or 0.0)
                    # A client, not a load: a processor of its own would be taken from the import.
                    done.wait(0.05)

            client = threading.Thread(target=keep_asking)
            client.start()
            began = time.monotonic()
            words = [str(binary), "reload", "--config", str(site / "daemun.toml")]
            subprocess.run(words, env=environment(), check=True, capture_output=True)
            reloads.append(time.monotonic() - began)
            done.set()
            client.join()
    print("Reload of an unchanged Wagtail site, seconds (median of 7)")
    print(f"  import alone      {statistics.median(imports):6.2f}  ({min(imports):.2f}..{max(imports):.2f})")
    print(f"  daemun reload     {statistics.median(reloads):6.2f}  ({min(reloads):.2f}..{max(reloads):.2f})")
    print(f"  {len(waited) - 1} requests meanwhile, {failed} failed, the slowest took {max(waited) * 1000:.0f} ms")


MEASURES = {"sleepers": sleepers, "memory": memory, "reload": reload}


def main() -> None:
    """Measure what is named, in this order."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--measure", default=",".join(MEASURES), metavar="NAME,…", help=f"of {', '.join(MEASURES)}")
    parser.add_argument("--daemun", type=Path, default=HERE.parent / "target" / "release" / "daemun", metavar="PATH")
    parser.add_argument("--python", metavar="PATH", help="of an environment with wagtail and gunicorn")
    words = parser.parse_args()
    unknown = set(words.measure.split(",")) - set(MEASURES)
    if unknown:
        parser.error(f"unknown measure {', '.join(unknown)}; known are {', '.join(MEASURES)}")
    # A link out of the environment must stay one: resolving it would lose the packages.
    python = os.path.abspath(words.python) if words.python else make_environment()  # noqa: PTH100
    for name in words.measure.split(","):
        with tempfile.TemporaryDirectory(prefix="daemun-bench-") as scratch:
            Path(scratch).chmod(0o755)
            MEASURES[name](words.daemun.resolve(), python, Path(scratch))


if __name__ == "__main__":
    main()
