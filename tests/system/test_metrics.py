"""What is counted: read by Prometheus' own parser and compared with what was sent."""

from __future__ import annotations

import http.client
import json
import os
import signal
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from gate import Gate
from prometheus_client import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open_metrics
from prometheus_client.parser import text_string_to_metric_families as parse_prometheus
from server import DEADLINE, Answer, Server, eventually, exchange, run
from wire import Wire

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(families: Iterable[Metric]) -> Samples:
    """Every sample by name and labels; each stands there once."""
    found: Samples = {}
    for family in families:
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, key
            found[key] = sample.value
    return found


def ask(port: int, path: str, headers: dict[str, str] | None = None, method: str = "GET") -> Answer:
    """Ask a listener of ours."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    try:
        return exchange(connection, path, method, headers=headers)
    finally:
        connection.close()


def health(server: Server) -> int:
    """The port of the health listener."""
    return int(server.wait_for(r"health on http://127.0.0.1:(\d+)")[1])


def scrape(port: int) -> Samples:
    """The metrics, in Prometheus' format."""
    return samples(parse_prometheus(ask(port, "/metrics").text))


def value(found: Samples, name: str, **labels: str) -> float:
    """One sample; 0 where it is not there yet."""
    return found.get((name, frozenset(labels.items())), 0)


def test_the_counters_agree_with_the_load(flask: Path) -> None:
    (flask / "files").mkdir()
    (flask / "files" / "a.txt").write_text("x" * 1000)
    arguments = ("app:app", "--workers", "2", "--static", f"/static={flask / 'files'}", "--health", "127.0.0.1:0")
    with Server(*arguments, cwd=flask) as server:
        port = health(server)
        paths = ["/"] * 60 + ["/static/a.txt"] * 30 + ["/nothing"] * 15 + ["/boom"] * 5
        with ThreadPoolExecutor(4) as pool:
            assert len(list(pool.map(server.get, paths))) == 110
        assert server.ask("/length", "POST", b"12345").text == "5"
        wire = Wire(server.port)
        wire.send(b"NONSENSE\r\n\r\n")
        refused = wire.reply()
        wire.close()
        assert refused is not None
        assert refused.status == 400
        for parse, accept in ((parse_prometheus, "text/plain"), (parse_open_metrics, "application/openmetrics-text")):
            answer = ask(port, "/metrics", {"Accept": accept})
            assert answer.headers["Content-Type"].startswith(accept)
            found = samples(parse(answer.text))
            app = {"route": "/*", "app": "app"}
            count = "daemun_requests_total"
            assert value(found, count, **app, method="GET", status="2xx") == 60
            assert value(found, count, **app, method="GET", status="4xx") == 15
            assert value(found, count, **app, method="GET", status="5xx") == 5
            assert value(found, count, **app, method="POST", status="2xx") == 1
            files = {"route": "/static/*", "app": ""}
            assert value(found, count, **files, method="GET", status="2xx") == 30
            assert value(found, count, route="", app="", method="other", status="4xx") == 1
            assert value(found, "daemun_response_body_bytes_total", **files) == 30_000
            duration = "daemun_request_duration_seconds"
            assert value(found, f"{duration}_count", **app) == 81
            assert value(found, f"{duration}_bucket", **app, le="+Inf") == 81
            assert 0 < value(found, f"{duration}_sum", **app) < 81 * DEADLINE
            assert value(found, "daemun_application_seconds_count", **app) == 81
            assert value(found, "daemun_queue_seconds_count", **app) == 81
            assert value(found, "daemun_application_seconds_count", **files) == 0
            assert value(found, "daemun_connections_accepted_total") == 112
            assert value(found, "daemun_workers", app="app") == 2
            assert value(found, "daemun_ready") == 1
            assert value(found, "daemun_worker_resident_memory_bytes", app="app", worker="1") > 1_000_000


def test_what_waits_and_what_works_is_told_while_it_does(flask: Path, gate: Gate) -> None:
    arguments = ("app:app", "--workers", "1", "--threads", "1", "--health", "127.0.0.1:0")
    with Server(*arguments, cwd=flask, env=gate.env) as server, ThreadPoolExecutor() as pool:
        port = health(server)
        first = pool.submit(server.get, "/held")
        gate.entered()
        found = scrape(port)
        assert value(found, "daemun_threads_busy", app="app") == 1
        assert value(found, "daemun_threads_idle", app="app") == 0
        assert value(found, "daemun_connections") == 1
        gate.open()
        assert first.result(DEADLINE).status == 200
        found = scrape(port)
        assert value(found, "daemun_threads_busy", app="app") == 0


def test_urls_never_become_labels(flask: Path) -> None:
    with Server("app:app", "--workers", "1", "--health", "127.0.0.1:0", cwd=flask) as server:
        port = health(server)
        before = len(scrape(port))
        server.get("/")
        once = len(scrape(port))
        for number in range(50):
            server.get(f"/secret-{number}?token={number}")
            server.ask("/", f"METHOD{number}")
        after = ask(port, "/metrics").text
        assert "secret" not in after
        assert "METHOD" not in after
        # One class of status and one name for methods without one, for each of the samples that there were.
        assert len(scrape(port)) - once <= 2 * (once - before)


