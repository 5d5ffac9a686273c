"""What is wrong with a Django project as it is deployed: the rules that only the project's own Python can decide.

``daemun check`` runs this file inside the project's interpreter; ``daemun.django`` in INSTALLED_APPS adds the same
rules to ``manage.py check``. Nothing is imported from daemun here, and nothing of the project is changed or run.
"""

from __future__ import annotations

import ast
import filecmp
import os
import re
import sys
from typing import Any, Callable, Iterator, NamedTuple
from urllib.parse import unquote, urlsplit

if __package__:
    from .places import find_places
else:
    # `daemun check` brings both files as texts.
    from daemun_places import find_places  # type: ignore[import-not-found, unused-ignore, no-redef]

#: How bad each is; what they mean is told by ``daemun help CODE``.
SEVERITIES = {
    **dict.fromkeys(("D101", "D102", "D107", "D110", "D112", "D209", "D211", "D217"), "error"),
    **dict.fromkeys(("D105", "D108", "D113", "D116", "D117", "D204", "D210", "D213", "D215", "D216"), "warning"),
    **dict.fromkeys(("D114", "D115", "D212"), "note"),
}

#: Templates and scripts above this size are not read: they are data.
LARGEST = 4 * 1024 * 1024

#: Mistakes of one kind that are told one by one.
MOST = 100

STATIC = re.compile(r"""\{%-?\s*static\s+(?P<quote>['"])(?P<name>[^'"]*)(?P=quote)(?=\s|%\}|-%\})""")
JINJA = re.compile(r"""\bstatic\(\s*(?P<quote>['"])(?P<name>[^'"]*)(?P=quote)\s*\)""")
LOAD = re.compile(r"\{%-?\s*load\s+(?P<words>[^%]*?)-?%\}")
HIDDEN = re.compile(
    r"\{#.*?#\}|\{%\s*comment\b.*?%\}.*?\{%\s*endcomment\s*%\}"
    r"|\{%\s*verbatim(?P<name>[^%]*)%\}.*?\{%\s*endverbatim(?P=name)%\}",
    re.DOTALL,
)
GONE = {"staticfiles": "static", "admin_static": "static"}
SOURCE_MAP = re.compile(r"^(?://|/\*)[#@][ \t]sourceMappingURL=(?P<url>[^\s*]+)", re.MULTILINE)


class Found(NamedTuple):
    """A mistake."""

    code: str
    message: str
    mend: str
    file: str | None = None
    line: int | None = None


class Skip(Exception):  # noqa: N818
    """Why a rule cannot run."""


class Template(NamedTuple):
    """A template's place and text, in which what is hidden from the engine is blank."""

    path: str
    text: str
    is_jinja: bool

    def line(self, at: int) -> int:
        """Count the lines up to a character."""
        return self.text.count("\n", 0, at) + 1


