"""The tutorials of the manual, followed literally: files are written, commands run, servers started and asked."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from server import BINARY, DEADLINE, ROOT, Server, environment, run

TUTORIALS = ROOT / "docs" / "manual" / "tutorials.md"
# What the page tells the server to listen on; the test takes a port that is free.
WRITTEN = "127.0.0.1:8000"


class Step(NamedTuple):
    """A fenced block that is to be followed: `run`, `serve`, `ask`, or the name of a file."""

    what: str
    text: str


def tutorials() -> Iterator[tuple[str, list[Step]]]:
    """Each tutorial's heading and its steps."""
    for part in re.split(r"^## ", TUTORIALS.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        heading = part.splitlines()[0]
        blocks = re.findall(r"^```\w+ (\S+)\n(.*?)^```$", part, re.MULTILINE | re.DOTALL)
        yield heading, [Step(*block) for block in blocks]


def shell(text: str, folder: Path) -> None:
    """Run a block as a reader with an active environment would."""
    path = os.pathsep.join([str(BINARY.parent), str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        cwd=folder,
        env={**environment({"PATH": path, "VIRTUAL_ENV": sys.prefix})},
        capture_output=True,
        text=True,
        timeout=DEADLINE * 3,
    )
    assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize(("heading", "steps"), list(tutorials()), ids=[heading for heading, _ in tutorials()])
def test_a_tutorial_leads_where_it_says(heading: str, steps: list[Step], tmp_path: Path) -> None:
    assert [step.what for step in steps].count("serve") == 1, heading
    server: Server | None = None
    try:
        for what, text in steps:
            if what == "run":
                shell(text, tmp_path)
            elif what == "serve":
                words = shlex.split(text)
                assert words[:2] == ["daemun", "serve"], text
                server = Server(*words[2:], cwd=tmp_path, env={"VIRTUAL_ENV": sys.prefix})
                server.__enter__()
            elif what == "ask":
                assert server is not None, heading
                assert WRITTEN in text, text
                shell(text.replace(WRITTEN, f"127.0.0.1:{server.port}"), tmp_path)
            else:
                (tmp_path / what).write_text(text, encoding="utf-8")
    finally:
        if server is not None:
            server.__exit__(None, None, None)


@pytest.mark.parametrize("shell_name", ["bash", "zsh", "fish"])
def test_completions_know_every_command(shell_name: str, tmp_path: Path) -> None:
    told = run("completions", shell_name, cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    for command in ("serve", "collect", "explain", "status", "stacks"):
        assert command in told.stdout
    if shell_name == "bash":
        (tmp_path / "completions").write_text(told.stdout)
        asked = (
            "source completions; COMP_WORDS=(daemun sta); COMP_CWORD=1; _daemun daemun sta daemun; "
            'printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run(["bash", "-c", asked], cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE)
        assert done.stdout.split() == ["status", "stacks"], done.stderr


def test_the_manual_page_is_one_that_man_can_show(tmp_path: Path) -> None:
    told = run("man", cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    assert ".TH daemun 1" in told.stdout
    for command in ("serve", "check", "stacks"):
        assert f'.SS "daemun {command}"' in told.stdout


def test_both_readmes_say_the_same() -> None:
    """Headings of the same levels with the same figures, links, commands and rows, whatever the words."""

    def skeleton(name: str) -> list[tuple[str, list[str]]]:
        text = (ROOT / name).read_text(encoding="utf-8")
        # Each names the other.
        text = re.sub(r"\]\(README(\.ko)?\.md\)", "](the other)", text)
        parts: list[tuple[str, list[str]]] = []
        for part in re.split(
            r"^(?=#+ )", re.sub(r"(?m)^(daemun|make|python)( .*?) +# .*$", r"\1\2", text), flags=re.MULTILINE
        ):
            commands = re.findall(r"^```.*?^```$", part, re.MULTILINE | re.DOTALL)
            prose = re.sub(r"^```.*?^```$", "", part, flags=re.MULTILINE | re.DOTALL)
            links = sorted(re.findall(r"(?:\]\(|src=\")([^)\"]+)", prose))
            rows = [f"{line.count('|')} cells" for line in prose.splitlines() if line.startswith("|")]
            parts.append((part.split(" ")[0] if part.startswith("#") else "", commands + links + rows))
        return parts

    assert skeleton("README.ko.md") == skeleton("README.md")
