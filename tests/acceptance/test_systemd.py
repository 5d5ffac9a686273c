"""The unit that `daemun init --systemd` writes, under systemd itself, in namespaces and a control group of its own."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from load import Load
from peers import free_port
from server import BINARY, DEADLINE, environment, eventually

MANAGER = Path("/lib/systemd/systemd")

# Its own /run, units and control groups; none of the machine's services.
BOOT = """\
#!/bin/sh -e
mount --make-rprivate /
mount -t tmpfs tmpfs /run
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /etc/systemd/system
cp {folder}/units/* /etc/systemd/system/
mount -t tmpfs tmpfs /var/lib
mount -t tmpfs tmpfs /var/log
for unit in systemd-journald.socket systemd-journald-dev-log.socket systemd-journald.service systemd-udevd.service \
    systemd-udev-trigger.service systemd-tmpfiles-setup.service systemd-sysctl.service; do
    ln -sf /dev/null /etc/systemd/system/$unit
done
exec env -i container=test PATH=/usr/sbin:/usr/bin:/sbin:/bin {manager} --system --unit=nothing.target \
    --log-target=console --show-status=0
"""

APPLICATION = """\
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"one"]
"""


class Manager:
    """A running systemd with our unit."""

    def __init__(self, folder: Path, pid: int, port: int) -> None:
        self.folder, self.pid, self.port = folder, pid, port

    def inside(self, *words: str | Path, code: int | None = 0) -> str:
        """Run a program beside it."""
        command = ["nsenter", "-t", str(self.pid), "-m", "-p", "-u", "-i", *map(str, words)]
        told = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE, env=environment({}))
        assert code is None or told.returncode == code, f"{words}: {told.returncode}\n{told.stdout}{told.stderr}"
        return told.stdout + told.stderr

    def shows(self) -> dict[str, str]:
        """What systemd knows of the unit."""
        text = self.inside("systemctl", "show", "site.service", "-p", "ActiveState,SubState,MainPID,Result,NRestarts")
        return dict(line.split("=", 1) for line in text.splitlines())

    def is_running(self) -> bool:
        """Whether it serves, as systemd knows."""
        return (self.shows()["ActiveState"], self.shows()["SubState"]) == ("active", "running")

    def get(self) -> str:
        """Ask the site."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        connection.request("GET", "/")
        text = connection.getresponse().read().decode()
        connection.close()
        return text

    def daemun(self, *words: str, code: int = 0) -> str:
        """Run a command of ours there."""
        return self.inside(self.folder / "daemun", *words, "--config", self.folder / "daemun.toml", code=code)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    """Systemd with what `init` has written for a project, as site.service and site.socket."""
    assert MANAGER.exists(), "no systemd; run:  scripts/require systemd"
    folder, port = tmp_path, free_port()
    for each in [folder, *folder.parents]:
        if each != Path("/tmp") and each.stat().st_uid == os.geteuid() and "pytest" in str(each):
            each.chmod(0o755)
    shutil.copy(BINARY, folder / "daemun")
    (folder / "app.py").write_text(APPLICATION)
    python = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
    (folder / "daemun.toml").write_text(
        f'[server]\nlisten = ["127.0.0.1:{port}"]\n'
        f'[app.app]\nwsgi = "app:application"\npython = "{python}"\nprocesses = 2\n'
    )
    write_units(folder)
    hierarchy = next(
        Path(line.split()[1]) for line in Path("/proc/mounts").read_text().splitlines() if line.split()[2] == "cgroup2"
    )
    group = hierarchy / f"daemun-test-{os.getpid()}"
    group.mkdir()
    boot = folder / "boot.sh"
    boot.write_text(BOOT.format(folder=folder, manager=MANAGER))
    boot.chmod(0o755)
    spaces = ["--mount", "--pid", "--uts", "--ipc", "--cgroup", "--fork", "--kill-child", "--mount-proc"]
    enter = ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec unshare "$@"', "sh", *spaces, str(boot)]
    with (folder / "boot.log").open("w") as log:
        outer = subprocess.Popen(enter, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
    try:
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
        eventually(lambda: bool(outer.poll() is not None or children.read_text().split()), "a process of its own")
        manager = Manager(folder, int(children.read_text().split()[0]), port)
        up = ("systemctl", "is-system-running")
        eventually(lambda: "running" in manager.inside(*up, code=None) or outer.poll() is not None, "systemd runs")
        assert outer.poll() is None, (folder / "boot.log").read_text()
        yield manager
    finally:
        outer.kill()
        outer.wait(DEADLINE)
        eventually(lambda: not (group / "cgroup.procs").read_text(), "everybody has ended")
        eventually(lambda: "populated 0" in (group / "cgroup.events").read_text(), "everybody has ended")
        for each in sorted(group.rglob("*"), reverse=True):
            if each.is_dir():
                each.rmdir()
        group.rmdir()


def write_units(folder: Path) -> None:
    """Write what `init --systemd` prints, by a shorter name, and a target that wants nothing."""
    text = subprocess.run(
        [folder / "daemun", "init", "--systemd"],
        cwd=folder,
        capture_output=True,
        text=True,
        env=environment({}),
        check=True,
    ).stdout
    units = folder / "units"
    units.mkdir()
    for part in re.split(r"^# ---- ", text, flags=re.MULTILINE)[1:]:
        place, _, content = part.partition("\n")
        kind = Path(place.split()[0]).suffix
        if kind in {".service", ".socket"}:
            (units / f"site{kind}").write_text(content)
    (units / "nothing.target").write_text("[Unit]\nDefaultDependencies=no\n")
    for each in units.iterdir():
        each.chmod(0o644)


def test_the_unit_is_well_starts_reloads_is_upgraded_and_stops(manager: Manager) -> None:
    for unit in ("site.service", "site.socket"):
        assert manager.inside("systemd-analyze", "verify", f"/etc/systemd/system/{unit}") == ""
    manager.inside("systemctl", "start", "site.service")
    assert manager.is_running()
    assert manager.get() == "one"
    main = manager.shows()["MainPID"]
    application = manager.folder / "app.py"
    with Load(manager.port, "/", clients=2) as kept, Load(manager.port, "/", clients=2, keep=False) as fresh:
        application.write_text(APPLICATION.replace("one", "two"))
        manager.inside("systemctl", "reload", "site.service")
        assert manager.get() == "two"
        application.write_text("import a_module_that_is_not_there\n")
        assert "failed" in manager.inside("systemctl", "reload", "site.service", code=1)
        assert (manager.is_running(), manager.get()) == (True, "two")
        application.write_text(APPLICATION)
        for number in ("HUP", "USR1"):
            manager.inside("systemctl", "kill", "--kill-whom=main", f"--signal={number}", "site.service")
        eventually(lambda: manager.get() == "one" and manager.is_running(), "reloaded by a signal")
        assert "serves" in manager.daemun("upgrade")
        eventually(manager.is_running, "upgraded")
        assert manager.shows()["MainPID"] == main
        kept.more(50)
        fresh.more(50)
    assert kept.failures == fresh.failures == []
    manager.inside("systemctl", "stop", "site.service")
    assert manager.shows()["Result"] == "success"
    # Nobody but systemd and who asks.
    left = manager.inside("ps", "ax", "-o", "args=")
    assert "daemun" not in left.replace(str(manager.folder), ""), left


def test_a_front_that_hangs_is_seen_by_the_watchdog(manager: Manager) -> None:
    drop_in = "/etc/systemd/system/site.service.d"
    (manager.folder / "watchdog.conf").write_text("[Service]\nWatchdogSec=2\nTimeoutAbortSec=2\nRestartSec=0\n")
    manager.inside("mkdir", drop_in)
    manager.inside("cp", manager.folder / "watchdog.conf", drop_in)
    manager.inside("systemctl", "daemon-reload")
    manager.inside("systemctl", "start", "site.service")
    status = json.loads(manager.daemun("status", "--json"))
    assert status["phase"] == "serving"
    stopped = manager.inside("pgrep", "-f", "--", "--role=front").split()[0]
    manager.inside("kill", f"-{signal.SIGSTOP.name.removeprefix('SIG')}", stopped)
    eventually(lambda: manager.shows()["NRestarts"] == "1" and manager.is_running(), "started again")
    assert manager.get() == "one"


def test_no_connection_is_refused_while_a_service_with_a_socket_is_restarted(manager: Manager) -> None:
    manager.inside("systemctl", "start", "site.socket")
    # The first connection starts the service.
    assert manager.get() == "one"
    assert manager.is_running()
    with Load(manager.port, "/", clients=3, keep=False) as fresh:
        for _ in range(2):
            manager.inside("systemctl", "restart", "site.service")
            fresh.more(30)
    assert fresh.failures == []
