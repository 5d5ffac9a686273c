"""bjoern as its documentation has several processes: `python serve_bjoern.py MODULE:CALLABLE PORT WORKERS`."""

import contextlib
import importlib
import os
import signal
import sys

import bjoern


def main() -> None:
    """Listen once, then run a loop in each process."""
    module, _, name = sys.argv[1].partition(":")
    bjoern.listen(getattr(importlib.import_module(module), name), "127.0.0.1", int(sys.argv[2]))
    children = []
    for _ in range(int(sys.argv[3]) - 1):
        child = os.fork()
        if not child:
            children = []
            break
        children.append(child)
    # TERM ends its loop as Ctrl-C does.
    with contextlib.suppress(KeyboardInterrupt):
        bjoern.run()
    for child in children:
        os.kill(child, signal.SIGTERM)


if __name__ == "__main__":
    main()
