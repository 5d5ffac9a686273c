"""What `daemun dev` adds to a worker: errors as pages, templates that are read anew, what is to be watched.

The zygote compiles it beside the shim, with the same Pythons in mind: CPython 3.6 or later and PyPy 3.
"""

import html
import json
import linecache
import os
import sys
import threading
import traceback

# Set by whoever loads this: frames of that file are nobody's business.
SHIM_FILE = ""

# Lines of source around the one that failed.
AROUND = 5

# Frames that are shown of each error: a recursion has a thousand.
MOST_FRAMES = 60

STYLE = """
:root{color-scheme:light dark;--ink:#1c2024;--soft:#4b5563;--line:#d5d9df;--paper:#fbfbfc;
--mark:#fde8e8;--code:#f1f3f5;--red:#a4161a}
@media(prefers-color-scheme:dark){:root{--ink:#e8eaed;--soft:#b3bac4;--line:#3a4048;--paper:#16181c;
--mark:#4a1d22;--code:#1f2329;--red:#ff9a9a}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:72rem;padding:clamp(1rem,4vw,2.5rem);background:var(--paper);
color:var(--ink);font:1rem/1.5 system-ui,sans-serif;overflow-wrap:anywhere}
h1{font-size:1.5rem;line-height:1.3;margin:0 0 .5rem;color:var(--red);white-space:pre-wrap}
h2{font-size:1rem;margin:1.75rem 0 .5rem;font-weight:600}
p{margin:0 0 1rem}.soft{color:var(--soft)}a{color:inherit}
section{border:1px solid var(--line);border-radius:.4rem;margin:0 0 .75rem;overflow:hidden}
section h3{font:600 .9rem/1.4 ui-monospace,monospace;margin:0;padding:.5rem .75rem;border-bottom:1px solid var(--line)}
section.other h3{font-weight:400;color:var(--soft);border-bottom:0}
ol{list-style:none;margin:0;padding:.35rem 0;background:var(--code);overflow-x:auto;
font:.85rem/1.55 ui-monospace,monospace}
li{white-space:pre;padding:0 .75rem;min-width:max-content}li b{display:inline-block;width:3.5em;color:var(--soft);
font-weight:400;user-select:none}
li.here{background:var(--mark);font-weight:600}
pre{background:var(--code);padding:.75rem;border-radius:.4rem;overflow-x:auto;font:.85rem/1.55 ui-monospace,monospace}
"""

# The number of the change that this page is of: after another one it loads itself anew.
SCRIPT = """
var seen="@change@";new EventSource("/.daemun/changes").onmessage=function(e){
if(!/^[0-9]+$/.test(seen))seen=e.data;else if(seen!==e.data)location.reload()}
"""

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'"
)

REFRESH = b'<script src="/.daemun/refresh.js" async></script>'


# === Errors as pages ===


def page(what, hint, error):
    """The page for something that failed: where, with the lines of the source, the innermost call first."""
    title = one_line(error) if error is not None else what
    parts = [f"<h1>{html.escape(title)}</h1>", f'<p class="soft">{html.escape(what)}</p>']
    if hint and not hint.startswith(title):
        parts.append(f"<p>{html.escape(hint)}</p>")
    parts.append('<p><a href="">Load this page again</a>; it does so by itself when the source has changed.</p>')
    for number, one in enumerate(chain_of(error)):
        if number:
            parts.append(f"<h2>… which came while this was handled: {html.escape(one_line(one))}</h2>")
        parts.extend(places(one))
    if error is not None:
        parts.append(f"<h2>As text</h2><pre>{html.escape(text_of(error))}</pre>")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + f"\n<script>{SCRIPT}</script></body></html>\n"
    )


def one_line(error):
    return "".join(traceback.format_exception_only(type(error), error)).strip().splitlines()[-1]


def chain_of(error):
    """The error and those that it came from."""
    found = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return found


def places(error):
    """A section for each call, the innermost first; a mistake of grammar has a place of its own before them."""
    if isinstance(error, SyntaxError) and error.filename and error.lineno:
        yield section(error.filename, error.lineno, "", True)
    frames = [
        entry
        for entry in traceback.extract_tb(error.__traceback__)
        if entry[0] not in (SHIM_FILE, __file__) and not entry[0].startswith("<frozen imp")
    ]
    for entry in list(reversed(frames))[:MOST_FRAMES]:
        yield section(entry[0], entry[1], entry[2], is_own(entry[0]))


