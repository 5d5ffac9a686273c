"""Documents that become pages on their way out: as xsltproc makes them, and whatever a stylesheet tries."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from server import DEADLINE, ROOT, Server, children, run

EXAMPLE = ROOT / "examples" / "feed"
XSL = "http://www.w3.org/1999/XSL/Transform"


def sheet(body: str, more: str = "") -> str:
    """Give a stylesheet."""
    return f'<xsl:stylesheet version="1.0" xmlns:xsl="{XSL}" {more}>\n{body}\n</xsl:stylesheet>\n'


ENTITIES = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12))
HOSTILE = {
    "recursion": sheet(
        '<xsl:template match="/"><xsl:call-template name="a"/></xsl:template>'
        '<xsl:template name="a"><xsl:call-template name="a"/></xsl:template>'
    ),
    "entities": f'<!DOCTYPE a [<!ENTITY e0 "eeeeeeeeee">{ENTITIES}]>'
    + sheet('<xsl:template match="/">&e11;</xsl:template>'),
    "entity-file": '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]>'
    + sheet('<xsl:template match="/">&e;</xsl:template>'),
    "file": sheet(
        '<xsl:template match="/"><a><xsl:copy-of select="document(\'/etc/passwd\')"/>'
        "<xsl:copy-of select=\"document('file:///etc/hostname')\"/>"
        "<xsl:copy-of select=\"document('../../../../../etc/passwd')\"/></a></xsl:template>"
    ),
    "include": sheet('<xsl:include href="../outside.xsl"/>'),
    "network": sheet('<xsl:import href="http://127.0.0.1:1/a.xsl"/><xsl:template match="/"/>'),
    "write": sheet(
        '<xsl:template match="/"><exsl:document href="written.txt">x</exsl:document></xsl:template>',
        'xmlns:exsl="http://exslt.org/common" extension-element-prefixes="exsl"',
    ),
    "time": sheet(
        '<xsl:template match="/"><xsl:for-each select="//b"><xsl:for-each select="//b">'
        '<xsl:for-each select="//b"><xsl:for-each select="//b"><xsl:if test="count(//b) = 1">x</xsl:if>'
        "</xsl:for-each></xsl:for-each></xsl:for-each></xsl:for-each></xsl:template>"
    ),
    "memory": sheet(
        '<xsl:template match="/"><xsl:call-template name="a"><xsl:with-param name="t" select="\'xxxxxxxx\'"/>'
        '</xsl:call-template></xsl:template><xsl:template name="a"><xsl:param name="t"/>'
        '<xsl:call-template name="a"><xsl:with-param name="t" select="concat($t, $t)"/></xsl:call-template>'
        "</xsl:template>"
    ),
    "broken": sheet('<xsl:template match="/">\n<xsl:value-of select="(("/></xsl:template>'),
}

CONFIG = """
[[route]]
path = "/*"
static = {{ root = "public" }}
xslt = {{ on_error = "{on_error}", timeout = "1s" }}

[[route]]
path = "/plain/*"
static = {{ root = "public" }}
"""


def site(folder: Path, on_error: str) -> Path:
    """Make a folder with a document for each hostile stylesheet, and a good one."""
    public = folder / "public"
    public.mkdir()
    (folder / "outside.xsl").write_text(sheet('<xsl:template match="/">hidden text</xsl:template>'))
    sheets = {**HOSTILE, "good": sheet('<xsl:template match="/"><p>good</p></xsl:template>')}
    for name, text in sheets.items():
        (public / f"{name}.xsl").write_text(text)
        rows = "<b/>" * 3000
        (public / f"{name}.xml").write_text(f'<?xml-stylesheet type="text/xsl" href="{name}.xsl"?>\n<a>{rows}</a>\n')
    (folder / "daemun.toml").write_text(CONFIG.format(on_error=on_error))
    return folder


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve them."""
    with Server(cwd=site(tmp_path_factory.mktemp("hostile"), "500")) as server:
        yield server


@pytest.fixture(scope="module")
def feeds() -> Iterator[Server]:
    """Serve the example."""
    with Server(cwd=EXAMPLE, env={"LISTEN": "127.0.0.1:0"}, listen="") as server:
        yield server


