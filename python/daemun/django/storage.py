"""Static files with hashed names and compressed siblings.

    STORAGES = {
        "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
        "staticfiles": {"BACKEND": "daemun.django.storage.CompressedManifestStaticFilesStorage"},
    }

A drop-in for whitenoise's class of the same name, and for Django's ``ManifestStaticFilesStorage``. ``daemun collect``
does its work in parallel and with a cache; ``manage.py collectstatic`` comes to the same tree without either.
"""

from __future__ import annotations

import difflib
import gzip
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable

from django.conf import settings
from django.contrib.staticfiles.storage import ManifestStaticFilesStorage, StaticFilesStorage

__all__ = ["CompressedManifestStaticFilesStorage", "CompressedStaticFilesStorage"]

#: Extensions of files that are compressed already.
SKIP = (
    *("jpg", "jpeg", "png", "gif", "webp", "avif", "zip", "gz", "tgz", "bz2", "tbz", "xz", "br", "zst", "swf", "flv"),
    *("woff", "woff2", "3gp", "3gpp", "asf", "avi", "m4v", "mov", "mp3", "mp4", "mpeg", "mpg", "ogg", "opus", "webm"),
    "wmv",
)

#: A sibling may have this part of its file's size at most; with less to gain a second file is not worth keeping.
PAYS = 0.95

Encoder = Callable[[bytes, int], bytes]


def _gzip(data: bytes, level: int) -> bytes:
    return gzip.compress(data, level, mtime=0)


def _brotli() -> Encoder | None:
    try:
        import brotli  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        return None
    return lambda data, level: bytes(brotli.compress(data, quality=level))


def _zstd() -> Encoder | None:
    try:
        from compression import zstd  # type: ignore[import-not-found, unused-ignore]  # Python 3.14
    except ImportError:
        try:
            import zstandard  # type: ignore[import-not-found, unused-ignore]
        except ImportError:
            return None
        return lambda data, level: bytes(zstandard.ZstdCompressor(level=level).compress(data))
    return lambda data, level: bytes(zstd.compress(data, level))


class _Compressed:
    """What both storages do. Levels come from ``OPTIONS``: 0 or ``None`` leaves an encoding out."""

    gzip_level: int | None = 9
    brotli_level: int | None = 11
    zstd_level: int | None = 19

    def __init__(
        self,
        *args: Any,
        gzip_level: int | None = 9,
        brotli_level: int | None = 11,
        zstd_level: int | None = 19,
        **kwargs: Any,
    ) -> None:
        self.gzip_level, self.brotli_level, self.zstd_level = gzip_level, brotli_level, zstd_level
        super().__init__(*args, **kwargs)

    def daemun_compression(self) -> dict[str, Any]:
        """Tell ``daemun collect`` what to do."""
        return {
            "gzip": self.gzip_level or None,
            "brotli": self.brotli_level,
            "zstd": self.zstd_level or None,
            "skip": self._skipped(),
            "gzip_only_with_brotli": False,
        }

    def _skipped(self) -> list[str]:
        # The setting of a project that comes from whitenoise goes on counting.
        chosen: Iterable[str] | None = getattr(settings, "WHITENOISE_SKIP_COMPRESS_EXTENSIONS", None)
        return list(SKIP if chosen is None else chosen)

    def _compress(self, names: Iterable[str]) -> Iterator[tuple[str, str, bool]]:
        skipped = {extension.lower() for extension in self._skipped()}
        wanted = [name for name in sorted(set(names)) if name.rpartition(".")[2].lower() not in skipped]
        files = [Path(self.path(name)) for name in wanted]  # type: ignore[attr-defined]
        program = _program()
        if program is not None:
            self._compress_by_program(program, files)
        else:
            with ThreadPoolExecutor() as pool:
                list(pool.map(self._compress_here, files))
        for name, file in zip(wanted, files):
            for extension in ("br", "gz", "zst"):
                if Path(f"{file}.{extension}").exists():
                    yield name, f"{name}.{extension}", True

    def _compress_by_program(self, program: str, files: list[Path]) -> None:
        levels = {"gzip": self.gzip_level or "off", "zstd": self.zstd_level or "off"}
        levels["brotli"] = "off" if self.brotli_level is None else self.brotli_level
        words = [f"--{name}={level}" for name, level in levels.items()]
        names = b"\0".join(os.fsencode(file) for file in files)
        done = subprocess.run([program, "--role=compress", *words], input=names, check=False)  # noqa: S603
        if done.returncode:
            raise OSError(f"{program} could not compress the static files")

    def _compress_here(self, file: Path) -> None:
        data = file.read_bytes()
        encoders = (
            ("br", self.brotli_level, _brotli()),
            ("gz", self.gzip_level or None, _gzip),
            ("zst", self.zstd_level or None, _zstd()),
        )
        for extension, level, encoder in encoders:
            sibling = Path(f"{file}.{extension}")
            packed = encoder(data, level) if encoder is not None and level is not None else None
            if packed is None or not data or len(packed) > len(data) * PAYS:
                # One of an earlier build has other bytes than the file has now.
                sibling.unlink() if sibling.exists() else None
                continue
            beside = file.with_name(f".{sibling.name}.{os.getpid()}")
            beside.write_bytes(packed)
            shutil.copymode(file, beside)
            beside.replace(sibling)


