"""`git http-backend` as a CGI program, with a real git client on the other side."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from server import DEADLINE, Server, front

# `openssl passwd -apr1 correct`.
USERS = '{ ada = "$apr1$gatehous$TCnA1hcvcuAZ4eKXBa490/" }'
CONFIGURATION = """
[[route]]
path = "/git/*"
max_body = "1GiB"
cgi = {{ program = ["git", "http-backend"], env = {{ {env} }} }}

[[route]]
path = "/private/*"
max_body = "1GiB"
basic_auth = {{ users = {users}, realm = "git" }}
cgi = {{ program = ["git", "http-backend"], env = {{ {env} }} }}

[[route]]
path = "/cgi-bin/*"
max_body = "1GiB"
cgi = {{ root = "cgi-bin", env = {{ {env} }} }}
"""
# What a push of more than 100 MB is.
LARGE = 110_000_000
# What the front may hold more after a large body went through it: buffers, not bodies.
FLAT = 32 * 1024 * 1024


def git(*words: str | Path, cwd: Path, trace: Path | None = None, fails: bool = False) -> str:
    """Run git with settings of its own alone; what it said. `trace` takes down what went over the wire."""
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(cwd),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        **{f"GIT_{role}_NAME": "Ada" for role in ("AUTHOR", "COMMITTER")},
        **{f"GIT_{role}_EMAIL": "ada@example.com" for role in ("AUTHOR", "COMMITTER")},
    }
    if trace:
        env |= {"GIT_TRACE_CURL": str(trace), "GIT_TRACE_CURL_NO_DATA": "1", "GIT_TRACE_PACKET": f"{trace}.packets"}
    done = subprocess.run(
        ["git", *map(str, words)], cwd=cwd, env=env, capture_output=True, text=True, timeout=4 * DEADLINE
    )
    said = done.stdout + done.stderr
    assert (done.returncode != 0) == fails, said
    return said


def commit(folder: Path, name: str, content: bytes) -> str:
    """Commit a file; give the commit's name."""
    (folder / name).write_bytes(content)
    git("add", name, cwd=folder)
    git("commit", "--quiet", "-m", name, cwd=folder)
    return head(folder)


def head(folder: Path) -> str:
    """The commit that a repository stands at."""
    return git("rev-parse", "HEAD", cwd=folder).strip()


@pytest.fixture(name="site", scope="module")
def fixture_site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bare repository with three commits and many tags, its authors' copy, and the configuration."""
    folder = tmp_path_factory.mktemp("git")
    (folder / "srv").mkdir()
    git("init", "--quiet", "--bare", "--initial-branch=main", "srv/project.git", cwd=folder)
    # Tells whom the server let in.
    hook = folder / "srv/project.git/hooks/post-receive"
    hook.write_text('#!/bin/sh\nprintf "%s %s" "$REMOTE_USER" "$AUTH_TYPE" > pushed-by\n')
    hook.chmod(0o755)
    git("init", "--quiet", "--initial-branch=main", "author", cwd=folder)
    author = folder / "author"
    for number in range(3):
        commit(author, f"{number}.txt", b"text\n" * number)
    for number in range(60):
        # Each on a commit of its own, so that a client asks for each by name.
        tree = git("write-tree", cwd=author).strip()
        made = git("commit-tree", tree, "-m", f"tag {number}", cwd=author).strip()
        git("tag", f"v{number}", made, cwd=author)
    git("push", "--quiet", "--tags", folder / "srv/project.git", "main", cwd=author)
    (folder / "cgi-bin").mkdir()
    script = folder / "cgi-bin" / "git.cgi"
    script.write_text("#!/bin/sh\nexec git http-backend\n")
    script.chmod(0o755)
    env = f'GIT_PROJECT_ROOT = "{folder}/srv", GIT_HTTP_EXPORT_ALL = "1"'
    (folder / "daemun.toml").write_text(CONFIGURATION.format(env=env, users=USERS))
    return folder


@pytest.fixture(name="server")
def fixture_server(site: Path) -> Iterator[Server]:
    """Serve it."""
    with Server(cwd=site) as server:
        yield server


