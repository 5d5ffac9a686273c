"""Asks an application, inside its own interpreter, what `daemun check` must know of it.

The program carries this file inside itself and runs it as `python -c … MODULE DIRECTORY ORDERS OUT LIFELINE`. ORDERS is
a descriptor with JSON: the shim, whose `describe_` functions say what `serve` will be told, and the rules of Django
projects. One JSON object goes to OUT.
"""

import glob
import json
import os
import signal
import sys
import tempfile
import threading
import traceback
import types


def main():
    directory = sys.argv[2]
    orders, out, lifeline = [int(word) for word in sys.argv[3:6]]
    del sys.argv[1:]
    with open(orders, encoding="utf-8") as file:
        orders = json.load(file)
    begin(directory, out, lifeline)  # noqa: F821 - of asked.py
    printed = tempfile.TemporaryFile()
    # What the project prints while it is imported must not stand between what programs read.
    os.dup2(printed.fileno(), 1)
    try:
        answer = ask(orders, directory)
    except BaseException as error:
        answer = {"error": tell(error, directory)}
    answer["findings"] = [*environment_of_another(), *left_by_the_import(), *told_by(printed)] + answer.get(
        "findings", []
    )
    end(out, answer)  # noqa: F821 - of asked.py


def environment_of_another():
    """Packages of a virtual environment that lie where this interpreter does not look."""
    if not os.path.exists(os.path.join(sys.prefix, "pyvenv.cfg")):
        return
    folders = {}
    for folder in glob.glob(os.path.join(sys.prefix, "lib", "python3.*", "site-packages")):
        names = {name.partition("-")[0] for name in os.listdir(folder)}
        folders[os.path.basename(os.path.dirname(folder))] = names - {"pip", "setuptools", "wheel", "__pycache__"}
    own = "python%d.%d" % sys.version_info[:2]
    others = sorted(name for name, packages in folders.items() if packages and name != own)
    if others and not folders.get(own):
        message = "the virtual environment %s has the packages of %s, and its interpreter is Python %d.%d"
        yield {
            "code": "D005",
            "message": message % ((sys.prefix, others[0].replace("python", "Python ")) + tuple(sys.version_info[:2])),
            "mend": "python3 -m venv --clear %s, and install the requirements again" % sys.prefix,
            "file": os.path.join(sys.prefix, "pyvenv.cfg"),
        }


def left_by_the_import():
    """Threads and processes that run after the import."""
    own = (threading.main_thread(), threading.current_thread())
    threads = [thread.name for thread in threading.enumerate() if thread not in own and thread.name != WATCH]  # noqa: F821 - of asked.py
    if threads:
        message = "the import starts threads, which no fork keeps: " + ", ".join(sorted(threads)[:3])
        yield {"code": "D007", "message": message, "mend": "start them with the first request, or in a hook"}
    try:
        with open("/proc/self/task/%d/children" % os.getpid()) as file:
            children = file.read().split()
    except OSError:
        children = []
    for child in children:
        # This was no start: they are of no use to anybody.
        os.kill(int(child), signal.SIGTERM)
    if children:
        message = "the import starts %d %s, which each worker starts again, and nobody ends"
        message %= (len(children), "process" if len(children) == 1 else "processes")
        yield {"code": "D008", "message": message, "mend": "start them where they are used"}


def told_by(printed):
    """What stands in standard output, which the log gets as well."""
    sys.stdout.flush()
    printed.seek(0)
    text = printed.read(65536).decode("utf-8", "replace")
    sys.stderr.write(text)
    if text.strip():
        message = "the application prints while it is imported: %r" % text.strip().splitlines()[0][:100]
        yield {"code": "D006", "message": message, "mend": "use logging, or remove it"}


def ask(orders, directory):
    shim = module("daemun_shim", orders["shim"])
    for callable_ in orders["callables"]:
        try:
            shim.load(callable_)
        except shim.LoadError as error:
            told = tell(error.__context__, directory) if error.__context__ is not None else {}
            return {"error": dict(told, text="%s: %s" % (error.what, error.hint))}
    settings = shim.django_settings()
    answer = {"django": None}
    if settings is None:
        return answer
    import django

    django.setup()
    described = {}
    # In the order in which they stand, as at a start: later ones know better.
    for name in list(vars(shim)):
        if name.startswith("describe_"):
            try:
                described.update(getattr(shim, name)())
            except Exception as error:
                answer.setdefault("unknown", "%s: %s" % (type(error).__name__, error))
    answer["django"] = described or None
    module("daemun_places", orders["places"])
    rules = module("daemun_rules", orders["rules"])
    project = rules.Project(directory, orders["workers"], orders["threads"])
    answer.update(rules.examine(project))
    answer["places"] = {name: {"file": file, "line": line} for name, (file, line) in project.places.items()}
    answer["settings"] = {name: plain(getattr(settings, name, None)) for name in orders["settings"]}
    return answer


def module(name, source):
    made = types.ModuleType(name)
    made.__file__ = "<%s>" % name
    sys.modules[name] = made
    exec(compile(source, "<%s>" % name, "exec"), made.__dict__)
    return made


def plain(value):
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def tell(error, directory):
    """What was raised, and the last line of the project's own files on the way to it."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<")]
    own = [frame for frame in frames if os.path.abspath(frame.filename).startswith(directory + os.sep)]
    own = [frame for frame in own if "site-packages" not in frame.filename] or frames
    told = {"kind": type(error).__name__, "text": "%s: %s" % (type(error).__name__, error)}
    if isinstance(error, SyntaxError) and error.filename:
        told.update(file=error.filename, line=error.lineno)
    elif own:
        told.update(file=os.path.abspath(own[-1].filename), line=own[-1].lineno)
    return told


main()
