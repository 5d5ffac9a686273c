"""Traces: W3C's `traceparent` in and out, and spans at a collector made of OpenTelemetry's own messages."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import pytest
from authority import Authority
from frames import DATA, frames, headers
from frames import at as path
from prometheus_client.parser import text_string_to_metric_families
from server import DEADLINE, ROOT, Server, eventually, json_lines, run
from upstreams import Peer, Upstream, answer

# Made by `scripts/require telemetry`.
ENVIRONMENT = Path(os.environ.get("DAEMUN_TELEMETRY", ROOT / ".tools" / "telemetry"))
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"
INTERNAL, SERVER, CLIENT = 1, 2, 3
FAILED = 2
MADE = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-(0[01])")

APPLICATION = """\
import os, signal

def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/die":
        os.kill(os.getpid(), signal.SIGKILL)
    start_response("500 Broken" if path == "/broken" else "200 OK", [("Content-Type", "text/plain")])
    told = [environ.get(name, "-") for name in ("HTTP_TRACEPARENT", "HTTP_TRACESTATE")]
    return [" ".join(told).encode()]
"""

Span = dict[str, Any]


class Collector:
    """A collector in a process of its own, and what it got."""

    def __init__(self, protocol: str = "grpc", place: str = "127.0.0.1:0", *options: str | Path) -> None:
        python = ENVIRONMENT / "bin" / "python"
        assert python.exists(), f"{python} is not there; run:  scripts/require telemetry"
        program = Path(__file__).with_name("otel_collector.py")
        self._process = subprocess.Popen(
            [python, program, protocol, place, *options], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._changed = threading.Condition()
        self._lines: list[Span] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.port = self.wait(lambda lines: lines[:1])[0]["port"]

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self._lines += json.loads(line)
                self._changed.notify_all()

    def __enter__(self) -> Collector:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # It ends with its standard input. Nobody but the reader reads what it says, or lines would come in two halves.
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        self._process.stdout.close()

    @property
    def spans(self) -> list[Span]:
        """What came so far."""
        with self._changed:
            return self._lines[1:]

    def wait(self, found: Callable[[list[Span]], list[Span]]) -> list[Span]:
        """Wait until something is found among the lines."""
        end = time.monotonic() + DEADLINE
        with self._changed:
            while not (wanted := found(self._lines)):
                assert self._changed.wait(end - time.monotonic()), f"not within {DEADLINE:.0f} s: {self._lines}"
        return wanted

    def trace(self, path: str, *names: str) -> dict[str, Span]:
        """Wait for the spans of the request for this path; give them by name, the request's own as `""`."""

        def found(lines: list[Span]) -> list[Span]:
            own = [line for line in lines[1:] if line["attributes"].get("url.path") == path]
            if not own:
                return []
            return own[:1] + [line for line in lines[1:] if line["parent"] == own[0]["id"]]

        # The spans of one request come together.
        own, *below = self.wait(found)
        assert sorted(span["name"] for span in below) == sorted(names), below
        return {"": own, **{span["name"]: span for span in below}}


def configure(folder: Path, traces: str, rest: str = "", server: str = "") -> None:
    """Write an application and a configuration with these settings of `traces`."""
    (folder / "app.py").write_text(APPLICATION)
    (folder / "daemun.toml").write_text(
        f'[server]\naccess_log = {{ path = "-", format = "json" }}\n{server}\n'
        + (f"traces = {traces}\n" if traces else "")
        + f'[app.shop]\nwsgi = "app:application"\nprocesses = 1\n[[route]]\npath = "/*"\napp = "shop"\n{rest}'
    )


def at(collector: Collector, more: str = "") -> str:
    """Settings that lead to it."""
    return f'{{ endpoint = "http://127.0.0.1:{collector.port}"{more} }}'


def told(text: str) -> tuple[str, str, str]:
    """What an application was told: trace, parent and flags."""
    match = MADE.fullmatch(text.split(" ")[0])
    assert match, text
    return cast("tuple[str, str, str]", match.groups())


