"""DokuWiki as Debian has it, through php-fpm and through php-cgi that daemun starts, used with a browser.

With `DEMO_SHOTS` the browser's pictures stay in that folder.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Page
from server import DEADLINE, Server, eventually
from test_cgi_sites import page, shoot
from test_wagtail import picture

__all__ = ["page"]
PASSWORD = "correct horse battery staple"
# What DokuWiki's own `.htaccess` says, in our words.
CONFIGURATION = """
[upstream.php]
{servers}

[[route]]
path = "/doku.php"
upstream = {{ name = "php", root = "{wiki}" }}

[[route]]
path = "/lib/exe/*"
upstream = {{ name = "php", root = "{wiki}" }}

[[route]]
path = "/lib/*"
static = {{ root = "{wiki}/lib" }}

[[route]]
path = "/_media/*"
upstream = {{ name = "php", root = "{wiki}" }}
rewrite = "/lib/exe/fetch.php?media={{rest}}&{{query}}"

[[route]]
path = "/_detail/*"
upstream = {{ name = "php", root = "{wiki}" }}
rewrite = "/lib/exe/detail.php?media={{rest}}&{{query}}"

[[route]]
path = "/*"
upstream = {{ name = "php", root = "{wiki}" }}
rewrite = "/doku.php?id={{rest}}&{{query}}"
"""
CLOSED = '[[route]]\npath = "/{}/*"\nrespond = {{ status = 403 }}\n'
PRELOAD = "<?php\ndefine('DOKU_CONF', '{folder}/conf/');\n"
LOCAL = """<?php
$conf['title'] = 'The gate';
$conf['useacl'] = 1;
$conf['superuser'] = '@admin';
$conf['savedir'] = '{folder}/data';
$conf['userewrite'] = 1;
$conf['updatecheck'] = 0;
"""
POOL = """[global]
daemonize = no
error_log = {folder}/fpm.log
[www]
{user}
listen = {folder}/fpm.sock
listen.mode = 0666
pm = static
pm.max_children = 3
"""


def wiki(folder: Path) -> Path:
    """Put a wiki of its own there, with one user; give the folder that is served."""
    root = folder / "wiki"
    shutil.copytree("/usr/share/dokuwiki", root, ignore=shutil.ignore_patterns(".htaccess*"))
    shutil.copytree("/var/lib/dokuwiki/data", folder / "data")
    shutil.copytree("/etc/dokuwiki", folder / "conf")
    (root / "inc" / "preload.php").write_text(PRELOAD.format(folder=folder))
    (folder / "conf" / "local.php").write_text(LOCAL.format(folder=folder))
    # As old wikis have it: DokuWiki tells by the length.
    hashed = hashlib.md5(PASSWORD.encode(), usedforsecurity=False).hexdigest()
    (folder / "conf" / "users.auth.php").write_text(f"admin:{hashed}:Keeper:keeper@example.com:admin,user\n")
    (folder / "conf" / "acl.auth.php").write_text("*\t@ALL\t1\n*\t@user\t8\n")
    return root


def fpm(folder: Path, stack: ExitStack) -> str:
    """Start php-fpm; give its URL."""
    program = next(iter(sorted(Path("/usr/sbin").glob("php-fpm*"))), None)
    assert program, "no php-fpm; run:  scripts/require wikis"
    as_root = os.geteuid() == 0
    user = "user = root\ngroup = root" if as_root else ""
    (folder / "fpm.conf").write_text(POOL.format(folder=folder, user=user))
    command = [program, "--nodaemonize", "--fpm-config", folder / "fpm.conf", *(["-R"] if as_root else [])]
    process = subprocess.Popen(command)
    stack.callback(process.wait, DEADLINE)
    stack.callback(process.terminate)
    eventually((folder / "fpm.sock").exists, "php-fpm listens")
    return f'servers = ["fastcgi://unix:{folder}/fpm.sock"]'


@pytest.fixture(params=["spawned", "fpm"])
def site(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """Serve a wiki; give its URL and how its scripts are run."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="daemun-wiki-")))
        folder.chmod(0o755)
        root = wiki(folder)
        spawned = 'spawn = { command = ["php-cgi"], processes = 3 }'
        servers = spawned if request.param == "spawned" else fpm(folder, stack)
        closed = "".join(CLOSED.format(name) for name in ("inc", "bin", "vendor", "conf", "data"))
        (folder / "daemun.toml").write_text(CONFIGURATION.format(servers=servers, wiki=root) + closed)
        server = stack.enter_context(Server(cwd=folder))
        yield f"http://127.0.0.1:{server.port}", str(request.param)
        assert server.stop() == 0


def test_a_wiki_is_read_written_and_given_pictures(site: tuple[str, str], page: Page, tmp_path: Path) -> None:
    home, how = site
    page.set_default_timeout(20_000)
    page.goto(home)
    assert page.title().endswith("[The gate]")
    # Signed in, and so to be seen on every page.
    page.goto(f"{home}/start?do=login")
    page.fill("input[name=u]", "admin")
    page.fill("input[name=p]", PASSWORD)
    page.click("#dw__login button[type=submit]")
    assert "Keeper" in page.inner_text(".user")
    # A picture is given.
    page.goto(f"{home}/start?do=media&ns=&tab_files=upload")
    page.set_input_files("input[type=file]", picture(tmp_path / "gate.png", 120))
    page.click("#mediamanager__upload_button")
    page.wait_for_selector(".qq-upload-success, .success")
    shoot(page, f"wiki-{how}-upload", tmp_path)
    # A page is written, with it, and stays below its own name.
    page.goto(f"{home}/house:gate?do=edit")
    page.fill("textarea[name=wikitext]", "====== The great gate ======\n\n대문 is **open**. {{:gate.png}}\n")
    page.click("#edbtn__save")
    page.wait_for_selector("h1:has-text('The great gate')")
    assert page.url.split("#")[0] == f"{home}/house:gate"
    shoot(page, f"wiki-{how}-page", tmp_path)
    assert page.eval_on_selector(".page img", "image => [image.naturalWidth, new URL(image.src).pathname]") == [
        120,
        "/_media/gate.png",
    ]
    # And written again: both are in its history.
    page.goto(f"{home}/house:gate?do=edit")
    page.fill("textarea[name=wikitext]", "====== The great gate ======\n\nIt is closed.\n")
    page.click("#edbtn__save")
    page.wait_for_selector("text=It is closed.")
    page.goto(f"{home}/house:gate?do=revisions")
    assert page.locator("#page__revisions li").count() == 2
    shoot(page, f"wiki-{how}-history", tmp_path)
    # Who is not signed in reads it by its name, and cannot write.
    with urllib.request.urlopen(f"{home}/house:gate", timeout=DEADLINE) as reply:
        assert "It is closed." in reply.read().decode()
    with urllib.request.urlopen(f"{home}/house:gate?do=edit", timeout=DEADLINE) as reply:
        assert 'id="edbtn__save"' not in reply.read().decode()
    # What is not for the web is not sent, as text or otherwise.
    for path in ("/inc/init.php", "/conf/users.auth.php", "/data/pages/house/gate.txt"):
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(home + path, timeout=DEADLINE)
