"""Certificates that an authority is asked for: from plain http to https, renewals, and everything in between."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import stat
import subprocess
from pathlib import Path

import pytest
from acme import Names, pebble, serial, stand
from peers import free_port
from server import DEADLINE, Server, children, eventually, run


class Ports:
    """Two that are free, and a configuration that listens there."""

    def __init__(self) -> None:
        self.http, self.tls = free_port(), free_port()

    def configuration(self, acme: str, hosts: list[str], more: str = "") -> str:
        """Give the text of a daemun.toml."""
        return (
            f'[server]\nstate = "state"\ncontrol = "control"\nlisten = ["127.0.0.1:{self.http}", "https://127.0.0.1:{self.tls}"]\n'
            f"{more}"
            f"[[tls]]\nhosts = {json.dumps(hosts)}\n"
            f"acme = {{ http_port = {self.http}, tls_port = {self.tls}, {acme} }}\n"
            '[[route]]\npath = "/*"\nrespond = { status = 200, body = "here" }\n'
        )


def serve(folder: Path, names: Names) -> Server:
    """Give the server of a folder."""
    return Server("daemun.toml", cwd=folder, listen="", program=names.daemun)


def status(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Ask the server how it is."""
    return run("status", "--control", folder / "control", *options, cwd=folder)


