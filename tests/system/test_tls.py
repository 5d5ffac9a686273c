"""TLS through the whole program: certificates, handshakes, clients' certificates, and what is wrong with files."""

from __future__ import annotations

import http.client
import json
import re
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from authority import Authority, Certificate, openssl
from frames import Frames, at
from server import DEADLINE, Answer, Server, children, eventually, exchange, front, resident, run

APPLICATION = """\
import json

def application(environ, start_response):
    body = environ["wsgi.input"].read()
    said = {name: value for name, value in environ.items() if isinstance(value, str)}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({**said, "length": len(body)}).encode()]
"""
ROUTES = """
[app.a]
wsgi = "app:application"
processes = 1
[[route]]
path = "/static/*"
static = { root = "static" }
[[route]]
path = "/*"
app = "a"
"""
CONFIGURATION = """\
[server]
listen = ["https://127.0.0.1:0"]
error_log = { path = "-", level = "debug" }
[[tls]]
cert = "plain.pem"
key = "plain.key"
[[tls]]
hosts = ["a.example", "*.wild.example"]
cert = "named.pem"
key = "named.key"
ocsp = "staple.der"
[[tls]]
hosts = ["members.example"]
cert = "members.pem"
key = "members.key"
client_ca = "authority.pem"
[[tls]]
hosts = ["guests.example"]
cert = "guests.pem"
key = "guests.key"
client_ca = "authority.pem"
client_certificates = "optional"
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an application, files, and certificates of one authority."""
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority(folder)
    authority.sign("plain", "localhost")
    named = authority.sign("named", "a.example", "*.wild.example")
    authority.staple(named)
    authority.sign("members", "members.example")
    authority.sign("guests", "guests.example")
    authority.sign("client", subject="/C=KR/O=Gate, Inc./CN=Kim")
    Authority(folder, "stranger").sign("impostor", subject="/CN=Kim")
    (folder / "app.py").write_text(APPLICATION)
    (folder / "static").mkdir()
    (folder / "static" / "large").write_bytes(bytes(range(256)) * 12_000)
    (folder / "daemun.toml").write_text(CONFIGURATION + ROUTES)
    return folder


@pytest.fixture(scope="module")
def server(project: Path) -> Iterator[Server]:
    """All of it."""
    with Server("--config", "daemun.toml", cwd=project, listen="") as server:
        yield server


def trusting(project: Path, client: str | None = None) -> ssl.SSLContext:
    """Give a client that knows the authority, perhaps with a certificate of its own."""
    context = ssl.create_default_context(cafile=str(project / "authority.pem"))
    if client:
        context.load_cert_chain(project / f"{client}.pem", project / f"{client}.key")
    return context


def connect(server: Server, context: ssl.SSLContext, host: str, session: ssl.SSLSession | None = None) -> ssl.SSLSocket:
    """Shake hands."""
    raw = socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE)
    return context.wrap_socket(raw, server_hostname=host, session=session)


def ask(server: Server, context: ssl.SSLContext, host: str, path: str = "/", name: str | None = None) -> Answer:
    """Ask `host` in the handshake, `name` in the request."""
    connection = http.client.HTTPConnection(host, server.port)
    connection.sock = connect(server, context, host)
    try:
        return exchange(connection, path, headers={"Host": name or host})
    finally:
        connection.close()


