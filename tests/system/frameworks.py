"""The same little site in six frameworks: a greeting, an echo, a stream, a redirect, a cookie. What else is 404."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

# What a checker has to object to is to be an error, and not a line that nobody reads.
warnings.filterwarnings("error", module=r"(paste|webtest)\.lint")

PIECES = [b"one\n", b"two\n", b"three\n"]
GREETING = "Hello, 대문"


def pieces() -> Iterator[bytes]:
    """Give a stream."""
    yield from PIECES


# === Django ===

import django  # noqa: E402
from django.conf import settings  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import HttpResponse, HttpResponseRedirect, StreamingHttpResponse  # noqa: E402
from django.urls import path  # noqa: E402

settings.configure(
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    SECRET_KEY="x",
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.http.ConditionalGetMiddleware",
    ],
)
django.setup()


def django_greeting(request: Any) -> Any:
    answer = HttpResponse(GREETING, content_type="text/plain; charset=utf-8")
    answer.set_cookie("seen", "yes")
    return answer


urlpatterns = [
    path("", django_greeting),
    path("echo", lambda request: HttpResponse(request.body, content_type="application/octet-stream")),
    path("form", lambda request: HttpResponse(request.POST["word"])),
    path("stream", lambda request: StreamingHttpResponse(pieces())),
    path("away", lambda request: HttpResponseRedirect("echo")),
]
in_django = get_wsgi_application()

# === Flask ===

import flask  # noqa: E402

in_flask = flask.Flask("in_flask")
# Without a limit it calls read() without a size where the server ends the body, to which wsgiref's checker objects.
in_flask.config["MAX_CONTENT_LENGTH"] = 16 << 20


@in_flask.get("/")
def flask_greeting() -> Any:
    answer = flask.Response(GREETING, mimetype="text/plain")
    answer.set_cookie("seen", "yes")
    return answer


@in_flask.post("/echo")
def flask_echo() -> bytes:
    return flask.request.get_data()


in_flask.add_url_rule("/form", "form", lambda: flask.request.form["word"], methods=["POST"])
in_flask.add_url_rule("/stream", "stream", lambda: flask.Response(pieces()))
in_flask.add_url_rule("/away", "away", lambda: flask.redirect("echo"))

# === Bottle ===

import bottle  # noqa: E402

in_bottle = bottle.Bottle()


@in_bottle.get("/")
def bottle_greeting() -> Any:
    bottle.response.content_type = "text/plain; charset=utf-8"
    bottle.response.set_cookie("seen", "yes")
    return GREETING


@in_bottle.post("/echo")
def bottle_echo() -> bytes:
    body: bytes = bottle.request.body.read()
    return body


in_bottle.post("/form", callback=lambda: bottle.request.forms["word"])
in_bottle.get("/stream", callback=pieces)
in_bottle.get("/away", callback=lambda: bottle.redirect("echo"))

# === Pyramid ===

from pyramid.config import Configurator  # noqa: E402
from pyramid.httpexceptions import HTTPFound  # noqa: E402
from pyramid.response import Response  # noqa: E402


def pyramid_greeting(request: Any) -> Any:
    answer = Response(GREETING, content_type="text/plain", charset="utf-8")
    answer.set_cookie("seen", "yes")
    return answer


def with_pyramid() -> Any:
    """Put the views together."""
    with Configurator() as config:
        views: dict[str, tuple[str, Callable[[Any], Any]]] = {
            "greeting": ("/", pyramid_greeting),
            "echo": ("/echo", lambda request: Response(request.body)),
            "form": ("/form", lambda request: Response(request.POST["word"])),
            "stream": ("/stream", lambda request: Response(app_iter=pieces())),
            "away": ("/away", lambda request: HTTPFound("echo")),
        }
        for name, (pattern, view) in views.items():
            config.add_route(name, pattern)
            config.add_view(view, route_name=name)
        return config.make_wsgi_app()


in_pyramid = with_pyramid()

# === Falcon ===

import falcon  # noqa: E402


class Views:
    """Every path of it: falcon asks for an object with a method for each method."""

    def on_get_greeting(self, request: Any, answer: Any) -> None:
        answer.text, answer.content_type = GREETING, "text/plain; charset=utf-8"
        answer.set_cookie("seen", "yes")

    on_head_greeting = on_get_greeting

    def on_post_echo(self, request: Any, answer: Any) -> None:
        answer.data = request.bounded_stream.read()

    def on_post_form(self, request: Any, answer: Any) -> None:
        answer.text = request.get_media()["word"]

    def on_get_stream(self, request: Any, answer: Any) -> None:
        answer.stream = pieces()

    def on_get_away(self, request: Any, answer: Any) -> None:
        raise falcon.HTTPFound("echo")


in_falcon = falcon.App()
for name in ("greeting", "echo", "form", "stream", "away"):
    in_falcon.add_route("/" + name.replace("greeting", ""), Views(), suffix=name)

# === CherryPy ===

import cherrypy  # noqa: E402


class Root:
    """CherryPy's tree is one of objects."""

    @cherrypy.expose
    def index(self) -> bytes:
        cherrypy.response.headers["Content-Type"] = "text/plain; charset=utf-8"
        cherrypy.response.cookie["seen"] = "yes"
        return GREETING.encode()

    @cherrypy.expose
    def echo(self) -> Any:
        return cherrypy.request.body.read()

    @cherrypy.expose
    def form(self, word: str, other: str) -> str:
        return word

    @cherrypy.expose
    @cherrypy.config(**{"response.stream": True})
    def stream(self) -> Iterable[bytes]:
        return pieces()

    @cherrypy.expose
    def away(self) -> None:
        raise cherrypy.HTTPRedirect("echo", 302)


cherrypy.config.update({"environment": "embedded", "log.screen": False})
in_cherrypy = cherrypy.Application(Root(), None)