def plain(port: int, host: str, path: str = "/") -> tuple[int, str]:
    """Ask by http; give the status and where it leads."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
    connection.request("GET", path, headers={"Host": host})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, answer.getheader("Location", "")


def secure(port: int, host: str, root: Path) -> bytes:
    """Ask by https, and believe that authority alone."""
    context = ssl.create_default_context(cafile=str(root))
    with (
        socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as wire,
        context.wrap_socket(wire, server_hostname=host) as spoken,
    ):
        spoken.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        said = b""
        while part := spoken.recv(65536):
            said += part
    return said


def mode(path: Path) -> int:
    """Tell who may do what."""
    return stat.S_IMODE(path.stat().st_mode)


def test_a_site_goes_from_http_to_https_by_itself(tmp_path: Path) -> None:
    """HTTP-01, with plain requests answered until the certificate is there and sent to https from then on."""
    ports, names = Ports(), Names(tmp_path, a__example="127.0.0.1", b__example="127.0.0.1")
    text = 'directory = "{}", ca_file = "directory.pem", challenge = "http-01", email = "me@a.example"'
    # Its authority is not there yet.
    config = tmp_path / "daemun.toml"
    hosts = ["a.example", "b.example"]
    with pebble(names, ports.http, ports.tls) as authority:
        filled = text.format(authority.directory)
        config.write_text(ports.configuration(filled, hosts, "redirect_https = true\n"))
        with serve(tmp_path, names) as server:
            server.wait_for(
                "there is no certificate for a.example, b.example yet; until there is, they are served by http"
            )
            server.wait_for(
                "the certificate for a.example, b.example is there, https is served: by CN=Pebble Intermediate"
            )
            root = authority.root()
            for host in hosts:
                assert secure(ports.tls, host, root).endswith(b"here")
                assert plain(ports.http, host) == (308, f"https://{host}:{ports.tls}/")
            told = status(tmp_path, "--check")
            assert told.returncode == 0, told.stdout
            assert re.search("^tls +a.example, b.example: shown, by CN=Pebble .*, until ", told.stdout, re.M)
            # Its process has ended with the errand.
            eventually(
                lambda: not [pid for pid in children(server.pid) if "daemun-acme" in name_of(pid)],
                "the certifier has ended",
            )
            first = serial(ports.tls, "a.example")
            assert server.stop() == 0
        folder = next((tmp_path / "state" / "acme").iterdir())
        assert {path.name: mode(path) for path in folder.iterdir()} == {"account.json": 0o600, "a.example.pem": 0o600}
        assert mode(folder) == mode(folder.parent) == mode(tmp_path / "state") == 0o700
        assert "me@a.example" in (folder / "account.json").read_text()
        orders = authority.log.count("order-plz")
        assert orders > 0
        with serve(tmp_path, names) as server:
            assert serial(ports.tls, "a.example") == first
            assert "no certificate" not in server.errors.text
            assert authority.log.count("order-plz") == orders


def name_of(pid: int) -> str:
    """Tell a process by its name."""
    try:
        return Path(f"/proc/{pid}/comm").read_text()
    except OSError:
        return ""


def test_a_name_is_proven_in_a_handshake_where_nothing_is_served_by_http(tmp_path: Path) -> None:
    """TLS-ALPN-01, and a second table of its own for another name."""
    ports, names = Ports(), Names(tmp_path, a__example="127.0.0.1", b__example="127.0.0.1")
    with pebble(names, ports.http, ports.tls) as authority:
        acme = f'directory = "{authority.directory}", ca_file = "directory.pem"'
        text = ports.configuration(acme, ["a.example"]).replace(f'"127.0.0.1:{ports.http}", ', "")
        table = f'[[tls]]\nhosts = ["b.example"]\nacme = {{ tls_port = {ports.tls}, {acme} }}\n'
        (tmp_path / "daemun.toml").write_text(text + table)
        with serve(tmp_path, names) as server:
            server.wait_for("the certificate for a.example is there")
            server.wait_for("the certificate for b.example is there")
            root = authority.root()
            assert secure(ports.tls, "a.example", root).endswith(b"here")
            assert secure(ports.tls, "b.example", root).endswith(b"here")


def test_a_certificate_is_renewed_before_its_end_without_a_failed_request(tmp_path: Path) -> None:
    """At half of so short a life."""
    ports, names = Ports(), Names(tmp_path, a__example="127.0.0.1")
    with pebble(names, ports.http, ports.tls, validity=20) as authority:
        acme = f'directory = "{authority.directory}", ca_file = "directory.pem"'
        (tmp_path / "daemun.toml").write_text(ports.configuration(acme, ["a.example"]))
        with serve(tmp_path, names) as server:
            server.wait_for("the certificate for a.example is there")
            root = authority.root()
            seen = {serial(ports.tls, "a.example")}
            while len(seen) < 2:
                assert secure(ports.tls, "a.example", root).endswith(b"here")
                seen.add(serial(ports.tls, "a.example"))
            server.wait_for("the certificate for a.example was renewed: by CN=Pebble Intermediate")


def test_an_upgrade_takes_certificates_account_and_what_is_due_along(tmp_path: Path) -> None:
    """The version after shows the same certificate at once, asks for none, and renews it when its time has come."""
    ports, names = Ports(), Names(tmp_path, a__example="127.0.0.1")
    with pebble(names, ports.http, ports.tls, validity=40) as authority:
        acme = f'directory = "{authority.directory}", ca_file = "directory.pem"'
        (tmp_path / "daemun.toml").write_text(ports.configuration(acme, ["a.example"]))
        with serve(tmp_path, names) as server:
            server.wait_for("the certificate for a.example is there")
            root, first = authority.root(), serial(ports.tls, "a.example")
            orders = authority.log.count("order-plz")
            server.send(signal.SIGUSR2)
            server.wait_for("upgraded from version")
            assert serial(ports.tls, "a.example") == first
            assert authority.log.count("order-plz") == orders
            while serial(ports.tls, "a.example") == first:
                assert secure(ports.tls, "a.example", root).endswith(b"here")
            server.wait_for("the certificate for a.example was renewed: by CN=Pebble Intermediate")
            assert server.stop() == 0


def test_a_name_that_does_not_resolve_yet_is_waited_for(tmp_path: Path) -> None:
    """The authority is not asked, the reason is told, http is served; and all is well once the name is there."""
    ports, names = Ports(), Names(tmp_path)
    with pebble(names, ports.http, ports.tls) as authority:
        acme = f'directory = "{authority.directory}", ca_file = "directory.pem"'
        (tmp_path / "daemun.toml").write_text(ports.configuration(acme, ["a.example"], "redirect_https = true\n"))
        with serve(tmp_path, names) as server:
            why = r"no certificate for a\.example: a\.example does not resolve \(.*\): is its DNS record there yet\?"
            server.wait_for(why + r".*; the next try is in 5 s")
            assert plain(ports.http, "a.example")[0] == 200
            told = status(tmp_path, "--check")
            assert told.returncode == 1
            assert re.search(f"^degraded +{why}", told.stdout, re.M), told.stdout
            found = json.loads(status(tmp_path, "--json").stdout)["certificates"][0]
            assert (found["hosts"], found["source"], found["until"]) == (["a.example"], "authority", None)
            assert found["reason"].startswith("a.example does not resolve")
            assert "order-plz" not in authority.log
            names.lead(a__example="127.0.0.1")
            server.wait_for("the certificate for a.example is there")
            assert secure(ports.tls, "a.example", authority.root()).endswith(b"here")
            assert status(tmp_path, "--check").returncode == 0


def test_a_name_that_leads_elsewhere_is_not_asked_for(tmp_path: Path) -> None:
    """Another server answers there; and one of this machine's addresses where nobody does."""
    ports, names = Ports(), Names(tmp_path, a__example="127.0.0.7", b__example="127.0.0.8")
    other = tmp_path / "other"
    other.mkdir()
    (other / "daemun.toml").write_text(
        f'[server]\nlisten = ["127.0.0.7:{ports.http}"]\n[[route]]\npath = "/*"\nrespond = {{ status = 404 }}\n'
    )
    with Server("daemun.toml", cwd=other, listen=""), pebble(names, ports.http, ports.tls) as authority:
        acme = f'directory = "{authority.directory}", ca_file = "directory.pem"'
        text = ports.configuration(acme, ["a.example"])
        table = f'[[tls]]\nhosts = ["b.example"]\nacme = {{ http_port = {ports.http}, {acme} }}\n'
        (tmp_path / "daemun.toml").write_text(text + table)
        with serve(tmp_path, names) as server:
            where = f"127.0.0.7:{ports.http}"
            answers = f"a.example leads elsewhere: {where} answers 404 Not Found for what this server was just given"
            server.wait_for(re.escape(f"no certificate for a.example: {answers}"))
            server.wait_for(r"no certificate for b\.example: b\.example cannot be reached at 127\.0\.0\.8:\d+: ")
            assert "order-plz" not in authority.log