def _program() -> str | None:
    """Find the program beside this interpreter, where the wheel put it."""
    beside = Path(sys.executable).with_name("daemun")
    return str(beside) if beside.is_file() and os.access(beside, os.X_OK) else None


class CompressedStaticFilesStorage(_Compressed, StaticFilesStorage):  # type: ignore[misc, unused-ignore]
    """Plain names, compressed siblings."""

    def post_process(self, paths: dict[str, Any], dry_run: bool = False, **_: Any) -> Iterator[tuple[str, str, bool]]:
        """Compress what was collected."""
        if not dry_run:
            yield from self._compress(paths)


class CompressedManifestStaticFilesStorage(_Compressed, ManifestStaticFilesStorage):  # type: ignore[misc, unused-ignore]
    """Hashed names, a manifest, and compressed siblings."""

    def __init__(self, *args: Any, manifest_strict: bool | None = None, **kwargs: Any) -> None:
        strict = getattr(settings, "WHITENOISE_MANIFEST_STRICT", None) if manifest_strict is None else manifest_strict
        if strict is not None:
            self.manifest_strict = strict
        super().__init__(*args, **kwargs)

    @property
    def keep_only_hashed_files(self) -> bool:
        """Whether plain names go; whitenoise's setting."""
        return bool(getattr(settings, "WHITENOISE_KEEP_ONLY_HASHED_FILES", False))

    def post_process(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, Any, Any]]:
        """Hash as Django does, then compress."""
        hashed: dict[str, str] = {}
        for name, hashed_name, processed in super().post_process(*args, **kwargs):
            if hashed_name and not isinstance(processed, Exception):
                hashed[name] = hashed_name
            yield name, hashed_name, processed
        if kwargs.get("dry_run"):
            return
        names = set(hashed.values())
        if self.keep_only_hashed_files:
            for name in set(hashed) - names:
                self.delete(name)
        else:
            names |= set(hashed)
        yield from self._compress(names)

    def stored_name(self, name: str) -> str:
        """Give the hashed name; one that is missing fails with the nearest one there is."""
        try:
            return str(super().stored_name(name))
        except ValueError as error:
            near = difflib.get_close_matches(name, self.hashed_files, 1, 0.6)
            if not self.hashed_files:
                hint = "nothing was collected yet: run `daemun collect`, or `manage.py collectstatic`"
            elif near:
                hint = f"did you mean '{near[0]}'?"
            else:
                hint = "collect again if it is new"
            raise ValueError(f"{error}; {hint}") from error
