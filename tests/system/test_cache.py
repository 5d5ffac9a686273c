"""The cache of a route where answers are stale, where many ask, and where the handler fails. Nothing here sleeps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from server import Answer, Server, eventually

APP = '''\
import itertools
import os
import time

count = itertools.count(1)
HERE = os.path.dirname(os.path.abspath(__file__))


def is_there(name):
    return os.path.exists(os.path.join(HERE, name))


def app(environ, start_response):
    """Give the number of the request, once no file `closed` is there; where `broken` is, fail."""
    number = next(count)
    with open(os.path.join(HERE, "asked"), "a") as file:
        file.write("x")
    while is_there("closed"):
        time.sleep(0.005)
    if is_there("broken"):
        start_response("500 Internal Server Error", [("Content-Type", "text/plain")])
        return [b"broken"]
    said = environ["QUERY_STRING"].replace("_", "=")
    start_response("200 OK", [("Content-Type", "text/plain"), ("Cache-Control", said)])
    return [str(number).encode()]
'''

CONFIG = """\
[server]
event_loops = 2

[app.one]
wsgi = "app:app"
processes = 1
threads = 8

[[route]]
path = "/*"
app = "one"
cache = true

[[route]]
path = "/said/*"
app = "one"
cache = { stale = "1h" }
"""


class Site:
    """A server, and a handle on what its application does."""

    def __init__(self, folder: Path, server: Server) -> None:
        self.folder = folder
        self.server = server

    @property
    def asked(self) -> int:
        """How often the application was asked."""
        file = self.folder / "asked"
        return len(file.read_text()) if file.exists() else 0

    def put(self, name: str) -> None:
        """From now on the application sees this file."""
        (self.folder / name).touch()

    def take(self, name: str) -> None:
        """From now on it does not."""
        (self.folder / name).unlink()

    def taken(self, count: int) -> bool:
        """Whether the server has read all that came on its connections, of which there are so many."""
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        ours = [line for line in lines if line[1] == f"0100007F:{self.server.port:04X}" and line[3] == "01"]
        return len(ours) == count and all(line[4].partition(":")[2] == "00000000" for line in ours)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """An application that can be held, behind a cache."""
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "daemun.toml").write_text(CONFIG)
    with Server("daemun.toml", cwd=tmp_path) as server:
        yield Site(tmp_path, server)


def how(answer: Answer) -> str:
    """What the cache did, without the time that is left."""
    return answer.headers["Cache-Status"].partition("; ttl=")[0]


def test_a_stale_answer_is_given_at_once_while_it_is_asked_for_anew(site: Site) -> None:
    path = "/a?max-age_0,stale-while-revalidate_600"
    assert how(site.server.get(path)) == "daemun; fwd=uri-miss; stored"
    site.put("closed")
    # The application does not answer, and nobody waits for it; one request asks behind all of these.
    for _ in range(10):
        answer = site.server.get(path)
        assert (answer.text, how(answer)) == ("1", "daemun; hit")
    eventually(lambda: site.asked == 2, "one request behind")
    assert site.server.get(path).text == "1"
    assert site.asked == 2
    site.take("closed")
    eventually(lambda: site.server.get(path).text != "1", "what was asked for behind")


def test_how_stale_an_answer_may_be_is_said_by_the_route_too(site: Site) -> None:
    path = "/said/a?max-age_1"
    assert site.server.get(path).text == "1"
    site.put("closed")
    eventually(lambda: site.server.get(path).text == "1" and site.asked == 2, "it is stale, given and asked for behind")
    assert site.server.get(path).text == "1"
    site.take("closed")
    eventually(lambda: site.server.get(path).text != "1", "what was asked for behind")


def test_a_stale_answer_helps_out_where_the_handler_fails(site: Site) -> None:
    path = "/a?max-age_0,stale-if-error_600"
    assert site.server.get(path).text == "1"
    site.put("broken")
    answer = site.server.get(path)
    assert (answer.status, answer.text) == (200, "1")
    assert how(answer) == "daemun; hit; fwd=stale; fwd-status=error"
    assert site.server.get("/b?max-age_0").status == 500, "where nothing is kept nothing helps"
    site.take("broken")
    answer = site.server.get(path)
    assert (answer.text, how(answer)) == ("4", "daemun; fwd=uri-miss; stored")


def test_many_who_ask_while_one_is_on_its_way_wait_for_its_answer(site: Site) -> None:
    site.put("closed")
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(site.server.get, "/a?max-age_600") for _ in range(8)]
        eventually(lambda: site.asked == 1 and site.taken(8), "all eight at the server")
        assert site.asked == 1
        site.take("closed")
        told = [answer.result() for answer in answers]
    assert {answer.text for answer in told} == {"1"}
    first, *others = sorted(how(answer) for answer in told)
    assert first == "daemun; fwd=uri-miss; stored"
    assert set(others) == {"daemun; hit; collapsed"}
    assert site.asked == 1


def test_what_may_not_be_kept_is_not_waited_for_twice(site: Site) -> None:
    """Who has waited in vain goes himself, and the next ones do not wait at all."""
    assert site.server.get("/a?no-store").text == "1"
    site.put("closed")
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(site.server.get, "/a?no-store") for _ in range(4)]
        eventually(lambda: site.asked == 5, "all four at the application")
        site.take("closed")
        assert {answer.result().text for answer in answers} == {"2", "3", "4", "5"}


def test_an_answer_for_some_seconds_is_fresh_for_that_long_and_no_longer(site: Site) -> None:
    path = "/a?max-age_1"
    began = time.monotonic()
    assert site.server.get(path).text == "1"
    eventually(lambda: site.server.get(path).text == "2", "a new answer")
    assert time.monotonic() - began >= 1.0, "it was fresh for a second"
    assert site.asked == 2, "and asked for once when it was not"
