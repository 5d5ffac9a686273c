"""Reads requests of HTTP/1.1 in the one way that RFC 9112 leaves no doubt about; written from its text alone.

What it takes is a request whoever reads it. What it does not take may still be one (a recipient may be lenient), but
nobody in front of it may have made of it more than it shows.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
LINE = re.compile(rb"(" + TOKEN + rb") ([\x21-\x7e\x80-\xff]+) HTTP/1\.([01])")
FIELD = re.compile(
    rb"(" + TOKEN + rb"):[ \t]*((?:[\x21-\x7e\x80-\xff](?:[ \t\x21-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?)[ \t]*"
)
CHUNK = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?\r\n")


class NotARequest(Exception):
    """It cannot be read in exactly one way."""


class NotWhole(Exception):
    """It may become a request when more comes."""


@dataclass
class Request:
    """A request as it stood on the wire."""

    method: str
    target: str
    minor: int
    fields: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""

    def all(self, name: str) -> list[str]:
        """Every value of a field, in order."""
        return [value for key, value in self.fields if key.lower() == name.lower()]

    @property
    def ends(self) -> bool:
        """Whether the client asks for the end of the connection behind it."""
        options = [option.strip().lower() for value in self.all("connection") for option in value.split(",")]
        return "close" in options or (self.minor == 0 and "keep-alive" not in options)


def read(data: bytes) -> tuple[Request, bytes]:
    """Read the request at the beginning, and give what follows it."""
    head, end, rest = data.partition(b"\r\n\r\n")
    if not end:
        raise NotWhole
    line, *lines = head.split(b"\r\n")
    found = LINE.fullmatch(line)
    if found is None:
        raise NotARequest(f"request line {line!r}")
    request = Request(found[1].decode(), found[2].decode("latin-1"), int(found[3]))
    for each in lines:
        pair = FIELD.fullmatch(each)
        if pair is None:
            raise NotARequest(f"field line {each!r}")
        request.fields.append((pair[1].decode(), pair[2].decode("latin-1")))
    if len(request.all("host")) != 1 and (request.minor == 1 or request.all("host")):
        raise NotARequest("not one Host")
    request.body, rest = framed(request, rest)
    return request, rest


def framed(request: Request, rest: bytes) -> tuple[bytes, bytes]:
    """Take the body of a request, and give what follows it."""
    lengths, codings = request.all("content-length"), request.all("transfer-encoding")
    if codings:
        if lengths or request.minor == 0 or [coding.lower() for coding in codings] != ["chunked"]:
            raise NotARequest("framing")
        return chunks(rest)
    if lengths:
        if len(lengths) != 1 or not re.fullmatch(r"[0-9]+", lengths[0]):
            raise NotARequest("framing")
        if len(rest) < int(lengths[0]):
            raise NotWhole
        return rest[: int(lengths[0])], rest[int(lengths[0]) :]
    return b"", rest


def chunks(rest: bytes) -> tuple[bytes, bytes]:
    """Take the chunks off a body."""
    body = b""
    while True:
        size = CHUNK.match(rest)
        if size is None:
            raise NotARequest("chunk size") if b"\r\n" in rest else NotWhole
        length, rest = int(size[1], 16), rest[size.end() :]
        if length == 0:
            break
        if len(rest) < length + 2:
            raise NotWhole
        if rest[length : length + 2] != b"\r\n":
            raise NotARequest("chunk end")
        body, rest = body + rest[:length], rest[length + 2 :]
    while not rest.startswith(b"\r\n"):
        line, end, rest = rest.partition(b"\r\n")
        if not end:
            raise NotWhole
        if FIELD.fullmatch(line) is None:
            raise NotARequest(f"trailer {line!r}")
    return body, rest[2:]


def all_of(data: bytes) -> list[Request]:
    """Read the requests that these bytes are, up to what is none."""
    found: list[Request] = []
    # Empty lines before a request line are no part of it (section 2.2).
    while not found or not found[-1].ends:
        while data.startswith(b"\r\n"):
            data = data[2:]
        try:
            request, data = read(data)
        except (NotARequest, NotWhole):
            break
        found.append(request)
    return found
