"""Measurements of a model, kept between runs: whole ones of the unedited model, and pieces of an interrupted audit."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from unlearn.files import JsonObject, sha256_of_file, sha256_of_folder
from unlearn.policy import EMBEDDED
from unlearn.runs import manifest
from unlearn.shipped import shipped

if TYPE_CHECKING:
    from unlearn.audit.observation import Observation
    from unlearn.audit.pieces import Piece, Pieces
    from unlearn.model.editable import EditableModel
    from unlearn.model.requests import Requests
    from unlearn.store import Store

log = logging.getLogger("unlearn")

PACES = "paces"
FILES = ("suite", "text", "benign", "lookalike", "toxicity", "tasks", "task_path")
"""Keys of `audit` that name files: it is what these hold that counts, and not where they lie."""


def observed(
    model: EditableModel,
    requests: Requests,
    cache: Store | None,
    observe: Callable[[Pieces], Observation],
    state: str = "before",
) -> Observation:
    """Return the observation of the unedited model from the cache, or make it and keep it there.

    An observation with failed measurements is not kept: the next run may have what this one lacked.

    Args:
        cache: where observations are kept, or None for nowhere.
        observe: makes the observation, and keeps its finished pieces in the place that it is given.
        state: which of the two it is; the control is asked less.
    """
    from unlearn.audit.pieces import NO_PIECES

    if cache is None:
        return observe(NO_PIECES)
    key = _key(model, requests, state)
    found = _read(cache, _whole(key))
    if found is not None:
        log.info("%s was measured before: %s", state, cache.folder / _whole(key))
        return found
    pieces = Folder(cache, key, requests.policy.model, model.device.type)
    made = observe(pieces)
    if not made.failed:
        cache.keep(_whole(key), made.model_dump_json().encode())
        pieces.clear()
    return made


def is_known(model: EditableModel, requests: Requests, cache: Store | None, state: str = "before") -> bool:
    """Whether `observed` would find the observation in the cache."""
    return cache is not None and cache.has(_whole(_key(model, requests, state)))


def _whole(key: str) -> str:
    return f"observations/{key}"


def _read(cache: Store, name: str) -> Observation | None:
    from unlearn.audit.observation import Observation

    content = cache.find(name)
    try:
        return None if content is None else Observation.model_validate_json(bytes(content))
    except ValidationError:  # scores that are no numbers cannot be written as JSON
        return None


class Folder:
    """Finished pieces of one model state in a folder that is named by everything they depend on, and their times."""

    def __init__(self, cache: Store, key: str, model: str, device: str) -> None:
        """Look into the folder of `key` in `cache`, which need not exist; times go to those of a model (by name)."""
        self._cache, self._folder = cache, f"pieces/{key}"
        self._paces = Paces(cache, model, device)

    @classmethod
    def of(cls, cache: Store, model: EditableModel, requests: Requests, base: str, said: str = "") -> Folder:
        """The pieces of an edited model.

        Args:
            cache: where they are kept.
            base: identity of the unedited model, from which some attacks take the difference.
            said: what else was said about the edit: the header of a patch.
        """
        key = _key(model, requests, "after", base, said)
        return cls(cache, key, requests.policy.model, model.device.type)

    def find(self, name: str) -> Observation | None:
        """A piece that an interrupted run has left; None if there is none."""
        found = _read(self._cache, self._name(name))
        if found is not None:
            log.info("%s was measured before the interruption", name)
        return found

    def keep(self, piece: Piece, made: Observation, seconds: float) -> None:
        """Keep a piece that was just made, and how long that took."""
        self._cache.keep(self._name(piece.name), made.model_dump_json().encode())
        self._paces.note(piece.name, piece.work, seconds)

    def seconds(self, piece: Piece) -> float:
        """About how long a piece will take; a rough guess where none of its kind was timed."""
        pace = self._paces.known(piece.name)
        return piece.work * (self._paces.usual if pace is None else pace)

    def clear(self) -> None:
        """Remove the pieces: the observation that they belong to is whole and has been used."""
        self._cache.remove(self._folder)

    def _name(self, name: str) -> str:
        # A task's name may hold any character.
        return f"{self._folder}/{hashlib.sha256(name.encode()).hexdigest()[:32]}"


class Paces:
    """Seconds that pieces of audits took per generated token of work, by model and device, in one small file."""

    usual = 1e-3
    """Seconds per generated token where nothing was timed yet."""

    def __init__(self, cache: Store | None, model: str, device: str) -> None:
        """Read what is known of a model, named as the policy names it, on a kind of device."""
        self._cache = cache
        self._about = f"{model} on {device}"
        self._known = self._read().get(self._about, {})

    def known(self, name: str) -> float | None:
        """Seconds per generated token of a piece; all groups of probes are one kind. None where nothing is known."""
        return self._known.get(_kind(name))

    def note(self, name: str, work: float, seconds: float) -> None:
        """Remember how long a piece took; what was known counts as much as the new time."""
        if self._cache is None or work <= 0:
            return
        everything = self._read()
        mine = everything.setdefault(self._about, {})
        old = mine.get(_kind(name))
        # A group of few probes mostly times the start of a batch: better than nothing, and not than anything else.
        if old is not None and _kind(name) == "asked" and work < 500:
            return
        new = seconds / work
        mine[_kind(name)] = new if old is None else (old + new) / 2
        self._known = mine
        self._cache.keep(PACES, json.dumps(everything, indent=1, sort_keys=True).encode())

    def _read(self) -> dict[str, dict[str, float]]:
        content = None if self._cache is None else self._cache.find(PACES)
        return {} if content is None else json.loads(bytes(content))


def _kind(name: str) -> str:
    return "asked" if name.startswith("asked.") else name


def _key(model: EditableModel, requests: Requests, state: str, base: str = "", said: str = "") -> str:
    # What is observed does not depend on what it is held to.
    audit = requests.policy.audit.model_dump(mode="json", exclude={"limits", "judge", "control", *FILES})
    parts = {**depends(model, requests), "audit": audit, "state": state, "base": base, "said": said}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def depends(model: EditableModel, requests: Requests) -> JsonObject:
    """Everything that the outcome of an observation depends on, down to the code and the data that measure it."""
    from unlearn.audit.suite import load_suite
    from unlearn.audit.tasks import read_by_tasks
    from unlearn.model.guard import text_of
    from unlearn.model.identity import of_tokenizer

    policy = requests.policy
    audit = policy.audit
    return {
        "model": model.identity(),
        "embedded": policy.model == EMBEDDED,  # which has a scorer and texts of its own
        "tokenizer": of_tokenizer(model.tokenizer),
        "guard": text_of(model.tokenizer),
        "device": f"{model.device.type} {model.dtype}",
        "audit": audit.model_dump(mode="json", exclude={*FILES}),
        "suite": load_suite(audit.suite).model_dump(mode="json"),
        "relations": {name: relation.model_dump(mode="json") for name, relation in policy.relations.items()},
        "system": policy.system,
        "refusal": policy.targets(),
        "requests": repr(
            (
                requests.facts,
                requests.siblings,
                requests.neighbours,
                requests.held_out_neighbours,
                requests.look_alikes,
            )
        ),
        "files": [stamp(name) for name in (audit.text, audit.benign, audit.lookalike, audit.toxicity)],
        "tasks": [*audit.task_names, *(stamp(str(path)) for path in read_by_tasks(audit))],
        "evals": sha256_of_folder(shipped("evals")),
        "code": code(),
        "versions": manifest.versions(),
    }


WORDS = ("cli.py", "__main__.py", "progress.py", "commands", "compare", "search", "runs", "report", "charts")
"""Files and rooms that only say, draw, keep or vary what is measured."""


@cache  # of one process, in which the program stays what it was when it began
def code() -> str:
    """Hash the program, without what only words and draws its results."""
    package = Path(__file__).resolve().parent.parent
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        place = path.relative_to(package)
        if place.parts[0] not in WORDS:
            digest.update(f"{place.as_posix()}\0{sha256_of_file(path)}\n".encode())
    return digest.hexdigest()


def stamp(name: str) -> str:
    """Name and hash of a file or a folder, wherever it lies; a name that is neither, as it stands."""
    path = Path(name)
    if path.is_file():
        return f"{path.name} {sha256_of_file(path)}"
    return f"{path.name} {sha256_of_folder(path)}" if path.is_dir() else name
