"""The Python half of daemun: imports a WSGI application once, forks workers from it, and serves it.

The program carries this file inside itself and runs it with the application's own interpreter, `python shim.py
CONTROL LIFELINE STACKS`: CPython 3.6 or later or PyPy 3, with nothing installed. The walk:

1. `main` reads its orders from the supervisor, one JSON object a line on the inherited socket CONTROL.
2. `Zygote.prepare` makes the process look like one that the application could have started, and imports it
   (`load`); `ready` or `failed` goes back, with what the `describe_` functions found out about Django.
3. On `{"fork": serial}` the zygote forks twice, so that the supervisor becomes the worker's parent.
4. A `Worker` binds its life to the supervisor's (`bind_to_supervisor`) and opens its lanes.
5. A `Lane` is one thread and one connection to the front: read all that is there, call the application once for each
   request, write. Lanes share no queue and no lock.
6. An `Exchange` is one request: `start_response`, `write`, and the way of the answer into frames.

The front decides, this file carries out: it parses no HTTP, and every CGI variable comes ready from the front. Frames
and their numbers are those of `daemun-protocol/src/frame.rs`, whose module documentation is the reference.

The parts, in this order:

    The zygote                  orders, the import, forks, what a process needs to be the application's own
    Finding the application     `module:callable`, factories, middleware, mounts; each common mistake by its name
    Django                      settings, static files and connections, asked of the project itself
    The worker                  threads, stacks, what it asks of itself before it takes requests
    A lane                      frames in, calls, frames out
    One request                 PEP 3333: `start_response`, `write`, iterables, files
    What an application sees    `wsgi.input`, `wsgi.file_wrapper`, `wsgi.errors`
    Hooks                       functions of a file that the configuration names
    Heads                       what may stand in status and headers
    The log                     exceptions, once each and in one write
"""

import ast
import collections
import difflib
import faulthandler
import fcntl
import gc
import importlib.machinery
import importlib.util
import inspect
import io
import itertools
import json
import mmap
import os
import re
import select
import signal
import socket
import stat
import struct
import sys
import threading
import time
import traceback
import types
import warnings
from _thread import get_ident, start_new_thread
from time import perf_counter

VERSION = 2
HELLO, WELCOME, REQUEST, BODY, CREDIT, CANCEL, STARTED, HEAD = 1, 2, 3, 4, 5, 6, 7, 8
DATA, DONE, SKIPPED, ANSWER, RETIRE, FILE, INFORM, FLUSH = 9, 10, 11, 12, 13, 14, 15, 16
INTERRUPT, LAID = 17, 18

# How an answer ended, the payload of DONE.
CLEAN, FAILED, INVALID, CUT = b"\0", b"\1", b"\2", b"\3"

# Where a request's body is.
NO_BODY, INLINE, IN_FILE, IN_ARENA, STREAMED = 0, 1, 2, 3, 4

HEADER = struct.Struct("<IBI")
REQUEST_START = struct.Struct("<BI")
ANSWER_START = struct.Struct("<IBIII")
HEAD_START = struct.Struct("<IBII")
LAID_FRAME = struct.Struct("<IBIII")
SLOTS = 64
SHELF_BLOCK = 4096
SHELF_BLOCKS = 128
SHELF = SHELF_BLOCK * SHELF_BLOCKS
LANE_PAGE = 2 * SLOTS + SHELF_BLOCKS
MAX_PAYLOAD = 1024 * 1024
INITIAL_CREDIT = 256 * 1024

# A whole answer up to this size goes as one frame, and a stream goes in pieces of it: the front copies it once, and
# no other request on its event loop waits behind more than that.
PIECE = 64 * 1024

# From this size on a piece goes by the shelf: below, to join it to its header costs less than to look for room.
WORTH_LAYING = 16 * 1024

