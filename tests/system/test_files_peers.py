"""Answers about files compared with those of nginx and Apache, field by field.

Where we differ the difference stands in `WANTED` with the place in docs/conformance/files-peers.md that says why; one
that is not listed fails, and so does a listed one that is gone.
"""

from __future__ import annotations

import gzip
import os
import re
from collections.abc import Iterator
from pathlib import Path

from peers import apache, nginx, told
from server import ROOT, Server

DATE = 1_700_000_000
SAME = "Tue, 14 Nov 2023 22:13:20 GMT"
LATER = "Wed, 15 Nov 2023 22:13:20 GMT"
EARLIER = "Mon, 13 Nov 2023 22:13:20 GMT"

TEXT = "".join(f"line {number}\n" for number in range(300)).encode()
FILES = {
    "index.html": b"<!doctype html><title>x</title>",
    "a.txt": TEXT,
    "a.css": b"a{color:red}" * 100,
    "a.css.gz": gzip.compress(b"a{color:red}" * 100, mtime=0),
    "a.js": b"export {}",
    "a.json": b"{}",
    "a.png": b"\x89PNG",
    "a.svg": b"<svg/>",
    "a.xml": b"<a/>",
    "a.wasm": b"\0asm",
    "a.unknown": b"x",
    "a.mp4": b"x" * 100_000,
    "LICENSE": b"MIT",
    "empty.txt": b"",
    "with space.txt": b"space",
    "folder/index.html": b"folder",
    "none/a.txt": b"x",
    "list/b.txt": b"b",
    ".hidden": b"hidden",
}

# Name of the case, method, target, fields.
CASES: list[tuple[str, str, str, dict[str, str]]] = [
    *((f"get {name}", "GET", "/" + name.replace(" ", "%20"), {}) for name in FILES),
    *((f"head {name}", "HEAD", "/" + name.replace(" ", "%20"), {}) for name in ["a.txt", "a.mp4", "empty.txt"]),
    ("root", "GET", "/", {}),
    ("folder without its slash", "GET", "/folder?x=1", {}),
    ("folder", "GET", "/folder/", {}),
    ("folder without an index", "GET", "/none/", {}),
    ("absent", "GET", "/absent.txt", {}),
    ("file with a slash", "GET", "/a.txt/", {}),
    ("two slashes", "GET", "//folder", {}),
    ("dots", "GET", "/folder/../a.txt", {}),
    ("dots out", "GET", "/../a.txt", {}),
    ("encoded dots out", "GET", "/%2e%2e/a.txt", {}),
    ("encoded slash", "GET", "/folder%2Findex.html", {}),
    ("nul", "GET", "/a%00.txt", {}),
    ("post", "POST", "/a.txt", {"Content-Length": "0"}),
    ("put", "PUT", "/a.txt", {"Content-Length": "0"}),
    ("options", "OPTIONS", "/a.txt", {}),
    ("modified since, same", "GET", "/a.txt", {"If-Modified-Since": SAME}),
    ("modified since, later", "GET", "/a.txt", {"If-Modified-Since": LATER}),
    ("modified since, earlier", "GET", "/a.txt", {"If-Modified-Since": EARLIER}),
    ("modified since, no date", "GET", "/a.txt", {"If-Modified-Since": "yesterday"}),
    ("unmodified since, same", "GET", "/a.txt", {"If-Unmodified-Since": SAME}),
    ("unmodified since, earlier", "GET", "/a.txt", {"If-Unmodified-Since": EARLIER}),
    ("none match, star", "GET", "/a.txt", {"If-None-Match": "*"}),
    ("none match, other", "GET", "/a.txt", {"If-None-Match": '"other", "more"'}),
    ("none match, other and date", "GET", "/a.txt", {"If-None-Match": '"other"', "If-Modified-Since": SAME}),
    ("match, star", "GET", "/a.txt", {"If-Match": "*"}),
    ("match, other", "GET", "/a.txt", {"If-Match": '"other"'}),
    ("range", "GET", "/a.txt", {"Range": "bytes=10-19"}),
    ("range to the end", "GET", "/a.txt", {"Range": "bytes=2000-"}),
    ("range of the last", "GET", "/a.txt", {"Range": "bytes=-5"}),
    ("range over the end", "GET", "/a.txt", {"Range": "bytes=2000-99999"}),
    ("range behind the end", "GET", "/a.txt", {"Range": "bytes=99999-"}),
    ("range of nothing", "GET", "/a.txt", {"Range": "bytes=-0"}),
    ("range turned round", "GET", "/a.txt", {"Range": "bytes=9-5"}),
    ("range of another unit", "GET", "/a.txt", {"Range": "lines=1-2"}),
    ("range of an empty file", "GET", "/empty.txt", {"Range": "bytes=0-"}),
    ("range and head", "HEAD", "/a.txt", {"Range": "bytes=10-19"}),
    ("two ranges", "GET", "/a.txt", {"Range": "bytes=0-9,100-109"}),
    ("two ranges, one behind the end", "GET", "/a.txt", {"Range": "bytes=0-9,99999-"}),
    ("two ranges that overlap", "GET", "/a.txt", {"Range": "bytes=0-9,5-19"}),
    ("many ranges that overlap", "GET", "/a.txt", {"Range": "bytes=" + ",".join(["0-"] * 300)}),
    ("range if the date is the same", "GET", "/a.txt", {"Range": "bytes=0-9", "If-Range": SAME}),
    ("range if the date is another", "GET", "/a.txt", {"Range": "bytes=0-9", "If-Range": EARLIER}),
    ("range if the tag is another", "GET", "/a.txt", {"Range": "bytes=0-9", "If-Range": '"other"'}),
    ("gzip", "GET", "/a.css", {"Accept-Encoding": "gzip"}),
    ("gzip, head", "HEAD", "/a.css", {"Accept-Encoding": "gzip"}),
    ("gzip refused", "GET", "/a.css", {"Accept-Encoding": "gzip;q=0"}),
    ("gzip, range", "GET", "/a.css", {"Accept-Encoding": "gzip", "Range": "bytes=0-9"}),
    ("gzip, known by its date", "GET", "/a.css", {"Accept-Encoding": "gzip", "If-Modified-Since": SAME}),
    ("list", "GET", "/list", {}),
]


