"""The lives of zygote, workers and lanes."""

import os
import signal
import socket
import threading

import support

# The system call's number on this machine.
MEMBARRIER = {"x86_64": 324, "aarch64": 283, "riscv64": 283, "ppc64le": 365, "s390x": 356}[os.uname().machine]

HELLO = "def application(e, s):\n    s('200 OK', []); return [b'hello']\n"


def test_three_workers_are_forked_and_served(start):
    supervisor = start("import os\ndef application(e, s):\n    s('200 OK', []); return [str(os.getpid()).encode()]")
    ready = supervisor.ready()
    assert ready["threads"] == []
    assert ready["settings_module"] is None
    assert ready["django"] is None
    assert ready["import_seconds"] >= 0
    pids = [supervisor.fork(serial) for serial in (1, 2, 3)]
    lanes = [supervisor.front.accept() for _ in pids]
    assert sorted(lane.serial for lane in lanes) == [1, 2, 3]
    assert sorted(int(lane.ask().body) for lane in lanes) == sorted(pids)


def test_a_worker_is_not_the_zygotes_child(start):
    supervisor = start(HELLO)
    supervisor.ready()
    pid = supervisor.fork()
    supervisor.front.accept()
    with open(f"/proc/{pid}/status") as file:
        parents = [line.split()[1] for line in file if line.startswith("PPid:")]
    assert parents != [str(supervisor.process.pid)]


def test_everything_dies_with_the_supervisor(start):
    """Three workers and the zygote, one of them busy in pure Python, one asleep."""
    supervisor = start(
        """
        import time
        def application(e, s):
            if e['PATH_INFO'] == '/busy':
                while True: pass
            time.sleep(1000)
        """
    )
    supervisor.ready()
    pids = [supervisor.fork(serial) for serial in (1, 2, 3)]
    lanes = [supervisor.front.accept() for _ in pids]
    lanes[0].request("/busy")
    lanes[1].request("/sleep")
    support.wait_until(lambda: any(lanes[0].page[:]), "the call")
    supervisor.cut_lifeline()
    for pid in pids:
        support.wait_until(lambda pid=pid: not support.alive(pid), "the worker's end")
    assert supervisor.process.wait(support.DEADLINE) == -signal.SIGKILL


def test_a_lifeline_that_cannot_be_opened_again_still_holds(start):
    """A socket cannot, as little as the pipe of another user; a thread watches it instead."""
    ends = [end.detach() for end in socket.socketpair()]
    supervisor = start(HELLO, lifeline=ends)
    assert supervisor.ready()["threads"] == []
    pid = supervisor.fork()
    assert supervisor.front.accept().ask().body == b"hello"
    supervisor.cut_lifeline()
    support.wait_until(lambda: not support.alive(pid), "the worker's end")
    assert supervisor.process.wait(support.DEADLINE) == -signal.SIGKILL


def test_workers_outlive_a_killed_zygote(start):
    supervisor = start(HELLO)
    supervisor.ready()
    supervisor.fork()
    lane = supervisor.front.accept()
    supervisor.process.kill()
    supervisor.process.wait()
    assert lane.ask().body == b"hello"


def test_stop_and_the_end_of_the_control_channel_end_the_zygote(start):
    supervisor = start(HELLO)
    supervisor.ready()
    supervisor.tell({"stop": True})
    assert supervisor.process.wait(support.DEADLINE) == 0


def test_signals_to_the_whole_group_change_nothing(start):
    supervisor = start(HELLO)
    supervisor.ready()
    pid = supervisor.fork()
    lane = supervisor.front.accept()
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(pid, number)
        supervisor.process.send_signal(number)
        assert lane.ask().body == b"hello"
    supervisor.fork(2)
    assert supervisor.front.accept().ask().body == b"hello"


def test_programs_that_the_application_starts_can_be_interrupted(serve):
    lane = serve(
        """
        import subprocess, sys
        code = "import signal; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
        def application(e, s):
            s('200 OK', []); return [subprocess.check_output([sys.executable, '-c', code])]
        """
    )
    assert lane.ask().body == b"True\n"


def test_each_thread_has_a_lane(serve):
    lane = serve(
        """
        import threading
        def application(e, s):
            s('200 OK', []); return [threading.current_thread().name.encode()]
        """,
        threads=3,
    )
    names = [lane.lanes[number].ask().body for number in range(3)]
    assert names == [b"MainThread", b"daemun-1", b"daemun-2"]


