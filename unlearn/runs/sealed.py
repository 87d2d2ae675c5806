"""A run directory is believed only where it is as the run left it: its manifest's hashes come first."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath

from unlearn.errors import UnlearnError
from unlearn.files import Json, JsonObject, read_json, sha256_of_file
from unlearn.runs import manifest

REPORT = "report.json"
"""The report of a run, which repeats the manifest."""
TRACE = frozenset({"trace.json", "trace.svg"})
"""The files of a trace (`unlearn trace`)."""

_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISREG, "file"),
    (stat.S_ISDIR, "folder"),
    (stat.S_ISLNK, "symbolic link"),
    (stat.S_ISFIFO, "pipe"),
    (stat.S_ISSOCK, "socket"),
    (lambda mode: stat.S_ISCHR(mode) or stat.S_ISBLK(mode), "device"),
)


def whole(place: Path) -> JsonObject | None:
    """Be sure that a run directory is whole, before anything in it is believed.

    The hashes tell that files were changed, and not by whom: whoever rewrites the manifest as well is noticed by
    `unlearn verify`, as far as that is possible.

    Args:
        place: a run directory, or a file. Of a file in a run directory the whole run is looked at.

    Returns:
        The manifest; None for a file that lies in no run directory.

    Raises:
        UnlearnError: a folder is no run directory, or differs from its manifest.
    """
    run = place if place.is_dir() else place.parent
    if run is not place and not manifest.is_run(run):
        return None
    recorded = manifest.read(run)
    found = changes(run, recorded) or list(_unlike(run, recorded))
    if found:
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        raise UnlearnError(
            f"{run} is not as its run left it: {found[0]}{more}; `unlearn verify` lists what differs, and "
            "`unlearn audit` measures a patch anew"
        )
    return recorded


def _unlike(run: Path, recorded: Mapping[str, Json]) -> Iterator[str]:
    """That the manifest itself has changed: a run's report, whose hash it holds, repeats it."""
    if is_trace(recorded):
        return
    if REPORT not in recorded["files"]:
        yield f"{REPORT} is not among its files"
        return
    report = read_json(run / REPORT)
    known = {key: value for key, value in recorded.items() if key != "files"}
    if not isinstance(report, dict) or report.get("manifest") != known:
        yield f"{manifest.FILE} has changed since the run"


def is_trace(recorded: Mapping[str, Json]) -> bool:
    """Whether a manifest is that of a trace, which edits and judges nothing and so has no report."""
    return set(recorded["files"]) == TRACE and not {"patch", "candidate"} & recorded.keys()


def changes(folder: Path, recorded: Mapping[str, Json]) -> list[str]:
    """Return one sentence per file that differs from the manifest, is missing, or is not in it.

    A run writes files and the folders that they lie in. Anything else is a difference: a symbolic link is not followed,
    and a pipe or a device is not opened.

    Raises:
        UnlearnError: a folder or a file in it cannot be read.
    """
    listed: Mapping[str, str] = recorded["files"]
    present = _present(folder)
    found = []
    for name, digest in listed.items():
        if name not in present:
            found.append(f"{name} is missing")
        elif present[name] == "file" and sha256_of_file(folder / name) != digest:
            found.append(f"{name} has changed since the run")
    above = {parent.as_posix() for name in listed for parent in PurePosixPath(name).parents}
    for name, kind in sorted(present.items()):
        expected = "file" if name in listed or name == manifest.FILE else "folder" if name in above else ""
        if kind != expected:
            what = "" if kind == "file" else f" is a {kind}, which"
            found.append(f"{name}{what} was not written by the run")
    return found


def _present(folder: Path) -> dict[str, str]:
    """Everything below a folder by its name, and what kind of thing it is."""

    def unreadable(problem: OSError) -> None:
        raise UnlearnError(f"{problem.filename} cannot be read: {problem.strerror}")

    found = {}
    for place, folders, files in os.walk(folder, onerror=unreadable):
        for path in (Path(place) / name for name in (*folders, *files)):
            mode = path.lstat().st_mode
            kind = next((word for is_one, word in _KINDS if is_one(mode)), "thing of no known kind")
            found[path.relative_to(folder).as_posix()] = kind
    return found