# What as many free blocks look like.
FREE = [bytes(count) for count in range(PIECE // SHELF_BLOCK + 1)]
TAKEN = [b"\1" * count for count in range(PIECE // SHELF_BLOCK + 1)]

# 64 KiB holds some 150 heads of a browser's size; above 128 KiB the allocator would map fresh pages for every call.
RECEIVE = 64 * 1024
ANCILLARY = socket.CMSG_SPACE(16 * struct.calcsize("i"))
# Plain numbers: combining members of an enum takes a microsecond.
RECEIVE_FLAGS = int(getattr(socket, "MSG_CMSG_CLOEXEC", 0))
AT_ONCE = RECEIVE_FLAGS | int(socket.MSG_DONTWAIT)

# Finished answers may wait this long, in seconds, for others to be written with them: half of the silence after which
# the front takes a thread to be blocked.
HOLD = 0.0005

# The same while the front says that many requests wait: they come no sooner for an answer that is written at once.
HOLD_CROWDED = 0.004
CROWDED = 0x80

# How often a thread looks, while it streams, whether its client has gone, in seconds: each time is a system call.
LOOK = 0.0005

# A lane whose front is gone looks for the new one this long, in seconds.
RECONNECT = 30.0

# After the last answer `atexit` functions and the application's own threads get this long, in seconds.
LEAVE = 5.0

# A thread that wants its turn at the interpreter has it after some milliseconds, on a machine that is out of breath
# after a second or two; one that has not after this long waits for a call in C.
TURN = 5.0

SHIM_FILE = __file__

# Files whose frames are no part of an application's traceback.
OWN_FILES = {SHIM_FILE}

# Exit codes that tell the supervisor why a worker left by itself.
NOT_IMPORTED, NOT_READY = 71, 72


def main():
    control, lifeline, *more = sys.argv[1:]
    zygote = Zygote(int(control), int(lifeline), *more)
    zygote.prepare()
    if not zygote.per_worker:
        zygote.import_application()
    worker = zygote.serve_forks()
    # From here on this is a worker: the same process image, forked from the zygote.
    worker.run()


# === The zygote ===


class Zygote:
    """Imports the application and forks workers from it."""

    def __init__(self, control, lifeline, stacks="2", orders=None):
        self.control = control
        self.lifeline = lifeline
        self.stacks = int(stacks)
        # As it was before the application could change it, should this process have to begin anew.
        self.environment = dict(os.environ)
        for descriptor in self.own_descriptors():
            os.set_inheritable(descriptor, False)
        self.commands = open(control, "rb", closefd=False)  # noqa: SIM115
        self.orders = json.loads(orders or self.commands.readline().decode("utf-8"))
        # Begun anew: whether the application can be imported is known, and each worker does so by itself.
        self.per_worker = orders is not None
        self.application = None
        self.lane, self.unaccelerated = accelerated_lane(self.orders.get("accelerator"))
        self.hooks = Hooks(None)
        self.development = development_tools(self.orders.get("development"))

    def own_descriptors(self):
        return [descriptor for descriptor in (self.control, self.lifeline, self.stacks) if descriptor > 2]

    def prepare(self):
        """Makes this look like a process that was started for the application alone."""
        bind_to_supervisor(self.lifeline)
        directory = self.orders["directory"]
        os.chdir(directory)
        here = os.path.dirname(os.path.abspath(SHIM_FILE))
        if sys.path and os.path.abspath(sys.path[0]) == here:
            sys.path[0] = directory
        else:
            sys.path.insert(0, directory)
        sys.argv = [self.orders["mounts"][0][1]]
        # A terminal's Ctrl-C and a service manager's TERM reach the whole group. A worker must finish what it does,
        # and ends when the supervisor says so. Not SIG_IGN: programs that the application starts would inherit it.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, ignore_signal)
        # What the application prints appears line by line, also where it goes to a pipe.
        for name in ("stdout", "stderr"):
            stream = line_buffered(getattr(sys, name))
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)

    def import_application(self):
        """Imports what is mounted and says `ready`, or says `failed` and leaves."""
        start = time.perf_counter()
        try:
            reason = self.load_application()
        except LoadError as error:
            event = {"event": "failed", "what": error.what, "hint": error.hint, "traceback": error.traceback}
            if self.development is not None:
                event["page"] = self.development.page(error.what, error.hint, error.__context__)
            self.say(event)
            leave(3)
        event = self.readiness(time.perf_counter() - start, reason)
        event["sockets"] = open_sockets(self.control)
        left_behind = event["threads"] or event["sockets"]
        preload = self.orders.get("preload") or "always"
        event["per_worker"] = preload == "never" or (preload == "auto" and bool(left_behind))
        self.say(event)
        if event["per_worker"]:
            self.begin_anew()

    def load_application(self):
        """Imports what is mounted; gives where Django's settings come from."""
        set_before = "DJANGO_SETTINGS_MODULE" in os.environ
        reason = "DJANGO_SETTINGS_MODULE" if set_before else None
        if not set_before and self.orders.get("settings_from") == "manage":
            reason = adopt_settings_of_manage()
        mounts = []
        for path, target in self.orders["mounts"]:
            callable_ = self.load_with_warning(target)
            if reason is None and "DJANGO_SETTINGS_MODULE" in os.environ:
                reason = "set by " + module_file(target)
            for middleware in reversed(self.orders.get("middleware") or []):
                callable_ = apply_middleware(middleware, callable_)
            mounts.append((path, callable_))
        self.application = mounts[0][1] if len(mounts) == 1 and not mounts[0][0] else Mounts(mounts)
        self.hooks = Hooks(self.orders.get("hooks"))
        watch_errors(self.orders["name"])
        if self.development is None:
            finish_django()
        else:
            self.application = self.development.around(self.application, self.orders, log_exception)
        return reason

    def begin_anew(self):
        """Becomes a process in which the application was never imported.

        Threads of an import would not survive a fork, and two processes would speak on one socket.
        """
        flush_output()
        for descriptor in self.own_descriptors():
            os.set_inheritable(descriptor, True)
        descriptors = [str(descriptor) for descriptor in (self.control, self.lifeline, self.stacks)]
        command = [sys.executable, "-u", SHIM_FILE, *descriptors, json.dumps(self.orders)]
        os.execve(sys.executable, command, self.environment)

    def load_with_warning(self, target):
        """Loads one callable; when that takes long, the log says where it is."""
        seconds = self.orders.get("import_warning") or 10
        done = threading.Lock()
        done.acquire()
        importer = get_ident()

        def warn():
            if not done.acquire(timeout=seconds):
                faulthandler.cancel_dump_traceback_later()
                who, module = f"{self.orders['name']} {os.getpid()}", target.partition(":")[0]
                mend = "a server of its own, as by app.run(), belongs below `if __name__ == '__main__':`"
                long = f"the import of {module} is still running after {seconds:g} s"
                here = frames_of(sys._current_frames()[importer])
                write_log(f"daemun: [{who}] {long}; {mend}; it is here:\n{here}")

        # Not a `threading.Thread`: the application may count threads, or patch that class while it is imported.
        start_new_thread(warn, ())
        # Where a call in C keeps the turn at the interpreter, faulthandler shows the stack without one. Never while
        # Python code runs: it would follow frames that are being freed, and the interpreter would crash.
        faulthandler.dump_traceback_later(seconds + TURN, repeat=False, file=2)
        try:
            return load(target)
        finally:
            faulthandler.cancel_dump_traceback_later()
            done.release()

    def readiness(self, seconds, reason):
        version = ".".join(str(part) for part in sys.version_info[:3])
        names = {"cpython": "CPython", "pypy": "PyPy"}
        module = os.environ.get("DJANGO_SETTINGS_MODULE")
        event = {
            "event": "ready",
            "python": version,
            "implementation": names.get(sys.implementation.name, sys.implementation.name),
            "executable": sys.executable,
            "import_seconds": round(seconds, 3),
            "threads": [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()],
            "unaccelerated": self.unaccelerated,
            "settings_module": module,
            "settings_reason": reason if module else None,
            "django": None,
        }
        # Where a question fails the site may well serve; it is only the static files that cannot be found out.
        found, errors = {}, []
        questions = (
            lambda: describe_settings(self.orders.get("script_name", "")),
            describe_settings_file,
            describe_whitenoise,
            describe_storage,
            describe_manifest,
            describe_finders,
        )
        for question in questions:
            try:
                found.update(question())
            except Exception as error:  # noqa: BLE001
                errors.append(f"{type(error).__name__}: {error}")
        if self.development is not None:
            questions_of_development = (self.development.describe_sources, self.development.describe_django)
            for question in questions_of_development:
                event.update(question(self.orders["directory"]))
        event["django"] = found or None
        if errors:
            event["django_error"] = "; ".join(errors)
        return event

    def serve_forks(self):
        """Forks when told; returns in each worker, never in the zygote."""
        if self.lane is Lane:
            try:
                import ctypes  # noqa: F401  (for `join_barriers`: once, for all workers)
            except ImportError:
                pass
        gc.collect()
        if hasattr(gc, "freeze"):
            # What is there now is shared by all workers as long as nobody writes to it, the collector included.
            gc.freeze()
        for line in self.commands:
            order = json.loads(line.decode("utf-8"))
            if "fork" in order:
                serial = order["fork"]
                close_database_connections()
                self.hooks.call("before_fork", WorkerInfo(self.orders, serial))
                flush_output()
                try:
                    pid, gate = fork_twice()
                except OSError as error:
                    self.say({"event": "fork_failed", "serial": serial, "error": str(error)})
                    continue
                if pid is None:
                    self.commands.close()
                    os.close(self.control)
                    return self.become_worker(serial)
                self.say({"event": "forked", "serial": serial, "pid": pid})
                open_gate(gate)
            elif order.get("stop"):
                break
        leave(0)

    def become_worker(self, serial):
        if self.development is not None:
            self.development.connect_debugger(self.orders["development"].get("debugger"))
        if self.per_worker:
            try:
                self.load_application()
            except LoadError as error:
                write_log(
                    f"daemun: [{self.orders['name']} {os.getpid()}] {error.what}: {error.hint}\n{error.traceback}"
                )
                leave(NOT_IMPORTED)
        worker = Worker(self.orders, self.application, serial, self.lifeline, self.lane)
        worker.stacks = self.stacks
        worker.hooks = self.hooks
        return worker

    def say(self, event):
        data = (json.dumps(event, default=str) + "\n").encode("utf-8")
        try:
            while data:
                data = data[os.write(self.control, data) :]
        except OSError:
            leave(0)


def development_tools(orders):
    """The module that the development server adds, or None. Compiled here: nothing may be written beside it."""
    if not orders:
        return None
    with open(orders["program"], "rb") as file:
        source = file.read()
    module = types.ModuleType("daemun_development")
    module.__file__ = orders["program"]
    OWN_FILES.add(orders["program"])
    exec(compile(source, orders["program"], "exec"), module.__dict__)  # noqa: S102
    module.SHIM_FILE = SHIM_FILE
    return module


def open_sockets(control):
    """Sockets that the import has left open, in words."""
    found = []
    try:
        descriptors = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        return found
    for descriptor in sorted(descriptors):
        if descriptor <= 2 or descriptor == control:
            continue
        try:
            if not os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(descriptor)) as one:
                ends = [show_address(call) for call in (one.getsockname, one.getpeername)]
        except OSError:
            continue
        found.append(" to ".join(end for end in ends if end) or "a pair of its own")
    return found


def show_address(call):
    try:
        address = call()
    except OSError:
        return ""
    if isinstance(address, tuple):
        return f"{address[0]}:{address[1]}"
    return address.decode("utf-8", "replace") if isinstance(address, bytes) else str(address)


def ignore_signal(_number, _frame):
    pass


def line_buffered(stream):
    """Writes whole lines: others write to the same pipe, and `print` has several pieces for each line."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(line_buffering=True, write_through=False)
        return stream
    encoding, errors = stream.encoding, stream.errors
    return io.TextIOWrapper(stream.detach(), encoding, errors, line_buffering=True)  # Python 3.6


def leave(status):
    flush_output()
    os._exit(status)


def flush_output():
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass


def fork_twice():
    """Forks a grandchild. Gives its pid and the gate before which it waits, and (None, None) in the grandchild.

    It goes on when `+` is written to the gate, and leaves when the gate is closed without: a worker that the supervisor
    has not heard of would belong to nobody.
    """
    ends = list(os.pipe())
    try:
        ends.extend(os.pipe())
        told, tell, gate, opener = ends
        with warnings.catch_warnings():
            # Threads that the import left behind were reported; whether to fork all the same the supervisor decides.
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
            if child == 0:
                fork_again(tell)
                os.close(tell)
                os.close(opener)
                ends[:] = told, gate
                wait_for_gate(gate)
                return None, None
        os.close(tell)
        ends.remove(tell)
        try:
            answer = os.read(told, 4096).decode("utf-8")
        finally:
            reap(child)
        if not answer.isdigit():
            raise OSError(answer.lstrip("!") or "the child died before it could fork")
        ends.remove(opener)
        return int(answer), opener
    finally:
        for end in ends:
            os.close(end)


def reap(child):
    try:
        os.waitpid(child, 0)
    except ChildProcessError:
        pass  # The application ignores SIGCHLD, so the kernel has reaped it.


def open_gate(gate):
    try:
        os.write(gate, b"+")
    except OSError:
        pass  # It has died; the supervisor sees that.
    finally:
        os.close(gate)


def wait_for_gate(gate):
    is_open = False
    try:
        is_open = os.read(gate, 1) == b"+"
    finally:
        if not is_open:
            os._exit(0)


def fork_again(tell):
    """Comes back in the grandchild alone; the child says its pid or why there is none, and is gone whatever happens."""
    is_child = True
    try:
        try:
            grandchild = os.fork()
            is_child = grandchild != 0
            answer = b"%d" % grandchild
        except OSError as error:
            answer = ("!" + str(error)).encode("utf-8")
        if is_child:
            os.write(tell, answer)
    finally:
        if is_child:
            os._exit(0)


def bind_to_supervisor(lifeline):
    """Has the kernel kill this process when the supervisor, which holds the pipe's only write end, is gone.

    Owner and signal belong to the open file, which all processes inherit, so each opens its own. Where that is
    refused (the pipe belongs to another user) the parent's death does it, and failing that a thread.
    """
    set_signal = 10  # F_SETSIG; the module has no name for it before 3.12.
    try:
        own = os.open(f"/proc/self/fd/{lifeline}", os.O_RDONLY | os.O_NONBLOCK)
        fcntl.fcntl(own, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(own, set_signal, signal.SIGKILL)
        fcntl.fcntl(own, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
    except (AttributeError, OSError):
        own = lifeline
        start_new_thread(watch_lifeline, (lifeline,))
    poll = select.poll()
    poll.register(own, 0)
    if poll.poll(0):
        os._exit(0)  # It died while we armed.


def watch_lifeline(lifeline):
    try:
        os.read(lifeline, 1)
    finally:
        os.kill(os.getpid(), signal.SIGKILL)


# === Finding the application ===


class LoadError(Exception):
    """Why there is no application: what failed, what to do about it, and where it happened."""

    def __init__(self, what, hint, trace=""):
        Exception.__init__(self, what)
        self.what = what
        self.hint = hint
        self.traceback = trace


def load(target):
    """The callable that `module`, `module:name` or `module:factory()` means."""
    name, _, expression = target.partition(":")
    module = import_module(name)
    if not expression:
        expression = "application" if hasattr(module, "application") or not hasattr(module, "app") else "app"
    path, call = parse_expression(target, expression)
    found = look_up(name, module, path)
    if call is not None:
        found = made_by(f"calling the factory of {target} failed", found, *call[0], **call[1])
    check_callable(target, found, is_made=call is not None)
    return found


def import_module(name):
    what = "import of " + name + " failed"
    try:
        __import__(name)
        return sys.modules[name]
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if name == missing or name.startswith(missing + "."):
            looked = f"looked in sys.path[0]={sys.path[0]} and the packages of {sys.executable}"
            hint = f"there is no module {missing}; {looked}"
            near = difflib.get_close_matches(missing.rpartition(".")[2], module_names(missing), 1)
            if near:
                hint += f"; did you mean {near[0]}?"
        else:
            hint = f"{missing} is not installed for {sys.executable}"
        raise LoadError(what, hint, format_exception(error))
    except SystemExit as error:
        code = "" if error.code is None else repr(error.code)
        hint = f"the module called sys.exit({code}) while it was imported"
        raise LoadError(what, hint, format_exception(error))
    except BaseException as error:  # noqa: BLE001
        raise LoadError(what, f"{type(error).__name__}: {error}", format_exception(error))


def module_names(missing):
    """Modules beside the one that is missing, for the nearest name."""
    parent = missing.rpartition(".")[0]
    folders = list(getattr(sys.modules.get(parent), "__path__", [])) if parent else sys.path[:1]
    names = set()
    for folder in folders:
        try:
            entries = os.listdir(folder)
        except OSError:
            continue
        names.update(entry[:-3] if entry.endswith(".py") else entry for entry in entries)
    return sorted(name for name in names if name.isidentifier())


def parse_expression(target, expression):
    """`a.b` or `a.b(1, debug=False)` as the path of names and, for a call, its arguments."""
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
        call = None
        if isinstance(tree, ast.Call):
            arguments = [ast.literal_eval(argument) for argument in tree.args]
            call = (arguments, {keyword.arg: ast.literal_eval(keyword.value) for keyword in tree.keywords})
            tree = tree.func
        path = []
        while isinstance(tree, ast.Attribute):
            path.insert(0, tree.attr)
            tree = tree.value
        path.insert(0, tree.id)
        return path, call
    except (AttributeError, SyntaxError, TypeError, ValueError):
        hint = "write module:name or module:factory(), with literal arguments"
        raise LoadError(f"cannot read `{target}`", hint)


def look_up(name, module, path):
    """What stands at this path of names in the module."""
    found = module
    for part in path:
        if not hasattr(found, part):
            raise missing_attribute(name, module, ".".join(path))
        found = getattr(found, part)
    return found


def missing_attribute(name, module, path):
    public = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
    near = difflib.get_close_matches(path, public, 1, 0.5)
    place = getattr(module, "__file__", name)
    hint = f"in {place}"
    if near:
        hint = f"did you mean {name}:{near[0]}? ({hint})"
    elif public:
        hint += " the callables are " + ", ".join(sorted(public)[:10])
    return LoadError(f"no callable `{path}` in {name}", hint)


def made_by(what_failed, factory, *arguments, **options):
    """What a factory of the application's returns."""
    try:
        return factory(*arguments, **options)
    except BaseException as error:  # noqa: BLE001
        raise LoadError(what_failed, f"{type(error).__name__}: {error}", format_exception(error))


def check_callable(target, found, is_made=False):
    """Names the common mistakes now; each would otherwise show as a 500 in the first request."""
    subject = ("what %s returned" if is_made else "%s") % target
    if not callable(found):
        hint = f"it is a {type(found).__name__}; a WSGI application is called with environ and start_response"
        raise LoadError(f"{subject} is not callable", hint)
    plain = found
    while hasattr(plain, "func") and hasattr(plain, "keywords"):
        plain = plain.func  # functools.partial
    call = type(plain).__call__
    if inspect.iscoroutinefunction(plain) or inspect.iscoroutinefunction(call):
        hint = "daemun serves WSGI; name the WSGI callable instead (Django: the project's wsgi module), or wrap it"
        raise LoadError(f"{subject} is an ASGI application", hint)
    try:
        signature = inspect.signature(found)
    except (TypeError, ValueError):
        return
    if fits(signature, 2):
        return
    hint = f"a WSGI application takes (environ, start_response); this one takes {signature}"
    if fits(signature, 0) and not is_made:
        hint += f"; if it makes the application, write {target}()"
    elif fits(signature, 3) and "scope" in signature.parameters:
        hint += "; that is an ASGI application, and daemun serves WSGI"
    raise LoadError(f"{subject} has the wrong signature", hint)


def fits(signature, count):
    try:
        signature.bind(*[None] * count)
    except TypeError:
        return False
    return True


def apply_middleware(target, application):
    name, _, path = target.partition(":")
    factory = look_up(name, import_module(name), path.split("."))
    wrapped = made_by(f"calling the middleware {target} failed", factory, application)
    check_callable(target, wrapped, is_made=True)
    return wrapped


class Mounts:
    """Several applications in one process, told apart by the start of the path."""

    def __init__(self, mounts):
        # The longest first, so that the first that fits is the right one.
        self.mounts = sorted(mounts, key=lambda mount: -len(mount[0]))

    def __call__(self, environ, start_response):
        path = environ.get("PATH_INFO", "")
        for prefix, application in self.mounts:
            rest = path[len(prefix) :]
            if path.startswith(prefix) and (not rest or rest.startswith("/")):
                environ["SCRIPT_NAME"] = environ.get("SCRIPT_NAME", "") + prefix
                environ["PATH_INFO"] = rest
                return application(environ, start_response)
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"No application is mounted here.\n"]


def module_file(target):
    module = sys.modules.get(target.partition(":")[0])
    path = getattr(module, "__file__", None) or target
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


# === Django ===


def adopt_settings_of_manage():
    """Sets the settings module that `manage.py` would set. Returns where it came from."""
    try:
        with open("manage.py", "rb") as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError):
        return None
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "setdefault":
            try:
                name, value = [ast.literal_eval(argument) for argument in node.args]
            except ValueError:
                continue
            if name == "DJANGO_SETTINGS_MODULE":
                os.environ[name] = value
                return "set by manage.py"
    return None