class Project:
    """A Django project that is set up, and what is known of how it is served."""

    def __init__(self, directory: str | None = None, workers: int | None = None, threads: int | None = None) -> None:
        from django.conf import settings

        self.settings = settings
        self.directory = directory
        #: Threads of all processes, and of one.
        self.workers, self.threads = workers, threads
        self.places = find_places()
        self._sources: list[tuple[str, str, str]] | None = None
        self._templates: list[Template] | None = None

    def found(self, code: str, setting: str, message: str, mend: str) -> Found:
        """Give a mistake in a setting."""
        file, line = self.places.get(setting, (None, None))
        if file is None:
            module = sys.modules.get(os.environ.get("DJANGO_SETTINGS_MODULE", ""))
            file = getattr(module, "__file__", None)
        return Found(code, message, mend, file, line)

    def path(self, setting: str) -> str | None:
        """Give a folder that a setting names, absolute."""
        value = getattr(self.settings, setting, None)
        return os.path.abspath(str(value)) if value else None

    def needs_staticfiles(self) -> None:
        """Skip where there are no static files."""
        from django.apps import apps

        if not apps.is_installed("django.contrib.staticfiles"):
            raise Skip("django.contrib.staticfiles is not installed")

    def storage(self) -> Any:
        """Give the storage of static files."""
        self.needs_staticfiles()
        from django.contrib.staticfiles.storage import staticfiles_storage

        try:
            str(staticfiles_storage)
        except Exception as error:
            raise Skip("the static files storage cannot be made: %s" % error) from error
        return staticfiles_storage._wrapped

    def sources(self) -> list[tuple[str, str, str]]:
        """Give every static file that the finders list: its name, its path, and whose it is. Shadowed ones too."""
        if self._sources is None:
            self.needs_staticfiles()
            from django.apps import apps
            from django.contrib.staticfiles import finders

            ignore = list(apps.get_app_config("staticfiles").ignore_patterns)
            self._sources = []
            for finder in finders.get_finders():
                owners = {id(one): app for app, one in getattr(finder, "storages", {}).items()}
                for name, storage in finder.list(ignore):
                    prefix = getattr(storage, "prefix", None)
                    full = os.path.join(prefix, name) if prefix else name
                    try:
                        path = storage.path(name)
                    except NotImplementedError:
                        continue
                    is_app = isinstance(finder, finders.AppDirectoriesFinder)
                    self._sources.append((full, path, str(owners.get(id(storage), "")) if is_app else ""))
        return self._sources

    def templates(self) -> list[Template]:
        """Give every template of every application and folder."""
        if self._templates is None:
            from django.template import engines

            self._templates = []
            seen: set[str] = set()
            for engine in engines.all():
                is_jinja = type(engine).__name__ == "Jinja2"
                for folder in engine.template_dirs:
                    self._templates += [
                        Template(path, HIDDEN.sub(blank, text), is_jinja)
                        for path, text in texts_below(str(folder))
                        if path not in seen and not seen.add(path)  # type: ignore[func-returns-value]
                    ]
        return self._templates


Rule = Callable[[Project], Iterator[Found]]
RULES: list[tuple[tuple[str, ...], Rule]] = []


def rule(*codes: str) -> Callable[[Rule], Rule]:
    """Add a function to the rules."""

    def add(function: Rule) -> Rule:
        RULES.append((codes, function))
        return function

    return add


def examine(project: Project) -> dict[str, Any]:
    """Run every rule."""
    told: dict[str, Any] = {"findings": [], "ran": [], "skipped": {}}
    for codes, function in RULES:
        try:
            found = list(function(project))
        except Skip as reason:
            told["skipped"].update(dict.fromkeys(codes, str(reason)))
            continue
        except Exception as error:  # noqa: BLE001
            reason_ = "the rule failed: %s: %s" % (type(error).__name__, error)
            told["skipped"].update(dict.fromkeys(codes, reason_))
            continue
        told["ran"] += codes
        told["findings"] += [one._asdict() for one in found[:MOST]]
    return told


# === Texts ===


def blank(match: re.Match[str]) -> str:
    """Leave the lines of what is cut out."""
    return "\n" * match[0].count("\n")


def texts_below(folder: str) -> Iterator[tuple[str, str]]:
    """Give every text file below a folder."""
    for base, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "node_modules")
        for name in sorted(names):
            path = os.path.join(base, name)
            text = read_text(path)
            if text is not None:
                yield path, text


def read_text(path: str) -> str | None:
    """Give a file's text; None where it is none, or too large."""
    try:
        if os.path.getsize(path) > LARGEST:
            return None
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError):
        return None


