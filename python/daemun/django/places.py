"""Where a Django project's settings were assigned: file and line of each, through `from .base import *`.

The program reads this file too, and hands it to the project's own Python, of whatever version: nothing is imported from
daemun here, and nothing is used that Python 3.6 has not.
"""

import ast
import os
import sys
from typing import Any, Dict, Set, Tuple

Places = Dict[str, Tuple[str, int]]


def find_places() -> Places:
    """Give file and line of each setting's last assignment."""
    places: Places = {}
    read_assignments(os.environ.get("DJANGO_SETTINGS_MODULE", ""), places, set())
    return places


def read_assignments(name: str, places: Places, seen: Set[str]) -> None:
    """Read the assignments at the top of one module, in the order in which they happen."""
    module = sys.modules.get(name)
    path = getattr(module, "__file__", None)
    if path is None or path in seen:
        return
    seen.add(path)
    try:
        with open(path, "rb") as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError):
        return
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.stmt)]
    for node in sorted(nodes, key=lambda node: node.lineno):
        if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
            read_assignments(imported(node, module), places, seen)
            continue
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            variable = target.value if isinstance(target, ast.Subscript) else target
            if isinstance(variable, ast.Name) and variable.id.isupper():
                places[variable.id] = (os.path.abspath(path), node.lineno)


def imported(node: ast.ImportFrom, module: Any) -> str:
    """Give the absolute name of the module that is imported from."""
    if not node.level:
        return node.module or ""
    parts = (module.__package__ or "").split(".")
    parts = parts[: len(parts) - node.level + 1]
    return ".".join([*parts, node.module] if node.module else parts)