def django_settings():
    """The settings that the application uses, or None where it is no Django project."""
    if "django.conf" not in sys.modules:
        return None
    settings = sys.modules["django.conf"].settings
    return settings if settings.configured else None


def describe_settings(script_name=""):
    """What the front must know of a Django project, asked of the very settings the application uses."""
    settings = django_settings()
    if settings is None:
        return {}
    import django
    from django.urls import clear_script_prefix, set_script_prefix

    forced = settings.FORCE_SCRIPT_NAME
    # Django puts it before URLs without a slash when they are asked for first, and keeps them so.
    set_script_prefix(forced or script_name or "/")
    static_url, media_url = text_or_none(settings.STATIC_URL), text_or_none(settings.MEDIA_URL)
    clear_script_prefix()
    gone = ("STATICFILES_STORAGE", "DEFAULT_FILE_STORAGE") if django.VERSION >= (5, 1) else ()
    middleware = getattr(settings, "MIDDLEWARE", None) or []
    return {
        "version": django.get_version(),
        "debug": bool(settings.DEBUG),
        "allowed_hosts": [str(host) for host in settings.ALLOWED_HOSTS],
        "static_url": static_url,
        "static_root": text_or_none(settings.STATIC_ROOT),
        "media_url": media_url,
        "stripped_by_proxy": text_or_none(None if script_name else forced or None),
        "media_root": text_or_none(settings.MEDIA_ROOT),
        "staticfiles_installed": staticfiles_installed(),
        "dead_settings": [name for name in gone if settings.is_overridden(name)],
        "whitenoise": any("whitenoise" in str(name).lower() for name in middleware),
    }


def staticfiles_installed():
    from django.apps import apps

    return apps.ready and apps.is_installed("django.contrib.staticfiles")


def text_or_none(value):
    return None if value is None or value == "" else str(value)


def storage_class(settings):
    from django.utils.module_loading import import_string

    if sys.modules["django"].VERSION >= (4, 2):
        name = settings.STORAGES["staticfiles"]["BACKEND"]
    else:
        name = settings.STATICFILES_STORAGE
    return str(name), import_string(name)