def test_lanes_answer_at_the_same_time(serve):
    lane = serve(
        """
        import threading
        meeting = threading.Barrier(2, timeout=10)
        def application(e, s):
            meeting.wait()
            s('200 OK', []); return [b'met']
        """,
        threads=2,
    )
    requests = [(lane.lanes[number], lane.lanes[number].request()) for number in range(2)]
    assert [one.answer(request).body for one, request in requests] == [b"met", b"met"]


def test_workers_find_a_front_that_was_replaced(serve):
    lane = serve(HELLO, threads=2)
    front = lane.supervisor.front
    for _ in range(3):
        front.die()
        front.open()
        again = [front.accept() for _ in range(2)]
        assert [one.thread for one in again] == [0, 1]
        assert [one.ask().body for one in again] == [b"hello", b"hello"]
        assert not any(front.page[:])


def test_one_lane_that_was_closed_comes_back_alone(serve):
    lane = serve(HELLO, threads=2)
    front = lane.supervisor.front
    lane.lanes[1].connection.close()
    assert front.accept().thread == 1
    assert front.lanes[1].ask().body == b"hello"
    assert lane.ask().body == b"hello"


def test_an_answer_for_a_front_that_is_gone_is_dropped(serve, tmp_path):
    lane = serve(
        """
        import os, time
        def application(e, s):
            while e['PATH_INFO'] == '/wait' and not os.path.exists('go'): time.sleep(.01)
            s('200 OK', []); return [e['PATH_INFO'].encode()]
        """
    )
    front = lane.supervisor.front
    lane.request("/wait")
    lane.request("/queued")
    support.wait_until(lambda: any(lane.page[:]), "the call")
    front.die()
    front.open()
    (tmp_path / "go").touch()
    assert front.accept().ask("/new").body == b"/new"


def test_a_retired_worker_finishes_and_leaves_as_python_does(serve):
    lane = serve("import atexit\natexit.register(print, 'AT EXIT')\n" + HELLO, threads=2)
    supervisor = lane.supervisor
    block = support.environ()
    lane.send(support.request_frame(65, block) + support.request_frame(66, block) + support.frame(support.RETIRE, 0))
    assert lane.answer(65).body == lane.answer(66).body == b"hello"
    assert lane.lanes[1].ask().body == b"hello"
    assert support.alive(supervisor.workers[0])
    lane.lanes[1].send(support.frame(support.RETIRE, 0))
    support.wait_until(lambda: not support.alive(supervisor.workers[0]), "the worker's end")
    supervisor.wait_for_log("AT EXIT")
    assert "Traceback" not in supervisor.log()


def test_a_thread_of_the_application_cannot_hold_a_retired_worker(serve):
    lane = serve(
        """
        import threading
        def application(e, s):
            threading.Thread(target=threading.Event().wait).start()
            s('200 OK', []); return []
        """
    )
    lane.ask()
    lane.send(support.frame(support.RETIRE, 0))
    support.wait_until(lambda: not support.alive(lane.supervisor.workers[0]), "the worker's end")


def test_multiprocessing_spawn_works_in_an_application(serve):
    lane = serve(
        """
        import multiprocessing
        def double(number): return 2 * number
        def application(e, s):
            context = multiprocessing.get_context('spawn')
            with context.Pool(1) as pool: result = pool.apply(double, (21,))
            s('200 OK', []); return [str(result).encode()]
        """
    )
    assert lane.ask().body == b"42"


def test_workers_do_not_share_random_numbers(start):
    supervisor = start(
        "import random\ndef application(e, s):\n    s('200 OK', []); return [str(random.random()).encode()]"
    )
    supervisor.ready()
    for serial in (1, 2):
        supervisor.fork(serial)
    first, second = (supervisor.front.accept().ask().body for _ in range(2))
    assert first != second


def test_a_worker_holds_no_control_channel(serve):
    lane = serve(
        """
        import os, sys
        def application(e, s):
            s('200 OK', [])
            links = [os.readlink('/proc/self/fd/' + fd) for fd in os.listdir('/proc/self/fd') if os.path.lexists('/proc/self/fd/' + fd)]
            return ['\\n'.join([repr(sys.argv), sys.path[0], os.getcwd()] + [l for l in links if 'socket' in l]).encode()]
        """
    )
    lane.supervisor.front.meet_monitor()
    argv, path, folder, *sockets = lane.ask().body.decode().split("\n")
    assert argv == "['app:application']"
    assert path == folder == str(lane.supervisor.directory)
    assert len(sockets) == 2, "its lane and the monitor's"


