"""The wheel: what is in it, and that `python -m daemun` is the program."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from server import ROOT

# The wheel reuses the debug build; linking it again is what takes time.
BUILDING = 600.0


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel with the debug binary."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "maturin", "build", "--profile", "dev", "--strip", "false", "--out", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=BUILDING)
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("daemun-*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a new environment in which the wheel is installed."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--no-index", "--quiet", str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILDING)
    assert done.returncode == 0, done.stderr
    return python


def bare(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run that Python with nothing on PATH."""
    return subprocess.run(
        [str(python), *arguments], env={"PATH": os.devnull}, capture_output=True, text=True, timeout=60
    )


def test_the_wheel_fits_every_python_and_holds_program_and_package(wheel: Path) -> None:
    assert "-py3-none-" in wheel.name
    names = zipfile.ZipFile(wheel).namelist()
    assert any(name.endswith(".data/scripts/daemun") for name in names)
    assert {"daemun/__init__.py", "daemun/__main__.py", "daemun/py.typed"} <= set(names)
    for licence in ["LICENSE-MIT", "LICENSE-APACHE"]:
        assert any(name.endswith(licence) for name in names)


def test_the_package_has_the_version_of_the_program(python: Path) -> None:
    package = bare(python, "-c", "import daemun; print(daemun.__version__)").stdout.strip()
    program = subprocess.run([python.parent / "daemun", "--version"], capture_output=True, text=True, timeout=60)
    assert program.stdout.strip() == f"daemun {package}"


def test_python_dash_m_is_the_program_with_its_arguments_and_exit_codes(python: Path) -> None:
    program = subprocess.run([python.parent / "daemun", "--version"], capture_output=True, text=True, timeout=60)
    module = bare(python, "-m", "daemun", "--version")
    assert (module.returncode, module.stdout) == (0, program.stdout)
    assert bare(python, "-m", "daemun", "serve", "--no-such-flag").returncode == 2


def test_without_the_program_the_line_to_run_is_told(tmp_path: Path) -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv.pop()); import runpy; runpy.run_module('daemun', run_name='__main__')"
    )
    venv.create(tmp_path / "environment", with_pip=False, symlinks=True)
    done = bare(tmp_path / "environment" / "bin" / "python", "-c", code, str(ROOT / "python"))
    assert done.returncode == 1
    assert "-m pip install" in done.stderr