def describe_storage():
    """The storage of `{% static %}`, and whether pages fail without its manifest."""
    settings = django_settings()
    if settings is None:
        return {}
    from django.contrib.staticfiles.storage import ManifestFilesMixin

    name, kind = storage_class(settings)
    manifest = issubclass(kind, ManifestFilesMixin)
    return {
        "storage": name,
        "storage_needs_manifest": manifest,
        "manifest_path": None,
        "manifest_exists": False,
        "manifest_strict": manifest and bool(kind.manifest_strict),
    }


def describe_manifest():
    """Where the manifest lies. A question of its own: the storage reads it, and it may be broken."""
    settings = django_settings()
    if settings is None or not settings.STATIC_ROOT:
        return {}
    from django.contrib.staticfiles import storage as staticfiles
    from django.core.files.storage import FileSystemStorage

    kind = storage_class(settings)[1]
    # Only one that keeps its files on a disk is made here: others would ask the network.
    if not issubclass(kind, staticfiles.ManifestFilesMixin) or not issubclass(kind, FileSystemStorage):
        return {}
    storage = staticfiles.staticfiles_storage
    path = os.path.abspath(getattr(storage, "manifest_storage", storage).path(storage.manifest_name))
    return {
        "manifest_path": path,
        "manifest_exists": os.path.isfile(path),
        "manifest_strict": bool(storage.manifest_strict),
    }


def describe_finders():
    """Where static files lie before they are collected, in the order in which Django looks."""
    if django_settings() is None:
        return {}
    if not staticfiles_installed():
        return {"finders": [], "other_finders": []}
    from django.contrib.staticfiles import finders

    folders, others = [], []
    for finder in finders.get_finders():
        kind = type(finder)
        if kind.__dict__.keys() & {"find", "list"} and kind.__module__ != finders.__name__:
            others.append(kind.__module__ + "." + kind.__name__)
        elif isinstance(finder, finders.FileSystemFinder):
            folders.extend((str(prefix), path, None) for prefix, path in finder.locations)
        elif isinstance(finder, finders.AppDirectoriesFinder):
            storages = [(name, finder.storages[name]) for name in finder.apps if name in finder.storages]
            folders.extend((getattr(one, "prefix", None) or "", one.location, name) for name, one in storages)
        else:
            others.append(kind.__module__ + "." + kind.__name__)
    listed = [
        {"prefix": prefix, "path": os.path.abspath(str(path)), "application": application}
        for prefix, path, application in folders
    ]
    return {"finders": listed, "other_finders": others}


def describe_whitenoise():
    """Those of whitenoise's settings that say how files are served; the front follows them."""
    settings = django_settings()
    if settings is None:
        return {}
    found = {}
    for name in ("root", "static_prefix"):
        value = getattr(settings, "WHITENOISE_" + name.upper(), None)
        found[name] = text_or_none(value)
    if hasattr(settings, "WHITENOISE_MAX_AGE"):
        age = settings.WHITENOISE_MAX_AGE
        found["max_age"] = -1 if age is None else max(0, int(age))
    index = getattr(settings, "WHITENOISE_INDEX_FILE", None)
    found["index_file"] = "index.html" if index is True else text_or_none(index or None)
    types = getattr(settings, "WHITENOISE_MIMETYPES", None) or {}
    found["mimetypes"] = {str(name): str(kind) for name, kind in types.items()}
    if hasattr(settings, "WHITENOISE_ALLOW_ALL_ORIGINS"):
        found["allow_all_origins"] = bool(settings.WHITENOISE_ALLOW_ALL_ORIGINS)
    others = ("WHITENOISE_IMMUTABLE_FILE_TEST", "WHITENOISE_ADD_HEADERS_FUNCTION")
    found["unsupported"] = [name for name in others if getattr(settings, name, None) is not None]
    if str(getattr(settings, "WHITENOISE_CHARSET", "utf-8")).lower() not in ("utf-8", "utf8"):
        found["unsupported"].append("WHITENOISE_CHARSET")
    if getattr(settings, "WHITENOISE_USE_FINDERS", False) and not settings.DEBUG:
        found["unsupported"].append("WHITENOISE_USE_FINDERS")
    return {"whitenoise_settings": found}


def describe_settings_file():
    """The settings module's file and the lines of its assignments, for messages that name the place."""
    settings = django_settings()
    if settings is None:
        return {}
    module = sys.modules.get(getattr(settings, "SETTINGS_MODULE", None) or "")
    path = getattr(module, "__file__", None)
    lines = {}
    try:
        with open(path or "", "rb") as file:
            tree = ast.parse(file.read())
        for node in ast.walk(tree):
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            for target in targets:
                if isinstance(target, ast.Name) and target.id.isupper():
                    lines[target.id] = max(node.lineno, lines.get(target.id, 0))
    except (OSError, SyntaxError, ValueError):
        pass
    return {"settings_file": os.path.abspath(path) if path else None, "lines": lines}


def finish_django():
    """Imports what Django leaves for its first request: the views and whatever they import, half of a large site.

    Here it is done once, and its memory is shared by the workers; there each of them would do it for itself, while a
    client waits.
    """
    urls = sys.modules.get("django.urls")
    if urls is None:
        return
    try:
        # Asked for a name's URL, it also has the names of all others.
        urls.get_resolver().reverse_dict.getlist("")
    except BaseException:  # noqa: BLE001
        pass  # The first request says why, with its traceback, as it does elsewhere.
    close_database_connections()


def close_database_connections():
    """A connection that two processes share mixes up both their answers."""
    database = sys.modules.get("django.db")
    if database is not None:
        try:
            database.connections.close_all()
        except Exception:  # noqa: BLE001, S110
            pass  # Whatever is wrong with the settings shows in the first request, where somebody reads it.


# === The worker ===


class Worker:
    """One process that serves: its lanes, and what they share."""

    def __init__(self, orders, application, serial, lifeline, lane):
        self.name = orders["name"]
        self.path = orders["socket"]
        self.threads = orders["threads"]
        self.application = application
        self.serial = serial
        self.lifeline = lifeline
        self.page = None
        self.arena = None
        self.shelves = None
        # Where stacks are written, at which signal, and the functions of `hooks`.
        self.stacks = 2
        self.stack_signal = orders.get("stack_signal")
        self.hooks = Hooks(None)
        self.info = WorkerInfo(orders, serial)
        self.ready = orders.get("ready")
        # Counts the fronts this worker has seen; lanes after the first wait for it.
        self.epoch = 0
        self.forked = False
        # Names and values by turns: a request's environment is made of this and of what the front sent, in one go.
        self.environ = [
            *("wsgi.version", (1, 0)),
            *("wsgi.errors", Errors()),
            *("wsgi.multithread", self.threads > 1),
            *("wsgi.multiprocess", orders.get("processes", 1) > 1),
            *("wsgi.run_once", False),
            *("wsgi.input_terminated", True),
            *("wsgi.file_wrapper", FileWrapper),
        ]
        # Told to end: whoever loses its front from then on does not look for another.
        self.retired = False
        self.lanes = [lane(self, number) for number in range(self.threads)]
        self.accelerated = lane is not Lane
        self.membarrier = orders.get("membarrier")
        # One more, on which no request comes: its thread is free when all others are in long calls, and writes the
        # answers that they hold back when the front asks for them.
        self.monitor = Lane(self, self.threads)

    def run(self):
        bind_to_supervisor(self.lifeline)
        if not faulthandler.is_enabled():
            faulthandler.enable(file=2)  # A crash in C then names the Python line in the log.
        if "random" in sys.modules:
            sys.modules["random"].seed()
        if not self.accelerated:
            join_barriers(self.membarrier)
        call_in_forked_children(self.after_fork)
        self.offer_stacks()
        self.hooks.call("worker_started", self.info)
        if self.hooks.has_any("request_started", "request_finished"):
            self.application = Hooked(self.application, self.hooks, self.info)
            for lane in self.lanes:
                lane.application = self.application
        if self.ready and not is_ready(self):
            leave(NOT_READY)
        others = [threading.Thread(target=lane.run, name=f"daemun-{lane.number}") for lane in self.lanes[1:]]
        monitor = threading.Thread(target=self.monitor.run, name="daemun-monitor")
        served = self.lanes[0].run([*others, monitor])
        if served:
            for thread in others:
                thread.join()
        self.hooks.call("worker_stopping", self.info)
        # A normal end, with `atexit` and the application's own threads, but not for ever.
        start_new_thread(leave_after, (LEAVE, 0 if served else 1))
        sys.exit(0 if served else 1)

    def offer_stacks(self):
        """Has the stacks of all threads written when the signal comes, by a thread that waits for it.

        It needs its turn at the interpreter. Where a call in C keeps that, the signal behind it has faulthandler write
        them without one; never where Python code may run, for it would follow frames that are being freed, and crash.
        """
        if not self.stack_signal:
            return
        # For a thread that was there before, which the signal may reach too: then the main thread writes, in its turn.
        signal.signal(self.stack_signal, self.write_stacks)
        try:
            faulthandler.register(self.stack_signal + 1, file=self.stacks, all_threads=True)
            signal.pthread_sigmask(signal.SIG_BLOCK, [self.stack_signal])
        except (AttributeError, NotImplementedError, RuntimeError):
            signal.signal(self.stack_signal + 1, signal.SIG_IGN)  # PyPy
            return
        start_new_thread(self.write_stacks_when_asked, ())

    def write_stacks_when_asked(self):
        while True:
            signal.sigwait([self.stack_signal])
            self.write_stacks()

    def write_stacks(self, *_):
        parts = []
        for ident, frame_ in sys._current_frames().items():
            parts.append(f"Thread {ident:#x} (most recent call first):\n")
            parts.append(frames_of(frame_))
        write_to(self.stacks, "".join(parts))

    def tell_thread(self, number):
        """Says which of the threads in a stack this one is."""
        if self.stack_signal and number < self.threads:
            write_to(self.stacks, f"daemun-thread {os.getpid()} {number} {get_ident()}\n")

    def after_fork(self):
        """A child that the application forked must never speak on a lane."""
        self.forked = True
        for lane in [*self.lanes, self.monitor]:
            lane.socket.close()

    def end_forked_child(self):
        write_log(f"daemun: [{self.name} {os.getpid()}] ended a forked child that came back from the application\n")
        leave(0)


