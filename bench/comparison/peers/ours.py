"""daemun, in each of the ways in which it is measured."""

from __future__ import annotations

import json
from dataclasses import replace

from .setting import APPLICATIONS, Place, Setting

# What the Python script imports.
WARM = ["datetime", "html", "json", "urllib.parse"]


def daemun(setting: Setting, place: Place) -> list[str]:
    """One front and its workers; everything stands in the file."""
    log = f'{{ path = "{place.folder}/access.log" }}' if setting.logs else '"off"'
    scheme = "https://" if place.scenario.secure else ""
    lines = [
        "[server]",
        f'listen = ["{scheme}127.0.0.1:{place.port}"]',
        f"event_loops = {setting.loops}",
        f"max_connections = {max(10_000, setting.most)}",
        f"access_log = {log}",
        # Its default closes a connection that is idle for 75 seconds.
        'keep_alive = "300s"',
        *_tls(setting, place),
        *_handler(setting, place),
    ]
    return [str(setting.daemun), "serve", "--config", str(place.write("daemun.toml", lines))]


def _tls(setting: Setting, place: Place) -> list[str]:
    if not place.scenario.secure:
        return []
    return ["[[tls]]", f'cert = "{setting.certificate}/cert.pem"', f'key = "{setting.certificate}/key.pem"']


def _handler(setting: Setting, place: Place) -> list[str]:
    if place.scenario.application:
        return [
            "[app.bench]",
            f'wsgi = "{place.scenario.application}"',
            f'directory = "{APPLICATIONS}"',
            f'python = "{setting.venv}/bin/python"',
            f"processes = {setting.workers}",
            f"threads = {setting.threads}",
            # Its default answers 503 to what comes while a thousand wait.
            *([f'queue = {{ max = {setting.most}, timeout = "60s" }}'] if setting.crowded else []),
        ]
    if place.scenario.hop:
        upstream = ["[upstream.bench]", f'servers = ["http://127.0.0.1:{setting.upstream}"]']
        return [*upstream, "[[route]]", 'path = "/*"', 'upstream = "bench"']
    if place.scenario.script:
        reuse = f', reuse = "fork", warm = {json.dumps(WARM)}' if place.reuse else ""
        return ["[[route]]", 'path = "/cgi-bin/*"', f'cgi = {{ root = "{setting.scripts}"{reuse} }}']
    return ["[[route]]", 'path = "/*"', f'static = {{ root = "{setting.files}" }}']


def daemun_cache(setting: Setting, place: Place) -> list[str]:
    """An application whose answers its route keeps."""
    application = replace(place.scenario, application="plain:cached")
    command = daemun(setting, replace(place, scenario=application))
    with (place.folder / "daemun.toml").open("a", encoding="utf-8") as file:
        file.write('[[route]]\npath = "/*"\napp = "bench"\ncache = true\n')
    return command


def daemun_threads(setting: Setting, place: Place) -> list[str]:
    """With four threads in each worker, whatever the others have."""
    return daemun(replace(setting, threads=4), place)


def daemun_fork(setting: Setting, place: Place) -> list[str]:
    """For Python scripts, with an interpreter that is started once."""
    return daemun(setting, replace(place, reuse=True))