def test_a_worker_that_is_killed_is_counted_by_cause(flask: Path) -> None:
    with Server("app:app", "--workers", "1", "--health", "127.0.0.1:0", cwd=flask) as server:
        pid = int(server.get("/pid").text)
        os.kill(pid, signal.SIGKILL)
        server.wait_for(r"was killed by signal 9")
        found = scrape(health(server))
        assert value(found, "daemun_worker_restarts_total", app="app", cause="killed") == 1


def test_a_server_is_ready_only_while_its_applications_answer(flask: Path) -> None:
    source = (flask / "app.py").read_text()
    (flask / "broken.py").write_text("import a_module_that_is_not_there\n")
    (flask / "daemun.toml").write_text("""\
[server]
listen = "127.0.0.1:0"
health = "127.0.0.1:0"

[app.good]
wsgi = "app:app"
[app.bad]
wsgi = "broken:app"
[[route]]
path = "/bad/*"
app = "bad"
[[route]]
path = "/*"
app = "good"
""")
    with Server(cwd=flask, listen="") as server:
        port = health(server)
        ready = ask(port, "/readyz")
        assert (ready.status, ready.text) == (503, "bad: no worker is there\n")
        assert ask(port, "/healthz").status == 200
        (flask / "broken.py").write_text(source)
        server.send(signal.SIGHUP)
        server.wait_for("reloaded")
        assert ask(port, "/readyz").status == 200


def test_an_application_that_starts_on_demand_is_ready_without_a_worker(flask: Path) -> None:
    (flask / "daemun.toml").write_text(
        '[server]\nlisten = ["127.0.0.1:0"]\nhealth = "127.0.0.1:0"\n'
        '[app.rare]\nwsgi = "app:app"\nprocesses = { min = 0, max = 1 }\n'
    )
    with Server(cwd=flask, listen="") as server:
        port = health(server)
        assert (ask(port, "/readyz").status, ask(port, "/healthz").status) == (200, 200)
        assert run("status", "--check", cwd=flask).returncode == 0
        assert server.get("/").text == "one"
        assert ask(port, "/readyz").status == 200


def test_health_is_answered_while_what_is_in_flight_is_finished(flask: Path, gate: Gate) -> None:
    arguments = ("app:app", "--workers", "1", "--health", "127.0.0.1:0")
    with Server(*arguments, cwd=flask, env=gate.env) as server, ThreadPoolExecutor() as pool:
        port = health(server)
        held = pool.submit(server.get, "/held")
        gate.entered()
        server.send(signal.SIGTERM)
        server.wait_for("stopping")
        eventually(lambda: ask(port, "/readyz").status == 503, "it is not ready")
        assert ask(port, "/readyz").text == "the server is going down\n"
        assert ask(port, "/healthz").status == 200
        gate.open()
        assert held.result(DEADLINE).text == "finished"
        assert server.exit_code() == 0


def test_the_health_listener_says_nothing_else(flask: Path) -> None:
    with Server("app:app", "--workers", "1", "--health", "127.0.0.1:0", cwd=flask) as server:
        port = health(server)
        for path in ("/", "/api/status", "/pid", "/healthz/x"):
            assert ask(port, path).status == 404
        answer = ask(port, "/healthz", method="POST")
        assert (answer.status, answer.headers["Allow"]) == (405, "GET, HEAD")


def test_the_monitor_listener_is_not_told_to_other_names(flask: Path) -> None:
    with Server("app:app", "--workers", "1", "--monitor", "127.0.0.1:0", cwd=flask) as server:
        match = server.wait_for(r"monitor on http://127.0.0.1:(\d+)/\?token=([0-9a-f]{32})$")
        port = int(match[1])
        told = json.loads(ask(port, "/api/status").text)
        assert told["pid"] == server.pid
        assert match[2] not in json.dumps(told), "the token is not given away"
        assert told["traffic"]["requests"] == 0, "those who look are not counted"
        for host in ("attacker.example", f"attacker.example:{port}", "127.0.0.1.attacker.example"):
            answer = ask(port, "/api/status", {"Host": host})
            assert answer.status == 403
            assert "Access-Control-Allow-Origin" not in answer.headers
        assert ask(port, "/api/status", {"Host": f"localhost:{port}"}).status == 200


@pytest.mark.parametrize("listener", ["health", "monitor"])
def test_an_address_is_for_one_thing(flask: Path, listener: str) -> None:
    told = run("serve", "app:app", "--listen", "127.0.0.1:4711", f"--{listener}", "127.0.0.1:4711", cwd=flask)
    assert told.returncode == 2
    assert "`127.0.0.1:4711` is asked for twice" in told.stderr