def test_threads_of_the_import_are_reported(start):
    supervisor = start(
        "import threading\nt = threading.Thread(target=threading.Event().wait, name='poller', daemon=True); t.start()\n"
        + HELLO
    )
    assert supervisor.ready()["threads"] == ["poller"]
    supervisor.fork()
    assert supervisor.front.accept().ask().body == b"hello"
    assert "DeprecationWarning" not in supervisor.log()


def test_a_slow_import_says_where_it_is(start):
    supervisor = start(
        "import time\ndef wait_for_the_database():\n    time.sleep(1)\nwait_for_the_database()\n" + HELLO,
        import_warning=0.3,
    )
    supervisor.ready()
    log = supervisor.log()
    assert "daemun: [shop " in log
    assert "the import of app is still running after 0.3 s" in log
    assert log.index("still running") < log.index("in wait_for_the_database")


def test_a_slow_import_is_looked_at_only_while_it_stands_still(start):
    """Faulthandler's watchdog reads frames that are being freed: an import that computes would crash."""
    supervisor = start(
        """
import os
def deep(more):
    return more and deep(more - 1)
def compute():
    log = os.fstat(2)
    while os.fstat(2).st_size == log.st_size:
        deep(800)
compute()
"""
        + HELLO,
        import_warning=0.1,
    )
    supervisor.ready()
    log = supervisor.log()
    assert log.index("still running") < log.index("in compute")
    assert "Timeout (" not in log


def test_a_crash_in_c_names_the_python_line(serve):
    lane = serve(
        """
        import os, signal
        def crash_here(): os.kill(os.getpid(), signal.SIGSEGV)
        def application(e, s): crash_here()
        """
    )
    lane.request()
    lane.supervisor.wait_for_log("crash_here")


def test_what_is_printed_appears_at_once(serve):
    lane = serve("def application(e, s):\n    print('printed'); s('200 OK', []); return []")
    lane.ask()
    assert "printed" in lane.supervisor.wait_for_log("printed")


def test_many_lanes_under_load_get_their_own_answers(serve):
    lane = serve("def application(e, s):\n    s('200 OK', []); return [e['PATH_INFO'].encode()]", threads=4)
    wrong = []

    def drive(one):
        for turn in range(50):
            ids = [(turn + 1) << 6 | slot for slot in range(16)]
            one.send(b"".join(support.request_frame(id, support.environ(f"/{one.thread}/{id}")) for id in ids))
            wrong.extend(id for id in ids if one.answer(id).body != f"/{one.thread}/{id}".encode())

    threads = [threading.Thread(target=drive, args=(one,)) for one in lane.lanes.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_an_answer_that_is_held_back_is_written_when_the_monitor_is_told(serve, tmp_path):
    gate = tmp_path / "gate"
    lane = serve(
        f"""
        import os, time
        def application(e, s):
            while e['PATH_INFO'] == '/wait' and not os.path.exists({str(gate)!r}):
                time.sleep(0.01)
            s('200 OK', [])
            return [e['PATH_INFO'].encode()]
        """
    )
    monitor = lane.supervisor.front.meet_monitor()
    lane.ask("/warm")
    held, waiting = lane.next_id(), lane.next_id()
    # In one piece, so that the shim takes both up together and the first answer waits for the second call.
    requests = [(held, "/fast"), (waiting, "/wait")]
    lane.send(b"".join(support.request_frame(number, support.environ(path)) for number, path in requests))
    while lane.page[waiting & 63] == 0:
        pass
    monitor.send(support.frame(support.FLUSH, 0))
    assert lane.answer(held).body == b"/fast"
    gate.touch()
    assert lane.answer(waiting).body == b"/wait"


def test_barriers_of_the_front_reach_a_worker_that_has_none_of_its_own(start):
    """By the kernel's own word, where it gives it (since 6.3)."""
    supervisor = start(
        """
        import ctypes
        NUMBER, QUERY, GET_REGISTRATIONS = @number@, 0, 512

        def application(e, s):
            s('200 OK', [])
            call = ctypes.CDLL(None).syscall
            known = call(NUMBER, QUERY, 0, 0)
            registered = call(NUMBER, GET_REGISTRATIONS, 0, 0) if known > 0 and known & GET_REGISTRATIONS else "unknown"
            with open("/proc/self/maps") as maps:
                kind = "fast" if "daemun_accelerator" in maps.read() else "plain"
            return [f"{kind} {registered}".encode()]
        """.replace("@number@", str(MEMBARRIER)),
        membarrier=MEMBARRIER,
    )
    supervisor.ready()
    supervisor.fork()
    kind, registered = supervisor.front.accept().ask().body.decode().split()
    assert registered in ("unknown", "4" if kind == "plain" else "0")
