"""`daemun collect`: the same tree as Django's own command makes, and what happens when something is in the way."""

from __future__ import annotations

import json
import os
import pwd
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from collected import DJANGO, OURS, WHITENOISE, assert_same, by_daemun, by_django, make_project, python_of, told, tree
from server import BINARY, DEADLINE, Server, run

HERE = Path(sys.executable)
PACKAGES = ["rest_framework", "debug_toolbar"]


@pytest.mark.parametrize("name", ["django-4.2", "django-5.2"])
@pytest.mark.parametrize("storage", ["StaticFilesStorage", "ManifestStaticFilesStorage"])
def test_admin_rest_framework_and_debug_toolbar_come_out_as_django_makes_them(
    tmp_path: Path, name: str, storage: str
) -> None:
    project, python = make_project(tmp_path / "project", DJANGO + storage, PACKAGES), python_of(name)
    theirs = by_django(project, python, tmp_path / "theirs")
    by_daemun(project, python, tmp_path / "ours")
    assert_same(theirs, tmp_path / "ours")


@pytest.mark.parametrize("storage", ["CompressedStaticFilesStorage", "CompressedManifestStaticFilesStorage"])
def test_the_admin_comes_out_as_whitenoise_makes_it(tmp_path: Path, storage: str) -> None:
    project, python = make_project(tmp_path / "project", WHITENOISE + storage), python_of("django-5.2")
    theirs = by_django(project, python, tmp_path / "theirs")
    by_daemun(project, python, tmp_path / "ours")
    assert_same(theirs, tmp_path / "ours")


def test_what_whitenoise_was_told_of_collecting_is_followed(tmp_path: Path) -> None:
    told = "WHITENOISE_KEEP_ONLY_HASHED_FILES = True\nWHITENOISE_SKIP_COMPRESS_EXTENSIONS = ['css', 'js', 'svg']\n"
    storage = WHITENOISE + "CompressedManifestStaticFilesStorage"
    project, python = make_project(tmp_path / "project", storage, more=told), python_of("django-5.2")
    theirs = by_django(project, python, tmp_path / "theirs")
    by_daemun(project, python, tmp_path / "ours")
    assert_same(theirs, tmp_path / "ours")
    assert not (tmp_path / "ours" / "admin" / "css" / "base.css").exists()
    packed = [name for name in tree(tmp_path / "ours") if name.endswith((".gz", ".br"))]
    assert packed
    assert not [name for name in packed if name.rpartition(".")[0].endswith((".css", ".js", ".svg"))]


def test_our_storage_makes_the_same_tree_with_djangos_command(tmp_path: Path) -> None:
    options = {"brotli_level": None, "zstd_level": None}
    project = make_project(tmp_path / "project", OURS + "CompressedManifestStaticFilesStorage", options=options)
    theirs = by_django(project, HERE, tmp_path / "theirs")
    by_daemun(project, HERE, tmp_path / "ours")
    assert_same(theirs, tmp_path / "ours")
    assert any(name.endswith(".css.gz") for name in tree(theirs))


def test_a_name_that_is_not_in_the_manifest_fails_with_the_nearest(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", OURS + "CompressedManifestStaticFilesStorage")
    ask = "import django; django.setup()\nfrom django.templatetags.static import static\nstatic('admin/css/bas.css')"

    def page() -> str:
        env = {**told(project / "out"), "DJANGO_SETTINGS_MODULE": "shop.settings"}
        env["PYTHONPATH"] += os.pathsep + str(project)
        done = subprocess.run([HERE, "-c", ask], env=env, capture_output=True, text=True, timeout=DEADLINE)
        return done.stderr

    assert "nothing was collected yet: run `daemun collect`" in page()
    by_daemun(project, HERE, project / "out", "--brotli", "off", "--zstd", "off")
    assert "Missing staticfiles manifest entry for 'admin/css/bas.css'; did you mean 'admin/css/base.css'?" in page()


@pytest.mark.parametrize(("strict", "said"), [(True, "Missing staticfiles manifest entry"), (False, "/static/late.")])
def test_a_name_that_came_after_collecting_is_an_error_unless_whitenoise_was_told_otherwise(
    tmp_path: Path, strict: bool, said: str
) -> None:
    more = f"WHITENOISE_MANIFEST_STRICT = {strict}\n"
    project = make_project(tmp_path / "project", OURS + "CompressedManifestStaticFilesStorage", more=more)
    by_daemun(project, HERE, project / "out", "--brotli", "off", "--zstd", "off")
    (project / "out" / "late.css").write_text("body{}")
    ask = "import django; django.setup()\nfrom django.templatetags.static import static\nprint(static('late.css'))"
    env = {**told(project / "out"), "DJANGO_SETTINGS_MODULE": "shop.settings"}
    env["PYTHONPATH"] += os.pathsep + str(project)
    done = subprocess.run([HERE, "-c", ask], env=env, capture_output=True, text=True, timeout=DEADLINE)
    assert said in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("storage", "more", "reason"),
    [
        (
            "shop.storage.Own",
            "",
            "the storage shop.storage.Own has a hashed_name of its own",
        ),
        (
            DJANGO + "ManifestStaticFilesStorage",
            "STATICFILES_FINDERS = ['shop.storage.Finder']",
            "the finder shop.storage.Finder is not one of Django's",
        ),
    ],
)
def test_what_we_do_not_know_is_left_to_django_and_said_aloud(
    tmp_path: Path, storage: str, more: str, reason: str
) -> None:
    project = make_project(tmp_path / "project", storage, more=more)
    (project / "shop" / "storage.py").write_text(
        "from django.contrib.staticfiles.finders import AppDirectoriesFinder\n"
        "from django.contrib.staticfiles.storage import ManifestStaticFilesStorage\n"
        "class Finder(AppDirectoriesFinder):\n"
        "    def list(self, ignore_patterns):\n"
        "        return [pair for pair in super().list(ignore_patterns) if pair[0].endswith('.svg')]\n"
        "class Own(ManifestStaticFilesStorage):\n"
        "    def hashed_name(self, *args, **kwargs):\n"
        "        return super().hashed_name(*args, **kwargs)\n"
    )
    done = by_daemun(project, HERE, tmp_path / "ours")
    assert reason in done.stderr
    assert "Django's own collectstatic does it" in done.stderr
    assert (tmp_path / "ours" / "staticfiles.json").exists()


