"""What an operator does to a server that is in use: no request fails, and no line of the log is lost.

A reload under load stands in test_reloading.py, an upgrade in test_upgrade.py.
"""

from __future__ import annotations

import http.client
import json
import signal
import socket
import ssl
from functools import partial
from pathlib import Path

from authority import Authority, Certificate
from load import Load
from peers import free_port
from server import DEADLINE, Server, eventually

# How long a balancer may go on sending after the server was told to stop.
LATE = 3.0


def test_no_request_fails_while_a_certificate_is_replaced(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    for name in ("shown", "one", "other"):
        authority.sign(name, "localhost", subject=f"/CN={name}")
    made = {name: Certificate(tmp_path / f"{name}.pem", tmp_path / f"{name}.key") for name in ("shown", "one", "other")}
    (tmp_path / "daemun.toml").write_text(
        '[server]\nlisten = ["https://127.0.0.1:0"]\n[[tls]]\ncert = "shown.pem"\nkey = "shown.key"\n'
        '[[route]]\npath = "/*"\nrespond = { status = 200, body = "here" }\n'
    )
    context = ssl.create_default_context(cafile=str(tmp_path / "authority.pem"))
    context.check_hostname = False
    with (
        Server("--config", "daemun.toml", cwd=tmp_path, listen="") as server,
        Load(server.port, "/", clients=2, wanted=b"here", context=context) as kept,
        Load(server.port, "/", clients=2, wanted=b"here", keep=False, context=context) as fresh,
    ):
        for name in ("one", "other") * 3:
            made["shown"].replace(made[name])
            eventually(partial(shows, server.port, context, name), f"{name} is shown")
            fresh.more(5)
            kept.more(5)
    assert kept.failures == fresh.failures == []


def shows(port: int, context: ssl.SSLContext, name: str) -> bool:
    """Whether the certificate is the one of this name."""
    with (
        socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as wire,
        context.wrap_socket(wire, server_hostname="localhost") as spoken,
    ):
        told = spoken.getpeercert()
    assert told is not None
    return ((("commonName", name),),) == told["subject"]


def test_no_request_and_no_line_is_lost_while_logs_are_rotated(flask: Path) -> None:
    (flask / "daemun.toml").write_text(
        '[server]\nlisten = ["127.0.0.1:0"]\naccess_log = { path = "access.log", format = "json" }\n'
        '[app.one]\nwsgi = "app:app"\nprocesses = 1\n'
    )
    log = flask / "access.log"
    with Server(cwd=flask, listen="") as server:
        with (
            Load(server.port, "/", clients=2, wanted=b"one") as kept,
            Load(server.port, "/", clients=2, keep=False) as fresh,
        ):
            for number in range(5):
                kept.more(50)
                fresh.more(5)
                log.rename(flask / f"access.log.{number}")
                server.send(signal.SIGUSR1)
                eventually(lambda: log.exists() and log.stat().st_size > 0, "there is a new file")
        assert server.stop() == 0
    lines = [json.loads(line) for each in flask.glob("access.log*") for line in each.read_text().splitlines()]
    assert kept.failures == fresh.failures == []
    assert len(lines) == kept.answered + fresh.answered
    assert {line["status"] for line in lines} == {200}


def test_no_request_fails_when_the_balancer_learns_of_a_stop_late(flask: Path) -> None:
    health = free_port()
    (flask / "daemun.toml").write_text(
        f'[server]\nlisten = ["127.0.0.1:0"]\nhealth = "127.0.0.1:{health}"\ndrain_delay = "50s"\n'
        '[app.one]\nwsgi = "app:app"\nprocesses = 1\n'
    )
    with Server(cwd=flask, listen="") as server:
        with (
            Load(server.port, "/", clients=2, wanted=b"one") as kept,
            Load(server.port, "/", clients=2, wanted=b"one", keep=False) as fresh,
        ):
            kept.more(20)
            assert ready(health) == 200
            server.send(signal.SIGTERM)
            eventually(lambda: ready(health) == 503, "it says that it goes")
            # The balancer has not looked yet: it sends what it gets, on old connections and on new ones.
            kept.flows_for(LATE)
            kept.more(20)
            fresh.more(20)
        assert kept.failures == fresh.failures == []
        # Now nobody comes any more.
        server.send(signal.SIGINT)
        assert server.exit_code() == 0


def ready(port: int) -> int:
    """Ask as a balancer does."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    connection.request("GET", "/readyz")
    status = connection.getresponse().status
    connection.close()
    return status
