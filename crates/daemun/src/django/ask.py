"""Asks a Django project, inside its own interpreter, everything that `collect` must know of it.

The program carries this file inside itself and runs it as `python -c … MODULE DIRECTORY OUT LIFELINE`: the WSGI module
is imported first, so that the settings are those that it chooses. One JSON object goes to the descriptor OUT. Nothing
is decided here that the program could decide; what only Python can see is told: which methods a storage really has,
and the text of its patterns.
"""

import hashlib
import inspect
import os
import re
import sys

# The methods of Django's storages that `collect` does itself, by the fingerprint of their text (see `fingerprint`).
# Every released series from 3.2 is here; a method whose text is not is left to Django's own command.
KNOWN = {
    "HashedFilesMixin.file_hash": ["970c41e8", "62f352ae"],
    "HashedFilesMixin.hashed_name": ["3f747f06", "bc9b36f2"],
    "HashedFilesMixin._url": ["4a3180f4", "43ac183e"],
    "HashedFilesMixin.url_converter": [
        *("915075fa", "121659eb", "98f46eee", "49337603", "7459f264", "8b3ca230", "b5d04bcc"),
    ],
    "HashedFilesMixin.post_process": ["0013789d", "ffcf2184", "e3ef21a1"],
    "HashedFilesMixin._post_process": ["e7957f58", "453480ff", "0eacc252", "76a65ac0"],
    "HashedFilesMixin.clean_name": ["a1565261", "a2b6c266"],
    "HashedFilesMixin.hash_key": ["2fc70a4c"],
    "HashedFilesMixin._stored_name": ["f0a6de38"],
    "HashedFilesMixin.get_ignored_blocks": ["032918e4"],
    "HashedFilesMixin.is_in_ignored_block": ["baf65b22"],
    "ManifestFilesMixin.post_process": ["f59b574f", "b90c6bf8"],
    "ManifestFilesMixin.save_manifest": ["f39b8d95", "45dc47e2", "595d324b", "dc77ec81"],
}

# What a storage may do in its own way: none of it takes part in collecting.
FREE = {"__init__", "url", "stored_name", "read_manifest", "load_manifest", "keep_only_hashed_files", "__repr__"}

# Whose methods are known.
OURS = (
    "django.contrib.staticfiles.storage",
    "django.core.files.storage",
    "django.utils",
    "whitenoise.",
    "daemun.django",
)

# Settings that `check` looks at.
TOLD = re.compile(
    r"(STATIC|MEDIA|SECURE_|CSRF_|SESSION_COOKIE|WHITENOISE_|FORCE_SCRIPT)\w*\Z|(DEBUG|ALLOWED_HOSTS|INSTALLED_APPS|"
    r"MIDDLEWARE|TEMPLATES|STORAGES|STATICFILES_STORAGE|USE_X_FORWARDED_HOST|USE_X_FORWARDED_PORT|APPEND_SLASH|"
    r"WSGI_APPLICATION|ROOT_URLCONF|BASE_DIR)\Z"
)


class Unknown(Exception):
    """Something that `collect` does not do itself, and so leaves to Django's own command."""


def main():
    module, directory, out, lifeline = sys.argv[1:5]
    out, lifeline = int(out), int(lifeline)
    del sys.argv[1:]
    begin(directory, out, lifeline)  # noqa: F821 - of asked.py
    # What the project prints while it is imported must not stand between what programs read.
    os.dup2(2, 1)
    __import__(module)
    import django

    django.setup()
    answer = {"django": django.get_version(), "python": sys.version.split()[0]}
    questions = (ask_settings, ask_places, ask_checks, ask_finders, ask_storage)
    for question in questions:
        try:
            answer.update(question())
        except Unknown as error:
            answer.setdefault("fallback", str(error))
    end(out, answer)  # noqa: F821 - of asked.py


# === Settings ===