def test_a_request_to_an_application_is_told_with_its_queue_and_its_work(tmp_path: Path) -> None:
    with Collector() as collector:
        more = ', service = "shop", resource = { "deployment.environment.name" = "test" }, headers = { x-key = "k" }'
        configure(tmp_path, at(collector, more))
        before = time.time_ns()
        with Server(cwd=tmp_path) as server:
            trace, parent, flags = told(server.get("/a?b=1", {"User-Agent": "t/1", "X-Other": "1"}).text)
            spans = collector.trace("/a", "accept", "queue", "application")
            line = cast("dict[str, Any]", json_lines(server.access)[0])
        after = time.time_ns()
        own = spans[""]
        assert flags == "01"
        assert {span["trace"] for span in spans.values()} == {trace}
        assert (own["parent"], spans["application"]["id"]) == ("", parent)
        assert (own["name"], own["kind"], own["status"], own["flags"]) == ("GET /*", SERVER, 0, 0x101)
        assert (spans["application"]["kind"], spans["queue"]["kind"]) == (CLIENT, INTERNAL)
        assert own["attributes"] == {
            "http.request.method": "GET",
            "http.response.status_code": 200,
            "http.response.body.size": line["bytes"],
            "http.route": "/*",
            "url.path": "/a",
            "url.query": "b=1",
            "url.scheme": "http",
            "server.address": "127.0.0.1",
            "server.port": server.port,
            "client.address": "127.0.0.1",
            "network.peer.address": "127.0.0.1",
            "network.peer.port": own["attributes"]["network.peer.port"],
            "network.protocol.version": "1.1",
            "user_agent.original": "t/1",
            "daemun.request_id": line["request_id"],
            "daemun.route": line["route"],
            "daemun.handler": "app",
            "daemun.app": "shop",
        }
        assert line["trace_id"] == trace
        resource = own["resource"]
        assert (resource["service.name"], resource["deployment.environment.name"]) == ("shop", "test")
        assert (own["scope"], own["metadata"]["x-key"]) == ("daemun", "k")
        # Each within the whole, one after the other.
        order = [spans["accept"], spans["queue"], spans["application"]]
        moments = [before, own["began"], *(span[key] for span in order for key in ("began", "ended")), own["ended"]]
        assert moments[1] == order[0]["began"]
        assert moments[2:] == sorted(moments[2:])
        assert before <= own["began"] <= own["ended"] <= after


def test_a_parent_goes_on_and_says_what_is_kept(tmp_path: Path) -> None:
    with Collector() as collector:
        configure(tmp_path, at(collector, ", ratio = 0"))
        with Server(cwd=tmp_path) as server:
            state = {"tracestate": "congo=t61rcWkgMzE"}
            kept = server.get("/kept", {"traceparent": PARENT, **state}).text
            assert server.get("/not", {"traceparent": PARENT[:-1] + "0"}).text.startswith(f"00-{TRACE}-")
            # The ratio speaks where nobody else does.
            assert told(server.get("/own").text)[2] == "00"
            own = collector.trace("/kept", "accept", "queue", "application")[""]
            assert server.stop() == 0
        assert told(kept)[0] == TRACE
        assert kept.endswith(" congo=t61rcWkgMzE")
        assert (own["trace"], own["parent"], own["state"], own["flags"]) == (TRACE, SPAN, "congo=t61rcWkgMzE", 0x301)
        assert {span["trace"] for span in collector.spans} == {TRACE}
        assert len(collector.spans) == 4, "what is not kept is not sent, not at the end either"
        logged = [line["trace_id"] for line in json_lines(server.access)]
        assert logged[:2] == [TRACE, TRACE]
        assert logged[2] not in {None, TRACE}


