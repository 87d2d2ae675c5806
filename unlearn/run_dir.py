"""Output that appears whole or not at all: a hidden folder beside the target, renamed when everything is in it."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

from unlearn import manifest
from unlearn.errors import PolicyError, UnlearnError

PATCH = "patch.safetensors"
"""The edit, in a run directory."""
EXPORTED = "unlearn_export.json"
"""In every exported model: what it was made of, and that this program wrote the folder."""


@contextlib.contextmanager
def whole_folder(
    target: Path, force: bool = False, sources: Iterable[Path | str | None] = ()
) -> Iterator[Path]:
    """Give a hidden folder to write into; it becomes `target` when the block ends without an exception.

    Whatever ends the block otherwise (an error, a full disk, Ctrl-C, a termination signal) removes the folder, and
    `target` stays as it was. The folder is made before the block runs, so an unwritable place is noticed at once.

    Args:
        target: the folder to write. It may exist if it is empty.
        force: replace an earlier run directory or exported model of this program.
        sources: what the work reads; a target that is one of them, or holds one, is refused.

    Raises:
        PolicyError: if `target` exists and may not be replaced.
        UnlearnError: if the place is not writable.
    """
    check_target(target, force, sources)
    made = _make_parents(target.parent)
    try:
        partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent))
    except OSError as error:
        _remove_empty(made)
        raise UnlearnError(f"cannot write to {target.parent}: {error.strerror}") from None
    try:
        partial.chmod(0o755)  # mkdtemp makes it private; the target is an ordinary folder
        yield partial
        with _undisturbed():
            _replace(partial, target)
    except BaseException:
        with _undisturbed():
            shutil.rmtree(partial, ignore_errors=True)
            _remove_empty(made)
        raise


def check_target(target: Path, force: bool = False, sources: Iterable[Path | str | None] = ()) -> None:
    """Refuse a place that ``whole_folder`` would not write to; raises PolicyError as it does."""
    _check_sources(target, sources)
    outside_runs(target)
    if not target.name or target.name == ".." or target.is_mount():
        raise PolicyError(
            f"{target} cannot be replaced as a whole; choose a new folder, such as {target / 'run'}"
        )
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


def patch_of(run: Path) -> Path:
    """The patch of a run directory; a file is one itself."""
    return run / PATCH if run.is_dir() else run


def _is_ours(folder: Path) -> bool:
    return (folder / EXPORTED).is_file() or manifest.is_run(folder)


def _check_sources(target: Path, sources: Iterable[Path | str | None]) -> None:
    place = target.resolve()
    for source in sources:
        if source is not None and Path(source).exists() and Path(source).resolve().is_relative_to(place):
            what = target if Path(source).resolve() == place else f"{target} holds {source}, which"
            raise PolicyError(f"{what} is read for it; choose another folder")


def _make_parents(parent: Path) -> list[Path]:
    missing = [folder for folder in (parent, *parent.parents) if not folder.exists()]
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _remove_empty(missing)
        raise UnlearnError(f"cannot write to {parent}: {error.strerror}") from None
    return missing


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()


def _replace(partial: Path, target: Path) -> None:
    # An empty folder is replaced by the renaming itself, in one step.
    if not target.exists() or not any(target.iterdir()):
        partial.rename(target)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.old-", dir=target.parent))
    old = aside / "old"
    try:
        target.rename(old)
        partial.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def outside_runs(place: Path, run: Path | None = None) -> None:
    """Refuse to write into a run directory: its manifest lists every file, and one more would look like tampering.

    Args:
        place: what is to be written.
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
    where = file.resolve()
    # A pipe or a terminal cannot be replaced.
    plain = where.is_file() or not where.exists()
    partial = where.with_name(f".{where.name}.partial-{os.getpid()}") if plain else where
    try:
        partial.write_text(text, encoding="utf-8")
        if plain:
            partial.replace(where)
    except BaseException as problem:
        if plain:
            partial.unlink(missing_ok=True)
        if isinstance(problem, OSError):
            raise UnlearnError(f"{file} cannot be written: {problem.strerror}") from None
        raise


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Ignore a second Ctrl-C for the moment that cleaning up takes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGALRM", signal.SIGTERM))
    kept = {number: signal.signal(number, signal.SIG_IGN) for number in dict.fromkeys(numbers)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
