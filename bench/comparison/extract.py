"""What the front page shows of the figures: two short tables of ratios, in English and in Korean."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import document, report
from .rounds import BARE

Figure = Callable[[Any, str], float | None]


@dataclass(frozen=True)
class Words:
    """What is said in one language."""

    below: str
    server: str
    unit: str
    rows: dict[str, str]
    more: str


def _cpu(figures: Any, server: str) -> float | None:
    value: float | None = figures.get(server, {}).get("cpu_us")
    return value


def _added(figures: Any, server: str) -> float | None:
    own, bare = _cpu(figures, server), _cpu(figures, BARE)
    return None if own is None or bare is None or own <= bare else own - bare


def _memory(figures: Any, server: str) -> float | None:
    return sum(map(sum, figures[server].values())) / 1024 if server in figures else None


def _start(figures: Any, server: str) -> float | None:
    return statistics.median(figures[server]) if server in figures else None


def _held(figures: Any, server: str) -> float | None:
    return report.per_connection(figures[server]) if server in figures else None


# Each table: its peers, and the scenarios with what is read of them.
APPLICATIONS: tuple[list[str], dict[str, Figure]] = (
    ["granian", "gunicorn", "uwsgi", "bjoern", "fastpysgi", "waitress"],
    {
        "hello": _cpu,
        "hello11": _cpu,
        "hello-log": _cpu,
        "django": _added,
        "django-short": _added,
        "post100k": _cpu,
        "stream1m": _cpu,
        "wait20": _cpu,
        "idle": _memory,
        "start": _start,
    },
)
FILES: tuple[list[str], dict[str, Figure]] = (
    ["nginx", "apache", "lighttpd", "h2o", "caddy", "haproxy", "whitenoise"],
    {
        "static1k": _cpu,
        "static1k-log": _cpu,
        "static100k": _cpu,
        "static10m": _cpu,
        "precompressed": _cpu,
        "http2": _cpu,
        "handshake": _cpu,
        "hop": _cpu,
        "cgi-c": _cpu,
        "cgi-python": _cpu,
        "held": _held,
    },
)
ENGLISH = Words(
    below="Processor time of one request over all processes of a server, and daemun's part of each peer's: "
    "below 1, daemun costs less. Each column is a server in its documentation's configuration for production.",
    server="what is asked",
    unit="daemun",
    rows={
        "hello": "13 bytes from WSGI, µs",
        "hello11": "the same, a browser's headers, µs",
        "hello-log": "the same with access logs, µs",
        "django": "a page of Django: what the server adds, µs",
        "django-short": "the same of a view of 13 bytes, µs",
        "post100k": "100 kB posted, µs",
        "stream1m": "1 MiB streamed, µs",
        "wait20": "13 bytes after 20 ms, 16 threads, µs",
        "idle": "memory at rest, MiB",
        "start": "until the first answer, beyond the import, ms",
        "static1k": "a file of 1 KiB, µs",
        "static1k-log": "the same with access logs, µs",
        "static100k": "a file of 100 KiB, µs",
        "static10m": "a file of 10 MB, µs",
        "precompressed": "20 KiB compressed beforehand, µs",
        "http2": "1 KiB over HTTP/2 and TLS, µs",
        "handshake": "a TLS handshake, µs",
        "hop": "one hop to another server, µs",
        "cgi-c": "a CGI program in C, µs",
        "cgi-python": "a CGI script in Python, µs",
        "held": "an idle connection, bytes",
    },
    more="All figures, the method, and how to take them again: [bench/README.md](bench/README.md).",
)
KOREAN = Words(
    below="요청 하나에 드는, 서버의 모든 프로세스를 합친 프로세서 시간과, 다른 서버의 시간에 대한 daemun의 비율입니다. "
    "1보다 작으면 daemun이 덜 씁니다. 열마다 서버 하나이며, 각자의 문서가 권하는 운영 설정을 따릅니다.",
    server="요청",
    unit="daemun",
    rows={
        "hello": "WSGI에서 13바이트, µs",
        "hello11": "같은 것, 브라우저의 헤더로, µs",
        "hello-log": "같은 것, 접근 로그를 쓰면서, µs",
        "django": "Django 페이지: 서버가 더하는 것, µs",
        "django-short": "같은 것, 13바이트를 주는 뷰로, µs",
        "post100k": "100 kB POST, µs",
        "stream1m": "1 MiB 스트리밍, µs",
        "wait20": "20 ms 뒤의 13바이트, 스레드 16개, µs",
        "idle": "쉴 때의 메모리, MiB",
        "start": "첫 응답까지, 임포트 시간을 빼고, ms",
        "static1k": "1 KiB 파일, µs",
        "static1k-log": "같은 것, 접근 로그를 쓰면서, µs",
        "static100k": "100 KiB 파일, µs",
        "static10m": "10 MB 파일, µs",
        "precompressed": "미리 압축한 20 KiB, µs",
        "http2": "HTTP/2와 TLS로 1 KiB, µs",
        "handshake": "TLS 핸드셰이크, µs",
        "hop": "다른 서버까지 한 단계, µs",
        "cgi-c": "C로 쓴 CGI 프로그램, µs",
        "cgi-python": "파이썬으로 쓴 CGI 스크립트, µs",
        "held": "쉬는 연결 하나, 바이트",
    },
    more="모든 수치와 방법, 다시 재는 법: [bench/README.md](bench/README.md).",
)


def words_of(page: Path) -> Words:
    """Give the language of a page by its name: `README.ko.md` is Korean."""
    return KOREAN if page.name.endswith(".ko.md") else ENGLISH


def extract(figures: document.Document, words: Words) -> str:
    """Write the short tables in one language, with the day, the machine and the versions."""
    parts = [words.below]
    for peers, rows in (APPLICATIONS, FILES):
        there = [peer for peer in peers if any(_has(figures, name, peer) for name in rows)]
        lines = [
            _row(figures, name, read, there, words) for name, read in rows.items() if _has(figures, name, "daemun")
        ]
        if lines:
            parts.append(report.Table([words.server, words.unit, *(f"/{peer}" for peer in there)], lines).markdown())
    return "\n\n".join([*parts, ".\n".join(document.head(figures)) + ".", words.more])


def _has(figures: document.Document, name: str, server: str) -> bool:
    return server in (figures["results"].get(name, {}).get("table") or {})


def _row(figures: document.Document, name: str, read: Figure, peers: list[str], words: Words) -> list[str]:
    table = figures["results"][name]["table"]
    own = read(table, "daemun")
    ratios = [report.ratio(own, read(table, peer)) for peer in peers]
    return [words.rows[name], "-" if own is None else f"{own:,.1f}" if own < 100 else f"{own:,.0f}", *ratios]
