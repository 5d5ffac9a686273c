"""Fixtures: a supervisor in the test's own folder, closed at its end."""

import contextlib
import textwrap

import pytest
import support


@pytest.fixture(params=["plain", "accelerated"] if support.can_accelerate() else ["plain"])
def accelerator(request):
    """What workers load beside the shim. Every test runs without it and, where the interpreter can, with it."""
    return support.accelerator() if request.param == "accelerated" else None


@pytest.fixture
def start(tmp_path, accelerator):
    """`start(source, **orders)` writes `app.py` and starts a zygote for it."""
    with contextlib.ExitStack() as stack:

        def start_zygote(source="", **orders):
            if source:
                (tmp_path / "app.py").write_text(textwrap.dedent(source), "utf-8")
            supervisor = support.Supervisor(tmp_path, **{"accelerator": accelerator, **orders})
            stack.callback(supervisor.close)
            return supervisor

        yield start_zygote


@pytest.fixture
def serve(start):
    """`serve(source, **orders)` goes on to one worker and returns its lane 0 (`lane.supervisor` has the rest)."""

    def serve_application(source, threads=1, arena=0, page=4096, shelves=None, **orders):
        supervisor = start(source, threads=threads, **orders)
        supervisor.ready()
        supervisor.fork()
        if shelves is None:
            shelves = support.SHELF * threads
        lanes = [supervisor.front.accept(page=page, arena=arena, shelves=shelves) for _ in range(threads)]
        lanes[0].supervisor = supervisor
        lanes[0].lanes = {lane.thread: lane for lane in lanes}
        return lanes[0]

    return serve_application
