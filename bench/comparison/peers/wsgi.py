"""Servers of WSGI applications, all with the interpreter and the packages of one virtual environment."""

from __future__ import annotations

from dataclasses import replace

from .setting import Place, Setting, files_open


def granian(setting: Setting, place: Place) -> list[str]:
    """As its documentation has WSGI; HTTP/1 only and no WebSocket, as in its own measurements."""
    crowd = ["--backlog", str(setting.most), "--backpressure", str(setting.most)] if setting.crowded else []
    return [
        f"{setting.venv}/bin/granian",
        *("--interface", "wsgi", "--http", "1", "--no-ws", "--host", "127.0.0.1", "--port", str(place.port)),
        *("--workers", str(setting.workers), "--blocking-threads", str(setting.threads)),
        *("--runtime-threads", str(setting.loops), "--log-level", "warning", *crowd),
        "--access-log" if setting.logs else "--no-access-log",
        place.scenario.application,
    ]


def gunicorn(setting: Setting, place: Place) -> list[str]:
    """Its synchronous worker, or its threads when more than one is asked for."""
    return [
        f"{setting.venv}/bin/gunicorn",
        *("--bind", f"127.0.0.1:{place.port}", "--workers", str(setting.workers), "--log-level", "warning"),
        *(("--threads", str(setting.threads)) if setting.threads > 1 else ()),
        *(("--access-logfile", f"{place.folder}/access.log") if setting.logs else ()),
        place.scenario.application,
    ]


def whitenoise(setting: Setting, place: Place) -> list[str]:
    """Files by whitenoise, in the server that its own documentation has."""
    return gunicorn(setting, replace(place, scenario=replace(place.scenario, application="white:application")))


def uwsgi(setting: Setting, place: Place) -> list[str]:
    """With its HTTP router, which is what may face clients, and the options of its list of best practices."""
    threads = ["--threads", str(setting.threads)] if setting.threads > 1 else []
    return [
        f"{setting.venv}/bin/uwsgi",
        *("--http", f"127.0.0.1:{place.port}", "--http-keepalive=300", "--http-auto-chunked"),
        *("--master", "--need-app", "--single-interpreter", "--die-on-term", "--enable-threads"),
        *("--processes", str(setting.workers), *threads, "--listen", "1024", "--max-fd", str(files_open(setting))),
        # Its router takes 5 s for a worker's answer, and its body buffer is of a page.
        *("--post-buffering", "65536", "--module", place.scenario.application),
        *(("--logto", f"{place.folder}/access.log") if setting.logs else ("--disable-logging",)),
    ]


def bjoern(setting: Setting, place: Place) -> list[str]:
    """Its event loop in each worker, forked after `listen` as its documentation shows; it has no log and no threads."""
    return _script(setting, place, "bjoern")


def fastpysgi(setting: Setting, place: Place) -> list[str]:
    """By `fastpysgi.run` with its workers, for its command has none; it has no log and no threads."""
    return _script(setting, place, "fastpysgi")


def _script(setting: Setting, place: Place, name: str) -> list[str]:
    words = [place.scenario.application, str(place.port), str(setting.workers)]
    return [f"{setting.venv}/bin/python", f"serve_{name}.py", *words]


def waitress(setting: Setting, place: Place) -> list[str]:
    """One process of threads; more connections than its select() can watch need poll()."""
    # Its default closes a connection that is idle for 120 seconds.
    crowd = ["--connection-limit", str(setting.most), "--asyncore-use-poll", "--channel-timeout", "300"]
    return [
        f"{setting.venv}/bin/waitress-serve",
        *("--listen", f"127.0.0.1:{place.port}", "--threads", str(setting.threads)),
        *(crowd if setting.crowded else ()),
        place.scenario.application,
    ]
