"""What programs share that ask an application inside its own interpreter; it stands before each of them in one text.

They are given three descriptors or two, and end when whoever asks is gone: the lifeline is closed then.
"""

import gc
import json
import os
import sys
import threading

# The thread that sees to it.
WATCH = "daemun-watch"


def begin(directory, out, lifeline):
    # It lives for a second: looking for garbage among everything that Django imports would take a sixth of that.
    gc.disable()
    sys.path[0] = directory
    for descriptor in (out, lifeline):
        os.set_inheritable(descriptor, False)
    if hasattr(os, "register_at_fork"):
        # What an import forks must not keep whoever reads the answer waiting for its end.
        os.register_at_fork(after_in_child=lambda: (os.close(out), os.close(lifeline)))
    threading.Thread(target=watch, args=(lifeline,), name=WATCH, daemon=True).start()


def watch(lifeline):
    os.read(lifeline, 1)
    os._exit(1)


def end(out, answer):
    data = json.dumps(answer, default=str).encode("utf-8")
    while data:
        data = data[os.write(out, data) :]
    sys.stderr.flush()
    # Threads that the project started are no reason to wait.
    os._exit(0)