@pytest.mark.parametrize(
    ("more", "want"),
    [
        ("STATIC_ROOT = None", "settings.py:10: STATIC_ROOT is not set; paste STATIC_ROOT = "),
        ("STATIC_ROOT = '/'", "settings.py:22: STATIC_ROOT is /, the root of the file system"),
        ("STATICFILES_DIRS = [STATIC_ROOT]", "settings.py:11: The STATICFILES_DIRS setting should not contain"),
        ("INSTALLED_APPS.remove('django.contrib.staticfiles')", "django.contrib.staticfiles is not installed"),
    ],
)
def test_settings_that_cannot_work_are_named_with_their_line(tmp_path: Path, more: str, want: str) -> None:
    project = make_project(tmp_path / "project", DJANGO + "StaticFilesStorage", more=more)
    done = by_daemun(project, HERE, tmp_path / "out", code=1)
    assert want in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_dry_run_writes_nothing_and_json_tells_everything(tmp_path: Path) -> None:
    project = make_project(tmp_path / "project", DJANGO + "ManifestStaticFilesStorage")
    told = json.loads(by_daemun(project, HERE, tmp_path / "out", "--dry-run", "--json").stdout)
    assert told["dry_run"] is True
    assert "staticfiles.json" in told["written"]
    assert not (tmp_path / "out").exists()
    first = json.loads(by_daemun(project, HERE, tmp_path / "out", "--json").stdout)
    assert sorted(first["written"]) == sorted(told["written"])
    assert first["files"] == first["hashed"] > 100
    second = json.loads(by_daemun(project, HERE, tmp_path / "out", "--json").stdout)
    assert second["written"] == []
    assert second["unchanged"] == first["output_files"]