def xsltproc(style: Path, document: Path, *options: str) -> str:
    """Give what Debian's xsltproc makes of it."""
    command = ["xsltproc", *options, str(style), str(document)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def squeezed(text: str) -> str:
    """Give the text without what white space there is."""
    return re.sub(r"\s+", " ", text).replace("> <", "><").strip()


@pytest.mark.parametrize(
    ("path", "style", "options"),
    [
        ("news.xml", "public/feed.xsl", ()),
        ("notes.xml", "public/feed.xsl", ()),
        ("maps/sitemap.xml", "styles/sitemap.xsl", ("--stringparam", "title", "All pages")),
    ],
)
def test_a_document_becomes_what_xsltproc_makes_of_it(
    feeds: Server, path: str, style: str, options: tuple[str, ...]
) -> None:
    page = feeds.get("/" + path)
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=UTF-8")
    assert int(page.headers["Content-Length"]) == len(page.body)
    assert squeezed(page.text) == squeezed(xsltproc(EXAMPLE / style, EXAMPLE / "public" / path, *options))
    assert "xml-stylesheet" not in page.text


def test_the_tag_is_that_of_the_result(feeds: Server) -> None:
    page = feeds.get("/news.xml")
    tag = page.headers["ETag"]
    assert page.headers["Last-Modified"] is None
    again = feeds.get("/news.xml", {"If-None-Match": tag})
    assert (again.status, again.body, again.headers["ETag"]) == (304, b"", tag)
    since = feeds.get("/news.xml", {"If-Modified-Since": "Tue, 01 Dec 2099 00:00:00 GMT"})
    assert since.status == 200
    part = feeds.get("/news.xml", {"Range": "bytes=0-9"})
    assert (part.status, part.body) == (200, page.body)
    head = feeds.ask("/news.xml", "HEAD")
    assert (head.status, head.headers["Content-Length"], head.body) == (200, str(len(page.body)), b"")


def test_what_is_no_document_passes_with_ranges_and_all(feeds: Server) -> None:
    part = feeds.get("/index.html", {"Range": "bytes=0-9"})
    assert (part.status, len(part.body)) == (206, 10)
    assert feeds.get("/feed.xsl").text == (EXAMPLE / "public" / "feed.xsl").read_text()


def test_a_docbook_article_with_parameters_and_exslt(tmp_path: Path) -> None:
    style = sheet(
        '<xsl:import href="parts/inline.xsl"/><xsl:output method="xml" encoding="ISO-8859-1" media-type="text/x-doc"/>'
        '<xsl:param name="by"/><xsl:template match="/d:article"><doc by="{$by}"><h1>'
        '<xsl:value-of select="d:title"/></h1>'
        "<xsl:apply-templates select='d:para'/><n><xsl:value-of select='math:max(//d:para/@n)'/></n>"
        "<t><xsl:for-each select=\"str:tokenize('a b c')\">[<xsl:value-of select='.'/>]</xsl:for-each></t>"
        "<x><xsl:value-of select=\"document('parts/more.xml')/m\"/></x></doc></xsl:template>",
        'xmlns:d="http://docbook.org/ns/docbook" xmlns:math="http://exslt.org/math" '
        'xmlns:str="http://exslt.org/strings" '
        'exclude-result-prefixes="d math str"',
    )
    inline = sheet(
        '<xsl:template match="d:para"><p><xsl:apply-templates/></p></xsl:template>'
        '<xsl:template match="d:emphasis"><em><xsl:apply-templates/></em></xsl:template>',
        'xmlns:d="http://docbook.org/ns/docbook"',
    )
    styles = tmp_path / "styles"
    (styles / "parts").mkdir(parents=True)
    (styles / "doc.xsl").write_text(style)
    (styles / "parts" / "inline.xsl").write_text(inline)
    (styles / "parts" / "more.xml").write_text("<m>more</m>")
    (tmp_path / "app.py").write_text(
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Type', 'application/docbook+xml')])\n"
        "    return [open('article.xml', 'rb').read()]\n"
    )
    (tmp_path / "article.xml").write_text(
        '<article xmlns="http://docbook.org/ns/docbook"><title>Caf\u00e9</title><para n="3">One <emphasis>two'
        '</emphasis>.</para><para n="7">Three</para></article>'
    )
    (tmp_path / "daemun.toml").write_text(
        '[app.one]\nwsgi = "app:app"\n[[route]]\npath = "/*"\napp = "one"\n'
        'xslt = { stylesheet = "styles/doc.xsl", params = { by = "it\'s me" } }\n'
    )
    with Server(cwd=tmp_path) as server:
        page = server.get("/any/path")
        assert page.headers["Content-Type"] == "text/x-doc; charset=ISO-8859-1"
        command = ["xsltproc", "--stringparam", "by", "it's me", "styles/doc.xsl", "article.xml"]
        want = subprocess.run(command, cwd=tmp_path, capture_output=True, check=True).stdout
        assert squeezed(page.body.decode("latin-1")) == squeezed(want.decode("latin-1"))
        # What is imported, or read by document(), counts as much as the stylesheet itself.
        (styles / "parts" / "more.xml").write_text("<m>changed</m>")
        until_contains(server, "/any/path", b"<x>changed</x>")
        (styles / "parts" / "inline.xsl").write_text(inline.replace("em>", "i>"))
        until_contains(server, "/any/path", b"<i>two</i>")


DOCBOOK = Path("/usr/share/xml/docbook/stylesheet/docbook-xsl-ns")
ARTICLE = """\
<?xml version="1.0" encoding="UTF-8"?>
<article xmlns="http://docbook.org/ns/docbook" xmlns:xlink="http://www.w3.org/1999/xlink" version="5.0" xml:lang="en">
  <info>
    <title>The gate of a house</title>
    <author><personname><firstname>Ada</firstname><surname>Gate</surname></personname></author>
    <abstract><para>What stands before the yard.</para></abstract>
  </info>
  <section xml:id="first">
    <title>Timber</title>
    <indexterm><primary>beam</primary></indexterm>
    <para>One <emphasis role="bold">beam</emphasis> carries <link xlink:href="https://example.com/">all</link>,
      see <xref linkend="second"/>.<footnote><para>Nearly.</para></footnote></para>
    <orderedlist><listitem><para>cut</para></listitem><listitem><para>set</para></listitem></orderedlist>
    <programlisting>daemun serve &amp;&amp; echo done</programlisting>
  </section>
  <section xml:id="second">
    <title>Tiles</title>
    <table><title>Kinds</title><tgroup cols="2"><thead><row><entry>name</entry><entry>kg</entry></row></thead>
      <tbody><row><entry>giwa</entry><entry>3</entry></row></tbody></tgroup></table>
    <note><para>Wet tiles slip.</para></note>
    <variablelist><varlistentry><term>eaves</term><listitem><para>what hangs over</para></listitem></varlistentry>
    </variablelist>
  </section>
  <index/>
</article>
"""


def test_docbooks_own_stylesheets_make_of_an_article_what_xsltproc_makes(tmp_path: Path) -> None:
    (tmp_path / "public").mkdir()
    (tmp_path / "public/article.xml").write_text(ARTICLE)
    (tmp_path / "daemun.toml").write_text(
        '[[site]]\nstatic = { root = "public" }\n'
        f'xslt = {{ root = "{DOCBOOK}", stylesheet = "html/docbook.xsl", params = {{ "section.autolabel" = "1" }} }}\n'
        '[[site.route]]\npath = "/source/*"\nstatic = { root = "public" }\nxslt = false\n'
    )
    want = subprocess.run(
        ["xsltproc", "--stringparam", "section.autolabel", "1", str(DOCBOOK / "html/docbook.xsl"), "article.xml"],
        cwd=tmp_path / "public",
        capture_output=True,
        check=True,
    ).stdout
    with Server(cwd=tmp_path) as server:
        page = server.get("/article.xml")
        assert page.status == 200
        assert page.headers["Content-Type"] == "text/html; charset=ISO-8859-1"
        assert squeezed(page.body.decode("latin-1")) == squeezed(want.decode("latin-1"))
        assert "Table of Contents" in page.body.decode("latin-1")
        # A route of the site can turn it off.
        assert server.get("/source/article.xml").body.decode() == ARTICLE


def test_entities_of_a_stylesheet_come_from_below_the_root_and_those_of_a_document_from_nowhere(tmp_path: Path) -> None:
    public = tmp_path / "public"
    public.mkdir()
    (tmp_path / "outside.ent").write_text('<!ENTITY e "outside">')
    (public / "own.ent").write_text('<!ENTITY e "inside">')
    for name, system in {"own": "own.ent", "up": "../outside.ent", "file": "file:///etc/hostname"}.items():
        declared = f'<!DOCTYPE a [<!ENTITY % own SYSTEM "{system}"> %own;]>'
        style = declared + sheet('<xsl:template match="/"><p>&e;<xsl:value-of select="a"/></p></xsl:template>')
        (public / f"{name}.xsl").write_text(style)
        (public / f"{name}.xml").write_text(f'<?xml-stylesheet type="text/xsl" href="{name}.xsl"?><a>!</a>')
    own = '<!DOCTYPE a [<!ENTITY % own SYSTEM "own.ent"> %own;]>'
    (public / "plain.xsl").write_text(sheet('<xsl:template match="/"><p><xsl:value-of select="a"/></p></xsl:template>'))
    (public / "document.xml").write_text(f'<?xml-stylesheet type="text/xsl" href="plain.xsl"?>{own}<a>&e;</a>')
    (tmp_path / "daemun.toml").write_text('[[route]]\npath = "/*"\nstatic = { root = "public" }\nxslt = true\n')
    with Server(cwd=tmp_path) as server:
        assert b"<p>inside!</p>" in server.get("/own.xml").body
        for name in ("up", "file", "document"):
            page = server.get(f"/{name}.xml")
            assert (page.status, b"side" in page.body) in {(500, False), (200, False)}


def until_contains(server: Server, path: str, wanted: bytes) -> None:
    """Ask until the answer contains it; each has to be whole."""
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        page = server.get(path)
        assert page.status == 200
        if wanted in page.body:
            return
    raise AssertionError(f"{path} never held {wanted!r}")


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_a_hostile_stylesheet_is_bounded_and_told(hostile: Server, name: str) -> None:
    page = hostile.get(f"/{name}.xml")
    log = hostile.errors.text
    if name == "file":
        assert page.status == 200
    elif name == "entity-file" and page.status == 200:
        pass
    else:
        assert page.status == 500
        hostile.wait_for(rf"xslt: /{name}\.xml by /{name}\.xsl: ")
    for secret in ("root:x", "nobody:x", "hidden text"):
        assert secret not in page.text
        assert secret not in log
    assert not list(Path(f"/proc/{hostile.pid}/cwd").resolve().rglob("written.txt"))
    good = hostile.get("/good.xml")
    assert (good.status, "<p>good</p>" in good.text) == (200, True)
    assert hostile.get("/plain/good.xml").status == 200


def test_a_mistake_is_told_with_file_and_line(hostile: Server) -> None:
    before = len(hostile.errors.lines)
    assert hostile.get("/broken.xml").status == 500
    hostile.wait_for(r"xslt: /broken\.xml by /broken\.xsl: /broken\.xsl:3: ")
    assert hostile.get("/good.xml").status == 200
    told = [line for line in hostile.errors.lines[before:] if "/broken.xml" in line]
    # Once, and nothing that was told already.
    assert len({line.split("xslt: ")[1] for line in told}) == len(told), told


def test_nobody_waits_for_a_transformation_that_takes_long(tmp_path: Path) -> None:
    with Server(cwd=site(tmp_path, "pass")) as server:
        slow = server.connection()
        slow.request("GET", "/time.xml")
        # All of these are answered while the first one has a second yet.
        for _ in range(20):
            assert "<p>good</p>" in server.get("/good.xml").text
            assert server.get("/plain/time.xml").status == 200
        answer = slow.getresponse()
        assert answer.read() == (tmp_path / "public" / "time.xml").read_bytes()
        server.wait_for(r"transformer \(pid \d+\) .*started again")
        assert "<p>good</p>" in server.get("/good.xml").text
        slow.close()


def test_a_transformer_can_open_nothing(hostile: Server) -> None:
    assert hostile.get("/good.xml").status == 200
    found = [pid for pid in children(hostile.pid) if is_transformer(pid)]
    assert len(found) >= 2
    for pid in found:
        status = Path(f"/proc/{pid}/status").read_text()
        assert re.search(r"^Seccomp:\t2$", status, re.MULTILINE)
        assert re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE)
        limits = Path(f"/proc/{pid}/limits").read_text()
        assert re.search(rf"Max address space +{512 << 20}", limits)
        if os.geteuid() == 0:
            assert not re.search(r"^Uid:\t0\t", status, re.MULTILINE)


def is_transformer(pid: int) -> bool:
    """Whether the process is one."""
    try:
        return b"--role=transformer" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except FileNotFoundError:
        return False


def test_routes_without_it_start_no_transformer() -> None:
    with Server(cwd=ROOT / "examples" / "site", env={"LISTEN": "127.0.0.1:0"}, listen="") as server:
        assert not [pid for pid in children(server.pid) if is_transformer(pid)]


def test_a_stylesheet_that_is_not_there_is_a_mistake_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "daemun.toml").write_text(
        '[[route]]\nstatic = { root = "." }\nxslt = { stylesheet = "none.xsl", on_error = "maybe" }\n'
    )
    result = run("serve", cwd=tmp_path)
    assert result.returncode == 2
    assert "daemun.toml:3:23: `stylesheet` in `xslt`: there is no file" in result.stderr