def is_inside(path: str, folder: str) -> bool:
    """Whether a path is a folder, or lies below it."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


# === Static files ===


@rule("D101", "D102")
def static_root(project: Project) -> Iterator[Found]:
    """Look where STATIC_ROOT lies."""
    root = project.path("STATIC_ROOT")
    if root is None:
        return
    mend = 'collect to a folder of its own: STATIC_ROOT = BASE_DIR / "staticfiles"'
    for entry in project.settings.STATICFILES_DIRS:
        source = os.path.abspath(str(entry[1] if isinstance(entry, (list, tuple)) else entry))
        if is_inside(root, source):
            message = "STATIC_ROOT is %s, which is in STATICFILES_DIRS: Django refuses it (staticfiles.E002)"
            yield project.found("D101", "STATIC_ROOT", message % root, mend)
    text, url = str(project.settings.STATIC_ROOT), str(project.settings.STATIC_URL or "")
    if root == os.sep:
        yield project.found("D102", "STATIC_ROOT", "STATIC_ROOT is the root of the file system", mend)
    elif text.startswith("/") and text.strip("/") == url.strip("/"):
        message = "STATIC_ROOT is %s, the text of STATIC_URL: that is a folder at the root of the file system"
        yield project.found("D102", "STATIC_ROOT", message % text, mend)


@rule("D105")
def old_files(project: Project) -> Iterator[Found]:
    """Compare what was collected with its sources."""
    root = project.path("STATIC_ROOT")
    if root is None or not os.path.isdir(root) or not os.listdir(root):
        raise Skip("nothing was collected")
    if getattr(project.storage(), "keep_only_hashed_files", False):
        raise Skip("the storage keeps hashed files only")
    old, seen = [], set()
    for name, path, _ in project.sources():
        if name in seen:
            continue
        seen.add(name)
        try:
            if not is_same(path, os.path.join(root, name)):
                old.append(name)
        except OSError:
            old.append(name)
    if old:
        names = ", ".join(old[:3]) + (" and %d more" % (len(old) - 3) if len(old) > 3 else "")
        message = "collected files in %s are not those of the sources any more: %s" % (root, names)
        yield project.found("D105", "STATIC_ROOT", message, "run daemun collect")


def is_same(source: str, collected: str) -> bool:
    """Whether a file was collected since it was last changed: by time, and where that says nothing by content."""
    one, other = os.stat(source), os.stat(collected)
    if one.st_size != other.st_size:
        return False
    return one.st_mtime <= other.st_mtime or filecmp.cmp(source, collected, shallow=False)


@rule("D107", "D108")
def template_names(project: Project) -> Iterator[Found]:
    """Look every literal `{% static %}` up."""
    from django.contrib.staticfiles import finders

    storage = project.storage()
    manifest = getattr(storage, "hashed_files", None)
    strict = bool(manifest) and getattr(storage, "manifest_strict", False) and not project.settings.DEBUG
    known: dict[str, bool] = {}
    for template in project.templates():
        for match in (JINJA if template.is_jinja else STATIC).finditer(template.text):
            written = match["name"]
            name = unquote(urlsplit(written).path)
            if not name or name.endswith("/") or urlsplit(written).netloc or name.startswith("/"):
                continue
            if name not in known:
                known[name] = is_in_manifest(storage, name) if strict else finders.find(name) is not None
            if not known[name]:
                place = (template.path, template.line(match.start()))
                near = nearest(name, manifest if strict else (source for source, _, _ in project.sources()))
                mend = "write %r" % near if near else "add the file, and collect"
                if strict:
                    message = (
                        "{%% static %r %%}: the manifest has no such name: every page of this template will be 500"
                    )
                    yield Found("D107", message % written, mend, *place)
                else:
                    yield Found("D108", "{%% static %r %%}: no finder has such a file: 404" % written, mend, *place)


def is_in_manifest(storage: Any, name: str) -> bool:
    """Whether the storage finds a name as it does for a page."""
    try:
        storage.stored_name(name)
    except ValueError:
        return False
    return True


def nearest(name: str, names: Any) -> str | None:
    """Give the nearest name that is there."""
    import difflib

    near = difflib.get_close_matches(name, list(names or ()), 1, 0.75)
    return near[0] if near else None


@rule("D110")
def gone_libraries(project: Project) -> Iterator[Found]:
    """Look for tag libraries that Django 3.0 has removed."""
    import django
    from django.template.backends.django import get_installed_libraries

    if django.VERSION < (3, 0):
        raise Skip("this Django still has them")
    libraries = set(get_installed_libraries())
    for configured in project.settings.TEMPLATES:
        libraries |= set((configured.get("OPTIONS") or {}).get("libraries") or ())
    for template in project.templates():
        for match in LOAD.finditer(template.text) if not template.is_jinja else ():
            words = match["words"].split()
            words = words[-1:] if "from" in words else words
            for word in words:
                if word in GONE and word not in libraries:
                    message = "{%% load %s %%}: Django %s has no such library: the page will be 500"
                    mend = "write {%% load %s %%}" % GONE[word]
                    line = template.line(match.start())
                    yield Found("D110", message % (word, django.get_version()), mend, template.path, line)


@rule("D112")
def slashes(project: Project) -> Iterator[Found]:
    """Look at the end of URLs."""
    for setting in ("STATIC_URL", "MEDIA_URL"):
        url = str(getattr(project.settings, setting, None) or "")
        if url and not url.endswith("/"):
            message = "%s is %r: it must end with a slash" % (setting, url)
            yield project.found("D112", setting, message, "%s = %r" % (setting, url + "/"))


@rule("D113")
def media_among_static(project: Project) -> Iterator[Found]:
    """Look whether uploads and static files share a folder."""
    static, media = project.path("STATIC_ROOT"), project.path("MEDIA_ROOT")
    if static is None or media is None:
        return
    if project.directory and is_inside(project.directory, media):
        # It holds the project itself, which is told as that.
        return
    if is_inside(media, static) or is_inside(static, media):
        message = "MEDIA_ROOT is %s and STATIC_ROOT is %s: uploads lie among static files" % (media, static)
        yield project.found("D113", "MEDIA_ROOT", message, 'MEDIA_ROOT = BASE_DIR / "media"')


@rule("D114")
def shadowed(project: Project) -> Iterator[Found]:
    """Look for files of two applications that have one name."""
    first: dict[str, tuple[str, str]] = {}
    for name, path, app in project.sources():
        if not app:
            continue
        winner, winning = first.setdefault(name, (app, path))
        if winner != app and not filecmp.cmp(path, winning, shallow=False):
            message = "%s of %s is never served: %s has a file of the same name and comes first" % (name, app, winner)
            yield Found("D114", message, "move it to static/%s/" % app.rpartition(".")[2], path)


@rule("D115", "D116")
def whitenoise(project: Project) -> Iterator[Found]:
    """Look for whitenoise's middleware."""
    names = [str(name) for name in project.settings.MIDDLEWARE or ()]
    ours = [at for at, name in enumerate(names) if name.endswith(".WhiteNoiseMiddleware")]
    if not ours:
        return
    message = "whitenoise's middleware is never asked: daemun answers STATIC_URL before the application"
    yield project.found("D115", "MIDDLEWARE", message, "remove %s" % names[ours[0]])
    if any(name.endswith(".GZipMiddleware") for name in names[: ours[0]]):
        message = "GZipMiddleware stands before whitenoise: what is compressed already is compressed for each request"
        yield project.found(
            "D116", "MIDDLEWARE", message, "put whitenoise right behind SecurityMiddleware, or remove it"
        )