def ask_settings():
    from django.conf import settings

    told = {}
    for name in dir(settings):
        if TOLD.match(name):
            try:
                told[name] = plain(getattr(settings, name))
            except Exception as error:  # noqa: BLE001
                told[name] = "%s: %s" % (type(error).__name__, error)
    databases = getattr(settings, "DATABASES", None) or {}
    told["DATABASES"] = {
        alias: {"ENGINE": plain(database.get("ENGINE")), "NAME": plain(database.get("NAME"))}
        for alias, database in databases.items()
    }
    # Never the key itself.
    told["SECRET_KEY"] = bool(getattr(settings, "SECRET_KEY", ""))
    return {"settings": told, "settings_module": os.environ.get("DJANGO_SETTINGS_MODULE")}


def plain(value):
    """As JSON, with paths as text."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items() if "PASSWORD" not in str(key).upper()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def ask_places():
    """File and line of each setting's last assignment."""
    places = find_places()  # noqa: F821 - of places.py
    return {"places": {name: {"file": file, "line": line} for name, (file, line) in places.items()}}


def ask_checks():
    """What `collectstatic` itself checks before it begins."""
    from django.core import checks

    messages = checks.run_checks(tags=["staticfiles"])
    told = [
        {"level": message.level, "id": message.id, "message": str(message.msg), "hint": text_or_none(message.hint)}
        for message in messages
        if not message.is_silenced()
    ]
    return {"checks": told}


def text_or_none(value):
    return None if value is None else str(value)


# === Finders ===


def ask_finders():
    from django.apps import apps
    from django.contrib.staticfiles import finders
    from django.core.management import get_commands

    if not apps.is_installed("django.contrib.staticfiles"):
        return {"staticfiles": False}
    command = get_commands().get("collectstatic")
    command = command if isinstance(command, str) else type(command).__module__
    if command != "django.contrib.staticfiles":
        raise Unknown("%s has a collectstatic command of its own" % command)
    sources = []
    for finder in finders.get_finders():
        sources += sources_of(finder, finders)
    return {"staticfiles": True, "sources": sources, "ignore": list(apps.get_app_config("staticfiles").ignore_patterns)}


def sources_of(finder, finders):
    kind = type(finder)
    known = (finders.FileSystemFinder, finders.AppDirectoriesFinder, finders.DefaultStorageFinder)
    own = [
        name
        for base in kind.__mro__
        if base.__module__ != finders.__name__ and base is not object
        for name, value in vars(base).items()
        if callable(value) and name not in ("__init__", "find", "check")
    ]
    if own or not isinstance(finder, known):
        raise Unknown("the finder %s.%s is not one of Django's" % (kind.__module__, kind.__name__))
    if isinstance(finder, finders.FileSystemFinder):
        storages = [finder.storages[root] for _, root in finder.locations]
        prefixes = [prefix for prefix, _ in finder.locations]
    elif isinstance(finder, finders.AppDirectoriesFinder):
        storages = list(finder.storages.values())
        prefixes = [getattr(storage, "prefix", None) for storage in storages]
    else:
        storage = finder.storage
        storages = [getattr(storage, "_wrapped", storage)]
        prefixes = [None]
    from django.core.files.storage import FileSystemStorage

    for storage in storages:
        if type(storage) is not FileSystemStorage:
            raise Unknown("the finder %s reads from %s" % (kind.__name__, type(storage).__name__))
    return [
        {"prefix": str(prefix or ""), "path": os.path.abspath(str(storage.location))}
        for prefix, storage in zip(prefixes, storages)
    ]


# === The storage ===


def ask_storage():
    from django.contrib.staticfiles.storage import HashedFilesMixin, StaticFilesStorage, staticfiles_storage
    from django.core.files.storage import FileSystemStorage

    # The lazy object's own attributes are of no use: make it, and look inside.
    try:
        str(staticfiles_storage)
        storage = staticfiles_storage._wrapped
    except ValueError as error:
        # A manifest that cannot be read: the next one replaces it.
        raise Unknown("the storage cannot be made: %s" % error)
    kind = type(storage)
    name = kind.__module__ + "." + kind.__name__
    if not isinstance(storage, StaticFilesStorage) or not isinstance(storage, FileSystemStorage):
        raise Unknown("the storage %s is not one of files in a folder that daemun knows" % name)
    check_methods(kind, name)
    told = {
        "class": name,
        "location": text_or_none(storage.location),
        "file_mode": storage.file_permissions_mode,
        "folder_mode": storage.directory_permissions_mode,
        "hashing": hashing(storage) if isinstance(storage, HashedFilesMixin) else None,
        "compression": compression(storage, kind),
    }
    return {"storage": told}