def subject(server: Server, host: str | None) -> str:
    """Give the name in the certificate that is shown to a client that asks for this one."""
    asked = ["-servername", host] if host else ["-noservername"]
    done = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{server.port}", *asked],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    found = re.search(r"subject=.*CN ?= ?(\S+)", done.stdout)
    assert found, done.stdout + done.stderr
    return found[1]


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("a.example", "named"),
        ("A.Example", "named"),
        ("b.wild.example", "named"),
        ("b.c.wild.example", "plain"),
        ("wild.example", "plain"),
        ("members.example", "members"),
        ("unknown.example", "plain"),
        (None, "plain"),
    ],
)
def test_a_certificate_is_chosen_by_the_name_that_is_asked_for(server: Server, host: str | None, shown: str) -> None:
    """The whole name, then the domain above it, then the one without hosts."""
    assert subject(server, host) == shown


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_both_versions_are_spoken_and_resumed(server: Server, project: Path, version: ssl.TLSVersion) -> None:
    """With a ticket that every event loop understands."""
    context = trusting(project)
    context.minimum_version = context.maximum_version = version
    session, ciphers = None, set()
    for number in range(4):
        connection = http.client.HTTPConnection("localhost", server.port)
        connection.sock = secure = connect(server, context, "localhost", session)
        said = json.loads(exchange(connection, "/").text)
        assert secure.session_reused == (number > 0)
        session, cipher = secure.session, secure.cipher()
        assert cipher is not None
        assert (said["SSL_PROTOCOL"], said["SSL_CIPHER"]) == (version.name.replace("_", "."), cipher[0])
        assert (said["HTTPS"], said["wsgi.url_scheme"], said["SSL_TLS_SNI"]) == ("on", "https", "localhost")
        assert said["SERVER_PORT"] == str(server.port)
        assert "SSL_CLIENT_VERIFY" not in said
        ciphers.add(cipher[0])
        connection.close()
    assert len(ciphers) == 1


