"""Requests to servers that others maintain: passed on as they were meant, answered by whoever they were meant for."""

from __future__ import annotations

import signal
import socket
import threading
from pathlib import Path

from server import DEADLINE, Server, eventually, exchange, run
from upstreams import Peer, Upstream, answer, unused_port
from wire import wire


def configure(folder: Path, *servers: str, more: str = "", route: str = "") -> None:
    """Write a file with one upstream that gets everything."""
    listed = ", ".join(server if server.startswith("{") else f'"{server}"' for server in servers)
    text = f'[upstream.legacy]\nservers = [{listed}]\n{more}\n[[route]]\npath = "/*"\nupstream = "legacy"\n{route}\n'
    (folder / "daemun.toml").write_text(text)


def test_a_request_reaches_its_server_as_it_was_meant(tmp_path: Path) -> None:
    with Upstream() as upstream:
        configure(tmp_path, upstream.url)
        with Server(cwd=tmp_path) as server:
            headers = {
                "Host": "shop.example",
                "X-Forwarded-For": "6.6.6.6",
                "Forwarded": "for=6.6.6.6",
                "X_Underscore": "1",
                "Proxy": "http://evil.example",
                "Connection": "X-Hop",
                "X-Hop": "1",
                "TE": "trailers",
                "X-Kept": "yes",
            }
            reply = server.ask("/a%2Fb?x=%20y", "POST", b"body", headers)
        assert (reply.status, reply.text) == (200, "a /a%2Fb?x=%20y 4")
        (asked,) = upstream.asked
        assert asked.line == "POST /a%2Fb?x=%20y HTTP/1.1"
        assert asked.all("Host") == ["shop.example"]
        assert asked.all("X-Forwarded-For") == ["127.0.0.1"]
        assert asked.all("X-Forwarded-Proto") == ["http"]
        assert asked.all("X-Forwarded-Host") == ["shop.example"]
        assert asked.all("X-Kept") == ["yes"]
        assert asked.all("Content-Length") == ["4"]
        for gone in ("Forwarded", "X_Underscore", "Proxy", "X-Hop", "TE", "Connection"):
            assert asked.all(gone) == [], gone


def test_a_connection_is_kept_and_used_again(tmp_path: Path) -> None:
    with Upstream() as upstream:
        configure(tmp_path, upstream.url)
        with Server(cwd=tmp_path) as server:
            connection = server.connection()
            for number in range(5):
                assert exchange(connection, f"/{number}").text == f"a /{number} 0"
            connection.close()
        assert [asked.connection for asked in upstream.asked] == [0] * 5


def test_what_comes_behind_an_answer_is_given_to_nobody(tmp_path: Path) -> None:
    def twice(upstream: Upstream, peer: Peer) -> None:
        while (asked := peer.request()) is not None:
            upstream.asked.append(asked)
            peer.send(answer(b"first") + answer(b"stolen"))

    with Upstream(behaviour=twice) as upstream:
        configure(tmp_path, upstream.url)
        with Server(cwd=tmp_path) as server:
            connection = server.connection()
            assert [exchange(connection, "/").text for _ in range(5)] == ["first"] * 5
            connection.close()
        assert [asked.connection for asked in upstream.asked] == list(range(5))


def test_an_answer_with_two_readings_is_none(tmp_path: Path) -> None:
    wrong = {
        "/both": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "/twice": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nabc",
        "/coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "/garbage": b"SSH-2.0-OpenSSH_9.9\r\n",
        "/folded": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
        "/bare": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        "/switch": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
        "/nothing": b"",
        "/half": b"HTTP/1.1 200 OK\r\nContent-Le",
    }

    def behave(_: Upstream, peer: Peer) -> None:
        asked = peer.request()
        if asked is not None:
            peer.send(wrong[asked.line.split(" ")[1]])

    with Upstream(behaviour=behave) as upstream:
        configure(tmp_path, upstream.url)
        with Server(cwd=tmp_path) as server:
            for path in wrong:
                assert server.get(path).status == 502, path


