"""Files kept between runs, each under a seal that only this user's store can make: what does not fit is not there.

A store is a folder with a secret. Every file begins with an HMAC-SHA256 (RFC 2104) over its own name and its content,
keyed by that secret, so that a flipped bit, an edited number, or a valid file under another's name is noticed when it
is read. Nothing in a store says anything that could not be made anew.
"""

from __future__ import annotations

import hmac
import logging
import mmap
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from unlearn.errors import UnlearnError
from unlearn.files import at_home, opened

log = logging.getLogger(__name__)

Content = bytes | memoryview
SECRET = "secret"
"""The key of a store's seals, among its files."""
LENGTH = 32
"""Bytes of a secret: as many as the hash gives."""
HEAD = 128
"""Bytes before a content: the seal, filled up so that mapped numbers lie where processors like to read them."""
MARK = b"unlearn sealed 1 "
PARTIAL = ".partial-"
ABANDONED = 24 * 3600
"""Seconds after which a file that is still being written belongs to a process that was killed."""


def seal(secret: bytes, name: str, *content: Content) -> bytes:
    """The ``HEAD`` bytes that stand before a content in the file of that name.

    Args:
        name: where it is kept, below the store's folder.
        content: in pieces, so that large ones need not be put together in memory.
    """
    digest = hmac.new(secret, name.encode() + b"\0", "sha256")
    for piece in content:
        digest.update(piece)
    return (MARK + digest.hexdigest().encode()).ljust(HEAD - 1) + b"\n"


def unsealed(secret: bytes, name: str, sealed: Content) -> memoryview | None:
    """The content behind a seal; None if it does not fit the secret, the name and the content."""
    whole = memoryview(sealed)
    content = whole[HEAD:]
    return content if hmac.compare_digest(bytes(whole[:HEAD]), seal(secret, name, content)) else None


def cache_folder() -> Path:
    """``$UNLEARN_CACHE``, else ``unlearn`` in the user's cache directory; ``~`` is the home folder."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return Path(at_home(os.environ.get("UNLEARN_CACHE") or str(base / "unlearn")))


@dataclass(frozen=True)
class Store:
    """A folder of sealed files. It may be shared by processes: a file is there as a whole, or as it was before."""

    folder: Path
    secret: bytes = field(repr=False)
    warn: Callable[[str], None] = field(default=log.warning, repr=False, compare=False)
    """Where to say what is wrong with a file."""

    @classmethod
    def at(cls, folder: Path, warn: Callable[[str], None] = log.warning) -> Store:
        """Open the store of a folder; folder and secret are made if need be.

        Raises:
            UnlearnError: it cannot be made or read, or belongs to another user, or others may write to it.
        """
        try:
            if folder.parts[:1] and folder.parts[0].startswith("~"):
                raise UnlearnError(f"{folder.parts[0]} is no home folder here")
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _own(
                folder, folder.stat(), stat.S_IWGRP | stat.S_IWOTH, "may be written by others: chmod go-w it"
            )
            if not os.path.lexists(folder / SECRET):
                _make_secret(folder / SECRET)
            found = cls(folder, _secret(folder / SECRET), warn)
        except OSError as problem:
            raise UnlearnError(str(problem.strerror)) from None
        found._sweep()
        return found

    @classmethod
    def existing(cls, folder: Path) -> Store | None:
        """The store of a folder, if it has one that can be used; nothing is made."""
        if not os.path.lexists(folder / SECRET):
            return None
        with suppress(UnlearnError):
            return cls.at(folder)
        return None

    def has(self, name: str) -> bool:
        """Whether there is a file of this name, whatever its seal."""
        return (self.folder / name).is_file()

    def find(self, name: str) -> memoryview | None:
        """The content of a file, mapped and not read into memory; None, after a warning if its seal does not fit.

        Args:
            name: a path below the folder, with forward slashes.
        """
        if not self.has(name):
            return None
        try:
            with opened(self.folder / name) as file:
                size = os.fstat(file.fileno()).st_size
                # Private: whoever writes into what is mapped changes no file.
                held = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) if size else b""
        except UnlearnError as problem:
            self.warn(f"{problem}; it is made anew")
            return None
        content = unsealed(self.secret, name, memoryview(held))
        if content is None:
            self.warn(
                f"{self.folder / name} does not fit its seal: it was changed, or comes from elsewhere; it is made anew"
            )
            with suppress(OSError):
                (self.folder / name).unlink()
        return content

    def keep(self, name: str, *content: Content) -> bool:
        """Write a file whole or not at all; whether it was written: a full disk costs time later, and is no error.

        Args:
            name: a path below the folder, with forward slashes.
        """
        path = self.folder / name
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _written(path, os.replace) as file:
                for piece in (seal(self.secret, name, *content), *content):
                    file.write(piece)
        except OSError as problem:
            log.info("%s is not kept: %s", path, problem.strerror)
            return False
        return True

    def remove(self, name: str) -> None:
        """Remove a folder of files; what cannot be removed stays."""
        shutil.rmtree(self.folder / name, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove what killed processes have left half-written."""
        for left in self.folder.rglob(f"{PARTIAL}*"):
            with suppress(OSError):
                if time.time() - left.stat().st_mtime > ABANDONED:
                    left.unlink()


def _own(path: Path, info: os.stat_result, shared: int, says: str) -> None:
    """Refuse what another user owns, and, in these words, what has one of the mode bits ``shared``."""
    if info.st_uid != os.geteuid():
        raise UnlearnError(f"{path} belongs to another user")
    if info.st_mode & shared:
        raise UnlearnError(f"{path} {says}")


def _make_secret(path: Path) -> None:
    """Write a new secret; of two processes that do so at once, one succeeds, and both use its secret."""
    with suppress(FileExistsError), _written(path, os.link) as file:
        file.write(secrets.token_bytes(LENGTH))
        file.flush()
        os.fsync(file.fileno())


def _secret(path: Path) -> bytes:
    with opened(path) as file:
        _own(
            path,
            os.fstat(file.fileno()),
            stat.S_IRWXG | stat.S_IRWXO,
            "may be read by others: chmod go-rwx it",
        )
        found = file.read(LENGTH + 1)
    if len(found) != LENGTH:
        raise UnlearnError(f"{path} is damaged: remove it, and everything in the cache is made anew")
    return found


@contextmanager
def _written(path: Path, publish: Callable[[Path, Path], None]) -> Iterator[BinaryIO]:
    """A file beside the path, readable by this user alone, that is published there when the block has ended."""
    handle, name = tempfile.mkstemp(prefix=PARTIAL, dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        publish(Path(name), path)
    finally:
        with suppress(OSError):
            os.unlink(name)


def usual_cache(warn: Callable[[str], None]) -> Store | None:
    """Where statistics and measurements are kept for later runs; None, and a warning, if there is no such place.

    One that may only be read is used as it is.
    """
    folder = cache_folder()
    try:
        return Store.at(folder, warn)
    except UnlearnError as problem:
        warn(
            f"the cache {folder} cannot be used ({problem}), so nothing is kept for later runs; set "
            "UNLEARN_CACHE to another folder"
        )
        return None
