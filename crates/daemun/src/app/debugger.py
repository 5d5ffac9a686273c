"""The process that editors attach to: `daemun dev --debugger` starts it, and the workers join its session.

It runs in the application's interpreter, with the application's module and folder and the port as arguments.
Descriptor 3 is a socket: one line of JSON goes out, with `port` and what workers join (`wish`) or with `error`. Where
whoever holds the other end is gone, this process is too.
"""

import sys

# Before anything else is imported: nothing of the application's may stand in place of Python's own modules.
sys.path.pop(0)

import contextlib  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import signal  # noqa: E402

CHANNEL = 3
HOST = "127.0.0.1"


def main():
    _, directory, port = sys.argv[1:]
    os.set_inheritable(CHANNEL, False)
    # Quietly, until this listens.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    # The last place, for a debugger that lies beside the application.
    sys.path.append(directory)
    # The debugger would say that frozen modules hide breakpoints: those are Python's own.
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    data = (json.dumps(listen(int(port))) + "\n").encode("utf-8")
    # A terminal's Ctrl-C reaches whoever started this, and the end comes from there.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while data:
        data = data[os.write(CHANNEL, data) :]
    os.read(CHANNEL, 1)
    os._exit(0)


def listen(port):
    try:
        import debugpy
    except ImportError as error:
        if error.name != "debugpy":
            return {"error": f"debugpy cannot be imported: {error}"}
        command = f"{sys.executable} -m pip install debugpy"
        return {"error": f"the application's environment has no debugpy; run:  {command}"}
    try:
        with silent():
            host, port = debugpy.listen((HOST, port))
        setup = sys.modules["pydevd"].SetupHolder.setup
    except Exception as error:  # noqa: BLE001
        return {"error": f"debugpy does not listen on {HOST}:{port}: {error}"}
    wish = {
        "host": setup["client"],
        "port": setup["port"],
        "token": setup.get("client-access-token"),
        "own_token": setup.get("access-token"),
        "pid": os.getpid(),
        "path": os.path.dirname(os.path.dirname(debugpy.__file__)),
    }
    return {"port": port, "wish": json.dumps(wish)}


@contextlib.contextmanager
def silent():
    """What is started meanwhile keeps nobody's output open: the adapter stays as long as an editor is with it."""
    kept = os.dup(1), os.dup(2)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.close(null)
    try:
        yield
    finally:
        for number, descriptor in enumerate(kept, 1):
            os.dup2(descriptor, number)
            os.close(descriptor)


main()