@rule("D117")
def source_maps(project: Project) -> Iterator[Found]:
    """Look source maps up where the storage follows them."""
    from django.contrib.staticfiles.storage import HashedFilesMixin

    storage = project.storage()
    if not isinstance(storage, HashedFilesMixin):
        raise Skip("the storage does not follow source maps")
    follows = [
        ending
        for ending in ("css", "js")
        if "sourceMappingURL" in str(storage._patterns.get("*." + ending, ""))  # type: ignore[attr-defined, unused-ignore]
    ]
    names = {name for name, _, _ in project.sources()}
    for name, path, _ in project.sources():
        if name.rpartition(".")[2] not in follows:
            continue
        text = read_text(path) or ""
        for match in SOURCE_MAP.finditer(text):
            url = unquote(urlsplit(match["url"]).path)
            if ":" in match["url"] or match["url"].startswith("/") or not url:
                continue
            if os.path.normpath(os.path.join(os.path.dirname(name), url)) not in names:
                line = text.count("\n", 0, match.start()) + 1
                message = "%s names the source map %s, which is not there: collecting fails" % (name, match["url"])
                yield Found("D117", message, "add it, remove the line, or daemun collect --allow-missing", path, line)


# === Deployment ===


@rule("D204")
def secret_key(project: Project) -> Iterator[Found]:
    """Look at the key's form; it is never told."""
    key = str(project.settings.SECRET_KEY)
    mend = 'SECRET_KEY = os.environ["SECRET_KEY"], with 50 random characters there'
    if key.startswith("django-insecure-"):
        yield project.found("D204", "SECRET_KEY", "SECRET_KEY is the one that startproject wrote", mend)
    elif len(key) < 32 or len(set(key)) < 5:
        yield project.found("D204", "SECRET_KEY", "SECRET_KEY is short enough to be guessed", mend)