def frames_of(frame_):
    """A stack as faulthandler writes it: the most recent call first."""
    steps = [(step.f_code, line) for step, line in traceback.walk_stack(frame_)]
    return "".join(f'  File "{code.co_filename}", line {line} in {code.co_name}\n' for code, line in steps)


def join_barriers(number):
    """Has the front's memory barriers reach this process; False where the front waits a little instead.

    `Lane.start` has no barrier of its own: Python offers none.
    """
    try:
        import ctypes

        libc = ctypes.CDLL(None)
    except (ImportError, OSError):
        return False
    # The number is that of the front's build; an interpreter of another width has others.
    if not number or ctypes.sizeof(ctypes.c_void_p) != 8:
        return False
    register_global_expedited = 4
    return libc.syscall(ctypes.c_long(number), register_global_expedited, 0, 0) == 0


def leave_after(seconds, status):
    time.sleep(seconds)
    os._exit(status)


def call_in_forked_children(function):
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=function)
        return
    fork = os.fork

    def fork_and_call():
        pid = fork()
        if pid == 0:
            function()
        return pid

    os.fork = fork_and_call  # Python 3.6 has no hook.


def is_ready(worker):
    """Asks the application for its `ready` path, as a client would; says what is wrong with the answer."""
    environ = dict(zip(worker.environ[::2], worker.environ[1::2]))
    path, _, query = worker.ready.partition("?")
    host = allowed_host()
    environ.update(
        {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_URI": worker.ready,
            "SERVER_NAME": host,
            # A site that redirects to https is asked as a proxy would ask it.
            "SERVER_PORT": "443",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "HTTP_HOST": host,
            "HTTP_X_FORWARDED_PROTO": "https",
            "HTTP_USER_AGENT": "daemun",
            "wsgi.url_scheme": "https",
            "wsgi.early_hints": lambda _headers: None,
            "wsgi.input": io.BytesIO(),
        }
    )
    answer, body = [], []

    def start_response(status, _headers, exc_info=None):
        del exc_info
        answer[:] = [status]
        return body.append

    said = f"daemun: [{worker.name} {os.getpid()}] `ready` asked for {worker.ready} of {host}"
    try:
        result = worker.application(environ, start_response)
        try:
            body.extend(result)
        finally:
            if hasattr(result, "close"):
                result.close()
    except BaseException as error:  # noqa: BLE001
        write_log(f"{said}, and it failed\n{format_exception(error)}")
        return False
    status = answer[0] if answer else "no status"
    if "200" <= status[:3] < "400":
        return True
    text = b"".join(body)[:500].decode("utf-8", "replace")
    write_log(f"{said}, and the answer was {status}: {ascii(text)[1:-1]}\n")
    return False


def allowed_host():
    """A host that the application answers: Django refuses others."""
    settings = django_settings()
    for host in settings.ALLOWED_HOSTS if settings is not None else ():
        if host != "*":
            return "www" + host if host.startswith(".") else str(host)
    return "localhost"


# === A lane ===


class Disconnected(ConnectionError):
    """The front or the client is gone: nobody waits for this answer."""


class TimedOut(BaseException):
    """Raised in the midst of the application when its request has been answered 504 already (`timeout`)."""


class InvalidAnswer(Exception):
    """The application broke PEP 3333."""


