"""Fault injection: the n-th call of a certifier or a transformer fails, from its first instruction on.

Whatever it was: the certificate comes, or it is said why not and comes with the next try; a page is right or an error;
and everybody else serves. Some calls of each kind, chosen by `DAEMUN_INJECT_SEED`, fail with every change;
`DAEMUN_INJECT=all` lets each fail once, `2/5` the second fifth of them.
"""

from __future__ import annotations

import collections
import shutil
from pathlib import Path

import pytest
from acme import Names, Stand, stand
from injection import NEVER, OPENS, PIPES, READS, SENDS, Fault, calls_in, chosen, has_role, let_go, starting
from server import Server, children, eventually, run
from test_acme import Ports, secure

RIGHTS = "prctl,seccomp,prlimit64,setrlimit"

KINDS = [
    (READS, "EINTR"),
    (READS, "EIO"),
    # Not `write`: that is how threads wake one another, and fails for nothing that the kernel can be short of.
    (SENDS, "ENOBUFS"),
    (OPENS, "EMFILE"),
    (PIPES, "EMFILE"),
    (RIGHTS, "EPERM"),
]
TRANSFORMER = [Fault("transformer", calls, error) for calls, error in KINDS if calls != PIPES]
CERTIFIER = [Fault("certifier", calls, error) for calls, error in [*KINDS, ("connect,getsockopt", "ENETUNREACH")]]

NAMES = ["one", "two", "three", "four", "five", "six"]
SHEET = """\
<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform">
<xsl:import href="more.xsl"/>
<xsl:template match="/"><p><xsl:value-of select="/a"/><xsl:call-template name="more"/></p></xsl:template>
</xsl:stylesheet>
"""
MORE = """\
<xsl:stylesheet version="1.0" xmlns:xsl="http://www.w3.org/1999/XSL/Transform">
<xsl:template name="more">, and more</xsl:template>
</xsl:stylesheet>
"""
PAGES = """\
[server]
listen = ["127.0.0.1:0"]
event_loops = 1

[[route]]
path = "/*"
static = { root = "public" }
xslt = { on_error = "500", timeout = "5s" }
"""


def pages(folder: Path) -> None:
    """Write documents and what makes pages of them."""
    public = folder / "public"
    public.mkdir()
    (public / "page.xsl").write_text(SHEET)
    (public / "more.xsl").write_text(MORE)
    for name in NAMES:
        link = '<?xml-stylesheet type="text/xsl" href="page.xsl"?>'
        (public / f"{name}.xml").write_text(f"{link}\n<a>{name}</a>\n")
    (folder / "daemun.toml").write_text(PAGES)


def right(server: Server, name: str, else_status: int | None = None) -> None:
    """Either the page is right, or an error where that may be."""
    answer = server.get(f"/{name}.xml")
    if answer.status != else_status:
        assert (answer.status, f"<p>{name}, and more</p>" in answer.text) == (200, True), answer.text


def read(server: Server) -> None:
    """Have every transformer work: one that ends at it leaves the next to another."""
    for name in NAMES[:4]:
        right(server, name, 500)


def of_role(server: Server, role: str) -> list[int]:
    """Give the processes of a role."""
    return [pid for pid in children(server.pid) if has_role(pid, role)]


@pytest.mark.parametrize("fault", TRANSFORMER, ids=lambda fault: fault.name)
def test_whatever_call_of_a_transformer_fails_a_page_is_right_or_an_error(fault: Fault, tmp_path: Path) -> None:
    pages(tmp_path)
    log = tmp_path / "trace"
    with starting(fault, NEVER, log, tmp_path) as server:
        assert server.starts()
        whole = len(of_role(server, "transformer"))
        read(server)
        count = calls_in(log)
    assert count > 0, "no call was met"
    numbers = chosen(fault, count)
    for number in numbers:
        with starting(fault, number, log, tmp_path) as server:
            assert server.starts()
            read(server)
            for pid in of_role(server, "transformer"):
                let_go(pid)
            eventually(lambda: len(of_role(server, "transformer")) == whole, f"all are there:\n{server.errors.text}")
            # Others: that a document ended its transformer is remembered for a while.
            for name in NAMES[4:]:
                right(server, name)
            assert "panicked" not in server.errors.text, server.errors.text
            assert server.stop() == 0
    print(f"{fault.name}: {len(numbers)} of {count} calls: {numbers}")


def certified(server: Server, ports: Ports, authority: Stand) -> bool:
    """Whether the first try comes to a certificate. If not, the next one does."""
    there = "the certificate for localhost is there"
    said = server.wait_for(f"{there}|no certificate for localhost: .*; the next try is in|cannot start the certifier")
    for pid in of_role(server, "certifier"):
        let_go(pid)
    if said[0] != there:
        assert run("reload", "--control", "control", cwd=authority.folder).returncode == 0, server.errors.text
        server.wait_for(there)
    assert secure(ports.tls, "localhost", authority.signer.cert).endswith(b"here")
    eventually(lambda: not of_role(server, "certifier"), "its errand is over")
    return said[0] == there


@pytest.mark.parametrize("fault", CERTIFIER, ids=lambda fault: fault.name)
def test_whatever_call_of_a_certifier_fails_the_next_try_brings_a_certificate(fault: Fault, tmp_path: Path) -> None:
    ports, log = Ports(), tmp_path / "trace"
    with stand(Names(tmp_path)) as authority:
        acme = f'directory = "{authority.url}/directory", ca_file = "stand.pem", challenge = "http-01"'
        (tmp_path / "daemun.toml").write_text(ports.configuration(acme, ["localhost"]))
        with starting(fault, NEVER, log, tmp_path) as server:
            assert certified(server, ports, authority), server.errors.text
            count = calls_in(log)
        assert count > 0, "no call was met"
        numbers, came = chosen(fault, count), collections.Counter[bool]()
        for number in numbers:
            shutil.rmtree(tmp_path / "state")
            with starting(fault, number, log, tmp_path) as server:
                came[certified(server, ports, authority)] += 1
                assert "panicked" not in server.errors.text, server.errors.text
                assert server.stop() == 0
    print(f"{fault.name}: {len(numbers)} of {count} calls: {came[True]} came at once, {came[False]} with the next try")