@rule("D209")
def trusted_origins(project: Project) -> Iterator[Found]:
    """Look for origins without a scheme."""
    import django

    if django.VERSION < (4, 0):
        raise Skip("before Django 4.0 they are host names")
    for origin in project.settings.CSRF_TRUSTED_ORIGINS:
        if "://" not in str(origin):
            message = "CSRF_TRUSTED_ORIGINS has %r without a scheme: forms from there are 403 (4_0.E001)" % origin
            yield project.found("D209", "CSRF_TRUSTED_ORIGINS", message, "write %r" % ("https://%s" % origin))


@rule("D210")
def two_settings(project: Project) -> Iterator[Found]:
    """Compare the settings of manage.py with those of the WSGI module."""
    directory = project.directory or str(getattr(project.settings, "BASE_DIR", None) or "")
    manage = os.path.join(directory, "manage.py")
    one = named_settings(manage)
    if one is None:
        raise Skip("no manage.py that names settings")
    name = str(project.settings.WSGI_APPLICATION or "").rpartition(".")[0]
    module = sys.modules.get(name)
    wsgi = getattr(module, "__file__", None) or os.path.join(directory, *name.split(".")) + ".py"
    other = named_settings(wsgi)
    if other is None:
        raise Skip("no WSGI module that names settings")
    is_pair = "." in one[0] and one[0].rpartition(".")[0] == other[0].rpartition(".")[0] and ".settings." in one[0]
    if one[0] != other[0] and not is_pair:
        message = "%s names the settings %s, and manage.py %s: commands work on another site than the one served"
        mend = "name the same module in both"
        yield Found("D210", message % (os.path.basename(wsgi), other[0], one[0]), mend, os.path.abspath(wsgi), other[1])


def named_settings(path: str) -> tuple[str, int] | None:
    """Give the settings module that a file sets, and the line."""
    try:
        with open(path, "rb") as file:
            tree = ast.parse(file.read())
    except (OSError, SyntaxError, ValueError):
        return None
    for node in ast.walk(tree):
        values: list[ast.expr] = []
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "setdefault":
            values = node.args
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
            index: Any = node.targets[0].slice
            # Before Python 3.9 the index is wrapped.
            values = [getattr(index, "value", index) if type(index).__name__ == "Index" else index, node.value]
        texts = [getattr(value, "value", None) for value in values]
        if len(texts) == 2 and texts[0] == "DJANGO_SETTINGS_MODULE" and isinstance(texts[1], str):
            return texts[1], int(getattr(node, "lineno", 1))
    return None


