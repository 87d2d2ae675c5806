"""Output that appears whole or not at all: a hidden folder beside the target, renamed when everything is in it."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path

from unlearn.errors import PolicyError, UnlearnError
from unlearn.files import exists
from unlearn.runs import manifest
from unlearn.runs.exchange import LONGEST, locked, partial_of, put, remove
from unlearn.signals import undisturbed

PATCH = "patch.safetensors"
"""The edit, in a run directory."""
EXPORTED = "unlearn_export.json"
"""In every exported model: what it was made of, and that this program wrote the folder."""
PRIVATE = 0o600
"""Mode of every file in a run directory: a patch and a log are about what was to be forgotten."""


@contextlib.contextmanager
def whole_folder(
    target: Path, force: bool = False, sources: Iterable[Path | str | None] = (), private: bool = False
) -> Iterator[Path]:
    """Give a hidden folder to write into; it becomes `target` when the block ends without an exception.

    Whatever ends the block otherwise (an error, a full disk, Ctrl-C, a termination signal) removes the folder, and
    `target` stays as it was; what a killed process left is removed by the next one that writes beside it. The name is
    held from the start, so that two processes never make the same folder, and an unwritable place is noticed at once.
    All files get the same mode, whichever library wrote them.

    Args:
        target: the folder to write. It may exist if it is empty.
        force: replace an earlier run directory or exported model of this program.
        sources: what the work reads; a target that is one of them, holds one, or lies in one is refused.
        private: let nobody else read the files; by default that is as the umask says.

    Raises:
        PolicyError: if `target` exists and may not be replaced, or is being written by another process.
        UnlearnError: if the place is not writable, or was taken while the block ran; what was made is then kept
            beside it, and the error says where.
    """
    check_target(target, force, sources)
    target = target.absolute()
    with held(target):
        try:
            check_free(target, force)  # once more: it may have been brought back, or made meanwhile
            partial = partial_of(target)
        except OSError as error:
            raise UnlearnError(f"cannot write to {target.parent}: {error.strerror}") from None
        finished = False
        try:
            yield partial
            with undisturbed():
                finished = True
                same_modes(partial, private)
                _place(partial, target, force)
        except BaseException:
            if not finished:
                with undisturbed():
                    remove(partial)
            raise


@contextlib.contextmanager
def held(target: Path) -> Iterator[None]:
    """Hold the name of a folder against other processes, and make the folders above it.

    If the block fails, those of them that it made and that are empty go again.

    Raises:
        PolicyError: another process holds it.
        UnlearnError: the place is not writable.
    """
    with contextlib.ExitStack() as stack:
        try:
            target = target.absolute()
            stack.enter_context(_parents(target.parent))
            stack.enter_context(locked(target))
        except OSError as error:
            raise UnlearnError(f"cannot write to {target.parent}: {error.strerror}") from None
        yield


@contextlib.contextmanager
def kept_folder(target: Path, begun: Path) -> Iterator[None]:
    """Hold a folder that is written bit by bit, and that a later call goes on with; nobody else can read its files.

    An error that ends the block says so, if `begun`, a folder in it, is there. Errors are those of `held`.
    """
    with held(target):
        try:
            yield
        except BaseException as left:
            if begun.is_dir():
                left.add_note(f"what was finished is in {target}, and the same command goes on from there")
            raise
        finally:
            with undisturbed():
                same_modes(target, private=True)


def check_target(target: Path, force: bool = False, sources: Iterable[Path | str | None] = ()) -> None:
    """Refuse a place that ``whole_folder`` would not write to; raises PolicyError as it does."""
    try:
        check_sources(target, sources)
        outside_runs(target)
        if not target.name or target.name == ".." or target.is_mount():
            raise PolicyError(
                f"{target} cannot be replaced as a whole; choose a new folder, such as {target / 'run'}"
            )
        if not _is_text(str(target)):
            raise PolicyError(f"{target} is no UTF-8 text, as libraries ask of a path; choose another name")
        if len(os.fsencode(target.name)) > LONGEST:
            raise PolicyError(f"{target.name} is too long a name; choose one of at most {LONGEST} bytes")
        check_free(target, force)
    except OSError as error:
        raise UnlearnError(f"{error.filename or target}: {error.strerror}") from None


def check_free(target: Path, force: bool = False) -> None:
    """Refuse a place where something lies that may not be replaced; raises PolicyError, or OSError."""
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise PolicyError(f"{target} exists and is not a folder; choose another name")
    if not target.exists() or not any(target.iterdir()):
        return
    if not force:
        raise PolicyError(
            f"{target} exists and is not empty; choose another name, or replace it with --force"
        )
    if not _is_ours(target):
        raise PolicyError(
            f"{target} is neither a run directory nor an exported model of unlearn; --force does not replace it"
        )
    if os.geteuid() not in (0, target.stat().st_uid):
        raise PolicyError(f"{target} belongs to another user; --force does not replace it")
    for folder, _, _ in os.walk(target):
        if not os.access(folder, os.R_OK | os.W_OK | os.X_OK, effective_ids=True):
            raise PolicyError(f"{target} cannot be replaced: no permission to remove what is in {folder}")


def check_sources(target: Path, sources: Iterable[Path | str | None]) -> None:
    """Refuse to write where something is read: to it, around it, or into it; raises PolicyError."""
    place = target.resolve()
    for source in sources:
        if source is None or not exists(source):
            continue
        read = Path(source).resolve()
        if read.is_relative_to(place):
            what = target if read == place else f"{target} holds {source}, which"
            raise PolicyError(f"{what} is read for it; choose another folder")
        if place.is_relative_to(read):
            raise PolicyError(f"{target} lies in {source}, which is read for it; choose another folder")


def patch_of(run: Path) -> Path:
    """The patch of a run directory; a file is one itself."""
    return run / PATCH if run.is_dir() else run


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:  # bytes that are no letters stand as halves of surrogate pairs
        return False
    return True


def _is_ours(folder: Path) -> bool:
    return (folder / EXPORTED).is_file() or manifest.is_run(folder)


@contextlib.contextmanager
def _parents(folder: Path) -> Iterator[None]:
    """Make a folder and those above it; if the block fails, those that it made and that are empty go again."""
    missing = [above for above in (folder, *folder.parents) if not above.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        with undisturbed():
            for made in missing:
                with contextlib.suppress(OSError):
                    made.rmdir()
        raise


def same_modes(folder: Path, private: bool) -> None:
    """Give a finished folder the mode that the umask asks for, and all that is in it one mode, by kind.

    Args:
        folder: its own mode lets others see the names in it, if the umask does.
        private: let nobody else read what is in it; by default that is as the umask says, too.
    """
    mask = os.umask(0o077)  # there is no other way to ask
    os.umask(mask)
    for path in (*folder.rglob("*"), folder):
        with contextlib.suppress(OSError):  # a file system without modes
            found = path.lstat().st_mode
            if stat.S_ISDIR(found):
                own = 0o700 if private and path != folder else 0o777 & ~mask
                path.chmod(own | found & stat.S_ISGID)
            elif stat.S_ISREG(found):
                path.chmod(PRIVATE if private else 0o666 & ~mask)


def _place(partial: Path, target: Path, force: bool) -> None:
    try:
        check_free(target, force)
        if force:
            put(partial, target)
        else:
            partial.rename(target)  # which never replaces anything but an empty folder
    except PolicyError:
        kept = _kept(partial, target)
        raise UnlearnError(
            f"{target} was made by something else meanwhile, and is left as it is; the finished work is in {kept}"
        ) from None
    except OSError as error:
        kept = _kept(partial, target)
        raise UnlearnError(
            f"{target} cannot be written ({error.strerror}); the finished work is in {kept}"
        ) from None


def _kept(partial: Path, target: Path) -> Path:
    """Give finished work a free name beside its target; its hidden one if there is none to be had."""
    for number in range(2, 1000):
        free = target.with_name(f"{target.name}-{number}")
        with contextlib.suppress(OSError):
            if not os.path.lexists(free):
                return partial.rename(free)
    return partial


def outside_runs(place: Path, run: Path | None = None) -> None:
    """Refuse to write into a run directory: its manifest lists every file, and one more would look like tampering.

    Args:
        run: a folder that is read as a run, and counts as one even where its manifest is damaged or gone.

    Raises:
        PolicyError: ``place`` lies in one.
    """
    for above in place.resolve().parents:
        if (run is not None and above == run.resolve()) or manifest.is_run(above):
            raise PolicyError(
                f"{place} lies in the run directory {above}, which is sealed; write it somewhere else"
            )


def write_whole(file: Path, text: str) -> None:
    """Write a text file so that it is there as a whole, or as it was before.

    Raises:
        UnlearnError: it cannot be written.
    """
    try:
        # A pipe or a terminal cannot be replaced.
        if file.exists() and not file.is_file():
            file.write_text(text, encoding="utf-8")
            return
    except OSError as problem:
        raise _unwritten(file, problem) from None
    with whole_file(file) as made:
        made.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def whole_file(file: Path) -> Iterator[Path]:
    """Give a hidden place to write a file at; it becomes `file` when the block ends without an exception.

    Raises:
        UnlearnError: it cannot be written.
    """
    where = file.resolve()
    try:
        with locked(where):
            partial = partial_of(where)
            try:
                made = partial / where.name
                yield made
                if where.exists():
                    shutil.copymode(where, made)
                made.replace(where)
            finally:
                with undisturbed():
                    remove(partial)
    except OSError as problem:
        raise _unwritten(file, problem) from None


def _unwritten(file: Path, problem: OSError) -> UnlearnError:
    return UnlearnError(f"{file} cannot be written: {problem.strerror}")
