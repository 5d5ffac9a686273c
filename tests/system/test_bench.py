"""The measuring programs ask the right questions: each scenario starts and is answered rightly. No figure is judged."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from server import BINARY, DEADLINE, ROOT

sys.path.insert(0, str(ROOT / "bench"))

import training
from comparison import document, extract, load, plots, report, scenarios
from comparison.scenarios import RESTS, SCENARIOS

BENCH = ROOT / "bench"
OURS = "daemun,daemun-cache,daemun-threads,daemun-fork,bare"
FILES = [name for name, one in SCENARIOS.items() if not (one.application or one.script)]
OTHERS = [name for name in [*SCENARIOS, *RESTS] if name not in FILES]

pytestmark = pytest.mark.skipif(shutil.which("wrk") is None, reason="wrk is not there; run:  scripts/require bench")


def check(scenarios: list[str], folder: Path) -> dict[str, object]:
    """Have daemun alone answer, as the short mode does; give what was written."""
    program = [sys.executable, str(BENCH / "compare.py"), "--check", "--quiet", "--server", OURS]
    given = ["--scenario", ",".join(scenarios), "--daemun", str(BINARY), "--venv", sys.prefix]
    files = ["--json", str(folder / "figures.json"), "--markdown", str(folder / "figures.md")]
    done = subprocess.run([*program, *given, *files], capture_output=True, text=True, timeout=3 * DEADLINE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("right: daemun") == len(scenarios), done.stdout
    written: dict[str, object] = json.loads((folder / "figures.json").read_text("utf-8"))["results"]
    return written


def test_every_scenario_of_files_and_proxies_is_answered_rightly(tmp_path: Path) -> None:
    assert list(check(FILES, tmp_path)) == FILES


def test_every_scenario_of_programs_is_answered_rightly(tmp_path: Path) -> None:
    assert list(check(OTHERS, tmp_path)) == OTHERS
    tables = (tmp_path / "figures.md").read_text("utf-8")
    assert all(f"**{name}**" in tables for name in OTHERS)


def test_every_sweep_is_answered_rightly_and_drawn(tmp_path: Path) -> None:
    program = [sys.executable, str(BENCH / "scaling.py"), "--check", "--server", "daemun", "--plots", str(tmp_path)]
    given = ["--daemun", str(BINARY), "--venv", sys.prefix]
    done = subprocess.run([*program, *given], capture_output=True, text=True, timeout=3 * DEADLINE)
    assert done.returncode == 0, done.stdout + done.stderr
    drawn = {path.stem for path in tmp_path.glob("*.svg")}
    assert drawn == {"connections", "files", "processes", "threads", "answers", "posts"}


def test_the_traffic_that_a_build_is_guided_by_is_answered_rightly() -> None:
    program = [sys.executable, str(BENCH / "training.py"), "--daemun", str(BINARY), "--seconds", "0.5"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=3 * DEADLINE)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.fullmatch(r"training: [1-9]\d+ requests were answered\n", done.stdout), done.stdout


def test_training_asks_for_nothing_that_is_measured() -> None:
    measured = {scenario.request.path for scenario in SCENARIOS.values()} - {"/"}
    trained = {ask.path for ask in training.asks()} | set(training.OVER_HTTP2)
    assert not measured & trained
    assert not set(training.FILES.values()) & set(scenarios.FILES.values())


def test_an_unknown_scenario_ends_with_the_known_ones() -> None:
    program = [sys.executable, str(BENCH / "compare.py"), "--scenario", "helo"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 2
    assert "unknown scenario 'helo'; known are hello, " in done.stderr


def test_a_server_that_is_not_there_costs_its_row_and_is_named(tmp_path: Path) -> None:
    program = [sys.executable, str(BENCH / "compare.py"), "--scenario", "hello", "--server", "daemun,fastpysgi"]
    given = ["--daemun", str(BINARY), "--venv", sys.prefix, "--rounds", "1", "--seconds", "0.5"]
    page = tmp_path / "figures.md"
    done = subprocess.run([*program, *given, "--markdown", str(page)], capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 0, done.stdout + done.stderr
    written = page.read_text("utf-8")
    assert "\n| daemun |" in written
    assert "Not measured: fastpysgi (exit 1 at its start: ModuleNotFoundError: No module named 'fastpysgi')." in written
    done = subprocess.run([*program, *given, "--check"], capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 1
    assert "fastpysgi (exit 1 at its start" in done.stderr


def test_only_where_daemun_is_missing_figures_are_a_fault(tmp_path: Path) -> None:
    program = [sys.executable, str(BENCH / "compare.py"), "--scenario", "hello", "--server", "daemun"]
    given = ["--daemun", "/bin/false", "--venv", sys.prefix, "--rounds", "1", "--seconds", "0.5"]
    done = subprocess.run([*program, *given], capture_output=True, text=True, timeout=DEADLINE)
    assert done.returncode == 1
    assert "hello: not measured: daemun (exit 1 at its start)" in done.stderr


def figures_of(results: dict[str, object], **different: object) -> dict[str, object]:
    """A file of figures as a run of `compare.py` writes it."""
    machine: dict[str, object] = dict.fromkeys(document.SAME_MACHINE, "")
    machine |= {"date": "2026-01-01", "memory": "4000000 kB", "packages": ["granian 2.8"], "programs": ["nginx 1.22"]}
    machine |= {"cores": 2, "load_at_start": 0.1, **different}
    options = dict.fromkeys(document.SAME_OPTIONS, 1) | {"rounds": 5, "seconds": 2.0}
    made = document.new(machine, options, {})
    made["results"] = results
    return made


def rate(**cpu: float) -> dict[str, object]:
    """The figures of one scenario: the processor time of each server."""
    names = ("cpu_us_min", "cpu_us_max", "user_us", "system_us", "sleeps", "p50_ms", "p99_ms", "pss_kib")
    rest: dict[str, object] = {**dict.fromkeys(names), "rate": 1.0, "errors": 0, "by_role_us": {}}
    return {"peer": "granian", "table": {server: {**rest, "cpu_us": value} for server, value in cpu.items()}}


def test_the_figures_of_several_runs_make_one_set_of_tables(tmp_path: Path) -> None:
    parts = [
        figures_of({"static1k": rate(daemun=10.0), "hello": rate(daemun=30.0, granian=40.0)}),
        figures_of({"hello": rate(daemun=20.0, granian=40.0)}, date="2026-01-02", load_at_start=0.7),
    ]
    for number, part in enumerate(parts):
        document.write(tmp_path / f"{number}.json", part)
    program = [sys.executable, str(BENCH / "compare.py"), "--from", str(tmp_path / "1.json"), str(tmp_path / "0.json")]
    done = subprocess.run(
        [*program, "--markdown", str(tmp_path / "page.md")], capture_output=True, text=True, timeout=DEADLINE
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "page.md").read_text("utf-8")
    assert page.startswith("2026-01-01 and 2026-01-02; ")
    assert "load average before it 0.7" in page
    assert page.index("**hello**") < page.index("**static1k**"), "as they are listed, whatever ran first"
    assert "| daemun | 20.0 | 0.50 |" in page
    assert "30.0" not in page


def test_figures_of_two_machines_do_not_go_into_one_table(tmp_path: Path) -> None:
    document.write(tmp_path / "one.json", figures_of({}))
    document.write(tmp_path / "other.json", figures_of({}, kernel="7.0"))
    with pytest.raises(document.DocumentError, match=r"other.json: kernel is '7.0', in .*one.json '': "):
        document.read([tmp_path / "one.json", tmp_path / "other.json"])


def cells(page: str) -> list[list[str]]:
    """What the tables between the lines of the figures say, without the names of the rows."""
    figures = page.partition(document.BEGIN)[2].partition(document.END)[0]
    return [line.split("|")[2:] for line in figures.splitlines() if line.startswith("|")]


def test_the_short_tables_say_the_same_in_both_languages(tmp_path: Path) -> None:
    figures = figures_of({"hello": rate(daemun=20.0, granian=40.0), "static1k": rate(daemun=9.0, nginx=12.0, h2o=8.0)})
    pages = []
    for name in ("README.md", "README.ko.md"):
        page = tmp_path / name
        page.write_text(f"{document.BEGIN}\n{document.END}\n", "utf-8")
        document.place(page, extract.extract(figures, extract.words_of(page)))
        pages.append(page.read_text("utf-8"))
    assert "| 13 bytes from WSGI, µs | 20.0 | 0.50 |" in pages[0]
    assert "| 1 KiB 파일, µs | 9.0 | 0.75 | 1.12 |" in pages[1]
    assert cells(pages[0]) == cells(pages[1])
    assert extract.ENGLISH.rows.keys() == extract.KOREAN.rows.keys()


def test_both_front_pages_show_the_same_figures() -> None:
    pages = [(ROOT / name).read_text("utf-8") for name in ("README.md", "README.ko.md")]
    assert all(page.count(document.BEGIN) == page.count(document.END) == 1 for page in pages)
    assert cells(pages[0]) == cells(pages[1])


def test_what_h2load_says_is_counted_with_its_latencies() -> None:
    said = (
        "requests: 4 total, 4 started, 4 done, 3 succeeded, 1 failed, 0 errored, 2 timeout\n"
        "traffic: 1.21MB (1268930) total, 6.98KB (7147) headers (space savings 95.00%), 1.20MB (1260000) data\n"
    )
    log = "1000\t200\t1000\n1001\t200\t3000\n1002\t200\t2000\n1003\t500\t9000\n"
    assert load.counted(said, log, 2) == load.Load(3, 1268930, 2, 3, 2.0, 3.0)


def test_what_h2load_does_not_say_is_no_figure() -> None:
    with pytest.raises(load.LoadError, match="nothing that can be read"):
        load.counted("finished in 0us", "", 1)


def test_a_table_is_aligned_for_terminals_and_escaped_in_markdown() -> None:
    table = report.Table(["server", "us"], [["a", "10.5"], ["b|c", "9.0"]])
    assert table.text() == "server    us\n------  ----\na       10.5\nb|c      9.0"
    assert table.markdown() == "| server | us |\n| --- | ---: |\n| a | 10.5 |\n| b\\|c | 9.0 |"


def test_figures_go_between_the_lines_of_a_file_that_has_them(tmp_path: Path) -> None:
    file = tmp_path / "README.md"
    file.write_text(f"before\n{document.BEGIN}\nold\n{document.END}\nafter\n", "utf-8")
    document.place(file, "new")
    assert file.read_text("utf-8") == f"before\n{document.BEGIN}\nnew\n{document.END}\nafter\n"
    document.place(tmp_path / "fresh.md", "new")
    assert (tmp_path / "fresh.md").read_text("utf-8") == "new\n"


def test_a_picture_has_a_line_for_each_server_and_leaves_out_what_is_missing() -> None:
    point = {"cpu_us": 20.0, "p99_ms": 3.0}
    missing = {"cpu_us": None, "p99_ms": None}
    servers = {"daemun": {"1": point, "10": point}, "an<other": {"1": point, "10": missing}}
    drawn = plots.picture({"title": "a & b", "axis": "connections", "servers": servers})
    root = ET.fromstring(drawn)
    lines = root.findall(".//{http://www.w3.org/2000/svg}polyline")
    assert [len(line.attrib["points"].split()) for line in lines] == [2, 1, 2, 1]
    assert "an&lt;other" in drawn


@pytest.mark.parametrize(("value", "written"), [(0.5, "0.5"), (20, "20"), (10_000, "10k"), (2_500_000, "2.5M")])
def test_numbers_beside_an_axis_are_short(value: float, written: str) -> None:
    assert plots.label(value) == written


def test_an_axis_holds_all_values_and_ends_at_round_ones() -> None:
    axis = plots.Axis.around([13.0, 420.0], 100)
    assert (axis.first, axis.last) == (10, 500)
    assert axis.at(10) == 0
    assert axis.at(500) == pytest.approx(100)
    assert axis.ticks() == [10, 20, 50, 100, 200, 500]