def check_methods(kind, name):
    """Raises where a method is not one that we know."""
    for base in kind.__mro__:
        module = base.__module__
        if base is object or module.startswith(OURS):
            continue
        for attribute, value in vars(base).items():
            is_method = callable(value) or isinstance(value, (property, classmethod, staticmethod))
            if is_method and not isinstance(value, type) and attribute not in FREE:
                raise Unknown("the storage %s has a %s of its own" % (name, attribute))
    for base in kind.__mro__:
        if base.__module__ != "django.contrib.staticfiles.storage":
            continue
        for attribute, value in vars(base).items():
            known = KNOWN.get(base.__name__ + "." + attribute)
            if known is not None and inspect.isfunction(value) and fingerprint(value) not in known:
                raise Unknown("this Django's %s.%s is not known" % (base.__name__, attribute))


def fingerprint(function):
    """Of a function's text without white space."""
    text = inspect.getsource(function).strip()
    return hashlib.md5(re.sub(r"\s+", "", text).encode("utf-8")).hexdigest()[:8]  # noqa: S324


def hashing(storage):
    from django.conf import settings
    from django.contrib.staticfiles.storage import HashedFilesMixin, ManifestFilesMixin

    converter = inspect.getsource(HashedFilesMixin.url_converter)
    rewriting = {
        "kinds": [
            {"files": files, "substitutions": [substitution(*pattern) for pattern in patterns]}
            for files, patterns in storage._patterns.items()
        ],
        "static_url": str(settings.STATIC_URL),
        "ignore_protocol_relative": 'url.startswith("//")' in converter,
        "ignore_empty_paths": "if not url_path:" in converter,
    }
    told = {
        "rewriting": rewriting,
        "passes": storage.max_post_process_passes,
        "keep_intermediate": bool(storage.keep_intermediate_files),
        "only_hashed": bool(getattr(storage, "keep_only_hashed_files", False)),
        "manifest": None,
    }
    if isinstance(storage, ManifestFilesMixin):
        told["manifest"] = manifest(storage, inspect.getsource(ManifestFilesMixin.save_manifest))
    return told


def substitution(pattern, template, ignored=None):
    return {"pattern": compiled(pattern), "template": template, "ignored": ignored and compiled(ignored)}


def compiled(pattern):
    pattern = re.compile(pattern)
    if pattern.flags & (re.VERBOSE | re.ASCII | re.LOCALE):
        raise Unknown("flags of the pattern %r" % pattern.pattern)
    return {
        "text": pattern.pattern,
        "ignore_case": bool(pattern.flags & re.IGNORECASE),
        "dot_all": bool(pattern.flags & re.DOTALL),
        "multi_line": bool(pattern.flags & re.MULTILINE),
    }


def manifest(storage, source):
    from django.core.files.storage import FileSystemStorage

    place = getattr(storage, "manifest_storage", storage)
    if place is not storage and type(getattr(place, "_wrapped", place)) is not FileSystemStorage:
        raise Unknown("the manifest is kept by %s" % type(place).__name__)
    return {
        "name": storage.manifest_name,
        "folder": None if place is storage else os.path.abspath(str(place.location)),
        "version": storage.manifest_version,
        "sorted": "dict(sorted" in source,
        "hash": "self.manifest_hash" in source,
    }


def compression(storage, kind):
    from django.conf import settings

    levels = getattr(storage, "daemun_compression", None)
    if levels is not None:
        return levels()
    if not any(base.__module__.startswith("whitenoise.") for base in kind.__mro__):
        return None
    from whitenoise import compress

    skip = getattr(settings, "WHITENOISE_SKIP_COMPRESS_EXTENSIONS", None)
    return {
        "gzip": 9,
        "brotli": 11 if compress.brotli_installed else None,
        "zstd": None,
        "skip": list(compress.Compressor.SKIP_COMPRESS_EXTENSIONS if skip is None else skip),
        "gzip_only_with_brotli": True,
    }


main()
