"""Asks an application, inside its own interpreter, what `daemun check` must know of it.

The program carries this file inside itself and runs it as `python -c … MODULE DIRECTORY ORDERS OUT LIFELINE`. ORDERS is
a descriptor with JSON: the shim, whose `describe_` functions say what `serve` will be told, and the rules of Django
projects. One JSON object goes to OUT.
"""

import json
import os
import sys
import threading
import traceback
import types


def main():
    directory = sys.argv[2]
    orders, out, lifeline = [int(word) for word in sys.argv[3:6]]
    del sys.argv[1:]
    sys.path[0] = directory
    with open(orders, encoding="utf-8") as file:
        orders = json.load(file)
    for descriptor in (out, lifeline):
        os.set_inheritable(descriptor, False)
    threading.Thread(target=watch, args=(lifeline,), daemon=True).start()
    # What the project prints while it is imported must not stand between what programs read.
    os.dup2(2, 1)
    try:
        answer = ask(orders, directory)
    except BaseException as error:
        answer = {"error": tell(error, directory)}
    data = json.dumps(answer, default=str).encode("utf-8")
    while data:
        data = data[os.write(out, data) :]
    sys.stderr.flush()
    # Threads that the project started are no reason to wait.
    os._exit(0)


def watch(lifeline):
    os.read(lifeline, 1)
    os._exit(1)


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
    rules = module("daemun_rules", orders["rules"])
    project = rules.Project(directory, orders["workers"])
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
