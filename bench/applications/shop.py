"""What daemun is trained with: a small shop, as plain WSGI. Its pages are none of those that are measured."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import parse_qs

Environ = dict[str, Any]
StartResponse = Callable[..., Any]

ROW = "<tr><td><a href='/item/{0}'>Thing {0}</a></td><td>{0}.90</td><td class=stock>in stock</td></tr>\n"
PAGE = "<!doctype html>\n<html lang=en><title>{0}</title>\n<link rel=stylesheet href=/files/site.css>\n{1}</html>\n"
HTML = ("Content-Type", "text/html; charset=utf-8")


def answer(start_response: StartResponse, status: str, body: bytes, *fields: tuple[str, str]) -> list[bytes]:
    """Answer with all of a body."""
    start_response(status, [*fields, ("Content-Length", str(len(body)))])
    return [body]


def home(_environ: Environ, start_response: StartResponse) -> list[bytes]:
    """List a hundred things, and remember the visitor."""
    rows = "".join(ROW.format(number) for number in range(100))
    cookie = ("Set-Cookie", "visitor=5f1d7a84db00d2fce00b31a7fc73224f; HttpOnly; Path=/; SameSite=Lax")
    body = PAGE.format("Shop", f"<table>\n{rows}</table>\n").encode()
    return answer(start_response, "200 OK", body, HTML, ("Vary", "Cookie"), ("X-Frame-Options", "DENY"), cookie)


def item(environ: Environ, start_response: StartResponse) -> list[bytes]:
    """Show one, unless the client has it."""
    number = environ["PATH_INFO"].rpartition("/")[2]
    body = PAGE.format(f"Thing {number}", "<p>It does what things of its kind do.\n" * 60).encode()
    tag = ("ETag", f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"')
    if environ.get("HTTP_IF_NONE_MATCH") == tag[1]:
        start_response("304 Not Modified", [tag])
        return []
    return answer(start_response, "200 OK", body, HTML, tag, ("Cache-Control", "max-age=60"))


def listing(environ: Environ, start_response: StartResponse) -> list[bytes]:
    """Give some things as JSON."""
    first = int(parse_qs(environ["QUERY_STRING"]).get("from", ["0"])[0])
    things = [{"id": first + at, "name": f"Thing {first + at}", "price": "3.90", "tags": ["new"]} for at in range(12)]
    return answer(start_response, "200 OK", json.dumps(things).encode(), ("Content-Type", "application/json"))


def cart(environ: Environ, start_response: StartResponse) -> list[bytes]:
    """Take a form, and lead on."""
    form = parse_qs(environ["wsgi.input"].read().decode("ascii"))
    location = ("Location", f"/item/{form['id'][0]}")
    return answer(start_response, "303 See Other", b"", location, ("Set-Cookie", "cart=1; Path=/"))


def upload(environ: Environ, start_response: StartResponse) -> list[bytes]:
    """Read a file in pieces, and say how long it was."""
    length = sum(map(len, iter(lambda: environ["wsgi.input"].read(16_384), b"")))
    return answer(start_response, "200 OK", b"%d\n" % length, ("Content-Type", "text/plain"))


def report(_environ: Environ, start_response: StartResponse) -> Iterator[bytes]:
    """Write a long table as it is made, in pieces of every length."""
    start_response("200 OK", [("Content-Type", "text/csv; charset=utf-8")])
    for size in (120, 900, 4_000, 9_000, 20_000, 33_000, 60_000):
        yield b"number,name,price\r\n" * (size // 19)


def missing(_environ: Environ, start_response: StartResponse) -> list[bytes]:
    """Say that there is no such thing."""
    return answer(start_response, "404 Not Found", PAGE.format("Not here", "<p>No such thing.\n").encode(), HTML)


VIEWS = {"": home, "item": item, "api": listing, "cart": cart, "upload": upload, "report": report}


def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Choose by the first segment."""
    view: Callable[[Environ, StartResponse], Iterable[bytes]] = VIEWS.get(environ["PATH_INFO"].split("/")[1], missing)
    return view(environ, start_response)
