"""Flask under every Python 3 of the machine, with nothing of ours in their environments, and two under one front."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from server import Server
from venvs import make_venv

APP = """\
import sys
from flask import Flask, request, jsonify

app = Flask(__name__)

@app.route("/")
def where():
    return jsonify(version=list(sys.version_info[:2]), prefix=sys.prefix, kind=sys.implementation.name,
                   ours=sorted(name for name in sys.modules if name.split(".")[0] == "daemun"))

@app.route("/echo", methods=["POST"])
def echo():
    return request.get_data()

@app.route("/stream")
def stream():
    return app.response_class(("%d\\n" % number for number in range(1000)), mimetype="text/plain")
"""


def interpreters() -> dict[str, str]:
    """Every Python 3 on PATH and among pyenv's, the newest patch of each minor version."""
    names = [f"python3.{minor}" for minor in range(6, 16)] + ["python3", "pypy3"]
    found = [path for path in map(shutil.which, names) if path]
    found += map(str, Path("~/.pyenv/versions").expanduser().glob("*/bin/python3"))
    known: dict[str, str] = {}
    for path in found:
        program = "import sys; print(sys.implementation.name + '%d.%d' % sys.version_info[:2])"
        asked = subprocess.run([path, "-c", program], capture_output=True, text=True, timeout=60)
        # A shim of pyenv may stand there for a version that is not chosen.
        if asked.returncode == 0:
            known.setdefault(asked.stdout.strip(), path)
    return known


INTERPRETERS = interpreters()


def flask(name: str) -> Path:
    """Flask for this interpreter, or a skip that says why not."""
    try:
        return make_venv(f"flask-{name}", INTERPRETERS[name], "flask")
    except AssertionError as error:
        pytest.skip(f"no environment with Flask for {name}: {str(error)[-300:]}")


def test_there_is_a_python() -> None:
    assert INTERPRETERS
    print("found:", ", ".join(f"{name} ({path})" for name, path in sorted(INTERPRETERS.items())))


@pytest.mark.parametrize("name", sorted(INTERPRETERS))
def test_flask_is_served(tmp_path: Path, name: str) -> None:
    venv = flask(name)
    (tmp_path / "app.py").write_text(APP)
    with Server("app:app", cwd=tmp_path, env={"VIRTUAL_ENV": str(venv)}) as server:
        said = json.loads(server.get("/").body)
        version = re.findall(r"\d+", name)
        assert said["version"] == [int(part) for part in version]
        assert said["prefix"] == str(venv)
        assert said["ours"] == []
        body = os.urandom(100_000)
        assert server.ask("/echo", "POST", body).body == body
        assert server.get("/stream").text.splitlines() == [str(number) for number in range(1000)]
        assert server.stop() == 0


def test_two_pythons_stand_side_by_side(tmp_path: Path) -> None:
    ours = [name for name in sorted(INTERPRETERS) if name.startswith("cpython")]
    if len(ours) < 2:
        pytest.skip("only one CPython is here")
    pair = {"old": ours[0], "new": ours[-1]} if ours[0] != "cpython3.6" else {"old": ours[1], "new": ours[-1]}
    lines = []
    for app, name in pair.items():
        (tmp_path / app).mkdir()
        (tmp_path / app / "app.py").write_text(APP)
        python = flask(name) / "bin" / "python"
        lines.append(f'[app.{app}]\nwsgi = "app:app"\ndirectory = "{app}"\npython = "{python}"\nprocesses = 1\n')
        lines.append(f'[[route]]\nhost = "{app}.test"\npath = "/*"\napp = "{app}"\n')
    (tmp_path / "daemun.toml").write_text("\n".join(lines))
    with Server(cwd=tmp_path) as server:
        for app, name in pair.items():
            said = json.loads(server.get("/", {"Host": f"{app}.test"}).body)
            assert "cpython" + ".".join(map(str, said["version"])) == name