def url(server: Server, path: str, who: str = "") -> str:
    """Where the project is."""
    return f"http://{who}127.0.0.1:{server.port}{path}/project.git"


@pytest.mark.parametrize("path", ["/git", "/cgi-bin/git.cgi"], ids=["one program", "a script"])
def test_a_project_is_cloned_whole_and_shallow(server: Server, site: Path, tmp_path: Path, path: str) -> None:
    git("clone", url(server, path), "whole", cwd=tmp_path)
    assert head(tmp_path / "whole") == head(site / "author")
    assert git("rev-list", "--count", "HEAD", cwd=tmp_path / "whole").strip() == "3"
    git("clone", "--depth", "1", url(server, path), "shallow", cwd=tmp_path)
    assert git("rev-list", "--count", "HEAD", cwd=tmp_path / "shallow").strip() == "1"
    assert head(tmp_path / "shallow") == head(site / "author")
    git("fetch", "--unshallow", cwd=tmp_path / "shallow")
    assert git("rev-list", "--count", "HEAD", cwd=tmp_path / "shallow").strip() == "3"
    git("fsck", "--strict", cwd=tmp_path / "shallow")


@pytest.mark.parametrize("version", [0, 2])
def test_the_version_of_the_protocol_reaches_git(server: Server, tmp_path: Path, version: int) -> None:
    trace = tmp_path / "trace"
    git("-c", f"protocol.version={version}", "ls-remote", url(server, "/git"), cwd=tmp_path, trace=trace)
    spoken = "version 2" in Path(f"{trace}.packets").read_text()
    assert spoken == (version == 2)


def test_bodies_in_gzip_reach_git_as_they_are(server: Server, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    # Under version 0 each of the many tags is asked for in one body, which git then compresses.
    git("-c", "protocol.version=0", "clone", url(server, "/git"), "copy", cwd=tmp_path, trace=trace)
    assert re.search(r"=> Send header: content-encoding: gzip", trace.read_text(), re.IGNORECASE)
    assert len(git("tag", cwd=tmp_path / "copy").split()) == 60


def test_only_who_is_known_may_push_and_git_is_told_who(server: Server, site: Path, tmp_path: Path) -> None:
    git("clone", "--quiet", url(server, "/git"), "copy", cwd=tmp_path)
    copy, before = tmp_path / "copy", head(site / "srv/project.git")
    made = commit(copy, "pushed.txt", b"by ada")
    said = git("push", url(server, "/git"), "main", cwd=copy, fails=True)
    assert "403" in said, "git takes nothing from a client without a name"
    for who in ["ada:wrong@", "eve:correct@"]:
        said = git("push", url(server, "/private", who), "main", cwd=copy, fails=True)
        assert "Authentication failed" in said
    assert head(site / "srv/project.git") == before
    git("push", url(server, "/private", "ada:correct@"), "main", cwd=copy)
    assert head(site / "srv/project.git") == made
    assert (site / "srv/project.git/pushed-by").read_text() == "ada Basic"


def peak(server: Server) -> int:
    """Bytes of memory that the front has ever held."""
    status = Path(f"/proc/{front(server)}/status").read_text()
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def test_a_push_of_more_than_100_mb_goes_through_without_the_memory_for_it(
    server: Server, site: Path, tmp_path: Path
) -> None:
    git("clone", "--quiet", "--no-tags", url(server, "/git"), "copy", cwd=tmp_path)
    copy, trace = tmp_path / "copy", tmp_path / "trace"
    git("config", "core.compression", "0", cwd=copy)
    made = commit(copy, "large.bin", os.urandom(LARGE))
    before = peak(server)
    git("push", url(server, "/private", "ada:correct@"), "main:large", cwd=copy, trace=trace)
    assert re.search(r"=> Send header: transfer-encoding: chunked", trace.read_text(), re.IGNORECASE)
    assert git("rev-parse", "large", cwd=site / "srv/project.git").strip() == made
    git("clone", "--quiet", "--branch", "large", url(server, "/git"), "back", cwd=tmp_path)
    assert (tmp_path / "back/large.bin").read_bytes() == (copy / "large.bin").read_bytes()
    assert peak(server) - before < FLAT
