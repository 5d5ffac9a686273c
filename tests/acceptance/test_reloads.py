"""HUP every second under load, on kept and on new connections: no request fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from load import Load
from server import Server, environment

SECONDS = int(os.environ.get("RELOAD_SECONDS", "60"))


def test_no_request_fails_while_a_django_project_is_reloaded_every_second(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "django", "startproject", "shop", "."]
    subprocess.run(command, cwd=tmp_path, env=environment({}), check=True, timeout=60)
    with (tmp_path / "shop" / "settings.py").open("a") as file:
        file.write("\nDEBUG = False\nALLOWED_HOSTS = ['*']\n")
    (tmp_path / "shop" / "urls.py").write_text(
        "from django.http import HttpResponse\nfrom django.urls import path\n"
        "urlpatterns = [path('', lambda request: HttpResponse('fine'))]\n"
    )
    with (
        Server(tmp_path, cwd=tmp_path) as server,
        Load(server.port, "/", clients=6, wanted=b"fine") as kept,
        Load(server.port, "/", clients=2, wanted=b"fine", keep=False) as fresh,
    ):
        kept.more()
        for _ in range(SECONDS):
            server.send(signal.SIGHUP)
            kept.flows_for(1)
        kept.more()
        fresh.more(20)
        print(f"kept: {kept.summary}\nnew: {fresh.summary}")
        assert kept.failures == []
        assert fresh.failures == []
