"""Processor time that the shim spends on one request: `python bench/shim.py [INTERPRETER] [BATCH] [REQUESTS]`.

With the accelerator that was built last; without it where DAEMUN_ACCELERATOR=off is set.

One lane, batches of requests with a browser's eleven headers, a 13-byte answer. Prints microseconds of the worker's
processor time for each request, the best of five rounds, and what the application and a bare loop would cost is in it.
"""

import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/python"))
if len(sys.argv) > 1:
    os.environ["PYTHON_UNDER_TEST"] = sys.argv[1]

import support

ACCELERATED = os.environ.get("DAEMUN_ACCELERATOR") != "off"
APPLICATION = """
def application(environ, start_response):
    start_response('200 OK', [('Content-Type', 'text/plain'), ('Content-Length', '13')])
    return [b'Hello, World!']
"""
BROWSER = {
    "HTTP_USER_AGENT": "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "HTTP_ACCEPT": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
    "HTTP_ACCEPT_LANGUAGE": "en-US,en;q=0.5",
    "HTTP_ACCEPT_ENCODING": "gzip, deflate, br, zstd",
    "HTTP_CONNECTION": "keep-alive",
    "HTTP_COOKIE": "sessionid=0123456789abcdef0123456789abcdef; csrftoken=0123456789abcdef",
    "HTTP_UPGRADE_INSECURE_REQUESTS": "1",
    "HTTP_SEC_FETCH_DEST": "document",
    "HTTP_SEC_FETCH_MODE": "navigate",
    "HTTP_SEC_FETCH_SITE": "none",
}


def processor_time(pid):
    """Nanoseconds on a processor, of the main thread."""
    return int(Path(f"/proc/{pid}/schedstat").read_text("ascii").split()[0])


def drive(lane, batch, count):
    """Sends `count` requests, `batch` at a time, each batch after the answers to the one before."""
    block = support.environ("/", variables=BROWSER)
    wire = b"".join(support.request_frame(64 + slot, block) for slot in range(batch))
    answer_length = None
    for _ in range(count // batch):
        lane.send(wire)
        if answer_length is None:
            for _ in range(batch):
                kind, _, payload = lane.read()
                assert kind == support.ANSWER
            answer_length = (9 + len(payload)) * batch
            continue
        left = answer_length
        while left:
            left -= len(lane.connection.recv(left))


def main():
    """Measure the interpreter, batch and count that the command line names."""
    batch = int(sys.argv[2]) if len(sys.argv) > 2 else 32
    count = int(sys.argv[3]) if len(sys.argv) > 3 else 100_000
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "app.py").write_text(APPLICATION, "utf-8")
        supervisor = support.Supervisor(directory, accelerator=support.accelerator() if ACCELERATED else None)
        version = supervisor.ready()["python"]
        pid = supervisor.fork()
        lane = supervisor.front.accept()
        drive(lane, batch, 10_000)
        best = float("inf")
        for _ in range(5):
            before = processor_time(pid)
            drive(lane, batch, count)
            best = min(best, (processor_time(pid) - before) / count / 1000)
        supervisor.close()
    print(f"{version}: {best:.2f} µs of worker for each request, {batch} at a time")


main()
