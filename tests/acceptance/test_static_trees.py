"""`daemun collect` beside `manage.py collectstatic`: the same files and the same manifest, byte for byte.

For what people install, on the oldest Django that is still met, the one with long support, and the newest.
"""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

import pytest
from collected import DJANGO, OURS, WHITENOISE, assert_same, by_daemun, by_django, make_project, tree
from server import BINARY
from test_pythons import INTERPRETERS
from venvs import make_venv

# Newer releases of these say nothing of the Django that they need.
OLD = ["django-grappelli<3.1", "django-debug-toolbar<4.3", "setuptools<80"]
WIDE = ["wagtail", "djangorestframework", "django-grappelli", "django-debug-toolbar", "whitenoise", "brotli"]
SHOP = ["django-oscar", "setuptools<80", "whitenoise", "brotli"]
# Each environment: the versions of Python that its Django runs on, and packages.
ENVIRONMENTS = {
    "django-3.2": (range(8, 11), ["django>=3.2,<3.3", "django-oscar", *WIDE, *OLD]),
    "django-5.2": (range(10, 14), ["django>=5.2,<5.3", *WIDE]),
    "django-5.2-oscar": (range(10, 14), ["django>=5.2,<5.3", *SHOP]),
    "django-newest": (range(12, 16), ["django", *WIDE]),
    "django-newest-oscar": (range(12, 16), ["django", *SHOP]),
}
WAGTAIL = [f"wagtail.{name}" for name in ("admin", "images", "documents", "users", "search")] + ["wagtail", "taggit"]
DASHBOARDS = "reports users orders catalogue offers partners pages ranges reviews vouchers communications shipping"
PARTS = "analytics checkout address shipping catalogue communication partner basket payment offer order customer search"
OSCAR = [
    *(f"django.contrib.{name}" for name in ("sites", "flatpages")),
    "oscar.config.Shop",
    *(f"oscar.apps.{name}.apps.{name.capitalize()}Config" for name in f"{PARTS} voucher wishlists dashboard".split()),
    "oscar.apps.catalogue.reviews.apps.CatalogueReviewsConfig",
    *(f"oscar.apps.dashboard.{name}.apps.{name.capitalize()}DashboardConfig" for name in DASHBOARDS.split()),
    *("widget_tweaks", "haystack", "treebeard", "django_tables2"),
]
PROJECTS = {
    "the admin": [],
    "Wagtail": [*WAGTAIL, "modelcluster"],
    "REST framework": ["rest_framework"],
    "grappelli": ["grappelli"],
    "the debug toolbar": ["debug_toolbar"],
    "oscar": OSCAR,
}
MORE = {
    "oscar": "from oscar.defaults import *\n"
    "HAYSTACK_CONNECTIONS = {'default': {'ENGINE': 'haystack.backends.simple_backend.SimpleEngine'}}\n"
}


@cache
def python_of(name: str) -> Path:
    """Give the Python of an environment, made with the newest interpreter that will do."""
    minors, packages = ENVIRONMENTS[name]
    fitting = [f"cpython3.{minor}" for minor in reversed(minors) if f"cpython3.{minor}" in INTERPRETERS]
    if not fitting:
        pytest.skip(f"{name} needs a Python of 3.{minors[0]} to 3.{minors[-1]}; found {', '.join(INTERPRETERS)}")
    return make_venv(name, INTERPRETERS[fitting[0]], *packages) / "bin" / "python"


def environment_of(django: str, project: str) -> str:
    """On newer Djangos oscar and Wagtail ask for different releases of the same packages."""
    return f"{django}-oscar" if project == "oscar" and django != "django-3.2" else django


def compare(folder: Path, django: str, name: str, storage: str) -> None:
    """Collect twice, look at every byte, and collect once more: nothing changes."""
    python = python_of(environment_of(django, name))
    project = make_project(folder / "project", storage, PROJECTS[name], more=MORE.get(name, ""))
    theirs = by_django(project, python, folder / "theirs")
    done = by_daemun(project, python, folder / "ours")
    assert "Django's own collectstatic" not in done.stderr, done.stderr
    assert_same(theirs, folder / "ours")
    before = tree(folder / "ours")
    by_daemun(project, python, folder / "ours")
    assert tree(folder / "ours") == before
    if "Compressed" not in storage:
        words = ["diff", "-r", str(theirs), str(folder / "ours")]
        differing = subprocess.run(words, capture_output=True, text=True, timeout=60)
        assert (differing.returncode, differing.stdout) == (0, "")


@pytest.mark.parametrize("name", PROJECTS)
@pytest.mark.parametrize("django", ["django-3.2", "django-5.2", "django-newest"])
def test_the_tree_is_the_one_that_django_makes(tmp_path: Path, django: str, name: str) -> None:
    compare(tmp_path, django, name, DJANGO + "ManifestStaticFilesStorage")


@pytest.mark.parametrize("django", ["django-3.2", "django-5.2", "django-newest"])
def test_without_a_manifest_it_is_as_well(tmp_path: Path, django: str) -> None:
    compare(tmp_path, django, "Wagtail", DJANGO + "StaticFilesStorage")


@pytest.mark.parametrize("storage", ["CompressedStaticFilesStorage", "CompressedManifestStaticFilesStorage"])
@pytest.mark.parametrize("django", ["django-3.2", "django-5.2", "django-newest"])
def test_the_tree_is_the_one_that_whitenoise_makes(tmp_path: Path, django: str, storage: str) -> None:
    compare(tmp_path, django, "REST framework", WHITENOISE + storage)


@pytest.mark.parametrize("django", ["django-3.2", "django-5.2", "django-newest"])
def test_our_storage_makes_one_tree_by_either_command(tmp_path: Path, django: str) -> None:
    # Where the wheel puts the program: the storage has it compress.
    beside = python_of(django).with_name("daemun")
    beside.unlink(missing_ok=True)
    beside.symlink_to(BINARY)
    compare(tmp_path, django, "REST framework", OURS + "CompressedManifestStaticFilesStorage")
