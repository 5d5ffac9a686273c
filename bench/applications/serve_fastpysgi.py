"""fastpysgi by its own function: `python serve_fastpysgi.py MODULE:CALLABLE PORT WORKERS`."""

import importlib
import sys

import fastpysgi


def main() -> None:
    """Run it with so many workers."""
    module, _, name = sys.argv[1].partition(":")
    application = getattr(importlib.import_module(module), name)
    fastpysgi.run(application, "127.0.0.1", int(sys.argv[2]), workers=int(sys.argv[3]))


if __name__ == "__main__":
    main()
