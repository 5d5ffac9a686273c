"""daemun (대문, a house's front gate): web server, WSGI application server and static deployment in one program.

The program itself is the binary ``daemun`` that ``pip install daemun`` puts beside ``python``; ``python -m daemun``
starts the same one. An application never has to import this package to be served.
"""

from __future__ import annotations

__all__ = ["__version__"]


def __getattr__(name: str) -> str:
    """Give ``__version__`` when it is asked for: reading it costs a walk over the installed packages."""
    if name == "__version__":
        from importlib.metadata import version

        return version("daemun")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
