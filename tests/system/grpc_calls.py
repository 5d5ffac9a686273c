"""A gRPC server and its client, for what stands between them.

It runs in an environment of its own (`scripts/require telemetry`), as a program: `grpc_calls.py serve` prints its port
and ends with its standard input; `grpc_calls.py call PORT` prints what came of each kind of call.
"""

from __future__ import annotations

import queue
import sys
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import grpc

LARGE = bytes(range(256)) * 8000


def reverse(request: bytes, context: Any) -> bytes:
    """One message for one, or a refusal with its words behind an answer without one."""
    if request == b"refuse":
        context.abort(grpc.StatusCode.NOT_FOUND, "nobody has heard of it")
    context.set_trailing_metadata((("x-length", str(len(request))),))
    return request[::-1]


def each(requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
    """An answer for each message, as soon as it is there; more words behind."""
    count = 0
    for count, request in enumerate(requests, 1):  # noqa: B007
        yield request.upper()
    context.set_trailing_metadata((("x-count", str(count)),))


def serve() -> None:
    """Serve until standard input ends."""
    server = grpc.server(futures.ThreadPoolExecutor(4))
    handlers = {
        "Reverse": grpc.unary_unary_rpc_method_handler(reverse),
        "Each": grpc.stream_stream_rpc_method_handler(each),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    sys.stdin.read()
    server.stop(None)


def call(port: str) -> None:
    """Call in each way."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        unary = channel.unary_unary("/test.Echo/Reverse")
        for body in (b"", b"abc", LARGE):
            answer, made = unary.with_call(body, timeout=60)
            behind = dict(made.trailing_metadata())
            print("unary", answer == body[::-1], made.code().name, behind.get("x-length"))
        try:
            unary(b"refuse", timeout=60)
        except grpc.RpcError as error:
            print("refused", error.code().name, error.details())
        # Each message is sent when the one before it was answered: nobody may hold anything back.
        messages: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        answers = channel.stream_stream("/test.Echo/Each")(iter(messages.get, None), timeout=60)
        arrived = []
        for number in range(5):
            messages.put(f"m{number}".encode())
            arrived.append(next(answers))
        messages.put(None)
        arrived += list(answers)
        print("each", b" ".join(arrived).decode(), dict(answers.trailing_metadata()).get("x-count"))


if __name__ == "__main__":
    serve() if sys.argv[1] == "serve" else call(sys.argv[2])