class Lane:
    """One thread's connection to the front."""

    def __init__(self, worker, number):
        self.worker = worker
        self.application = worker.application
        self.environ = [*worker.environ, "wsgi.early_hints", self.early_hints]
        # Which thread this is, once it runs.
        self.ident = 0
        self.number = number
        self.page_start = LANE_PAGE * number
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.poller = select.poll()
        self.page = None
        self.shelf = None
        self.epoch = 0
        self.welcomed = False
        self.retired = False
        # The last time an answer was finished, how long the slowest of the recent ones took, and since when the
        # first of `out` waits.
        self.since = 0.0
        self.slowest = 0.0
        self.held_since = 0.0
        # When it was last seen in the midst of an answer whether its client has gone.
        self.looked = 0.0
        self.hold = HOLD
        self.rest = b""
        self.descriptors = collections.deque()
        self.pending = collections.deque()
        self.bodies = {}
        self.cancelled = set()
        self.current = None
        self.out = []
        # The request that the application is called for, and the one that is being interrupted: set before the thread's
        # exception is, and looked at after each request. -1 for none.
        self.called = self.interrupted = -1
        self.interrupting = threading.Lock()
        # Held while something is written: the monitor's thread writes too.
        self.writing = threading.Lock()

    def run(self, others=()):
        """Serves until told to retire, through any number of fronts. True if it was told, False if none is left."""
        self.ident = get_ident()
        self.worker.tell_thread(self.number)
        try:
            while self.connect():
                for thread in others:
                    thread.daemon = True
                    thread.start()
                others = ()
                try:
                    self.serve()
                    return True
                except Disconnected:
                    if self.worker.retired:
                        return True
            return self.worker.retired
        except Exception:  # noqa: BLE001
            # A fault of this file or of the front: better a new worker than one with a lane that is deaf.
            write_log(f"daemun: [{self.worker.name} {os.getpid()}] lane {self.number} failed\n{traceback.format_exc()}")
            os._exit(70)
        finally:
            self.socket.close()

    def connect(self):
        """Connects to the front, the one that is there or the one that takes its place."""
        deadline = time.monotonic() + RECONNECT
        pause = 0.01
        while True:
            if self.worker.forked:
                self.worker.end_forked_child()
            if self.worker.retired:
                return False
            self.forget()
            if self.may_connect():
                try:
                    self.socket.connect(self.worker.path)
                    self.socket.sendall(
                        frame(
                            HELLO,
                            0,
                            struct.pack("<HHHI", VERSION, self.number, self.worker.threads, self.worker.serial),
                        )
                    )
                    while not self.welcomed:
                        self.receive()
                    return True
                except OSError:
                    pass
            if self.number == 0 and time.monotonic() > deadline:
                return False
            time.sleep(pause)
            pause = min(2 * pause, 0.2)

    def may_connect(self):
        """Lane 0 goes first with a new front: the shared page comes to it."""
        if self.number == 0 or self.epoch != self.worker.epoch:
            return True
        first = self.worker.lanes[0]
        try:
            # Only this lane was closed, if the first one's connection still stands.
            return first.welcomed and first.socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def forget(self):
        """Drops everything that belonged to the last connection."""
        self.socket.close()
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.poller = select.poll()
        self.poller.register(self.socket, select.POLLIN)
        self.welcomed = False
        self.rest = b""
        for request in self.pending:
            if request[2] == IN_FILE:
                os.close(request[3])
        self.pending.clear()
        while self.descriptors:
            os.close(self.descriptors.popleft())
        self.bodies.clear()
        self.cancelled.clear()
        del self.out[:]

    def serve(self):
        pending = self.pending
        while True:
            try:
                while pending:
                    self.answer(*pending.popleft())
            except TimedOut:
                # It came just before or after the application was being called.
                self.settle_interrupt()
                continue
            if self.retired:
                self.flush()
                return
            self.receive()
            self.since = perf_counter()

    def receive(self, flags=RECEIVE_FLAGS):
        """Takes in all that the front has sent; waits for it unless `flags` are AT_ONCE."""
        if self.out:
            self.flush()
        try:
            if flags == RECEIVE_FLAGS:
                # A thread that sleeps in recvmsg is also woken when the front reads what it has sent; here it is not.
                self.poller.poll()
            data, ancillary, received, _ = self.socket.recvmsg(RECEIVE, ANCILLARY, flags)
        except BlockingIOError:
            return
        except OSError as error:
            raise Disconnected(str(error))
        if not data:
            raise Disconnected("the front closed the connection")
        if ancillary or received & socket.MSG_CTRUNC:
            self.take_descriptors(ancillary, received)
        if self.rest:
            data = self.rest + data
        self.rest = data[self.take_frames(data) :]

    def take_frames(self, data):
        """Takes in all whole frames; gives where the rest begins."""
        place, end = 0, len(data)
        while end - place >= 9:
            length, kind, request = HEADER.unpack_from(data, place)
            start, stop = place + 9, place + 9 + length
            if stop > end:
                if length > MAX_PAYLOAD:
                    raise RuntimeError(f"frame of {length} bytes from the front")
                break
            if kind == REQUEST:
                body_kind, size = REQUEST_START.unpack_from(data, start)
                self.hold = HOLD_CROWDED if body_kind & CROWDED else HOLD
                body_kind &= ~CROWDED
                middle = start + 5 + size
                body = data[middle:stop]
                if body_kind > INLINE:
                    body = self.prepare_body(request, body_kind, body)
                self.pending.append((request, data[start + 5 : middle], body_kind, body))
            else:
                self.dispatch(kind, request, data[start:stop])
            place = stop
        return place

    def take_descriptors(self, ancillary, flags):
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                size = len(data) - len(data) % 4
                self.descriptors.extend(struct.unpack(f"{size // 4}i", data[:size]))
        if flags & socket.MSG_CTRUNC:
            raise RuntimeError("descriptors from the front were cut off")

    def prepare_body(self, request, kind, payload):
        """A body that is not in the frame: its descriptor, its place, or where its pieces will be gathered."""
        if kind == IN_FILE:
            return self.descriptors.popleft()
        if kind == IN_ARENA:
            return struct.unpack("<II", payload)
        self.bodies[request] = body = Body(self, request)
        return body

    def dispatch(self, kind, request, payload):
        """Frames other than requests."""
        if kind == BODY:
            if request in self.bodies:
                self.bodies[request].add(payload)
        elif kind == CREDIT:
            if self.current is not None and self.current.request == request:
                self.current.credit += struct.unpack("<I", payload[:4])[0]
        elif kind == CANCEL:
            # It may have crossed with the end of the answer.
            current = self.current
            running = current is not None and current.request == request and not current.ended
            if running or any(waiting[0] == request for waiting in self.pending):
                self.cancelled.add(request)
        elif kind == RETIRE:
            self.retired = self.worker.retired = True
        elif kind == FLUSH:
            self.flush_for(self.worker.lanes[request])
        elif kind == INTERRUPT:
            self.worker.lanes[struct.unpack("<H", payload)[0]].interrupt(request)
        elif kind == WELCOME:
            self.welcome(payload)
        else:
            raise RuntimeError(f"frame of kind {kind} from the front")

    def welcome(self, payload):
        version, _, page, arena, shelves = struct.unpack("<HBIII", payload)
        if version != VERSION:
            raise RuntimeError(f"the front speaks version {version} of the protocol, not {VERSION}")
        worker = self.worker
        if self.number == 0:
            worker.page = map_descriptor(self.descriptors.popleft(), page, mmap.ACCESS_WRITE) if page else None
            worker.arena = map_descriptor(self.descriptors.popleft(), arena, mmap.ACCESS_READ) if arena else None
            worker.shelves = map_descriptor(self.descriptors.popleft(), shelves, mmap.ACCESS_WRITE) if shelves else None
            if page and page < LANE_PAGE * worker.threads:
                raise RuntimeError(f"a page of {page} bytes is too small for {worker.threads} threads")
            worker.epoch += 1
        self.page = worker.page
        # The monitor's lane has none.
        place, is_one = SHELF * self.number, self.page is not None and self.number < worker.threads
        self.shelf = memoryview(worker.shelves)[place : place + SHELF] if worker.shelves and is_one else None
        self.epoch = worker.epoch
        self.welcomed = True

    def answer(self, request, block, body_kind, body):
        """Calls the application once."""
        fields = iter(self.environ + block.decode("latin-1").split("\0"))
        environ = dict(zip(fields, fields))
        if not self.start(request):
            self.skip(request, body_kind, body)
            return
        environ["wsgi.input"] = source = io.BytesIO(body) if body_kind <= INLINE else self.open_body(body_kind, body)
        exchange = self.current = Exchange(self, request)
        self.called = request
        try:
            result = self.application(environ, exchange.start_response)
            if self.worker.forked:
                self.worker.end_forked_child()
            if type(result) is list or type(result) is tuple:
                exchange.send_list(result)
            else:
                exchange.send_iterable(result)
        except BaseException as error:  # noqa: BLE001  (SystemExit of an application ends its request only)
            self.fail(exchange, block, error)
        finally:
            if body_kind > INLINE:
                source.close()
                self.bodies.pop(request, None)
            if self.cancelled:
                self.cancelled.discard(request)
            self.called = -1
        if self.interrupted >= 0:
            self.settle_interrupt()
        now = perf_counter()
        spent = now - self.since
        self.since = now
        if spent > self.slowest:
            self.slowest = spent
        else:
            self.slowest *= 0.9
        if self.out:
            # Held back only while the next call can be expected to be over before anybody notices.
            if len(self.out) == 1:
                self.held_since = now
            # In a crowd one slow answer among many does not end that; the front asks for them if the next is another.
            expected = spent if self.hold > HOLD else self.slowest
            if now - self.held_since + expected >= self.hold:
                self.flush()

    def start(self, request):
        """Says that the application is being called; False if the request was taken back first.

        The store may still be on its way out of the processor when the load is done. The front sees to it: it stores
        the other, has a barrier reach this process (`join_barriers`), and looks for this one only then.
        """
        page = self.page
        if page is None:
            self.send(frame(STARTED, request, b""))
        else:
            place = self.page_start + (request & 63)
            page[place] = 1
            if page[place + SLOTS]:
                return False
        return not self.cancelled or request not in self.cancelled

    def skip(self, request, body_kind, body):
        if body_kind == IN_FILE:
            os.close(body)
        self.bodies.pop(request, None)
        self.cancelled.discard(request)
        self.out.append(frame(SKIPPED, request, b""))

    def interrupt(self, request):
        """Raises `TimedOut` in this lane's thread if it is still at this request. The monitor's thread calls this.

        Whoever comes first, no other request is hit: here `interrupted` is stored before `called` is read, there
        `called` before `interrupted`. So either this sees the end, or the lane sees that it has to wait and clear what
        was set.
        """
        with self.interrupting:
            self.interrupted = request
            if self.called == request:
                raise_in_thread(self.ident, TimedOut)

    def settle_interrupt(self):
        with self.interrupting:
            raise_in_thread(self.ident, None)
            self.called = self.interrupted = -1
        if self.current is not None and not self.current.ended:
            self.current.end(FAILED)

    def early_hints(self, headers):
        """`wsgi.early_hints`: sends a 103 with these headers (pairs, or a dict) ahead of the answer (RFC 8297)."""
        request, exchange = self.called, self.current
        # Kept for later or called from another thread it could reach the client of another request.
        if get_ident() != self.ident or request < 0 or (exchange is not None and exchange.started):
            return
        head = encode_head("200 OK", headers.items() if hasattr(headers, "items") else headers)
        self.send(frame(INFORM, request, b"103 Early Hints" + head[len("200 OK") :]))

    def open_body(self, kind, body):
        if kind == IN_FILE:
            return os.fdopen(body, "rb")
        if kind == IN_ARENA:
            offset, length = body
            return io.BytesIO(self.worker.arena[offset : offset + length])
        return io.BufferedReader(body)

    def fail(self, exchange, block, error):
        """The application raised, or the answer cannot be sent."""
        if self.worker.forked:
            self.worker.end_forked_child()
        gone = isinstance(error, OSError) and exchange.is_cancelled()
        if isinstance(error, Disconnected) and not gone:
            raise error
        if not gone:
            log_error(self.worker.name, block, error)
        if not exchange.ended:
            ending = CUT if gone else INVALID if isinstance(error, InvalidAnswer) else FAILED
            exchange.end(ending)

    def send(self, data):
        """Writes now, behind what was held back."""
        if self.out:
            self.out.append(data)
            self.flush()
        else:
            try:
                with self.writing:
                    self.socket.sendall(data)
            except OSError as error:
                raise Disconnected(str(error))

    def lay(self, piece):
        """Copies a piece to where the front can send it from; gives its place, or -1 where there is no room."""
        shelf = self.shelf
        if shelf is None:
            return -1
        first, count = self.page_start + 2 * SLOTS, -(-len(piece) // SHELF_BLOCK)
        place = self.page.find(FREE[count], first, first + SHELF_BLOCKS)
        if place < 0:
            return -1
        self.page[place : place + count] = TAKEN[count]
        place = (place - first) * SHELF_BLOCK
        shelf[place : place + len(piece)] = piece
        return place

    def send_laid(self, request, piece):
        """Lays a piece on the shelf and says so; False where it has to go another way."""
        place = self.lay(piece)
        if place >= 0:
            self.send(LAID_FRAME.pack(8, LAID, request, place, len(piece)))
        return place >= 0

    def flush_for(self, lane):
        try:
            lane.flush()
        except Disconnected:
            pass  # Its own thread will notice.

    def flush(self):
        """Writes what is held back. The monitor calls it too, while this lane's own thread may add to it."""
        with self.writing:
            connection, count = self.socket, len(self.out)
            data = b"".join(self.out[:count])
            try:
                connection.sendall(data)
            except OSError as error:
                raise Disconnected(str(error))
            # Only now: what is said twice, because an interrupt came in between, is dropped by the front.
            del self.out[:count]


def raise_in_thread(ident, kind):
    """Raises an exception in another thread at its next step in Python, or takes back one that is still to come."""
    try:
        import ctypes

        set_exception = ctypes.pythonapi.PyThreadState_SetAsyncExc
    except (AttributeError, ImportError):
        return  # PyPy, or a Python without ctypes: the worker is replaced.
    set_exception(ctypes.c_ulong(ident), None if kind is None else ctypes.py_object(kind))


def accelerated_lane(path):
    """`Lane` with its hot path in machine code where the module at `path` can be loaded; else plain, and why.

    The module is for CPython's usual build: its functions look into objects, which are made otherwise where there is no
    lock around the interpreter or where every reference is traced.
    """
    if not path:
        return Lane, "not asked for"
    if sys.implementation.name != "cpython" or sys.version_info < (3, 8):
        return Lane, "not for this interpreter"
    if hasattr(sys, "getobjects") or "t" in sys.abiflags:
        return Lane, "not for this build of the interpreter"
    try:
        loader = importlib.machinery.ExtensionFileLoader("daemun_accelerator", path)
        module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
        loader.exec_module(module)
    except (ImportError, OSError) as error:
        return Lane, f"cannot be loaded: {error}"
    module.bind((Lane.answer, Lane.receive, Lane.flush, Exchange, FileWrapper, io.BytesIO, itertools.chain))
    return type("AcceleratedLane", (module.Lane, Lane), {}), None


def frame(kind, request, payload):
    return HEADER.pack(len(payload), kind, request) + payload


def map_descriptor(descriptor, size, access):
    try:
        return mmap.mmap(descriptor, size, access=access)
    finally:
        os.close(descriptor)


# === One request ===


class Exchange:
    """The answer to one request, on its way from the application into frames."""

    # Until something else is stored in the instance: each store there would cost every request.
    head = None
    started = False
    ended = False
    credit = INITIAL_CREDIT

    def __init__(self, lane, request):
        self.lane = lane
        self.request = request

    def start_response(self, status, headers, exc_info=None):
        if exc_info is not None:
            try:
                if self.started:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # Or the traceback would keep its own frame alive.
        elif self.head is not None:
            raise InvalidAnswer("start_response was called twice, the second time without exc_info")
        self.head = encode_head(status, headers)
        return self.write

    def write(self, data):
        """The callable that `start_response` returns."""
        if not isinstance(data, bytes):
            raise InvalidAnswer(f"write() takes bytes, not {type(data).__name__}")
        if self.ended:
            raise InvalidAnswer("write() was called after the end of the answer")
        if data:
            self.send_piece(data)

    def send_list(self, result):
        """A list or tuple: the whole answer is known."""
        try:
            body = b"".join(result)
        except TypeError as error:
            raise InvalidAnswer(f"the application's list must hold bytes: {error}")
        head = self.head
        if head is not None and not self.started and len(body) <= PIECE:
            size = len(head)
            spent = int((perf_counter() - self.lane.since) * 1e6) & 0xFFFFFFFF
            self.lane.out.append(
                ANSWER_START.pack(8 + size + len(body), ANSWER, self.request, spent, size) + head + body
            )
            self.started = self.ended = True
            return
        if not self.started and self.head is not None and declared_length(self.head) is None:
            self.head += b"\0Content-Length\0%d" % len(body)
        if body:
            self.send_piece(body)
        self.end(CLEAN)

    def send_iterable(self, result):
        """Anything else: a piece as soon as it is there."""
        try:
            if type(result) is FileWrapper and self.send_file(result):
                return
            self.send_pieces(result)
        finally:
            close = getattr(result, "close", None)
            if close is not None:
                close()

    def send_pieces(self, pieces):
        for piece in pieces:
            if not isinstance(piece, bytes):
                raise InvalidAnswer(f"the application must yield bytes, not {type(piece).__name__}")
            if piece and not self.ended:
                self.send_first(piece) if not self.started else self.send_piece(piece)
        if self.worker_forked():
            self.lane.worker.end_forked_child()
        if not self.ended:
            if self.head is not None and not self.started:
                self.send_list(())
            else:
                self.end(CLEAN)

    def worker_forked(self):
        return self.lane.worker.forked

    def send_first(self, piece):
        """The first piece. If the answer declares its length and this is all of it, it is a whole answer after all.

        Most frameworks return an iterable of one piece: this saves them a second write and the front a wake-up.
        """
        if self.head is not None and len(piece) <= PIECE and declared_length(self.head) == len(piece):
            self.send_list((piece,))
            # What the iterable does behind it may take long; with nothing to come it has nothing to wait for.
            if not self.lane.pending or self.lane.slowest >= HOLD >= self.lane.hold:
                self.lane.flush()
        else:
            self.send_piece(piece)

    def send_piece(self, piece):
        """Sends part of the body, after the head if that is still to go, as far as the front has given credit."""
        size = len(piece)
        if self.started and WORTH_LAYING <= size <= PIECE and size <= self.credit:
            if self.lane.send_laid(self.request, piece):
                self.credit -= size
                self.look()
                return
        parts = self.take_head()
        rest = memoryview(piece)
        while True:
            while rest and self.credit > 0:
                size = min(len(rest), PIECE, self.credit)
                place = self.lane.lay(rest[:size]) if size >= WORTH_LAYING else -1
                if place >= 0:
                    parts.append(LAID_FRAME.pack(8, LAID, self.request, place, size))
                else:
                    parts.append(HEADER.pack(size, DATA, self.request))
                    parts.append(rest[:size])
                rest = rest[size:]
                self.credit -= size
            if parts:
                self.lane.send(b"".join(parts))
            if not rest:
                self.look()
                return
            self.lane.receive()
            if self.is_cancelled():
                raise Disconnected("the client is gone")
            parts = []

    def look(self):
        """Sees whether the client has gone; in a quick succession of pieces not after each of them."""
        lane, now = self.lane, perf_counter()
        if now - lane.looked >= LOOK:
            lane.looked = now
            lane.receive(AT_ONCE)
        if self.is_cancelled():
            raise Disconnected("the client is gone")

    def send_file(self, wrapper):
        """Hands a regular file to the front as a descriptor; False where it has to be read instead."""
        if self.started or self.head is None:
            return False
        found = regular_file(wrapper.filelike)
        if found is None:
            return False
        descriptor, offset, length = found
        declared = declared_length(self.head)
        if declared is not None:
            length = min(length, declared)
        parts = self.take_head()
        parts.append(frame(FILE, self.request, struct.pack("<QQ", offset, length)))
        parts.append(frame(DONE, self.request, CLEAN))
        if self.lane.out:
            self.lane.flush()
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack("i", descriptor))]
        data = b"".join(parts)
        try:
            with self.lane.writing:
                sent = self.lane.socket.sendmsg([data], rights)
                self.lane.socket.sendall(data[sent:])
        except OSError as error:
            raise Disconnected(str(error))
        self.ended = True
        return True

    def take_head(self):
        if self.started:
            return []
        if self.head is None:
            raise InvalidAnswer("the body began before start_response was called")
        self.started = True
        spent = int((perf_counter() - self.lane.since) * 1e6) & 0xFFFFFFFF
        return [HEAD_START.pack(4 + len(self.head), HEAD, self.request, spent) + self.head]

    def end(self, ending):
        if ending == CLEAN and not self.started:
            self.lane.out.extend(self.take_head())
        self.lane.send(frame(DONE, self.request, ending))
        self.ended = True

    def is_cancelled(self):
        return self.request in self.lane.cancelled