def section(path, number, function, own):
    where = html.escape(f"{shown(path)}:{number}" + (f" in {function}" if function else ""))
    if not own:
        return f'<section class="other"><h3>{where}</h3></section>'
    lines = []
    for at in range(max(1, number - AROUND), number + AROUND + 1):
        line = linecache.getline(path, at)
        if line:
            here = ' class="here"' if at == number else ""
            lines.append(f"<li{here}><b>{at}</b>{html.escape(line.rstrip())}</li>")
    return f"<section><h3>{where}</h3><ol>{''.join(lines)}</ol></section>"


def shown(path):
    relative = os.path.relpath(path) if os.path.isabs(path) else path
    return path if relative.startswith("..") else relative


def is_own(path):
    """Whether a file is the developer's: neither of Python nor of an installed package."""
    path = os.path.realpath(path)
    if "site-packages" in path or "dist-packages" in path:
        return False
    return not path.startswith("<") and not path.startswith(os.path.dirname(os.path.realpath(os.__file__)) + os.sep)


def text_of(error):
    summary = traceback.TracebackException(type(error), error, error.__traceback__)
    parts = [summary]
    while parts:
        part = parts.pop()
        if part is None:
            continue
        part.stack[:] = [
            entry
            for entry in part.stack
            if entry.filename not in (SHIM_FILE, __file__) and not entry.filename.startswith("<frozen imp")
        ]
        parts += [part.__cause__, part.__context__]
    return "".join(summary.format())


# === Around the application ===


def around(application, orders, log):
    flask = sys.modules.get("flask")
    if flask is not None and isinstance(application, flask.Flask):
        # Else Flask turns every error into a page that says nothing.
        if application.config.get("PROPAGATE_EXCEPTIONS") is None:
            application.config["PROPAGATE_EXCEPTIONS"] = True
    return Around(application, orders, log)


class Around:
    """The application, with errors as pages and templates that are read anew."""

    def __init__(self, application, orders, log):
        self.application = application
        self.name = orders["name"]
        self.stamp = orders["development"]["stamp"]
        self.refresh = orders["development"]["refresh"]
        self.log = log
        self.seen = self.size()

    def size(self):
        try:
            return os.stat(self.stamp).st_size
        except OSError:
            return 0

    def __call__(self, environ, start_response):
        size = self.size()
        if size != self.seen:
            self.seen = size
            read_templates_anew(self.application)
        begun = []

        def start(status, headers, exc_info=None):
            begun[:] = [status]
            if self.refresh and environ.get("REQUEST_METHOD") == "GET" and is_plain_page(headers):
                begun.append("page")
                headers = [longer(name, value) for name, value in headers]
            return start_response(status, headers, exc_info)

        try:
            result = self.application(environ, start)
        except Exception as error:  # noqa: BLE001
            if begun:
                raise
            if not getattr(error, "daemun_has_logged", False):
                self.log(self.name, environ, error)
            return self.tell(environ, start_response, error)
        # Only what said that it is a page before its first piece was asked for.
        return Followed(result) if "page" in begun else result

    def tell(self, environ, start_response, error):
        """Answers with the error: a page for a browser, the traceback for others."""
        if "text/html" in environ.get("HTTP_ACCEPT", ""):
            path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
            path = path.encode("latin-1").decode("utf-8", "replace")
            kind, body = "text/html", page(f"error in {environ.get('REQUEST_METHOD', '')} {path}", "", error)
        else:
            kind, body = "text/plain", text_of(error)
        headers = [("Content-Type", kind + "; charset=utf-8"), ("Cache-Control", "no-store")]
        if kind == "text/html":
            headers.append(("Content-Security-Policy", POLICY))
        start_response("500 Internal Server Error", headers, sys.exc_info())
        return [body.encode("utf-8", "backslashreplace")]


def is_plain_page(headers):
    names = {name.lower(): value.lower() for name, value in headers}
    return names.get("content-type", "").startswith("text/html") and "content-encoding" not in names


def longer(name, value):
    if name.lower() == "content-length" and value.isdigit():
        return name, str(int(value) + len(REFRESH))
    return name, value


class Followed:
    """A page, and the script after it."""

    def __init__(self, result):
        self.result = result

    def __iter__(self):
        for piece in self.result:
            yield piece
        yield REFRESH

    def close(self):
        if hasattr(self.result, "close"):
            self.result.close()


def read_templates_anew(application):
    """Has template engines forget what they have read."""
    if "django.template" in sys.modules:
        from django.template import engines

        for engine in engines.all():
            for loader in getattr(getattr(engine, "engine", None), "template_loaders", ()):
                if hasattr(loader, "reset"):
                    loader.reset()
            forget(getattr(engine, "env", None))
    forget(getattr(application, "jinja_env", None))


