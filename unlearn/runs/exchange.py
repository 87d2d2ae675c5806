"""The name of a folder while it is being made: a lock on it, what dead processes have left, the exchange at the end.

Beside a folder NAME there are, while a process makes it: ``.NAME.unlearn-lock``, which the kernel unlocks when the
process dies, however it does; ``.NAME.partial-*``, in which it works; and for a moment, where two folders cannot be
exchanged in one step, ``.NAME.old-*/old``, which is what NAME was.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from unlearn.errors import PolicyError

LOCK = ".unlearn-lock"
LONGEST = 200
"""Bytes of a folder's name: the hidden names are longer, and file systems take 255."""
PATIENCE = 2.0
"""Seconds for which a held lock is waited for: whoever sweeps up after a dead process holds it for a moment."""
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


@contextlib.contextmanager
def locked(target: Path) -> Iterator[None]:
    """Hold a name for as long as the block lasts, and first sweep up what dead processes have left beside it.

    Where the file system has no locks, nothing is held and nothing is swept.

    Args:
        target: the absolute path of what is to be made; its parent exists.

    Raises:
        PolicyError: another process holds the name.
        OSError: the lock cannot be written.
    """
    path = target.with_name(f".{target.name}{LOCK}")
    try:
        lock = _acquired(path, PATIENCE, os.O_CREAT)
    except BlockingIOError:
        raise PolicyError(
            f"{target} is being written by another process{_holder(path)}; wait for it, or choose another name"
        ) from None
    if lock is None:
        yield
        return
    try:
        _sweep(target)
        yield
    finally:
        _released(path, lock)


def partial_of(target: Path) -> Path:
    """Make and return a hidden folder beside `target`; raises OSError."""
    return Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent))


def put(made: Path, target: Path) -> None:
    """Rename a folder to `target`; what is in the way (a folder of whatever content) is replaced and removed.

    Raises:
        OSError: it cannot be done; both are where they were.
    """
    # An empty folder is replaced by the renaming itself, in one step.
    if not target.exists() or not any(target.iterdir()):
        made.rename(target)
    elif _exchanged(made, target):
        remove(made)
    else:
        _replace(made, target)


def remove(place: Path) -> None:
    """Remove a file, a link, or a folder with everything in it, as far as that can be done."""
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            place.unlink()


def _exchanged(one: Path, other: Path) -> bool:
    """Let two folders change their names in one step, where the system (Linux) and the file system can."""
    try:
        renameat2 = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError):
        return False
    paths = (_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other))
    return bool(renameat2(*paths, _RENAME_EXCHANGE) == 0)


def _replace(made: Path, target: Path) -> None:
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.old-", dir=target.parent))
    old = aside / "old"
    try:
        target.rename(old)
        try:
            made.rename(target)
        except OSError:
            old.rename(target)
            raise
    except OSError:
        with contextlib.suppress(OSError):
            aside.rmdir()  # unless the old folder is still in it
        raise
    remove(aside)


def _sweep(target: Path) -> None:
    """Sweep up after dead processes that made `target`, whose lock is held, or anything else beside it."""
    with contextlib.suppress(OSError):  # a folder that may be written and not read
        _repair(target)
        for path in target.parent.glob(f".?*{LOCK}"):
            other = target.parent / path.name[1:].removesuffix(LOCK)
            if other in (target, target.parent):
                continue
            with contextlib.suppress(OSError):  # it is held, or another user's
                lock = _acquired(path, 0.0)
                if lock is not None:
                    _repair(other)
                    _released(path, lock)


def _repair(target: Path) -> None:
    """Remove what a dead process has left of `target`; bring back what it had moved aside."""
    ours = re.compile(rf"\.{re.escape(target.name)}\.(partial|old)-[a-z0-9_]{{8}}")
    for left in target.parent.iterdir():
        found = ours.fullmatch(left.name)
        if found is None:
            continue
        # Killed between two renames: the run is brought back under its name.
        if found[1] == "old" and (left / "old").is_dir() and not os.path.lexists(target):
            (left / "old").rename(target)
        remove(left)


def _acquired(path: Path, patience: float, create: int = 0) -> int | None:
    """Lock a file: its descriptor, or None where the file system has no locks.

    Raises:
        BlockingIOError: another process holds it, and did so for `patience` seconds.
        OSError: it cannot be opened.
    """
    until = time.monotonic() + patience
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | create, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            if time.monotonic() >= until:
                raise
            time.sleep(0.05)
            continue
        except OSError:
            os.close(lock)
            path.unlink(missing_ok=True)
            return None
        if _lies_at(path, lock):
            with contextlib.suppress(OSError):  # a full disk: the number is for a reader only
                os.ftruncate(lock, 0)
                os.pwrite(lock, str(os.getpid()).encode(), 0)
            return lock
        os.close(lock)  # whoever held it before has removed the file


def _lies_at(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(os.fstat(file), os.stat(path))
    except FileNotFoundError:
        return False


def _released(path: Path, lock: int) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
    os.close(lock)


def _holder(path: Path) -> str:
    try:
        number = path.read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""
    return f" ({number})" if number.isdecimal() else ""
