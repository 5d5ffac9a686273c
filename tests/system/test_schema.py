"""`daemun schema`: what is printed fits, what a file may hold is known to editors, and what it may not is not."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from schema import faults
from server import ROOT, run

# Python has it since 3.11; before that it is pytest's.
tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

EXAMPLES = sorted((ROOT / "examples").rglob("*.toml"))


def schema(what: str, folder: Path) -> dict[str, Any]:
    """Give a schema as it is printed."""
    done = run("schema", what, cwd=folder)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_every_example_fits_and_a_misspelt_key_does_not(tmp_path: Path) -> None:
    file = schema("file", tmp_path)
    assert file == json.loads(run("schema", cwd=tmp_path).stdout)
    assert len(EXAMPLES) > 1
    for example in EXAMPLES:
        assert faults(tomllib.loads(example.read_text()), file) == [], example
    wrong = '[server]\nlistne = "80"\n[app.a]\nthread = 1\n[[route]]\ncompress = { levle = 1 }\n'
    assert sorted(faults(tomllib.loads(wrong), file)) == [
        "$.app.a: Additional properties are not allowed ('thread' was unexpected)",
        "$.route[0].compress: Additional properties are not allowed ('levle' was unexpected)",
        "$.server: Additional properties are not allowed ('listne' was unexpected)",
    ]


def test_keys_are_told_as_in_the_manual(tmp_path: Path) -> None:
    server = schema("file", tmp_path)["properties"]["server"]["properties"]
    assert server["grace"]["description"].startswith("from TERM to the end of what is in flight")
    assert server["grace"]["description"].endswith('(default: "25s")')


@pytest.mark.parametrize("name", ["app.py", "broken.py"])
def test_what_check_prints_fits(tmp_path: Path, name: str) -> None:
    text = "" if name == "app.py" else "import nosuchmodule\n"
    (tmp_path / name).write_text(text + "def application(environ, start_response): ...\n")
    done = run("check", f"{name[:-3]}:application", "--json", "--listen", "127.0.0.1:0", cwd=tmp_path)
    assert done.returncode == (name == "broken.py")
    assert faults(json.loads(done.stdout), schema("check", tmp_path)) == []


def test_what_collect_prints_fits(tmp_path: Path) -> None:
    for folder in ("src", "src/b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.css").write_text("a { color: red }\n")
    done = run("collect", "src", "dest", "--json", "--cache", "off", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert faults(json.loads(done.stdout), schema("collect", tmp_path)) == []


def test_the_schema_of_explain_is_the_published_one(tmp_path: Path) -> None:
    assert schema("explain", tmp_path) == json.loads((ROOT / "docs/manual/explain.schema.json").read_text())
    assert run("schema", "exlain", cwd=tmp_path).returncode == 2