# === What an application sees ===


class Body(io.RawIOBase):
    """A request body that is still on its way; `io.BufferedReader` makes `wsgi.input` of it."""

    def __init__(self, lane, request):
        io.RawIOBase.__init__(self)
        self.lane = lane
        self.request = request
        self.pieces = collections.deque()
        self.ended = False
        # What may still come, and what was taken since the front was last told.
        self.asked = False
        self.taken = 0

    def add(self, piece):
        if piece:
            self.pieces.append(piece)
        else:
            self.ended = True

    def readable(self):
        return True

    def readinto(self, buffer):
        while not self.pieces:
            if self.ended:
                return 0
            if self.request in self.lane.cancelled:
                raise Disconnected("the client is gone; its request is not complete")
            if not self.asked:
                # Nothing is sent before: a body that nobody reads stays with its client.
                self.asked = True
                self.lane.send(frame(CREDIT, self.request, struct.pack("<I", INITIAL_CREDIT)))
            self.lane.receive()
        piece = self.pieces.popleft()
        size = min(len(piece), len(buffer))
        buffer[:size] = piece[:size]
        if size < len(piece):
            self.pieces.appendleft(piece[size:])
        self.taken += size
        if self.taken >= PIECE:
            self.lane.send(frame(CREDIT, self.request, struct.pack("<I", self.taken)))
            self.taken = 0
        return size


class FileWrapper:
    """`wsgi.file_wrapper`: returned as it is, the front sends the file itself."""

    def __init__(self, filelike, blksize=8192):
        self.filelike = filelike
        self.blksize = blksize
        if hasattr(filelike, "close"):
            self.close = filelike.close

    def __iter__(self):
        return self

    def __next__(self):
        data = self.filelike.read(self.blksize)
        if not data:
            raise StopIteration
        return data