def sqlite_files(project: Project) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give the files of SQLite databases."""
    for database in project.settings.DATABASES.values():
        name = str(database.get("NAME") or "")
        if "sqlite3" in str(database.get("ENGINE")) and name and name != ":memory:" and not name.startswith("file:"):
            yield os.path.abspath(name), database


@rule("D211")
def sqlite_rights(project: Project) -> Iterator[Found]:
    """Try the rights of the user that runs this: the application's."""
    for path, _ in sqlite_files(project):
        folder = os.path.dirname(path)
        if not os.path.isdir(folder):
            message, what = "the folder of the SQLite database %s is not there" % path, "mkdir -p %s" % folder
        elif os.path.exists(path) and not os.access(path, os.W_OK):
            message, what = "the SQLite database %s cannot be written by user %s" % (path, user()), "chown it"
        elif not os.access(folder, os.W_OK | os.X_OK):
            message = "the folder of the SQLite database, %s, cannot be written by user %s: its journal is made there"
            message, what = message % (folder, user()), "chown it; give the database a folder of its own"
        else:
            continue
        yield project.found("D211", "DATABASES", message, what)


@rule("D212")
def sqlite_writers(project: Project) -> Iterator[Found]:
    """Count the writers of an SQLite database."""
    if project.workers is None:
        raise Skip("how many workers there are is known by `daemun check` only")
    for path, database in sqlite_files(project):
        options = database.get("OPTIONS") or {}
        if project.workers > 1 and not options.get("transaction_mode"):
            message = "%d threads write to the SQLite database %s, one at a time: 'database is locked' under load"
            mend = '"OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20}, or another database'
            yield project.found("D212", "DATABASES", message % (project.workers, path), mend)


@rule("D213")
def media_rights(project: Project) -> Iterator[Found]:
    """Try the rights of the user that runs this."""
    root = project.path("MEDIA_ROOT")
    if root and os.path.isdir(root) and not os.access(root, os.W_OK | os.X_OK):
        message = "MEDIA_ROOT %s cannot be written by user %s: uploads will be 500" % (root, user())
        yield project.found("D213", "MEDIA_ROOT", message, "give the folder to that user")


@rule("D215", "D216", "D217")
def connections(project: Project) -> Iterator[Found]:
    """Count the connections that threads have to a database."""
    if project.workers is None or project.threads is None:
        raise Skip("how many workers there are is known by `daemun check` only")
    most = {"postgresql": 97, "postgis": 97, "mysql": 151}
    for alias, database in project.settings.DATABASES.items():
        kind = str(database.get("ENGINE") or "").rpartition(".")[2]
        if kind not in most:
            continue
        pool = (database.get("OPTIONS") or {}).get("pool")
        if pool:
            if database.get("CONN_MAX_AGE", 0) != 0:
                message = "the database %r has a pool and CONN_MAX_AGE: Django refuses to connect" % alias
                yield project.found("D217", "DATABASES", message, "remove CONN_MAX_AGE: the pool keeps connections")
            # psycopg's pool has four where nothing else is said.
            size = (pool.get("max_size") or pool.get("min_size") or 4) if isinstance(pool, dict) else 4
            if size < project.threads:
                message = "a process has %d threads, and its pool of the database %r %d connections: the others wait"
                mend = '"pool": {"max_size": %d}' % project.threads
                yield project.found("D215", "DATABASES", message % (project.threads, alias, size), mend)
            count = project.workers // project.threads * size
        else:
            count = project.workers
        if count > most[kind]:
            kept = "" if pool or database.get("CONN_MAX_AGE", 0) == 0 else ", and CONN_MAX_AGE keeps them open"
            message = "the workers have up to %d connections to the database %r%s; it allows %d where nothing is set"
            mend = "fewer processes or threads, a pooler such as pgbouncer, or a higher max_connections"
            yield project.found("D216", "DATABASES", message % (count, alias, kept, most[kind]), mend)


def user() -> str:
    """Give the name of the user that runs this."""
    import pwd

    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