def test_a_limit_of_the_authority_is_told_and_kept_to(tmp_path: Path) -> None:
    """For as long as it says, after a restart too."""
    ports, names = Ports(), Names(tmp_path, a__example="127.0.0.1")
    with stand(names) as authority:
        detail = "too many certificates already issued"
        authority.refusals = [(429, "rateLimited", detail, "7200")]
        acme = f'directory = "{authority.url}/directory", ca_file = "stand.pem"'
        (tmp_path / "daemun.toml").write_text(ports.configuration(acme, ["a.example"]))
        with serve(tmp_path, names) as server:
            server.wait_for(
                f"no certificate for a.example: a limit of the authority: {detail}.*; the next try is in 7200 s"
            )
            assert plain(ports.http, "a.example")[0] == 200
        asked = len(authority.asked)
        with serve(tmp_path, names) as server:
            server.wait_for(rf"no certificate for a.example yet \(a limit of the authority: {detail}")
            assert f"a limit of the authority: {detail}" in status(tmp_path, "--check").stdout
            server.send(signal.SIGHUP)
            server.wait_for("reloaded")
            assert status(tmp_path, "--check").returncode == 1
        assert len(authority.asked) == asked


def test_an_authority_that_wants_a_certificate_renewed_early_is_heard(tmp_path: Path) -> None:
    """Renewal information (RFC 9773), and which certificate the new one is for."""
    ports, names = Ports(), Names(tmp_path, a__example="127.0.0.1")
    with stand(names) as authority:
        authority.window = ("2100-01-01T00:00:00Z", "2100-01-02T00:00:00Z")
        acme = f'directory = "{authority.url}/directory", ca_file = "stand.pem"'
        (tmp_path / "daemun.toml").write_text(ports.configuration(acme, ["a.example"]))
        with serve(tmp_path, names) as server:
            server.wait_for("the certificate for a.example is there, https is served: by CN=issuer")
            assert "replaces" not in authority.orders[0]
        # As when certificates have to be revoked.
        authority.window = ("2020-01-01T00:00:00Z", "2020-01-02T00:00:00Z")
        with serve(tmp_path, names) as server:
            server.wait_for("certificate for a.example: the authority wants it renewed now")
            authority.window = ("2100-01-01T00:00:00Z", "2100-01-02T00:00:00Z")
            server.wait_for("the certificate for a.example was renewed")
        # The identifier of the key and the serial number.
        assert re.fullmatch(r"[\w-]{27}\.[\w-]+", authority.orders[1]["replaces"])
        assert len(authority.accounts) == 1


