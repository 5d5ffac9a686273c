"""An application that cannot be imported is named, with its cause and its mend."""

import pytest
import support


def failed(supervisor):
    event = supervisor.event()
    assert event["event"] == "failed", event
    assert supervisor.process.wait(support.DEADLINE) == 3
    assert "shim.py" not in event["traceback"]
    return event


@pytest.mark.parametrize(
    ("source", "target", "what", "hint"),
    [
        ("x = 1", "ap:application", "import of ap", "did you mean app?"),
        ("x = 1", "missing.wsgi", "import of missing.wsgi", "there is no module missing; looked in sys.path[0]=/"),
        ("import not_there_at_all", "app", "import of app", "not_there_at_all is not installed for /"),
        ("1/0", "app", "import of app", "ZeroDivisionError: division by zero"),
        ("def broken(:\n  pass", "app", "import of app", "SyntaxError"),
        ("import sys; sys.exit('bye')", "app", "import of app", "called sys.exit('bye')"),
        ("raise KeyboardInterrupt", "app", "import of app", "KeyboardInterrupt"),
        ("def aplication(e, s): pass", "app", "no callable `application` in app", "did you mean app:aplication?"),
        ("def serve(e, s): pass", "app:zzz", "no callable `zzz` in app", "the callables are serve"),
        ("application = 3", "app", "app is not callable", "it is a int"),
        ("async def application(scope, receive, send): pass", "app", "app is an ASGI application", "WSGI"),
        (
            "class A:\n  async def __call__(self, scope, receive, send): pass\napplication = A()",
            "app",
            "app is an ASGI application",
            "WSGI",
        ),
        ("def application(scope, receive, send): pass", "app", "wrong signature", "that is an ASGI application"),
        ("def application(environ): pass", "app", "wrong signature", "this one takes (environ)"),
        ("def create_app(): pass", "app:create_app", "wrong signature", "write app:create_app()"),
        ("def create_app(): return 5", "app:create_app()", "what app:create_app() returned is not callable", "int"),
        ("def create_app(): raise OSError('no db')", "app:create_app()", "calling the factory", "OSError: no db"),
        ("def f(x): pass", "app:f(x)", "cannot read `app:f(x)`", "literal arguments"),
        ("def f(x): pass", "app:f(", "cannot read `app:f(`", "module:factory()"),
    ],
)
def test_a_failed_import_is_explained(start, source, target, what, hint):
    event = failed(start(source, target=target))
    assert what in event["what"]
    assert hint in event["hint"]


def test_the_traceback_begins_in_the_application(start):
    event = failed(start("def connect():\n    raise OSError('refused')\nconnect()"))
    lines = event["traceback"].splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert "app.py" in lines[1]
    assert "importlib" not in event["traceback"]


def test_middleware_that_fails_is_named(start):
    supervisor = start("def application(e, s): pass", middleware=["app:missing"])
    assert failed(supervisor)["what"] == "no callable `missing` in app"


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("def application(e, s):\n    s('200 OK', []); return [b'ok']", "app"),
        ("def app(e, s):\n    s('200 OK', []); return [b'ok']", "app"),
        (
            "def make(body, twice=False):\n  def a(e, s):\n    s('200 OK', []); return [body]\n  return a",
            "app:make(b'ok', twice=True)",
        ),
        (
            "class S:\n  @staticmethod\n  def run(e, s):\n    s('200 OK', []); return [b'ok']\nsite = S()",
            "app:site.run",
        ),
        ("class application:\n  def __init__(self, e, s): s('200 OK', [])\n  def __iter__(self): yield b'ok'", "app"),
        (
            "import functools\ndef f(x, e, s):\n    s('200 OK', []); return [b'ok']\napplication = functools.partial(f, 1)",
            "app",
        ),
    ],
)
def test_a_callable_is_found(serve, source, target):
    assert serve(source, target=target).ask().body == b"ok"
