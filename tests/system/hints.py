"""The configuration of pages whose hints are learned from what they name."""

from __future__ import annotations


def pages(style: str, *, fields: str = "", routes: str = "") -> str:
    """One process of `pages:application`, a style below `/static/`, and what else is said of it and beside it."""
    return f"""\
[app.pages]
wsgi = "pages:application"
processes = 1
threads = 1
early_hints = "learn"

[[route]]
path = "/static/*"
respond = {{ body = "{style}", content_type = "text/css" }}
{fields}
{routes}
[[route]]
path = "/*"
app = "pages"
"""