def test_older_versions_are_refused(server: Server) -> None:
    """With an alert, and a line in the log."""
    arguments = ["openssl", "s_client", "-connect", f"127.0.0.1:{server.port}", "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"]
    done = subprocess.run(arguments, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode != 0
    assert "alert" in done.stderr
    server.wait_for(r"info: a TLS handshake with 127\.0\.0\.1 failed: ")


@pytest.mark.parametrize(("offered", "spoken"), [(["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1"), ([], None)])
def test_the_protocol_is_agreed_upon(server: Server, project: Path, offered: list[str], spoken: str | None) -> None:
    """By ALPN; HTTP/1.1 for those who know none."""
    context = trusting(project)
    if offered:
        context.set_alpn_protocols(offered)
    with connect(server, context, "localhost") as secure:
        assert secure.selected_alpn_protocol() == spoken
        if spoken == "h2":
            result = Frames(secure).ask(1, [*at("/")[:2], (":authority", "localhost"), (":path", "/")])
            said = json.loads(result.body)
            assert (said["SERVER_PROTOCOL"], said["HTTPS"], said["wsgi.url_scheme"]) == ("HTTP/2.0", "on", "https")
        else:
            secure.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert secure.recv(12) == b"HTTP/1.1 200"


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_large_files_and_uploads_come_whole(server: Server, project: Path, version: str) -> None:
    """Byte for byte, through curl."""
    known = ["--cacert", "authority.pem", "--resolve", f"localhost:{server.port}:127.0.0.1"]
    url = f"https://localhost:{server.port}"
    curl = ["curl", "-sS", "--fail", version, *known]
    large = subprocess.run([*curl, f"{url}/static/large"], cwd=project, capture_output=True, timeout=DEADLINE)
    assert large.stdout == (project / "static" / "large").read_bytes(), large.stderr
    body = ["--data-binary", "@static/large"]
    sent = subprocess.run([*curl, *body, f"{url}/"], cwd=project, capture_output=True, timeout=DEADLINE)
    assert json.loads(sent.stdout)["length"] == 256 * 12_000


def test_an_answer_of_the_authority_is_stapled(server: Server, project: Path) -> None:
    """Where there is a file with one, to those who ask."""
    asked: list[str | Path] = ["-connect", f"127.0.0.1:{server.port}", "-status", "-CAfile", project / "authority.pem"]
    for host, told in [("a.example", "OCSP Response Status: successful"), ("localhost", "no response sent")]:
        said = openssl("s_client", *asked, "-servername", host, cwd=project)
        assert told in said


def test_a_client_shows_its_certificate_to_the_application(server: Server, project: Path) -> None:
    """By the names of mod_ssl; whoever shows none is told so."""
    guest = json.loads(ask(server, trusting(project), "guests.example").text)
    assert guest["SSL_CLIENT_VERIFY"] == "NONE"
    assert "SSL_CLIENT_S_DN" not in guest
    for host in ["guests.example", "members.example"]:
        said = json.loads(ask(server, trusting(project, "client"), host).text)
        asked: list[str | Path] = ["x509", "-in", project / "client.pem", "-noout"]
        serial = openssl(*asked, "-serial", cwd=project).strip().partition("=")[2]
        digest = openssl(*asked, "-fingerprint", "-sha256", cwd=project).strip().partition("=")[2]
        assert said["SSL_CLIENT_VERIFY"] == "SUCCESS"
        assert said["SSL_CLIENT_S_DN"] == r"CN=Kim,O=Gate\, Inc.,C=KR"
        assert said["SSL_CLIENT_I_DN"] == "CN=authority,O=daemun"
        assert said["SSL_CLIENT_M_SERIAL"] == serial
        assert said["SSL_CLIENT_FINGERPRINT"] == digest.replace(":", "").lower()
        assert said["SSL_CLIENT_CERT"] in (project / "client.pem").read_text()


@pytest.mark.parametrize("client", [None, "impostor"])
def test_without_a_certificate_of_ours_there_is_no_connection(
    server: Server, project: Path, client: str | None
) -> None:
    """Where one is required; and nowhere with a wrong one."""
    with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
        ask(server, trusting(project, client), "members.example")
    if client:
        with pytest.raises((ssl.SSLError, ConnectionError, http.client.HTTPException)):
            ask(server, trusting(project, client), "guests.example")


@pytest.mark.parametrize("entry", ["localhost", "guests.example"])
def test_who_has_no_certificate_does_not_get_in_by_another_name(server: Server, project: Path, entry: str) -> None:
    """The name of the handshake is open, the one of the request is not: 421, over HTTP/2 too."""
    answer = ask(server, trusting(project), entry, name="members.example")
    assert answer.status == 421
    context = trusting(project)
    context.set_alpn_protocols(["h2"])
    with connect(server, context, entry) as secure:
        fields = [*at("/")[:2], (":authority", "MEMBERS.example"), (":path", "/")]
        assert Frames(secure).ask(1, fields).status == 421
    assert ask(server, trusting(project), "localhost", name="a.example").status == 200


def test_a_ticket_does_not_lead_past_the_question_for_a_certificate(server: Server, project: Path) -> None:
    """One of an open name is worth nothing where certificates are required."""
    context = trusting(project)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with connect(server, context, "localhost") as secure:
        session = secure.session
    with pytest.raises(ssl.SSLError):
        connect(server, context, "members.example", session)


def test_plain_http_on_the_port_is_told_so(server: Server) -> None:
    """In words that a person understands, and the connection ends."""
    answer = server.get("/")
    assert answer.status == 400
    assert "plain HTTP was sent to a port for https" in answer.text


def test_the_key_is_in_no_argument_environment_or_log(server: Server, project: Path) -> None:
    """It goes from the supervisor to the front through their channel alone."""
    secret = (project / "plain.key").read_text().splitlines()[1].encode()
    for pid in [server.pid, *children(server.pid)]:
        assert secret not in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert secret not in Path(f"/proc/{pid}/environ").read_bytes()
    assert secret.decode() not in server.errors.text + server.access.text


def test_an_idle_connection_is_small(server: Server, project: Path) -> None:
    """20 kB at most, session and all."""
    context = trusting(project)
    pid = front(server)
    held = [connect(server, context, "localhost") for _ in range(50)]
    before = resident(pid)
    for _ in range(400):
        held.append(connect(server, context, "localhost"))
    # The last one is answered, so all have been accepted.
    held[-1].sendall(b"GET /static/none HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert held[-1].recv(12) == b"HTTP/1.1 404"
    each = (resident(pid) - before) / 400
    for secure in held:
        secure.close()
    assert each < 20_000


# === Files that change ===


@pytest.fixture
def changing(tmp_path: Path) -> Path:
    """A folder whose certificates a test may replace."""
    authority = Authority(tmp_path)
    for name in ["first", "second"]:
        authority.sign(name, "localhost")
    shown = Certificate(tmp_path / "shown.pem", tmp_path / "shown.key")
    shown.replace(Certificate(tmp_path / "first.pem", tmp_path / "first.key"))
    (tmp_path / "app.py").write_text(APPLICATION)
    (tmp_path / "static").mkdir()
    return tmp_path


def configure(folder: Path, tls: str = 'cert = "shown.pem"\nkey = "shown.key"', server: str = "") -> None:
    """Write a file with this table."""
    head = f'[server]\nlisten = ["https://127.0.0.1:0"]\n{server}\n[[tls]]\n{tls}\n'
    (folder / "daemun.toml").write_text(head + ROUTES)


def test_a_certificate_that_is_replaced_is_shown_and_a_broken_one_is_not(changing: Path) -> None:
    """Without a signal; connections that are open go on; HUP with a broken file changes nothing."""
    configure(changing)
    shown, second = (Certificate(changing / f"{name}.pem", changing / f"{name}.key") for name in ["shown", "second"])
    with Server("--config", "daemun.toml", cwd=changing, listen="") as server:
        assert subject(server, "localhost") == "first"
        with connect(server, trusting(changing), "localhost") as kept:
            kept.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert kept.recv(1 << 16).startswith(b"HTTP/1.1 200")
            shown.replace(second)
            server.wait_for(r"the certificate in .*shown\.pem was read anew")
            # The front is told through another process: what it shows is asked for until it is there.
            eventually(lambda: subject(server, "localhost") == "second", "the new certificate is shown")
            kept.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert kept.recv(1 << 16).startswith(b"HTTP/1.1 200")
        shown.cert.write_text("no certificate")
        server.wait_for(
            r"error: daemun\.toml:\d+:\d+: .*shown\.pem holds no certificate in PEM; the certificate before"
        )
        assert subject(server, "localhost") == "second"
        server.send(signal.SIGHUP)
        server.wait_for(r"reload refused, the old configuration serves on: .*shown\.pem holds no certificate in PEM")
        assert subject(server, "localhost") == "second"


BROKEN = {
    "a key of another certificate": (
        'cert = "shown.pem"\nkey = "second.key"',
        r"daemun\.toml:5:8: the key in .*second\.key does not belong to the certificate in .*shown\.pem",
    ),
    "a certificate that is not there": (
        'cert = "none.pem"',
        r"daemun\.toml:5:8: cannot read .*none\.pem: No such file",
    ),
    "no key": ('cert = "shown.pem"', r"daemun\.toml:5:8: .*shown\.pem holds no key in PEM"),
    "no certificate": ('cert = "shown.key"', r"daemun\.toml:5:8: .*shown\.key holds no certificate in PEM"),
    "an authority that is none": (
        'cert = "shown.pem"\nkey = "shown.key"\nclient_ca = "first.key"',
        r"daemun\.toml:5:8: .*first\.key holds no certificate in PEM",
    ),
    "a name twice": (
        'hosts = ["a"]\ncert = "shown.pem"\nkey = "shown.key"\n'
        '[[tls]]\nhosts = ["a"]\ncert = "shown.pem"\nkey = "shown.key"',
        r"daemun\.toml:10:8: `a` stands already at daemun\.toml:6:8",
    ),
}


@pytest.mark.parametrize(("tls", "told"), BROKEN.values(), ids=BROKEN)
def test_what_cannot_be_used_is_told_before_anything_starts(changing: Path, tls: str, told: str) -> None:
    """With its place; exit 2."""
    configure(changing, tls)
    done = run("serve", "--config", "daemun.toml", cwd=changing)
    assert done.returncode == 2
    assert re.search(told, done.stderr), done.stderr


def test_a_certificate_that_has_ended_is_refused_and_one_that_ends_soon_is_warned_of(changing: Path) -> None:
    """As is one that does not name what it is for."""
    authority = Authority(changing, "other")
    authority.sign("ended", "localhost", days=0)
    configure(changing, 'cert = "ended.pem"\nkey = "ended.key"')
    done = run("serve", "--config", "daemun.toml", cwd=changing)
    assert done.returncode == 2
    assert re.search(r"the certificate in .*ended\.pem was valid until .* GMT; put a new one in its place", done.stderr)
    authority.sign("ending", "localhost", days=13)
    configure(changing, 'hosts = ["localhost", "b.example"]\ncert = "ending.pem"\nkey = "ending.key"')
    with Server("--config", "daemun.toml", cwd=changing, listen="") as server:
        assert re.search(r"warning: .*: the certificate is valid until .* GMT only", server.start_up)
        assert "the certificate does not name b.example: browsers will refuse it" in server.start_up


def test_an_https_listener_without_a_certificate_is_refused_with_the_mend(changing: Path) -> None:
    """By option or file; exit 2."""
    done = run("serve", "app:application", "--listen", "https://127.0.0.1:0", cwd=changing)
    assert done.returncode == 2
    mend = "write [[tls]] with `cert` and `key` or `acme`, or give --tls-cert and --tls-key, or --domain"
    assert done.stderr.strip() == f"--listen: https://127.0.0.1:0 needs a certificate: {mend}"


def test_a_certificate_by_option_or_variable_makes_https_the_default(changing: Path) -> None:
    """In one file with its key, too."""
    (changing / "both.pem").write_text((changing / "first.key").read_text() + (changing / "first.pem").read_text())
    with Server(
        "app:application", "--port", "0", cwd=changing, listen="", env={"DAEMUN_TLS_CERT": "both.pem"}
    ) as server:
        assert "no listener is https" in server.start_up
    options = ["--tls-cert", "first.pem", "--tls-key", "first.key"]
    with Server("app:application", *options, cwd=changing, listen="https://127.0.0.1:0") as server:
        assert "https://127.0.0.1:" in server.wait_for("listening on (.*)")[1]
        assert subject(server, None) == "first"


def test_plain_requests_are_sent_to_https_and_browsers_told_to_stay(changing: Path) -> None:
    """But for what an authority asks; the query is kept, the method too."""
    ports = 'listen = ["127.0.0.1:0", "https://127.0.0.1:0"]'
    configure(changing, server='redirect_https = true\nhsts = { max_age = "1h", subdomains = true }')
    text = (changing / "daemun.toml").read_text().replace('listen = ["https://127.0.0.1:0"]', ports)
    (changing / "daemun.toml").write_text(text)
    with Server("--config", "daemun.toml", cwd=changing, listen="") as server:
        secure = server.wait_for(r"listening on https://127\.0\.0\.1:(\d+)")[1]
        answer = server.ask("/a%20b?c=d", "POST", b"x", {"Host": "localhost:80"})
        assert answer.status == 308
        assert answer.headers["Location"] == f"https://localhost:{secure}/a%20b?c=d"
        assert answer.headers["Strict-Transport-Security"] is None
        assert server.get("/.well-known/acme-challenge/x").status == 200
        server.port = int(secure)
        answer = ask(server, trusting(changing), "localhost")
        assert (answer.status, answer.headers["Strict-Transport-Security"]) == (200, "max-age=3600; includeSubDomains")


def test_a_client_that_does_not_shake_hands_is_let_go(changing: Path) -> None:
    """After `header_timeout`, whether it says nothing or a part."""
    configure(changing, server='header_timeout = "1s"')
    with Server("--config", "daemun.toml", cwd=changing, listen="") as server:
        for said in [b"", b"\x16\x03\x01\x02\x00\x01\x00"]:
            with socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE) as raw:
                raw.sendall(said)
                assert raw.recv(1) == b""
        server.wait_for(r"a TLS handshake with 127\.0\.0\.1 failed: it took longer than 1 s")


def test_idle_connections_do_not_delay_a_stop(changing: Path) -> None:
    """Neither those that are idle nor those that have not shaken hands."""
    configure(changing)
    with Server("--config", "daemun.toml", cwd=changing, listen="") as server:
        with (
            connect(server, trusting(changing), "localhost") as idle,
            socket.create_connection(("127.0.0.1", server.port), timeout=DEADLINE) as silent,
        ):
            idle.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert idle.recv(12) == b"HTTP/1.1 200"
            assert server.stop() == 0
            assert silent.recv(1) == b""
        assert "grace is over" not in server.errors.text