def test_an_account_that_the_authority_has_forgotten_is_made_anew(tmp_path: Path) -> None:
    """As after the loss of its data; here it is another one at the same place."""
    ports, names = Ports(), Names(tmp_path, a__example="127.0.0.1")
    with stand(names) as authority:
        acme = f'directory = "{authority.url}/directory", ca_file = "stand.pem"'
        (tmp_path / "daemun.toml").write_text(ports.configuration(acme, ["a.example"]))
        with serve(tmp_path, names) as server:
            server.wait_for("the certificate for a.example is there")
        next((tmp_path / "state").rglob("a.example.pem")).unlink()
        authority.refusals = [(400, "accountDoesNotExist", "unknown account", "1")]
        with serve(tmp_path, names) as server:
            server.wait_for("the certificate for a.example is there")
        assert len(authority.accounts) == 2


def test_more_names_are_asked_for_while_those_before_are_served(tmp_path: Path) -> None:
    """A reload with another name: the certificate before is shown until the new one is there."""
    ports, names = Ports(), Names(tmp_path, a__example="127.0.0.1")
    with stand(names) as authority:
        acme = f'directory = "{authority.url}/directory", ca_file = "stand.pem"'
        config = tmp_path / "daemun.toml"
        config.write_text(ports.configuration(acme, ["a.example"]))
        with serve(tmp_path, names) as server:
            server.wait_for("the certificate for a.example is there")
            config.write_text(ports.configuration(acme, ["a.example", "b.example"]))
            server.send(signal.SIGHUP)
            server.wait_for("certificate for a.example, b.example was not renewed, .*: b.example does not resolve")
            assert secure(ports.tls, "a.example", authority.signer.cert).endswith(b"here")
            names.lead(a__example="127.0.0.1", b__example="127.0.0.1")
            server.wait_for("the certificate for a.example, b.example was renewed")
            assert secure(ports.tls, "b.example", authority.signer.cert).endswith(b"here")


def test_a_name_on_the_command_line_is_all_that_is_needed(tmp_path: Path) -> None:
    """Nobody is asked here, since the name does not lead anywhere."""
    names = Names(tmp_path)
    (tmp_path / "index.html").write_text("here")
    options = [
        "--listen",
        f"https://127.0.0.1:{free_port()}",
        "--acme-directory",
        "staging",
    ]
    domains = ["--domain", "a.example", "--domain", "B.example.", "--acme-email", "a@b.example"]
    env = {"STATE_DIRECTORY": str(tmp_path / "state")}
    with Server(".", *options, *domains, cwd=tmp_path, env=env, program=names.daemun) as server:
        server.wait_for("no certificate for a.example: a.example does not resolve")
        server.wait_for("no certificate for b.example: b.example does not resolve")
    made = [path.name for path in (tmp_path / "state" / "acme").iterdir()]
    assert made == ["acme-staging-v02.api.letsencrypt.org_directory"]


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="this system has no folder in memory")
def test_a_state_folder_that_does_not_last_is_warned_of(tmp_path: Path) -> None:
    """One in memory."""
    state = Path("/dev/shm") / f"daemun-{os.getpid()}-{tmp_path.name}"
    (tmp_path / "index.html").write_text("here")
    options = ["--listen", f"https://127.0.0.1:{free_port()}", "--domain", "a.example"]
    try:
        with Server(
            ".", *options, cwd=tmp_path, env={"STATE_DIRECTORY": str(state)}, program=Names(tmp_path).daemun
        ) as server:
            assert f"{state} lies on memory (tmpfs): certificates are lost with it" in server.start_up
            assert "[D413]" in server.start_up
    finally:
        shutil.rmtree(state, ignore_errors=True)


def test_dev_serves_https_with_a_certificate_of_its_own(tmp_path: Path) -> None:
    """Made once, told of at the start, for its owner alone."""
    (tmp_path / "daemun.toml").write_text('[[route]]\npath = "/*"\nrespond = { status = 200, body = "here" }\n')
    env = {"XDG_STATE_HOME": str(tmp_path / "state"), "STATE_DIRECTORY": str(tmp_path / "state")}
    seen = set()
    for _ in range(2):
        with Server("daemun.toml", "--https", cwd=tmp_path, env=env, command="dev") as server:
            file = tmp_path / "state" / "self-made" / "localhost.pem"
            assert f"the certificate of https is self-made ({file}): browsers warn of it" in server.start_up
            assert "listening on https://127.0.0.1:" in server.errors.text
            assert mode(file) == 0o600
            assert secure(server.port, "localhost", file).endswith(b"here")
            seen.add(serial(server.port, "localhost"))
    assert len(seen) == 1