def test_a_folder_that_belongs_to_no_project_is_deployed_too(tmp_path: Path) -> None:
    source = tmp_path / "src"
    source.mkdir()
    (source / "a.css").write_text("a { background: url(x.svg) }\n" * 50)
    (source / "x.svg").write_text("<svg/>")
    done = run("collect", source, tmp_path / "dest", "--cache", "off", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    paths = json.loads((tmp_path / "dest" / "staticfiles.json").read_text())["paths"]
    assert paths["x.svg"] in (tmp_path / "dest" / paths["a.css"]).read_text()
    siblings = {path.suffix for path in (tmp_path / "dest").glob(paths["a.css"] + ".*")}
    assert siblings == {".br", ".gz", ".zst"}


@pytest.mark.parametrize(
    ("words", "want"),
    [
        (["--gzip", "10"], "--gzip: expected a level from 1 to 9, or off, not `10`"),
        (["--brotli", "x"], "--brotli: expected a level from 0 to 11, or off, not `x`"),
        (["--keep", "soon"], "--keep: "),
        (["--cache-size", "much"], "--cache-size: "),
    ],
)
def test_a_value_that_means_nothing_is_refused(tmp_path: Path, words: list[str], want: str) -> None:
    (tmp_path / "src").mkdir()
    done = run("collect", "src", "dest", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert want in done.stderr


def test_where_there_is_no_project_the_way_for_folders_is_named(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("def app(environ, start_response): ...")
    done = run("collect", "app:app", cwd=tmp_path)
    assert done.returncode == 2
    assert "no Django project; for a folder of files: daemun collect SRC DEST" in done.stderr


def large_sources(folder: Path) -> Path:
    """Sources whose compression takes seconds: no two lines are alike."""
    folder.mkdir()
    for number in range(40):
        lines = (f".c{number}-{line * 7919 % 10007} {{ order: {line * 104729 % 65537} }}\n" for line in range(9000))
        (folder / f"{number}.css").write_text("".join(lines))
    return folder


def stages(folder: Path) -> list[Path]:
    """What a build has written aside."""
    return [file for stage in folder.glob(".daemun-stage-*") for file in stage.iterdir()]


def assert_serves(dest: Path, text: str) -> None:
    """Ask a server for what was collected before: the plain name and the hashed one."""
    configuration = dest.parent / "daemun.toml"
    configuration.write_text(f'[[route]]\npath = "/static/*"\nstatic = {{ root = "{dest}", manifest = true }}\n')
    hashed = json.loads((dest / "staticfiles.json").read_text())["paths"]["0.css"]
    with Server("--config", configuration, cwd=dest.parent) as server:
        assert server.get("/static/0.css").text == text
        answer = server.get(f"/static/{hashed}")
        assert (answer.text, "immutable" in answer.headers["Cache-Control"]) == (text, True)
        for stage in stages(dest):
            assert server.get(f"/static/{stage.relative_to(dest)}").status == 404


def test_a_build_that_is_killed_leaves_the_old_tree_and_the_next_one_finishes(tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.mkdir()
    (old / "0.css").write_text("old {}")
    dest = tmp_path / "dest"
    assert run("collect", old, dest, "--cache", "off", cwd=tmp_path).returncode == 0
    before = tree(dest)
    source = large_sources(tmp_path / "src")
    command = [str(BINARY), "collect", str(source), str(dest), "--cache", "off"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + DEADLINE
        while not list(dest.glob(".daemun-stage-*")):
            assert process.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGKILL)
    for stage in dest.glob(".daemun-stage-*"):
        assert stage.is_dir()
    kept = {name: data for name, data in tree(dest).items() if not name.startswith(".daemun-stage-")}
    assert kept == before
    assert_serves(dest, "old {}")
    done = run("collect", source, dest, "--brotli", "1", "--zstd", "1", "--cache", "off", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not list(dest.glob(".daemun-stage-*"))
    assert set(before) < set(tree(dest))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small file system")
def test_a_full_file_system_leaves_the_old_tree(tmp_path: Path) -> None:
    old, dest = tmp_path / "old", tmp_path / "dest"
    old.mkdir()
    dest.mkdir()
    (old / "0.css").write_text("old {}")
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(dest)]
    subprocess.run(mount, check=True, timeout=DEADLINE)
    try:
        assert run("collect", old, dest, "--cache", "off", cwd=tmp_path).returncode == 0
        before = tree(dest)
        source = large_sources(tmp_path / "src")
        done = run("collect", source, dest, "--brotli", "1", "--zstd", "off", "--cache", "off", cwd=tmp_path)
        assert done.returncode == 1
        assert "No space left on device" in done.stderr
        assert tree(dest) == before
        assert not stages(dest)
        assert_serves(dest, "old {}")
    finally:
        subprocess.run(["umount", str(dest)], check=True, timeout=DEADLINE)


def test_two_builds_at_once_share_cache_and_destination(tmp_path: Path) -> None:
    source = tmp_path / "src"
    source.mkdir()
    for number in range(30):
        (source / f"{number}.css").write_text(f"a{number} {{ color: red }}\n" * 200)
    command = [str(BINARY), "collect", str(source), str(tmp_path / "dest"), "--cache", str(tmp_path / "cache")]
    builds = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for build in builds:
        _, errors = build.communicate(timeout=DEADLINE)
        assert build.returncode == 0, errors
    assert len(json.loads((tmp_path / "dest" / "staticfiles.json").read_text())["paths"]) == 30


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can collect for somebody else")
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_what_root_collects_for_another_user_that_user_can_read_and_keeps_its_folder(
    tmp_path: Path, umask: int
) -> None:
    nobody = pwd.getpwnam("nobody")
    project = make_project(tmp_path / "project", DJANGO + "ManifestStaticFilesStorage")
    out = tmp_path / "www" / "out"
    out.mkdir(parents=True)
    os.chown(out, nobody.pw_uid, nobody.pw_gid)
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    before = os.umask(umask)
    try:
        by_django(project, HERE, theirs)
        by_daemun(project, HERE, out)
    finally:
        os.umask(before)
    # The folder stays whose it is; below it stand the modes that Django gives.
    assert out.stat().st_uid == nobody.pw_uid
    for path in theirs.rglob("*"):
        assert stat.filemode((out / path.relative_to(theirs)).stat().st_mode) == stat.filemode(path.stat().st_mode), (
            path
        )
    files = [path for path in out.rglob("*") if path.is_file()]
    assert files
    assert all(path.stat().st_mode & 0o004 for path in files)
