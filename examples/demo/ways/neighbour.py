"""The neighbour: an application server of its own, which ends when the server beside it does.

Run as `python neighbour.py PORT PID`; it prints its port.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Neighbour(BaseHTTPRequestHandler):
    """Says what it was asked."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:  # the name that BaseHTTPRequestHandler wants
        """Answer."""
        forwarded = self.headers.get("X-Forwarded-For", "nobody")
        body = f"the neighbour, process {os.getpid()}, was asked for {self.path} by {forwarded}\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """The server in front has a log."""


def main() -> None:
    """Serve until the process PID is gone."""
    port, beside = int(sys.argv[1]), int(sys.argv[2])
    server = ThreadingHTTPServer(("127.0.0.1", port), Neighbour)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_address[1], flush=True)
    while Path(f"/proc/{beside}").exists():
        time.sleep(0.5)


if __name__ == "__main__":
    main()
