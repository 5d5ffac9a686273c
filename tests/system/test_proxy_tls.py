"""Application servers on other hosts: https both ways verified, or no request at all."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import cast

from authority import Authority
from server import Server
from upstreams import Peer, Upstream, answer


def secured(context: ssl.SSLContext) -> Upstream:
    """Make a server that speaks TLS and says who has come."""

    def behave(upstream: Upstream, peer: Peer) -> None:
        try:
            stream = context.wrap_socket(peer.socket, server_side=True)
        except (OSError, ssl.SSLError):
            return
        peer.socket = stream
        shown = stream.getpeercert() or {}
        parts = cast("tuple[tuple[tuple[str, str], ...], ...]", shown.get("subject", ()))
        subject = ",".join(value for part in parts for _, value in part)
        while (asked := peer.request()) is not None:
            upstream.asked.append(asked)
            peer.send(answer(f"{subject or 'nobody'}".encode()))

    return Upstream(behaviour=behave)


def ask(folder: Path, port: int, tls: str) -> tuple[int, str, str]:
    """Ask through a gate with these TLS settings: status, body, and what the gate said."""
    (folder / "daemun.toml").write_text(
        f'[upstream.tier]\nservers = ["https://localhost:{port}"]\ntls = {{ {tls} }}\n'
        '[[route]]\npath = "/*"\nupstream = "tier"\n'
    )
    with Server(cwd=folder) as server:
        replies = [server.get("/") for _ in range(2)]
        assert len({reply.status for reply in replies}) == 1
    return replies[0].status, replies[0].text, server.errors.text


def test_a_server_is_verified_and_shown_our_certificate(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    own, front = authority.sign("localhost", "localhost"), authority.sign("front")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.cert, own.key)
    context.load_verify_locations(authority.cert)
    context.verify_mode = ssl.CERT_REQUIRED
    with secured(context) as upstream:
        mutual = f'ca_file = "{authority.cert}", cert = "{front.cert}", key = "{front.key}"'
        assert ask(tmp_path, upstream.port, mutual)[:2] == (200, "front")
        assert [asked.connection for asked in upstream.asked] == [0, 0], "the connection is kept"
        assert ask(tmp_path, upstream.port, f'ca_file = "{authority.cert}"')[0] == 502


def test_a_server_that_would_rather_speak_http2_is_asked_as_its_url_says(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    own = authority.sign("localhost", "localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.cert, own.key)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with secured(context) as upstream:
        assert ask(tmp_path, upstream.port, f'ca_file = "{authority.cert}"')[:2] == (200, "nobody")
        assert [asked.line for asked in upstream.asked] == ["GET / HTTP/1.1"] * 2


def test_a_wrong_certificate_gets_no_request(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    own = authority.sign("elsewhere", "elsewhere.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own.cert, own.key)
    with secured(context) as upstream:
        status, _, said = ask(tmp_path, upstream.port, f'ca_file = "{authority.cert}"')
        assert (status, "not valid for name" in said) == (502, True), said
        status, _, said = ask(tmp_path, upstream.port, f'ca_file = "{other.cert}", server_name = "elsewhere.example"')
        assert (status, "UnknownIssuer" in said or "BadSignature" in said) == (502, True), said
        assert upstream.asked == []
        named = f'ca_file = "{authority.cert}", server_name = "elsewhere.example"'
        assert ask(tmp_path, upstream.port, named)[:2] == (200, "nobody")
        status, _, said = ask(tmp_path, upstream.port, "verify = false")
        assert (status, "verifies no certificate" in said) == (200, True)
