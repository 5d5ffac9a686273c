"""How each server is started: its configuration as its own documentation has it for production, and its command line.

`setting` says what is the same for all; `ours`, `wsgi` and `web` have one function for each server, which writes what
the server reads into its folder and gives the command.
"""

from __future__ import annotations

from collections.abc import Callable

from . import ours, web, wsgi
from .setting import APPLICATIONS, Place, Setting

__all__ = ["APPLICATIONS", "COMMANDS", "Place", "Setting"]

COMMANDS: dict[str, Callable[[Setting, Place], list[str]]] = {
    "daemun": ours.daemun,
    "daemun-cache": ours.daemun_cache,
    "daemun-threads": ours.daemun_threads,
    "daemun-fork": ours.daemun_fork,
    "granian": wsgi.granian,
    "gunicorn": wsgi.gunicorn,
    "uwsgi": wsgi.uwsgi,
    "bjoern": wsgi.bjoern,
    "fastpysgi": wsgi.fastpysgi,
    "waitress": wsgi.waitress,
    "whitenoise": wsgi.whitenoise,
    "nginx": web.nginx,
    "apache": web.apache,
    "lighttpd": web.lighttpd,
    "h2o": web.h2o,
    "caddy": web.caddy,
    "haproxy": web.haproxy,
}
