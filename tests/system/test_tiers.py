"""The front on one host, applications on two others, mutual TLS between them.

What a client sees when a cable is cut, a host is frozen, or a certificate is wrong; the manual tells
the same (tiers.md).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from authority import Authority
from hosts import Hosts
from server import Server, eventually, run
from wire import Wire

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make hosts")

APPLICATION = """\
import time
def application(environ, start_response):
    environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield NAME
    if environ["PATH_INFO"] == "/stream":
        while True:
            time.sleep(0.05)
            yield b"."
"""


@dataclass
class Tiers:
    """Three hosts with what runs on them."""

    hosts: Hosts
    front: Server
    apps: dict[str, Server]
    folder: Path

    def ask(self, method: str = "GET") -> tuple[int, str]:
        """Ask the front: status, and body of an answer from behind it. It comes within the client's own deadline."""
        with self.hosts.inside("front"):
            reply = self.front.ask("/", method, b"order" if method == "POST" else None)
        return reply.status, reply.text if reply.status == 200 else ""

    def ask_until(self, name: str) -> None:
        """Ask until this one answers; others may on the way."""
        eventually(lambda: self.ask() == (200, name), f"{name} answers")

    def settle(self) -> None:
        """Have a kept connection to each application."""
        assert {self.ask() for _ in range(4)} == {(200, "one"), (200, "two")}


@contextmanager
def tiers(folder: Path, more: str = "", wrong: str = "") -> Iterator[Tiers]:
    """Start everything; the certificate of `wrong` is for another name."""
    authority = Authority(folder)
    front = authority.sign("front")
    with Hosts("front", "one", "two") as hosts, ExitStack() as running:
        apps = {}
        for name in ("one", "two"):
            below = folder / name
            below.mkdir()
            own = authority.sign(name, "elsewhere.internal" if name == wrong else "app.internal")
            (below / "app.py").write_text(f"NAME = b{name!r}\n{APPLICATION}")
            (below / "daemun.toml").write_text(
                f'[server]\nlisten = ["https://{hosts.address[name]}:8443"]\n[[tls]]\n'
                f'cert = "{own.cert}"\nkey = "{own.key}"\nclient_ca = "{authority.cert}"\n'
                'client_certificates = "require"\n[app.shop]\nwsgi = "app:application"\nprocesses = 1\n'
            )
            with hosts.inside(name):
                apps[name] = running.enter_context(Server(cwd=below, listen=""))
        urls = ", ".join(f'"https://{hosts.address[name]}:8443"' for name in ("one", "two"))
        (folder / "daemun.toml").write_text(
            f'[upstream.shop]\nservers = [{urls}]\nconnect_timeout = "1s"\nread_timeout = "2s"\neject = "1s"\n{more}\n'
            f'tls = {{ ca_file = "{authority.cert}", server_name = "app.internal", cert = "{front.cert}", '
            f'key = "{front.key}" }}\n[[route]]\npath = "/*"\nupstream = "shop"\n'
        )
        with hosts.inside("front"):
            server = running.enter_context(Server(cwd=folder))
        # Before anything is stopped: a frozen program cannot end.
        running.callback(hosts.thaw)
        yield Tiers(hosts, server, apps, folder)


def test_a_cut_cable_costs_what_was_on_its_way_and_no_more(tmp_path: Path) -> None:
    with tiers(tmp_path) as it:
        it.settle()
        it.hosts.cut("one")
        # One of these goes over the kept connection into the dark: the other is asked once `read_timeout` is over.
        assert {it.ask() for _ in range(2)} == {(200, "two")}
        # Now there is no connection: nothing is sent, so that a POST may go to the other too.
        assert {it.ask("POST") for _ in range(6)} == {(200, "two")}
        it.front.wait_for(r"https://10\.77\.0\.2:8443 gets nothing for 1 s: it failed")
        it.hosts.mend("one")
        it.ask_until("one")
        it.front.wait_for(r"https://10\.77\.0\.2:8443 answers again")


def test_a_post_that_was_on_its_way_is_a_504_and_never_sent_twice(tmp_path: Path) -> None:
    with tiers(tmp_path) as it:
        it.settle()
        it.hosts.freeze("one")
        outcomes = sorted(it.ask("POST") for _ in range(2))
        assert outcomes == [(200, "two"), (504, "")]
        # Its kernel still accepts connections, and nobody shakes hands: nothing was sent.
        assert {it.ask("POST") for _ in range(4)} == {(200, "two")}
        it.hosts.thaw()
        it.ask_until("one")


def test_with_both_hosts_gone_a_client_hears_so_in_bounded_time(tmp_path: Path) -> None:
    with tiers(tmp_path) as it:
        it.settle()
        it.hosts.cut("one")
        it.hosts.freeze("two")
        assert {it.ask()[0] for _ in range(4)} <= {502, 504}
        it.hosts.thaw()
        it.hosts.mend("one")
        it.ask_until("one")


def test_a_host_that_is_frozen_within_an_answer_leaves_it_visibly_cut(tmp_path: Path) -> None:
    with tiers(tmp_path) as it:
        with it.hosts.inside("front"):
            client = Wire(it.front.port)
        client.send(b"GET /stream HTTP/1.1\r\nHost: a\r\n\r\n")
        head = client.head()
        assert head is not None
        assert (head.status, client.chunk() is not None) == (200, True)
        for name in ("one", "two"):
            it.hosts.freeze(name)
        while (chunk := client.chunk()) is not None:
            assert chunk, "an end that looks like one"
        client.close()
        it.front.wait_for(r"read_timeout")


def test_a_wrong_certificate_gets_no_request_and_costs_the_client_nothing(tmp_path: Path) -> None:
    with tiers(tmp_path, wrong="one") as it:
        assert {it.ask("POST") for _ in range(6)} == {(200, "two")}
        it.front.wait_for(r"https://10\.77\.0\.2:8443 gets nothing for")
        assert it.apps["one"].access.lines == []
        assert run("drain", "shop", "10.77.0.3", cwd=tmp_path).returncode == 0
        assert it.ask()[0] == 502
        it.front.wait_for(r"10\.77\.0\.2:8443: .*not valid for name")


def test_health_checks_take_a_lost_host_out_before_a_client_finds_out(tmp_path: Path) -> None:
    health = 'health = { interval = "100ms", timeout = "500ms", unhealthy = 2 }'
    with tiers(tmp_path, more=health) as it:
        it.settle()
        it.hosts.freeze("one")
        it.front.wait_for(r"https://10\.77\.0\.2:8443 is not well and gets nothing: no answer within")
        assert {it.ask("POST") for _ in range(6)} == {(200, "two")}
        it.hosts.thaw()
        it.front.wait_for(r"https://10\.77\.0\.2:8443 is well again")
        it.settle()
