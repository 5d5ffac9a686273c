"""Imports modules once, then forks for each request and runs a CGI script as the main program.

Started as ``python -c THIS CPU_SECONDS MODULE…`` with a packet socket as descriptor 0. Each packet asks for one
program: ``{u8 kind, u64 id, u32 profile, u8 reuse, u16 arguments, u16 environment}``, then strings that end with NUL:
program, working folder, arguments, environment. Its standard input, output and error come along. The answers are
``{u8 1, u64 id, i32 pid}`` once it is forked and ``{u8 2, u64 id, i32 exit code or minus signal}`` once it has ended.
"""

import array
import atexit
import errno
import gc
import os
import select
import signal
import socket
import struct
import sys
import traceback

HEAD = struct.Struct("<BQIBHH")
WORD = struct.Struct("<BQi")
FORKED, ENDED = 1, 2
PACKET = 192 * 1024
COMPILED = 256

compiled = {}


def warm(modules):
    """Import what scripts will want; one that is missing is told, and each script says so itself."""
    for name in modules:
        try:
            __import__(name)
        except Exception:
            sys.stderr.write("daemun: cgi: cannot import {} ahead of time:\n{}".format(name, traceback.format_exc()))
    sys.stderr.flush()


def code_of(path):
    """Compile a script once for each of its versions; one that cannot be compiled says so in its own process."""
    try:
        found = os.stat(path)
        version = (found.st_ino, found.st_dev, found.st_mtime_ns, found.st_size)
        known = compiled.get(path)
        if known is None or known[0] != version:
            with open(path, "rb") as file:
                known = (version, compile(file.read(), path, "exec", dont_inherit=True))
            if len(compiled) >= COMPILED:
                compiled.clear()
            compiled[path] = known
        return known[1]
    except (OSError, SyntaxError, ValueError):
        return None


def run(code, directory, arguments, environment, descriptors):
    """Be the program: everything that a fresh interpreter would have found, then the script, then the end."""
    os.setpgid(0, 0)
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)
    os.closerange(3, 1024 if len(descriptors) < 3 else max(descriptors) + 8)
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    cpu = int(sys.argv[1])
    if cpu:
        import resource

        resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu))
    kept = {name: os.environ[name] for name in ("LC_CTYPE",) if name in os.environ}
    os.environ.clear()
    os.environ.update(kept)
    for pair in environment:
        name, _, value = os.fsdecode(pair).partition("=")
        os.environ[name] = value
    os.chdir(directory)
    path = os.fsdecode(arguments[0])
    sys.argv = [os.fsdecode(argument) for argument in arguments]
    sys.path[0] = os.path.dirname(path)
    if code is None:
        with open(path, "rb") as file:
            code = compile(file.read(), path, "exec", dont_inherit=True)
    main = type(sys)("__main__")
    main.__dict__.update(__file__=path, __cached__=None, __builtins__=__builtins__)
    sys.modules["__main__"] = main
    gc.enable()
    exec(code, main.__dict__)


def exit_code(error):
    """Do with ``SystemExit`` what the interpreter does."""
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    sys.stderr.write("{}\n".format(error.code))
    return 1


def child(code, directory, arguments, environment, descriptors):
    """Run the program and end the process as an interpreter would: threads, exit functions, flushes, code."""
    status = 0
    try:
        run(code, directory, arguments, environment, descriptors)
    except SystemExit as error:
        status = exit_code(error)
    except BaseException as error:
        status = 1
        # Without our own frames.
        here = error.__traceback__
        while here is not None and here.tb_frame.f_code.co_filename == "<string>":
            here = here.tb_next
        traceback.print_exception(type(error), error, here)
    try:
        threading = sys.modules.get("threading")
        if threading is not None:
            threading._shutdown()
        atexit._run_exitfuncs()
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:
                status = status or 120
        os._exit(status)


def fork(door, packet, descriptors):
    """Fork a program for one packet, and say so."""
    _, number, _, _, argument_count, environment_count = HEAD.unpack_from(packet)
    strings = packet[HEAD.size :].split(b"\0")
    directory, rest = strings[1], strings[2:]
    # The interpreter's own name comes first, as in every start; the script is what follows it.
    arguments = rest[1:argument_count]
    environment = rest[argument_count : argument_count + environment_count]
    code = code_of(os.fsdecode(arguments[0]))
    pid = os.fork()
    if pid == 0:
        door.detach()
        child(code, directory, arguments, environment, descriptors)
    for descriptor in descriptors:
        os.close(descriptor)
    door.send(WORD.pack(FORKED, number, pid))
    return pid, number


def reap(door, running):
    """Tell of each program that has ended."""
    while running:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        number = running.pop(pid, None)
        if number is not None:
            ended = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
            door.send(WORD.pack(ENDED, number, ended))


def receive(door):
    """Take a packet and its descriptors; an empty one is the end."""
    space = socket.CMSG_SPACE(3 * array.array("i").itemsize)
    packet, ancillary, _, _ = door.recvmsg(PACKET, space)
    descriptors = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
    return packet, list(descriptors)


def serve():
    """Fork until the launcher has gone and the last program has ended."""
    # Away from 0 to 2, which programs get.
    door = socket.socket(fileno=os.dup(0))
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    warm(sys.argv[2:])
    woken, waker = os.pipe()
    for descriptor in (woken, waker):
        os.set_blocking(descriptor, False)
    signal.set_wakeup_fd(waker, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    gc.collect()
    gc.freeze()
    gc.disable()
    running = {}
    is_open = True
    while is_open or running:
        ready, _, _ = select.select([woken] + ([door] if is_open else []), [], [])
        if woken in ready:
            try:
                os.read(woken, 4096)
            except OSError as error:
                if error.errno != errno.EAGAIN:
                    raise
            reap(door, running)
        if door in ready:
            packet, descriptors = receive(door)
            if not packet:
                is_open = False
            elif len(descriptors) == 3:
                pid, number = fork(door, packet, descriptors)
                running[pid] = number


if __name__ == "__main__":
    try:
        serve()
    except (BrokenPipeError, KeyboardInterrupt):
        pass