def forget(environment):
    cache = getattr(environment, "cache", None)
    if cache is not None:
        cache.clear()


# === A debugger that all of this was started under ===

# An editor that has not taken this process over by then, in seconds, does not want to.
EDITOR = 10.0


def connect_debugger(wish):
    """Has the debugger that an editor is with take this process over, with its breakpoints set."""
    if not wish:
        return
    wish = json.loads(wish)
    if wish["path"] not in sys.path:
        # The last place: nothing of the application's is hidden by what lies there.
        sys.path.append(wish["path"])
    try:
        if "setup" in wish:
            join_pycharm(wish)
        else:
            join_debugpy(wish)
    except Exception as error:  # noqa: BLE001
        sys.stderr.write("daemun: the debugger does not answer, and is left out: " + one_line(error) + "\n")


def join_debugpy(wish):
    # It would say of each worker that frozen modules hide breakpoints: those are Python's own.
    is_quiet = "PYDEVD_DISABLE_FILE_VALIDATION" in os.environ
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    # The first makes the second known.
    import debugpy.server
    import pydevd

    if not is_quiet:
        del os.environ["PYDEVD_DISABLE_FILE_VALIDATION"]
    # As `debugpy.connect`, which cannot say who it is to an adapter that listens for editors. Without an editor the
    # adapter has it go on.
    settrace(
        pydevd,
        host=wish["host"],
        port=wish["port"],
        notify_stdin=False,
        access_token=wish["own_token"],
        client_access_token=wish["token"],
        # The process that the editor knows.
        ppid=wish["pid"],
        dont_trace_start_patterns=(os.path.dirname(debugpy.__file__),),
        dont_trace_end_patterns=("debugpy_launcher.py",),
    )


def join_pycharm(wish):
    import pydevd

    # As in every process that one of the debugger's own starts: it may be given a port of its own.
    pydevd.SetupHolder.setup = wish["setup"]
    host, port = pydevd.dispatch()
    settrace(pydevd, host=host, port=port)


def settrace(pydevd, **arguments):
    """Returns when the editor has set its breakpoints; without the debugger where it lets that wait."""

    def go_on():
        pydevd.get_global_debugger().ready_to_run = True

    given_up = threading.Timer(EDITOR, go_on)
    given_up.daemon = True
    given_up.start()
    try:
        pydevd.settrace(suspend=False, patch_multiprocessing=True, **arguments)
    finally:
        given_up.cancel()


# === What is to be watched, and what a developer should know ===


def describe_sources(directory):
    """Folders beyond `directory` whose modules are the developer's too: packages that were installed as editable."""
    found = set()
    base = os.path.realpath(directory) + os.sep
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if not isinstance(path, str) or not os.path.isabs(path):
            continue
        path = os.path.realpath(path)
        if path.startswith((base, os.path.realpath(sys.prefix) + os.sep)) or not is_own(path):
            continue
        if path not in (os.path.realpath(SHIM_FILE), os.path.realpath(__file__)):
            found.add(os.path.dirname(path))
    return {"sources": sorted(found)}


def describe_django(_directory):
    """Folders of templates, and what has not been migrated; nothing for other applications."""
    settings = sys.modules.get("django.conf")
    if settings is None or not settings.settings.configured:
        return {}
    found = {}
    try:
        from django.template import engines

        folders = []
        for engine in engines.all():
            for folder in getattr(engine, "template_dirs", ()):
                folders.append(os.path.abspath(str(folder)))
        found["templates"] = [folder for folder in folders if is_own(folder)]
    except Exception as error:  # noqa: BLE001
        found["warnings"] = ["templates are not watched: " + one_line(error)]
    try:
        text = unapplied_migrations()
    except Exception:  # noqa: BLE001  (no database yet: the first page that needs it says so)
        text = None
    if text:
        found.setdefault("warnings", []).append(text)
    return found


def unapplied_migrations():
    """What runserver says."""
    from django.db import DEFAULT_DB_ALIAS, connections
    from django.db.migrations.executor import MigrationExecutor

    executor = MigrationExecutor(connections[DEFAULT_DB_ALIAS])
    plan = executor.migration_plan(executor.loader.graph.leaf_nodes())
    if not plan:
        return None
    apps = ", ".join(sorted({migration.app_label for migration, _ in plan}))
    return (
        f"You have {len(plan)} unapplied migration(s). Your project may not work properly until you apply the "
        f"migrations for app(s): {apps}. Run 'python manage.py migrate' to apply them."
    )