def test_an_answer_that_is_cut_never_looks_whole(tmp_path: Path) -> None:
    def cut(_: Upstream, peer: Peer) -> None:
        asked = peer.request()
        if asked is None:
            return
        if asked.line.startswith("GET /chunks"):
            peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        else:
            peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello")

    with Upstream(behaviour=cut) as upstream:
        configure(tmp_path, upstream.url)
        with Server(cwd=tmp_path) as server:
            for path in ("/chunks", "/length"):
                with wire(server.port) as client:
                    client.send(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
                    reply = client.reply()
                    assert reply is None or reply.status == 502 or not reply.complete, path


def test_an_early_answer_is_passed_on_and_the_connection_is_not_used_again(tmp_path: Path) -> None:
    arrived = threading.Semaphore(0)

    def early(_upstream: Upstream, peer: Peer) -> None:
        head = peer.head()
        assert head is not None
        assert head[0].startswith("POST")
        peer.send(answer(b"too large", "413 Content Too Large"))
        # Or the request might be out when its answer is read, and the connection as good as new.
        assert arrived.acquire(timeout=DEADLINE)
        while peer.more():
            pass

    with Upstream(behaviour=early) as upstream:
        configure(tmp_path, upstream.url)
        with Server(cwd=tmp_path) as server:
            for _ in range(2):
                # More than the buffers of both sockets take.
                reply = server.ask("/", "POST", b"x" * 24_000_000)
                arrived.release()
                assert (reply.status, reply.text) == (413, "too large")
        assert upstream.connections == 2


def test_a_server_that_cannot_be_reached_is_passed_over(tmp_path: Path) -> None:
    with unused_port() as port, Upstream() as upstream:
        configure(tmp_path, f"http://127.0.0.1:{port}", upstream.url)
        with Server(cwd=tmp_path) as server:
            # Nothing was sent, so that even a POST may go to another.
            replies = [server.ask("/", "POST", b"abc") for _ in range(8)]
            assert [reply.text for reply in replies] == ["a / 3"] * 8
            server.wait_for(rf"127.0.0.1:{port} gets nothing for")


def test_only_what_may_be_done_twice_is_sent_again(tmp_path: Path) -> None:
    def swallow(upstream: Upstream, peer: Peer) -> None:
        if (asked := peer.request()) is not None:
            upstream.asked.append(asked)

    with Upstream("bad", swallow) as bad, Upstream("good") as good:
        configure(tmp_path, bad.url, f'{{ url = "{good.url}", backup = true }}', more="failures = 100")
        with Server(cwd=tmp_path) as server:
            assert server.get("/x").text == "good /x 0"
            assert server.ask("/x", "POST", b"order").status == 502
        assert [asked.line.split(" ")[0] for asked in bad.asked] == ["GET", "POST"]
        assert [asked.line.split(" ")[0] for asked in good.asked] == ["GET"]


def test_a_stale_connection_is_replaced_without_anybody_noticing(tmp_path: Path) -> None:
    def once(upstream: Upstream, peer: Peer) -> None:
        if (asked := peer.request()) is not None:
            upstream.asked.append(asked)
            peer.send(answer(b"fine"))
        # The next request finds a connection that ends.
        peer.head()

    with Upstream(behaviour=once) as upstream:
        configure(tmp_path, upstream.url, more="failures = 1")
        with Server(cwd=tmp_path) as server:
            assert [server.get("/").text for _ in range(6)] == ["fine"] * 6
            assert "gets nothing" not in server.errors.text


def test_a_server_that_hangs_costs_a_504_in_its_time(tmp_path: Path) -> None:
    def hang(_: Upstream, peer: Peer) -> None:
        while peer.more():
            pass

    with Upstream(behaviour=hang) as upstream:
        configure(tmp_path, upstream.url, more='read_timeout = "200ms"')
        with Server(cwd=tmp_path) as server:
            assert server.get("/").status == 504
            server.wait_for(r"no answer within 0\.\d s \(`read_timeout`\)")


def test_a_cookie_leads_back_to_its_server_and_a_forged_one_nowhere(tmp_path: Path) -> None:
    with Upstream("a") as one, Upstream("b") as other:
        configure(tmp_path, one.url, other.url, more='sticky = { cookie = "route" }')
        with Server(cwd=tmp_path) as server:
            first = server.get("/")
            cookie = first.headers["Set-Cookie"].split(";")[0]
            for _ in range(4):
                again = server.get("/", {"Cookie": f"x=y; {cookie}"})
                assert again.text == first.text
                assert again.headers["Set-Cookie"] is None
            forged = cookie[:-1] + ("0" if cookie[-1] != "0" else "1")
            assert server.get("/", {"Cookie": forged}).headers["Set-Cookie"] is not None


def test_a_drained_server_gets_nothing_new_and_its_clients_move(tmp_path: Path) -> None:
    with Upstream("a") as one, Upstream("b") as other:
        configure(tmp_path, one.url, other.url, more='sticky = { cookie = "route" }')
        with Server(cwd=tmp_path) as server:
            replies = [server.get("/") for _ in range(2)]
            cookies = {reply.text: reply.headers["Set-Cookie"].split(";")[0] for reply in replies}
            told = run("drain", "legacy", one.url, cwd=tmp_path)
            assert (told.returncode, "gets nothing new" in told.stdout + told.stderr) == (0, True)
            server.wait_for("gets nothing new until the next reload")
            assert [server.get("/", {"Cookie": cookies["a / 0"]}).text for _ in range(4)] == ["b / 0"] * 4
            assert run("drain", "legacy", "http://nobody", cwd=tmp_path).returncode == 1


def test_a_request_waits_for_a_place_and_no_longer_than_it_may(tmp_path: Path) -> None:
    with Upstream() as upstream:
        configure(tmp_path, upstream.url, more='max_connections = 1\nqueue = { max = 10, timeout = "200ms" }')
        with Server(cwd=tmp_path) as server:
            for number in range(5):
                assert server.get(f"/{number}").text == f"a /{number} 0"

    def hold(_: Upstream, peer: Peer) -> None:
        while peer.more():
            if b"free" in peer.rest:
                peer.send(answer(b"free"))
                return

    with Upstream(behaviour=hold) as upstream:
        configure(tmp_path, upstream.url, more='max_connections = 1\nqueue = { max = 10, timeout = "200ms" }')
        with Server(cwd=tmp_path) as server, wire(server.port) as first:
            first.send(b"GET /held HTTP/1.1\r\nHost: a\r\n\r\n")
            while not upstream.connections:
                pass
            assert server.get("/waits").status == 503
            server.wait_for("every server stayed at `max_connections`")


def test_who_waits_for_a_place_is_not_passed_by_who_comes_later(tmp_path: Path) -> None:
    go = threading.Event()

    def hold(upstream: Upstream, peer: Peer) -> None:
        while (asked := peer.request()) is not None:
            upstream.asked.append(asked)
            assert go.wait(DEADLINE)
            peer.send(answer(b"done"))

    with Upstream(behaviour=hold) as upstream:
        configure(tmp_path, upstream.url, more="max_connections = 1")
        with (tmp_path / "daemun.toml").open("a") as file:
            file.write('[[route]]\npath = "/here"\nrespond = { status = 204 }\n[server]\nevent_loops = 1\n')
        with Server(cwd=tmp_path) as server, wire(server.port) as greedy, wire(server.port) as patient:
            # One after the other, each as soon as the last one has its answer.
            greedy.send(b"GET /greedy HTTP/1.1\r\nHost: a\r\n\r\n" * 20)
            eventually(lambda: len(upstream.asked) == 1, "the first is with the server")
            patient.send(b"GET /patient HTTP/1.1\r\nHost: a\r\n\r\n")
            # The one event loop has come to what was there before this.
            assert server.get("/here").status == 204
            go.set()
            for client, count in ((patient, 1), (greedy, 20)):
                for _ in range(count):
                    reply = client.reply()
                    assert reply is not None
                    assert reply.body == b"done"
        assert "/patient" in upstream.asked[1].line, [asked.line for asked in upstream.asked]


def test_a_server_that_is_not_well_gets_nothing_until_it_is(tmp_path: Path) -> None:
    state = {"status": "503 Service Unavailable"}

    def moody(upstream: Upstream, peer: Peer) -> None:
        while (asked := peer.request()) is not None:
            if asked.line.startswith("GET /healthz "):
                peer.send(answer(b"well", state["status"]))
            else:
                upstream.asked.append(asked)
                peer.send(answer(upstream.name.encode()))

    health = 'health = { path = "/healthz", interval = "50ms", unhealthy = 2, healthy = 2, body = "well" }'
    with Upstream("a", moody) as moody_one, Upstream("b") as other:
        configure(tmp_path, moody_one.url, other.url, more=health.replace(', body = "well"', ""))
        with Server(cwd=tmp_path) as server:
            server.wait_for("is not well and gets nothing: its status is 503")
            assert {server.get("/").text for _ in range(6)} == {"b / 0"}
            state["status"] = "200 OK"
            server.wait_for("is well again")
            assert {server.get("/").text for _ in range(6)} == {"a", "b / 0"}


def test_a_websocket_goes_through_and_survives_a_reload(tmp_path: Path) -> None:
    def echo(_: Upstream, peer: Peer) -> None:
        head = peer.head()
        assert head is not None
        assert ("Upgrade", "websocket") in head[1]
        assert ("Connection", "Upgrade") in head[1]
        peer.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nhello")
        while True:
            if peer.rest:
                data, peer.rest = peer.rest, b""
                peer.send(data)
            if not peer.more():
                return

    with Upstream(behaviour=echo) as upstream:
        configure(tmp_path, upstream.url)
        with Server(cwd=tmp_path) as server, socket.create_connection(("127.0.0.1", server.port), DEADLINE) as client:
            client.sendall(b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly")
            seen = b""
            while not seen.endswith(b"helloearly"):
                seen += client.recv(65536)
            assert seen.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
            server.send(signal.SIGHUP)
            server.wait_for("reload")
            for number in range(50):
                message = b"%d." % number * 1000
                client.sendall(message)
                back = b""
                while len(back) < len(message):
                    back += client.recv(65536)
                assert back == message
            client.shutdown(socket.SHUT_WR)
            assert client.recv(1) == b""


def test_http2_is_never_spoken_behind_our_back(tmp_path: Path) -> None:
    with Upstream() as upstream:
        configure(tmp_path, upstream.url)
        with Server(cwd=tmp_path) as server, wire(server.port) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n")
            client.send(b"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n")
            reply = client.reply()
            assert reply is not None
            assert reply.status == 200
        (asked,) = upstream.asked
        assert asked.all("Upgrade") + asked.all("Connection") + asked.all("HTTP2-Settings") == []


def test_interim_answers_are_passed_on(tmp_path: Path) -> None:
    def hints(_: Upstream, peer: Peer) -> None:
        if peer.request() is not None:
            peer.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n" + answer(b"fine"))

    with Upstream(behaviour=hints) as upstream:
        configure(tmp_path, upstream.url)
        with Server(cwd=tmp_path) as server, wire(server.port) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            first, second = client.reply(), client.reply()
            assert first is not None
            assert second is not None
            assert (first.status, first.get("Link"), second.status, second.body) == (103, "</a.css>", 200, b"fine")


def test_a_slow_client_holds_no_server(tmp_path: Path) -> None:
    with Upstream() as upstream:
        configure(tmp_path, upstream.url)
        with Server(cwd=tmp_path) as server, wire(server.port) as client:
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
            assert server.get("/other").text == "a /other 0"
            assert upstream.connections == 1
            client.send(b"def")
            reply = client.reply()
            assert reply is not None
            assert reply.body == b"a / 6"


def test_a_body_is_passed_on_as_it_comes_where_the_route_says_so(tmp_path: Path) -> None:
    def echo(_: Upstream, peer: Peer) -> None:
        head = peer.head()
        assert head is not None
        assert ("Transfer-Encoding", "chunked") in head[1]
        peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while b"0\r\n\r\n" not in peer.rest:
            peer.more()
        peer.send(peer.rest)

    with Upstream(behaviour=echo) as upstream:
        configure(tmp_path, upstream.url, route="request_buffering = false")
        with Server(cwd=tmp_path) as server, wire(server.port) as client:
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
            while not upstream.connections:
                pass
            client.send(b"3\r\ndef\r\n0\r\n\r\n")
            reply = client.reply()
            assert reply is not None
            assert (reply.status, reply.body) == (200, b"abcdef")


def test_a_reload_changes_the_servers_without_a_failed_request(tmp_path: Path) -> None:
    with Upstream("a") as one, Upstream("b") as other:
        configure(tmp_path, one.url)
        with Server(cwd=tmp_path) as server:
            assert server.get("/").text == "a / 0"
            configure(tmp_path, other.url)
            server.send(signal.SIGHUP)
            answers = server.until("/", "b / 0")
            assert {reply.status for reply in answers} == {200}


def test_an_option_is_enough_for_a_proxy(tmp_path: Path) -> None:
    with (
        Upstream("a") as one,
        Upstream("b") as other,
        Server("--proxy", f"/api={one.url},{other.url}", cwd=tmp_path) as server,
    ):
        assert {server.get("/api/x").text for _ in range(4)} == {"a /api/x 0", "b /api/x 0"}
        assert server.get("/").status == 404


def test_a_location_is_rewritten_where_that_is_asked_for(tmp_path: Path) -> None:
    def redirect(upstream: Upstream, peer: Peer) -> None:
        while peer.request() is not None:
            peer.send(answer(b"", "302 Found", f"Location: {upstream.url}/login?x=1"))

    with Upstream(behaviour=redirect) as upstream:
        configure(tmp_path, upstream.url, more="rewrite_location = true")
        with Server(cwd=tmp_path) as server:
            reply = server.get("/", {"Host": "shop.example"})
            assert reply.headers["Location"] == "http://shop.example/login?x=1"


def test_wrong_settings_are_told_with_their_place(tmp_path: Path) -> None:
    (tmp_path / "daemun.toml").write_text(
        '[upstream.legacy]\nservers = ["ftp://a", "http://a/b"]\nbalance = "fastest"\nbalanc = 1\n'
        '[[route]]\npath = "/*"\nupstream = "legasy"\n'
    )
    told = run("serve", cwd=tmp_path)
    assert told.returncode == 2
    for words in ("daemun.toml:2:", "none of `http`, `https`", "has no path", "`round-robin`", "`balance`?"):
        assert words in told.stderr, words


def test_a_socket_that_is_not_for_everybody_is_told_with_its_mend(tmp_path: Path) -> None:
    path = tmp_path / "application.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        path.chmod(0o000)
        configure(tmp_path, f"http://unix:{path}")
        with Server(cwd=tmp_path) as server:
            assert server.get("/").status == 502
            server.wait_for(
                rf"cannot connect to http://unix:{path}: Permission denied .*: who connects needs the right to write "
                r"to the socket and to enter its folder, and we are user \d+, group \d+; have its server make it with "
                r"mode 0666"
            )