@pytest.mark.parametrize(
    "value",
    [PARENT.upper(), PARENT + "-more", "ff" + PARENT[2:], f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01", "x"],
)
def test_a_parent_that_is_not_valid_is_replaced(tmp_path: Path, value: str) -> None:
    with Collector() as collector:
        configure(tmp_path, at(collector))
        with Server(cwd=tmp_path) as server:
            text = server.get("/", {"traceparent": value, "tracestate": "congo=1"}).text
            assert told(text)[0].lower() != TRACE
            assert text.endswith(" -"), "a state belongs to its trace"
            assert collector.trace("/", "accept", "queue", "application")[""]["parent"] == ""


def test_without_traces_what_is_sent_goes_through_and_is_logged(tmp_path: Path) -> None:
    configure(tmp_path, "")
    with Server(cwd=tmp_path) as server:
        assert server.get("/", {"traceparent": PARENT, "tracestate": "a=1"}).text == f"{PARENT} a=1"
        assert server.get("/").text == "- -"
        assert server.stop() == 0
        # Two connections may be two event loops', each of which logs when it has sent.
        assert sorted(str(line["trace_id"]) for line in json_lines(server.access)) == [TRACE, "None"]


def test_a_stranger_is_not_believed_where_only_proxies_are(tmp_path: Path) -> None:
    with Collector() as collector:
        for trusted, is_believed in [("", False), ('trusted_proxies = ["127.0.0.1"]', True)]:
            configure(tmp_path, at(collector, ', parents = "trusted"'), server=trusted)
            with Server(cwd=tmp_path) as server:
                assert (told(server.get("/", {"traceparent": PARENT}).text)[0] == TRACE) is is_believed


def test_upstreams_programs_and_files_have_spans_of_their_own(tmp_path: Path) -> None:
    def behave(_: Upstream, peer: Peer) -> None:
        while (asked := peer.request()) is not None:
            peer.send(answer(" ".join(asked.all("traceparent")).encode(), "404 Not Found"))

    script = tmp_path / "cgi-bin" / "t.sh"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n%s' \"$HTTP_TRACEPARENT\"\n")
    script.chmod(0o755)
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.txt").write_text("a")
    with Collector() as collector, Upstream(behaviour=behave) as upstream:
        configure(
            tmp_path,
            at(collector),
            f'[upstream.old]\nservers = ["http://127.0.0.1:{upstream.port}"]\n'
            '[[route]]\npath = "/old/*"\nupstream = "old"\n'
            '[[route]]\npath = "/cgi-bin/*"\ncgi = { root = "cgi-bin" }\n'
            '[[route]]\npath = "/static/*"\nstatic = { root = "files" }\n',
        )
        with Server(cwd=tmp_path) as server:
            parent = {"traceparent": PARENT}
            at_upstream = told(server.get("/old/x", parent).text)
            at_program = told(server.get("/cgi-bin/t.sh", parent).text)
            assert server.get("/static/a.txt", parent).text == "a"
            old = collector.trace("/old/x", "accept", "queue", "upstream")
            program = collector.trace("/cgi-bin/t.sh", "accept", "queue", "cgi")
            file = collector.trace("/static/a.txt", "accept", "file")
        assert at_upstream == (TRACE, old["upstream"]["id"], "01")
        assert at_program == (TRACE, program["cgi"]["id"], "01")
        attributes = old["upstream"]["attributes"]
        assert (attributes["server.address"], attributes["server.port"]) == ("127.0.0.1", upstream.port)
        assert attributes["http.response.status_code"] == 404
        # To whoever asked, 404 is a failure; to whoever answers, it is none.
        assert (old["upstream"]["kind"], old["upstream"]["status"], old[""]["status"]) == (CLIENT, FAILED, 0)
        assert old[""]["name"] == "GET /old/*"
        assert (file["file"]["kind"], file["file"]["status"]) == (INTERNAL, 0)


def test_what_fails_is_told_as_failed(tmp_path: Path) -> None:
    with Collector() as collector:
        configure(tmp_path, at(collector))
        with Server(cwd=tmp_path) as server:
            assert server.get("/broken").status == 500
            assert server.ask("/die", "POST").status == 502
            broken = collector.trace("/broken", "accept", "queue", "application")
            dead = collector.trace("/die", "accept", "queue", "application")
        for spans, code in [(broken, 500), (dead, 502)]:
            assert (spans[""]["status"], spans["application"]["status"]) == (FAILED, FAILED)
            assert spans["queue"]["status"] == 0
            assert spans[""]["attributes"]["http.response.status_code"] == code
            assert spans[""]["attributes"]["error.type"] == str(code)


def test_a_kept_connection_is_accepted_once(tmp_path: Path) -> None:
    with Collector() as collector:
        configure(tmp_path, at(collector))
        with Server(cwd=tmp_path) as server:
            connection = server.connection()
            for path in ("/first", "/second"):
                connection.request("GET", path)
                connection.getresponse().read()
            connection.close()
            collector.trace("/first", "accept", "queue", "application")
            collector.trace("/second", "queue", "application")


def test_requests_on_one_http2_connection_have_traces_of_their_own(tmp_path: Path) -> None:
    with Collector() as collector:
        configure(tmp_path, at(collector))
        with Server(cwd=tmp_path) as server, frames(server.port) as client:
            # Both on their way before either is answered.
            client.send(headers(1, [*path("/first"), ("traceparent", PARENT), ("tracestate", "a=1")]))
            client.send(headers(3, path("/second")))
            client.send(headers(5, [*path("/third"), ("traceparent", PARENT), ("traceparent", PARENT)]))
            bodies: dict[int, str] = {}
            # They are answered in any order.
            while len(bodies) < 3:
                part = client.next()
                assert part is not None
                if part.kind == DATA and part.payload:
                    bodies[part.stream] = part.payload.decode()
            spans = collector.wait(lambda lines: lines[1:] if len(lines) >= 1 + 3 * 3 + 1 else [])
        requests = {span["attributes"]["url.path"]: span for span in spans if "url.path" in span["attributes"]}
        assert len(spans) == 10
        assert [span["parent"] for span in spans if span["name"] == "accept"] == [requests["/first"]["id"]]
        for stream, name in ((1, "/first"), (3, "/second"), (5, "/third")):
            own = requests[name]
            assert own["attributes"]["network.protocol.version"] == "2"
            below = {span["name"]: span for span in spans if span["parent"] == own["id"]}
            assert set(below) - {"accept"} == {"queue", "application"}
            assert {span["trace"] for span in below.values()} == {own["trace"]}
            assert told(bodies[stream])[:2] == (own["trace"], below["application"]["id"])
        assert (requests["/first"]["trace"], requests["/first"]["parent"]) == (TRACE, SPAN)
        assert bodies[1].endswith(" a=1")
        assert len({own["trace"] for own in requests.values()}) == 3


def test_a_trace_goes_through_an_upstream_over_http2(tmp_path: Path) -> None:
    """Two of ours, the one behind the other, and a client that speaks HTTP/2 too: one trace."""
    near, far = tmp_path / "near", tmp_path / "far"
    with Collector() as collector:
        for folder in (near, far):
            folder.mkdir()
        configure(far, at(collector, ', service = "far"'))
        with Server(cwd=far) as behind:
            rest = (
                f'[upstream.far]\nservers = ["h2c://127.0.0.1:{behind.port}"]\n'
                '[[route]]\npath = "/far/*"\nupstream = "far"\n'
            )
            configure(near, at(collector, ', service = "near"'), rest)
            with Server(cwd=near) as server, frames(server.port) as client:
                fields = [*path("/far/x"), ("traceparent", PARENT), ("tracestate", "a=1")]
                body = client.ask(1, fields).body.decode()

                def found(lines: list[Span]) -> list[Span]:
                    ours = [line for line in lines[1:] if line["trace"] == TRACE]
                    return ours if sum("url.path" in line["attributes"] for line in ours) == 2 else []

                ours = collector.wait(found)
        by_parent = {span["parent"]: span for span in ours if "url.path" in span["attributes"]}
        first = by_parent[SPAN]
        asked = next(span for span in ours if span["name"] == "upstream")
        second = by_parent[asked["id"]]
        work = next(span for span in ours if span["name"] == "application")
        assert (asked["parent"], work["parent"]) == (first["id"], second["id"])
        assert told(body) == (TRACE, work["id"], "01")
        assert body.endswith(" a=1")
        assert first["attributes"]["network.protocol.version"] == "2"
        assert second["attributes"]["network.protocol.version"] == "2"
        assert asked["attributes"]["http.response.status_code"] == 200


def test_a_dead_collector_holds_up_nobody_and_gets_what_waited(tmp_path: Path) -> None:
    with socket.socket() as held:
        # Ours until the end: who listens there shares it.
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", 0))
        come_and_go(tmp_path, f"127.0.0.1:{held.getsockname()[1]}")


def come_and_go(folder: Path, place: str) -> None:
    """Ask while no collector is there; then one comes, and another in its place."""
    configure(folder, f'"http://{place}"')
    with Server(cwd=folder) as server:
        asked = [f"/{number}" for number in range(50)]
        assert {server.get(path).status for path in asked} == {200}
        server.wait_for(r"traces: http://.*Connection refused.*spans wait, and are sent again later")
        with Collector("grpc", place) as collector:
            for path in asked:
                collector.trace(path, "accept", "queue", "application")
            server.wait_for(r"traces: .* takes spans again")
            assert server.errors.text.count("sent again later") == 1
        with Collector("grpc", place) as collector:
            server.get("/again")
            collector.trace("/again", "accept", "queue", "application")


def test_what_is_refused_is_counted_and_told_once(tmp_path: Path) -> None:
    with Collector("grpc", "127.0.0.1:0", "--refuse", "INVALID_ARGUMENT") as collector:
        configure(tmp_path, at(collector), server='health = "127.0.0.1:0"')
        with Server(cwd=tmp_path) as server:
            for path, wanted in (("/one", 4), ("/two", 8)):
                server.get(path)
                eventually(lambda: counted(server) == (0, wanted), "they are counted")  # noqa: B023
            assert server.errors.text.count("refuses spans: the test wants it so (status 3)") == 1


def test_what_a_collector_takes_only_in_part_is_counted(tmp_path: Path) -> None:
    for protocol in ("grpc", "http"):
        with Collector(protocol, "127.0.0.1:0", "--part") as collector:
            more = ', protocol = "http/protobuf"' if protocol == "http" else ""
            configure(tmp_path, at(collector, more), server='health = "127.0.0.1:0"')
            with Server(cwd=tmp_path) as server:
                server.get("/")
                eventually(lambda: counted(server) == (3, 1), "they are counted")
                server.wait_for("refuses spans: one is too many")


def counted(server: Server) -> tuple[float, float]:
    """Spans that were sent and dropped, as Prometheus reads it."""
    address = server.wait_for(r"health on (http://127.0.0.1:\d+)")[1]
    with urllib.request.urlopen(f"{address}/metrics", timeout=DEADLINE) as response:
        text = response.read().decode()
    found = {sample.name: sample.value for family in text_string_to_metric_families(text) for sample in family.samples}
    return found["daemun_trace_spans_sent_total"], found["daemun_trace_spans_dropped_total"]


def test_a_collector_is_spoken_to_over_http_too(tmp_path: Path) -> None:
    with Collector("http") as collector:
        configure(tmp_path, at(collector, ', protocol = "http/protobuf", headers = { Authorization = "Bearer k" }'))
        with Server(cwd=tmp_path) as server:
            trace, parent, _ = told(server.get("/a").text)
            spans = collector.trace("/a", "accept", "queue", "application")
        assert (spans[""]["trace"], spans["application"]["id"]) == (trace, parent)
        assert spans[""]["metadata"]["authorization"] == "Bearer k"


def test_a_collector_behind_tls_is_verified(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    own = authority.sign("localhost", "localhost")
    with Collector("grpc", "127.0.0.1:0", "--tls", own.cert, own.key) as collector:
        for known, is_right in [(other, False), (authority, True)]:
            configure(
                tmp_path,
                f'{{ endpoint = "https://localhost:{collector.port}", tls = {{ ca_file = "{known.cert}" }} }}',
            )
            with Server(cwd=tmp_path) as server:
                server.get("/")
                if is_right:
                    collector.trace("/", "accept", "queue", "application")
                else:
                    server.wait_for("traces: https://localhost.*certificate.*spans wait")
                    assert not collector.spans


def test_what_waits_at_the_end_is_sent(tmp_path: Path) -> None:
    with Collector() as collector:
        configure(tmp_path, at(collector))
        with Server(cwd=tmp_path) as server:
            server.get("/last")
            assert server.stop() == 0
        assert [span["attributes"].get("url.path") for span in collector.spans].count("/last") == 1


def test_a_reload_begins_and_ends_traces(tmp_path: Path) -> None:
    with Collector() as first, Collector() as second:
        configure(tmp_path, "")
        with Server(cwd=tmp_path) as server:
            for number, traces in enumerate([at(first), at(second), ""]):
                configure(tmp_path, traces)
                server.send(signal.SIGHUP)
                eventually(lambda: (server.get("/is").text != "- -") is bool(traces), "it is reloaded")  # noqa: B023
                if traces:
                    collector = [first, second][number]
                    eventually(
                        lambda: server.get(f"/{number}").status == 200 and bool(collector.spans),  # noqa: B023
                        "its spans come",
                    )


@pytest.mark.parametrize(
    ("traces", "fault"),
    [
        ('"127.0.0.1:4317"', "expected a collector such as"),
        ("{ ratio = 0.1 }", "an `endpoint` is missing"),
        ('{ endpoint = "http://a:4317", ratio = 2 }', "expected a number from 0 to 1"),
        ('{ endpoint = "http://a:4317", protocol = "json" }', "expected `grpc` or `http/protobuf`"),
        ('{ endpoint = "http://a:4317", parents = "none" }', "expected `all` or `trusted`"),
        ('{ endpoint = "http://a:4317", headers = { "a b" = "c" } }', "a name or a value that no field can have"),
        ('{ endpoint = "http://a:4317", ratoi = 1 }', "did you mean `ratio`"),
    ],
)
def test_a_wrong_setting_is_told_with_its_place(tmp_path: Path, traces: str, fault: str) -> None:
    configure(tmp_path, traces)
    result = run("serve", cwd=tmp_path)
    assert result.returncode == 2
    assert fault in result.stderr
    assert "daemun.toml:4:" in result.stderr