def regular_file(filelike):
    """Descriptor, position and remaining length of a plain file on a disk.

    Only the types that `open` returns: others that have a descriptor may change what they read from it (gzip does).
    """
    if type(filelike) in (io.BufferedReader, io.BufferedRandom):
        raw = filelike.raw
    else:
        raw = filelike
    if type(raw) is not io.FileIO or not raw.readable():
        return None
    if type(filelike) is io.BufferedRandom:
        filelike.flush()
    status = os.fstat(raw.fileno())
    if not stat.S_ISREG(status.st_mode):
        return None
    offset = filelike.tell()
    return raw.fileno(), offset, max(0, status.st_size - offset)


class Errors:
    """`wsgi.errors`: standard error, whatever the application has made of it."""

    def write(self, text):
        sys.stderr.write(text)
        sys.stderr.flush()

    def writelines(self, lines):
        self.write("".join(lines))

    def flush(self):
        sys.stderr.flush()


# === Hooks ===


class WorkerInfo:
    """What a hook is told of its worker."""

    def __init__(self, orders, serial):
        self.app = orders["name"]
        self.serial = serial
        self.threads = orders["threads"]

    @property
    def pid(self):
        return os.getpid()


class Hooks:
    """The functions of the file that `hooks` names. What goes wrong in one is logged and harms nobody."""

    NAMES = ("before_fork", "worker_started", "worker_stopping", "request_started", "request_finished")

    def __init__(self, path):
        self.functions = {}
        if path is None:
            return
        what = f"import of the hooks in {path} failed"
        try:
            spec = importlib.util.spec_from_file_location("daemun_hooks", path)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        except BaseException as error:  # noqa: BLE001
            raise LoadError(what, f"{type(error).__name__}: {error}", format_exception(error))
        found = {name: getattr(module, name) for name in self.NAMES if callable(getattr(module, name, None))}
        if not found:
            raise LoadError(what, "it defines none of " + ", ".join(self.NAMES))
        self.functions = found

    def has_any(self, *names):
        return any(name in self.functions for name in names)

    def call(self, name, *arguments):
        function = self.functions.get(name)
        if function is None:
            return
        try:
            function(*arguments)
        except Exception as error:  # noqa: BLE001
            write_log(f"daemun: [{arguments[0].app} {os.getpid()}] the hook {name} failed\n{format_exception(error)}")


class Hooked:
    """The application between `request_started` and `request_finished`."""

    def __init__(self, application, hooks, info):
        self.application = application
        self.hooks = hooks
        self.info = info

    def __call__(self, environ, start_response):
        start, status = perf_counter(), []

        def remember(line, headers, exc_info=None):
            status[:] = [line]
            return start_response(line, headers, exc_info)

        def finish():
            seconds = perf_counter() - start
            self.hooks.call("request_finished", self.info, environ, status[0] if status else None, seconds)

        self.hooks.call("request_started", self.info, environ)
        try:
            result = self.application(environ, remember)
        except BaseException:
            finish()
            raise
        if type(result) is list or type(result) is tuple:
            finish()
            return result
        if type(result) is FileWrapper:
            # Left as it is, so that the front goes on sending the file itself.
            close = getattr(result, "close", None)
            result.close = lambda: close_and_finish(close, finish)
            return result
        return Finishing(result, finish)


class Finishing:
    """An iterable that says when it is closed."""

    def __init__(self, result, finish):
        self.result = result
        self.finish = finish

    def __iter__(self):
        return iter(self.result)

    def close(self):
        close_and_finish(getattr(self.result, "close", None), self.finish)


def close_and_finish(close, finish):
    try:
        if close is not None:
            close()
    finally:
        finish()


# === Heads ===

TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
STATUS = re.compile(r"[2-9][0-9][0-9] ")
DECLARED_LENGTH = re.compile(rb"\0content-length\0[ \t]*([0-9]+)[ \t]*(?:\0|\Z)", re.IGNORECASE)
HOP_BY_HOP = frozenset(
    ["connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding"]
    + ["upgrade"]
)
# The tab is a control character that may stand in a head (RFC 9110, section 5.5).
CONTROL = re.compile(r"[\0-\x08\x0a-\x1f\x7f]")

# What was found to be in order. Applications use a few dozen; one that makes up names does not fill memory.
known_names: set = set()
known_statuses: set = set()
MAX_KNOWN = 1000


def encode_head(status, headers):
    """Status and headers as the front wants them, after checking that they are what PEP 3333 asks for."""
    if status not in known_statuses:
        check_status(status)
    parts = [status]
    try:
        for name, value in headers:
            if name not in known_names:
                check_name(name)
            parts.append(name)
            parts.append(value)
        # The usual case first; what is not printable may still be a tab or a letter of another language.
        if not "".join(parts).isprintable():
            for part in parts:
                check_text(part)
        return "\0".join(parts).encode("latin-1")
    except (TypeError, ValueError) as error:
        raise InvalidAnswer(f"the headers must be a list of pairs of latin-1 str: {error}")


def check_status(status):
    if not isinstance(status, str) or not STATUS.match(status):
        raise InvalidAnswer(f"the status must be a str like '200 OK', not {status!r}")
    if len(known_statuses) < MAX_KNOWN:
        known_statuses.add(status)


def check_name(name):
    if not isinstance(name, str) or not TOKEN.match(name):
        raise InvalidAnswer(f"not a header name: {name!r}")
    if name.lower() in HOP_BY_HOP:
        raise InvalidAnswer(f"{name} concerns the connection, which is the server's alone")
    if len(known_names) < MAX_KNOWN:
        known_names.add(name)


def check_text(text):
    if CONTROL.search(text):
        raise InvalidAnswer(f"control characters in status or header: {text!r}")


def declared_length(head):
    found = DECLARED_LENGTH.search(head)
    return int(found.group(1)) if found else None


# === The log ===


def watch_errors(name):
    """Has errors logged that Django and Flask turn into a 500 of their own, where the application logs them nowhere."""

    def report(logger, environ):
        error = sys.exc_info()[1]
        if error is not None and not is_logged(logger):
            log_exception(name, environ, error)
            try:
                error.daemun_has_logged = True
            except AttributeError:
                pass  # It has no room for it, and is logged twice if it goes on to us.

    def on_django(sender=None, request=None, **_):  # noqa: ARG001
        report("django.request", getattr(request, "META", None) or {})

    def on_flask(sender=None, **_):
        from flask import has_request_context, request

        report(getattr(sender, "logger", None), request.environ if has_request_context() else {})

    for module, receiver in (("django.core.signals", on_django), ("flask.signals", on_flask)):
        signals = sys.modules.get(module)
        if signals is not None:
            try:
                signals.got_request_exception.connect(receiver, weak=False)
            except (AttributeError, RuntimeError):
                pass  # Flask before 2.3 without blinker has no signals.


def is_logged(logger):
    """Whether any handler of the application's writes down an error in this logger, given or named."""
    import logging

    logger = logging.getLogger(logger) if isinstance(logger, str) or logger is None else logger
    record = logging.LogRecord(logger.name, logging.ERROR, "", 0, "", (), None)
    if getattr(logger, "disabled", False) or not logger.isEnabledFor(logging.ERROR):
        return False
    none = True
    while logger is not None:
        for handler in logger.handlers:
            none = False
            # Mail is no log; Django's own configuration sends it to nobody.
            writes = type(handler).__name__ not in ("AdminEmailHandler", "NullHandler")
            if writes and handler.level <= logging.ERROR and handler.filter(record):
                return True
        logger = logger.parent if logger.propagate else None
    return none  # Without any handler the logging module writes to standard error.


def log_error(name, block, error):
    """Logs what the application raised, unless its framework has had it logged already."""
    if not getattr(error, "daemun_has_logged", False):
        fields = iter(block.decode("latin-1").split("\0"))
        log_exception(name, dict(zip(fields, fields)), error)


def log_exception(name, environ, error):
    """One write, so that lines of other processes cannot come between."""
    target = environ.get("REQUEST_URI")
    if not target:
        query = environ.get("QUERY_STRING")
        target = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "") + ("?" + query if query else "")
    # What a client sent must not make lines of its own.
    line = ascii(environ.get("REQUEST_METHOD", "-") + " " + target)[1:-1]
    identity = environ.get("HTTP_X_REQUEST_ID")
    if identity:
        line += " (request " + ascii(identity)[1:-1] + ")"
    write_log(f"daemun: [{name} {os.getpid()}] error in {line}\n{format_exception(error)}")


def format_exception(error):
    """The traceback without the frames of this file and of the import system."""
    summary = traceback.TracebackException(type(error), error, error.__traceback__)
    seen = set()
    todo = [summary]
    while todo:
        part = todo.pop()
        if part is None or id(part) in seen:
            continue
        seen.add(id(part))
        part.stack[:] = [
            entry
            for entry in part.stack
            if entry.filename not in OWN_FILES and not entry.filename.startswith("<frozen imp")
        ]
        todo += [part.__cause__, part.__context__]
        todo += getattr(part, "exceptions", None) or []
    return "".join(summary.format())


def write_log(text):
    write_to(2, text)


def write_to(descriptor, text):
    data = text.encode("utf-8", "backslashreplace")
    try:
        while data:
            data = data[os.write(descriptor, data) :]
    except OSError:
        pass  # Nobody is left to tell.


if __name__ == "__main__":
    main()