# What may differ, as it begins, and the heading that explains it.
WANTED: list[tuple[str, str]] = [
    (r".*: range and head: ", "Range on HEAD"),
    (r".*: (none match|modified since|gzip, known).*: (Accept-Ranges|Last-Modified|Vary)", "Fields of a 304"),
    (r"nginx: modified since, later: ", "Dates that are later"),
    (r"Apache: (match, other|unmodified since, earlier): ", "Fields of a 412"),
    (r"nginx: (gzip|two|range).*: Accept-Ranges", "Accept-Ranges everywhere"),
    (r".*: (get a.css|gzip).*: Vary", "Vary"),
    (r"nginx: gzip, range: ", "Ranges of a variant"),
    (r"Apache: gzip refused: ", "Weights of codings"),
    (r"Apache: gzip.*: Content-Type", "Type of a variant"),
    (r"nginx: range turned round: ", "Ranges that are none"),
    (r"nginx: two ranges that overlap: ", "Ranges that overlap"),
    (r"Apache: many ranges that overlap: ", "Many ranges"),
    (r"Apache: range of nothing: ", "A range of nothing"),
    (r"Apache: range behind the end: Content-Range", "Content-Range of a 416"),
    (r".*: (post|put|options): ", "Methods"),
    (r".*: get .hidden: ", "Hidden files"),
    (r"nginx: encoded slash: ", "Encoded slashes"),
    (r".*: folder without an index: status", "Folders without an index"),
    (r"nginx: get a.(css.gz|js|xml): Content-Type", "Content types"),
    (r"Apache: get (LICENSE|a.unknown): Content-Type", "Unknown types"),
    (r"Apache: get a.css.gz: Content-(Type|Encoding)", "Compressed files themselves"),
    (r"Apache: head empty.txt: Content-Length", "Length of nothing"),
    (r".*: (nul|dots out|encoded dots out): ", "Refused paths"),
]


def make(root: Path) -> None:
    """Write the corpus, all of one time."""
    for name, content in FILES.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (DATE, DATE))
    for folder in [root, *root.glob("*/")]:
        folder.chmod(0o755)


def differences(folder: Path) -> Iterator[str]:
    """Every field in which an answer differs from a peer's, as `peer: case: field: ours, theirs`."""
    root, run = folder / "root", folder / "run"
    root.mkdir()
    run.mkdir()
    folder.chmod(0o755)
    make(root)
    (folder / "daemun.toml").write_text(
        '[[route]]\npath = "/*"\nstatic = { root = "root" }\n'
        '[[route]]\npath = "/list/*"\nstatic = { root = "root/list", listing = true }\n'
    )
    with Server(cwd=folder) as server, nginx(root, run) as nginx_port, apache(root, run) as apache_port:
        for case, method, target, fields in CASES:
            ours = told(server.port, method, target, fields)
            for peer, port in [("nginx", nginx_port), ("Apache", apache_port)]:
                theirs = told(port, method, target, fields)
                for field in ours:
                    if ours[field] != theirs[field]:
                        yield f"{peer}: {case}: {field}: {short(ours[field])}, {short(theirs[field])}"


def short(value: str | None) -> str:
    """A value as it can be read in a line."""
    return "-" if value is None else value if len(value) < 60 else f"{len(value)} bytes"


def test_answers_differ_from_those_of_nginx_and_apache_only_where_we_mean_it(tmp_path: Path) -> None:
    page = (ROOT / "docs/conformance/files-peers.md").read_text()
    unused = dict(WANTED)
    for difference in list(differences(tmp_path)):
        fitting = [pattern for pattern, _ in WANTED if re.match(pattern, difference)]
        assert fitting, f"not meant: {difference}"
        unused.pop(fitting[0], None)
    assert not unused, "listed, but no longer so"
    for _, heading in WANTED:
        assert f"| **{heading}.** " in page, f"not explained: {heading}"
