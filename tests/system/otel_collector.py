"""A collector of OpenTelemetry's, made of its own messages and gRPC: prints the spans of each batch as a line of JSON.

It runs in an environment of its own (`scripts/require telemetry`), as a program: `otel_collector.py grpc|http PLACE`,
where PLACE is `127.0.0.1:0` or another address. With `--refuse CODE` it takes nothing, with `--part` it takes all but
one span of each batch, and with `--tls CERT KEY` it speaks TLS.
"""

from __future__ import annotations

import argparse
import http.server
import json
import sys
import threading
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as messages
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as service

# Two batches may come at once.
SAYING = threading.Lock()


def say(line: object) -> None:
    """One line for the test."""
    with SAYING:
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


def value(said: Any) -> object:
    """What an attribute is."""
    return getattr(said, said.WhichOneof("value"))


def attributes(pairs: Any) -> dict[str, object]:
    """Attributes as a dictionary; each name is there once."""
    found = {pair.key: value(pair.value) for pair in pairs}
    assert len(found) == len(pairs), pairs
    return found


def told(request: Any, metadata: dict[str, str]) -> None:
    """Print every span."""
    found = []
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                # What the messages do not know would lie here.
                assert not MessageToDict(span).keys() - {field.json_name for field in span.DESCRIPTOR.fields}
                found.append(
                    {
                        "resource": attributes(resource.resource.attributes),
                        "scope": scope.scope.name,
                        "metadata": metadata,
                        "trace": span.trace_id.hex(),
                        "id": span.span_id.hex(),
                        "parent": span.parent_span_id.hex(),
                        "state": span.trace_state,
                        "flags": span.flags,
                        "name": span.name,
                        "kind": span.kind,
                        "began": span.start_time_unix_nano,
                        "ended": span.end_time_unix_nano,
                        "attributes": attributes(span.attributes),
                        "status": span.status.code,
                    }
                )
    say(found)


def answer(request: Any, is_partial: bool) -> Any:
    """Take all, or all but one."""
    response = messages.ExportTraceServiceResponse()
    if is_partial:
        response.partial_success.rejected_spans = 1
        response.partial_success.error_message = "one is too many"
    return response


class Service(service.TraceServiceServicer):  # type: ignore[misc]  # its base lies in another environment
    """OTLP/gRPC."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Take a batch."""
        if self.options.refuse:
            context.abort(grpc.StatusCode[self.options.refuse], "the test wants it so")
        told(request, dict(context.invocation_metadata()))
        return answer(request, self.options.part)


class Handler(http.server.BaseHTTPRequestHandler):
    """OTLP/HTTP with protocol buffers."""

    protocol_version = "HTTP/1.1"
    options: argparse.Namespace

    def do_POST(self) -> None:
        """Take a batch."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.path == "/v1/traces"
        assert self.headers["Content-Type"] == "application/x-protobuf"
        if self.options.refuse:
            self.send_error(int(self.options.refuse))
            return
        request = messages.ExportTraceServiceRequest.FromString(body)
        told(request, {name.lower(): text for name, text in self.headers.items()})
        response = answer(request, self.options.part).SerializeToString()
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(response)))
        self.end_headers()
        self.wfile.write(response)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("protocol", choices=["grpc", "http"])
    parser.add_argument("place")
    parser.add_argument("--refuse")
    parser.add_argument("--part", action="store_true")
    parser.add_argument("--tls", nargs=2, type=Path)
    options = parser.parse_args()
    if options.protocol == "http":
        Handler.options = options
        http_server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        futures.ThreadPoolExecutor(1).submit(http_server.serve_forever)
        say([{"port": http_server.server_port}])
        sys.stdin.read()
        http_server.shutdown()
        return
    server = grpc.server(futures.ThreadPoolExecutor(2))
    service.add_TraceServiceServicer_to_server(Service(options), server)
    if options.tls:
        cert, key = (file.read_bytes() for file in options.tls)
        port = server.add_secure_port(options.place, grpc.ssl_server_credentials([(key, cert)]))
    else:
        port = server.add_insecure_port(options.place)
    server.start()
    say([{"port": port}])
    sys.stdin.read()
    server.stop(None).wait()


if __name__ == "__main__":
    main()
